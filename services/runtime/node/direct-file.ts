import type { FileHandle } from 'node:fs/promises';
import { byteLength } from '../../lib/views.ts';
import { type DiskFile, isDiskFull } from '../disk.ts';
import { type AlignedBuffers, DIRECT_BYTES, TRANSFER_BYTES } from './aligned-buffers.ts';
import { ofFile } from './file-error.ts';

/** The part of a file handle, opened with O_DIRECT, that direct I/O needs. */
export type DirectHandle = Pick<FileHandle, 'read' | 'write' | 'close'>;

/** The same file past the page cache. */
export interface DirectHandles {
  readonly direct: DirectHandle;
  /** Opens it with O_DSYNC as well: what is written through it is durable. */
  readonly durable: () => Promise<DirectHandle>;
}

/**
 * A file that is written and read past the page cache where offset and length are whole sectors; the rest goes the usual
 * way, through `plain`, which is the same file. A group of commits goes to the disk without its pages being found, filled
 * and written back first, and what is written once and read much later does not push out what others need. Write and sync
 * of a commit are one call: the second way through the queue of the thread pool and back costs as much as the sync.
 */
export class DirectFile implements DiskFile {
  readonly #plain: DiskFile;
  readonly #handle: DirectHandle;
  readonly #openDurable: () => Promise<DirectHandle>;
  #durable: Promise<DirectHandle> | undefined;
  readonly #buffers: AlignedBuffers;

  readonly #path: string;

  constructor(plain: DiskFile, { direct, durable }: DirectHandles, buffers: AlignedBuffers, path: string) {
    this.#path = path;
    this.#plain = plain;
    this.#handle = direct;
    this.#openDurable = durable;
    this.#buffers = buffers;
  }

  async write(pieces: readonly Uint8Array[], offset: number): Promise<void> {
    if (isAligned(pieces, offset)) await this.#transfer(this.#handle, pieces, offset);
    else await this.#plain.write(pieces, offset);
  }

  async commit(pieces: readonly Uint8Array[], offset: number): Promise<void> {
    if (!isAligned(pieces, offset)) return await this.#plain.commit(pieces, offset);
    this.#durable ??= this.#openDurable();
    await this.#transfer(await this.#durable, pieces, offset);
  }

  async #transfer(handle: DirectHandle, pieces: readonly Uint8Array[], offset: number): Promise<void> {
    const bytes = byteLength(pieces);
    const source = new Source(pieces);
    const transfers: Promise<void>[] = [];
    for (let at = 0; at < bytes; at += TRANSFER_BYTES) {
      const length = Math.min(TRANSFER_BYTES, bytes - at);
      transfers.push(
        this.#buffers.lend(async (buffer) => {
          source.copyTo(buffer, length);
          await this.#writeAll(handle, buffer, length, offset + at);
        }),
      );
    }
    // Nothing is in flight any more when this one ends, however it ends.
    const reasons: unknown[] = [];
    for (const result of await Promise.allSettled(transfers)) {
      if (result.status === 'rejected') reasons.push(result.reason);
    }
    // A disk that is full is no reason to go on where another transfer has failed for good.
    if (reasons.length > 0) throw ofFile(reasons.find((reason) => !isDiskFull(reason)) ?? reasons[0], this.#path);
  }

  async #writeAll(handle: DirectHandle, buffer: Buffer, length: number, offset: number): Promise<void> {
    for (let written = 0; written < length; ) {
      const { bytesWritten } = await handle.write(buffer, written, length - written, offset + written);
      if (bytesWritten % DIRECT_BYTES !== 0 || bytesWritten === 0) {
        // A disk that takes no whole sector more says why when it is asked the usual way.
        const from = written + bytesWritten;
        const rest = [buffer.subarray(from, length)];
        if (handle === this.#handle) await this.#plain.write(rest, offset + from);
        else await this.#plain.commit(rest, offset + from);
        return;
      }
      written += bytesWritten;
    }
  }

  async read(offset: number, length: number): Promise<Buffer> {
    try {
      return await this.#read(offset, length);
    } catch (error) {
      throw ofFile(error, this.#path);
    }
  }

  async #read(offset: number, length: number): Promise<Buffer> {
    const start = offset - (offset % DIRECT_BYTES);
    const end = Math.ceil((offset + length) / DIRECT_BYTES) * DIRECT_BYTES;
    const result = Buffer.allocUnsafe(length);
    let filled = 0;
    for (let at = start; at < end; at += TRANSFER_BYTES) {
      const wanted = Math.min(TRANSFER_BYTES, end - at);
      const got = await this.#buffers.lend(async (buffer) => {
        const found = await this.#readAll(buffer, wanted, at);
        const skip = Math.max(0, offset - at);
        filled += buffer.copy(result, filled, skip, Math.max(skip, Math.min(found, skip + length - filled)));
        return found;
      });
      if (got < wanted) break;
    }
    return result.subarray(0, filled);
  }

  async #readAll(buffer: Buffer, length: number, offset: number): Promise<number> {
    let found = 0;
    while (found < length) {
      const { bytesRead } = await this.#handle.read(buffer, found, length - found, offset + found);
      found += bytesRead;
      if (bytesRead === 0 || bytesRead % DIRECT_BYTES !== 0) break; // The end of the file.
    }
    return found;
  }

  async sync(): Promise<void> {
    await this.#plain.sync();
  }

  async size(): Promise<number> {
    return await this.#plain.size();
  }

  async truncate(size: number): Promise<void> {
    await this.#plain.truncate(size);
  }

  async close(): Promise<void> {
    await (await this.#durable?.catch(() => undefined))?.close();
    await this.#handle.close();
    await this.#plain.close();
  }
}

function isAligned(pieces: readonly Uint8Array[], offset: number): boolean {
  return offset % DIRECT_BYTES === 0 && byteLength(pieces) % DIRECT_BYTES === 0;
}

/** Pieces, one after another. */
class Source {
  readonly #pieces: readonly Uint8Array[];
  #piece = 0;
  #at = 0;

  constructor(pieces: readonly Uint8Array[]) {
    this.#pieces = pieces;
  }

  /** Copies the next `length` bytes. There have to be so many. */
  copyTo(target: Buffer, length: number): void {
    for (let filled = 0; filled < length; ) {
      const piece = this.#pieces[this.#piece] as Uint8Array;
      const count = Math.min(piece.length - this.#at, length - filled);
      target.set(count === piece.length ? piece : piece.subarray(this.#at, this.#at + count), filled);
      filled += count;
      this.#at += count;
      if (this.#at === piece.length) [this.#piece, this.#at] = [this.#piece + 1, 0];
    }
  }
}
