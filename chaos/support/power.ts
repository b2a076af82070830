/**
 * A disk whose power can be cut: an ext4 file system in a file, mounted through a loop device. The cut is ext4's own
 * shutdown request without a flush of its log: whatever was not synced is gone, as after a power failure.
 */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH. Node has no ioctl; python3 is on every Debian machine with the tests' packages. */
const SHUTDOWN = `
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))
`;

async function run(command: string, ...args: readonly string[]): Promise<string> {
  return (await execute(command, args)).stdout.trim();
}

/** A mounted file system of its own. */
export class PowerDisk implements AsyncDisposable {
  /** Where it is mounted. */
  readonly folder: string;
  readonly #parent: string;
  readonly #device: string;

  private constructor(parent: string, device: string) {
    this.#parent = parent;
    this.#device = device;
    this.folder = path.join(parent, 'mount');
  }

  /** @throws when this is not a Linux machine with root and loop devices. */
  static async create(megabytes: number): Promise<PowerDisk> {
    const parent = await mkdtemp(path.join(tmpdir(), 'magnetar-power-'));
    const image = path.join(parent, 'image');
    const file = await open(image, 'w');
    await file.truncate(megabytes * 1_048_576);
    await file.close();
    await run('mkfs.ext4', '-q', '-F', image);
    const device = await run('losetup', '-f', '--show', image).catch((error: unknown) => {
      throw new Error(`cutting power needs root and a free loop device: ${String(error)}`);
    });
    const disk = new PowerDisk(parent, device);
    await mkdir(disk.folder);
    await run('mount', device, disk.folder);
    return disk;
  }

  /** Drops everything that is not synced. Until `restore`, every access fails. */
  async cut(): Promise<void> {
    await run('/usr/bin/python3', '-c', SHUTDOWN, this.folder);
  }

  /** Mounts the file system again. Whoever used it must have ended. */
  async restore(): Promise<void> {
    await run('umount', this.folder);
    await run('mount', this.#device, this.folder);
  }

  /** Whoever used it must have ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    await run('umount', this.folder).catch(() => undefined);
    await run('losetup', '-d', this.#device).catch(() => undefined);
    await rm(this.#parent, { recursive: true, force: true });
  }
}
