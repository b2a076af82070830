import { type Disk, isDiskFull } from './disk.ts';

const CHUNK_BYTES = 1_048_576;
const ZEROS: Buffer = Buffer.alloc(CHUNK_BYTES);

/**
 * A file of zeros that keeps room on a disk. A store that finds its disk full gives the file up, and can do with its room what it
 * must: be opened, above all. When there is room again, the file is made anew. One call at a time.
 */
export class RoomReserve {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #bytes: number;

  constructor(disk: Disk, path: string, bytes: number) {
    this.#disk = disk;
    this.#path = path;
    this.#bytes = bytes;
  }

  /** Gives the room up. False: there was none kept. */
  async release(): Promise<boolean> {
    if (!(await this.#disk.exists(this.#path))) return false;
    await this.#disk.remove(this.#path);
    return true;
  }

  /** Keeps the room, unless it is kept already. False: there is none. */
  async restore(): Promise<boolean> {
    try {
      const file = await this.#disk.open(this.#path, { create: true });
      try {
        // What is there is zeros: a crash leaves a shorter file at worst.
        let at = await file.size();
        if (at >= this.#bytes) return true;
        for (; at < this.#bytes; at += CHUNK_BYTES) {
          await file.write([ZEROS.subarray(0, Math.min(CHUNK_BYTES, this.#bytes - at))], at);
        }
        await file.sync();
      } finally {
        await file.close();
      }
      return true;
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      await this.release();
      return false;
    }
  }
}
