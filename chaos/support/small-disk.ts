/** A disk of a few megabytes, that can be filled: a tmpfs of its own. */
import { execFile } from 'node:child_process';
import { mkdtemp, open, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);
const CHUNK = Buffer.alloc(1_048_576);

export class SmallDisk implements AsyncDisposable {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** @throws when this is not a Linux machine with root. */
  static async create(megabytes: number): Promise<SmallDisk> {
    const folder = await mkdtemp(path.join(tmpdir(), 'magnetar-small-'));
    await execute('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', folder]).catch((error: unknown) => {
      throw new Error(`a disk that can be filled needs root: ${String(error)}`);
    });
    return new SmallDisk(folder);
  }

  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.folder);
    return bavail * bsize;
  }

  /** Another program writes a file, until `left` bytes are free. May be called again: the file grows. */
  async fill(left = 0): Promise<void> {
    const file = await open(this.#ballast, 'a');
    try {
      for (let free = await this.freeBytes(); free > left; free = await this.freeBytes()) {
        await file.write(CHUNK.subarray(0, Math.min(CHUNK.length, free - left)));
      }
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error;
    } finally {
      await file.close();
    }
  }

  /** Makes the disk larger. */
  async grow(megabytes: number): Promise<void> {
    await execute('mount', ['-o', `remount,size=${megabytes}m`, this.folder]);
  }

  /** The other program removes its file. */
  async makeRoom(): Promise<void> {
    await rm(this.#ballast, { force: true });
  }

  get #ballast(): string {
    return path.join(this.folder, 'ballast');
  }

  /** Whoever used it must have ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    await execute('umount', [this.folder]);
    await rm(this.folder, { recursive: true });
  }
}
