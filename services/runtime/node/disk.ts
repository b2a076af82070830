import {
  constants,
  type FileHandle,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  stat,
  statfs,
  unlink,
} from 'node:fs/promises';
import { byteLength } from '../../lib/views.ts';
import { dirname, resolve } from 'node:path';
import type { Disk, DiskFile } from '../disk.ts';
import { AlignedBuffers } from './aligned-buffers.ts';
import { nodeClock } from './clock.ts';
import { DirectFile } from './direct-file.ts';
import { ofFile } from './file-error.ts';

function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}

/** An error as the platform would have reported it. */
function platformError(code: string, text: string): Error {
  return Object.assign(new Error(`${code}: ${text}`), { code });
}

/** What is left of `buffers` behind the first `written` bytes. */
function behind(buffers: readonly Uint8Array[], written: number): Uint8Array[] {
  const rest: Uint8Array[] = [];
  let passed = 0;
  for (const buffer of buffers) {
    if (passed >= written) rest.push(buffer);
    else if (passed + buffer.length > written) rest.push(buffer.subarray(written - passed));
    passed += buffer.length;
  }
  return rest;
}

/** The part of a file handle that a file needs. */
export type Handle = Pick<FileHandle, 'writev' | 'read' | 'datasync' | 'stat' | 'truncate' | 'close'>;

/** A file over a handle of the platform. Exported so that tests can hand in one that writes and reads short. */
export class NodeFile implements DiskFile {
  readonly #handle: Handle;
  readonly #path: string;

  constructor(handle: Handle, path: string) {
    this.#handle = handle;
    this.#path = path;
  }

  async #named<Result>(call: Promise<Result>): Promise<Result> {
    try {
      return await call;
    } catch (error) {
      throw ofFile(error, this.#path);
    }
  }

  async write(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    let left = byteLength(buffers);
    let [rest, at] = [buffers, offset];
    while (left > 0) {
      const { bytesWritten } = await this.#named(this.#handle.writev(rest, at));
      if (bytesWritten === 0) throw platformError('EIO', `nothing written at ${at} of ${this.#path}`);
      left -= bytesWritten;
      at += bytesWritten;
      if (left > 0) rest = behind(rest, bytesWritten);
    }
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(length);
    let filled = 0;
    while (filled < length) {
      const { bytesRead } = await this.#named(this.#handle.read(buffer, filled, length - filled, offset + filled));
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return buffer.subarray(0, filled);
  }

  async sync(): Promise<void> {
    await this.#named(this.#handle.datasync());
  }

  async commit(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    await this.write(buffers, offset);
    await this.sync();
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  async truncate(size: number): Promise<void> {
    await this.#named(this.#handle.truncate(size));
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Leaves no other error than the one that it was called for. */
async function removeIfThere(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
  }
}

const buffers = new AlignedBuffers(nodeClock);

/** The file past the page cache as well; undefined where the file system, or the platform, does not offer it. */
async function openDirect(path: string, plain: DiskFile): Promise<DirectFile | undefined> {
  const past: number | undefined = constants.O_DIRECT;
  if (past === undefined) return undefined;
  const flags = constants.O_RDWR | past;
  try {
    const direct = await open(path, flags);
    // By its descriptor: it may have another name by then.
    const durable = async (): Promise<FileHandle> =>
      await open(`/proc/self/fd/${direct.fd}`, flags | constants.O_DSYNC);
    return new DirectFile(plain, { direct, durable }, buffers, path);
  } catch (error) {
    if (errorCode(error) === 'EINVAL') return undefined;
    await plain.close();
    throw error;
  }
}

/** The file system of this machine. */
export const nodeDisk: Disk = {
  async open(path, options) {
    const flags = constants.O_RDWR | (options?.create === true ? constants.O_CREAT : 0);
    const plain = new NodeFile(await open(path, flags), path);
    return (options?.direct === true ? await openDirect(path, plain) : undefined) ?? plain;
  },

  readFile: async (path) => await readFile(path),

  async writeFileAtomically(path, content) {
    const temporary = `${path}.tmp`;
    await removeIfThere(temporary);
    const file = await nodeDisk.open(temporary, { create: true });
    try {
      await file.write([content], 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncFolder(dirname(path));
  },

  list: async (folder) => (await readdir(folder)).toSorted(),

  async makeFolder(folder) {
    const first = await mkdir(folder, { recursive: true }).catch(async (error: unknown) => {
      // On a read-only file system a recursive mkdir says ENOENT; a plain one says why.
      if (errorCode(error) === 'ENOENT') await mkdir(folder);
      throw error;
    });
    if (first === undefined) return;
    // Each new name is made durable in the folder above it.
    const highest = resolve(first);
    for (let made = resolve(folder); made.length >= highest.length; made = dirname(made))
      await syncFolder(dirname(made));
  },

  rename: async (from, to) => await rename(from, to),
  remove: async (path) => await unlink(path),
  syncFolder,

  async exists(path) {
    try {
      await stat(path);
      return true;
    } catch (error) {
      if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') return false;
      throw error;
    }
  },

  async space(folder) {
    const { bavail, blocks, bsize } = await statfs(folder);
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
  },
};
