/**
 * The witness of a store: a small file beside it that says which revision was durable some moment ago. LevelDB forgets the end
 * of its log when a bit of it has flipped, and opens an emptied folder as a new one; the witness tells. It is a lower bound:
 * written after the fact, at most once per second, and at close. Where there is no room for it, it stays as it is until there is.
 *
 *   two slots, at 0 and 512, written by turns, so that one is whole at every moment
 *       0  "MGNRWITN" | 8  u64 revision | 16  u32 format (1) | 20  u32 CRC32C of the 20 bytes before
 */
import { posix } from 'node:path';
import { crc32c } from '../lib/crc32c.ts';
import type { Clock, Timer } from '../runtime/clock.ts';
import { type Disk, type DiskFile, isDiskFull } from '../runtime/disk.ts';

const MAGIC = Buffer.from('MGNRWITN');
const FORMAT = 1;
const SLOT_BYTES = 24;
const SLOT_OFFSETS = [0, 512] as const;
const PAUSE_MS = 1_000;

function encodeSlot(revision: number): Buffer {
  const slot = Buffer.alloc(SLOT_BYTES);
  slot.set(MAGIC);
  slot.writeBigUInt64LE(BigInt(revision), 8);
  slot.writeUInt32LE(FORMAT, 16);
  slot.writeUInt32LE(crc32c(slot.subarray(0, 20)), 20);
  return slot;
}

function decodeSlot(slot: Buffer): number | undefined {
  const whole = slot.length === SLOT_BYTES && slot.subarray(0, 8).equals(MAGIC) && slot.readUInt32LE(16) === FORMAT;
  if (!whole || slot.readUInt32LE(20) !== crc32c(slot.subarray(0, 20))) return undefined;
  return Number(slot.readBigUInt64LE(8));
}

/** What a witness is given: where it is, and what to do when it cannot be written. */
export interface WitnessOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly path: string;
  readonly failed: (error: unknown) => void;
}

export class Witness {
  readonly #file: DiskFile;
  readonly #clock: Clock;
  readonly #failed: (error: unknown) => void;
  #noted = 0;
  #written: number;
  #slot: number;
  #timer: Timer | undefined;
  #writing: Promise<void> = Promise.resolve();

  private constructor(file: DiskFile, options: WitnessOptions, written: number, slot: number) {
    this.#file = file;
    this.#clock = options.clock;
    this.#failed = options.failed;
    this.#written = written;
    this.#slot = slot;
  }

  /** The newest revision that is known to have been durable; undefined: there is no witness. */
  static async read({ disk, path }: Pick<WitnessOptions, 'disk' | 'path'>): Promise<number | undefined> {
    if (!(await disk.exists(path))) return undefined;
    const bytes = await disk.readFile(path);
    const slots = SLOT_OFFSETS.map((offset) => decodeSlot(bytes.subarray(offset, offset + SLOT_BYTES)));
    const known = slots.filter((slot) => slot !== undefined);
    return known.length === 0 ? undefined : Math.max(...known);
  }

  /** Opens the file, or makes it, and states a revision that is durable. */
  static async open(options: WitnessOptions, revision: number): Promise<Witness> {
    const file = await options.disk.open(options.path, { create: true });
    try {
      await options.disk.syncFolder(posix.dirname(options.path));
      const newest = decodeSlot(await file.read(SLOT_OFFSETS[1], SLOT_BYTES)) ?? -1;
      const other = decodeSlot(await file.read(SLOT_OFFSETS[0], SLOT_BYTES)) ?? -1;
      const witness = new Witness(file, options, -1, newest > other ? 0 : 1);
      await witness.#write(revision);
      return witness;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Says that a revision is durable; it is written within a second. */
  note(revision: number): void {
    this.#noted = revision;
    this.#timer ??= this.#clock.after(PAUSE_MS, this.#writeNoted, { unref: true });
  }

  readonly #writeNoted = (): void => {
    this.#timer = undefined;
    this.#writing = this.#writing
      .then(async () => await this.#write(this.#noted))
      .catch((error: unknown) => {
        if (isDiskFull(error)) this.note(this.#noted);
        else this.#failed(error);
      });
  };

  async #write(revision: number): Promise<void> {
    if (revision <= this.#written) return;
    await this.#file.write([encodeSlot(revision)], SLOT_OFFSETS[this.#slot] ?? 0);
    await this.#file.sync();
    this.#written = revision;
    this.#slot = 1 - this.#slot;
  }

  /** Writes the last revision, if one is given, and closes the file. */
  async close(revision: number | undefined): Promise<void> {
    this.#timer?.cancel();
    await this.#writing;
    this.#timer?.cancel();
    try {
      if (revision !== undefined) await this.#write(revision);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
    } finally {
      await this.#file.close();
    }
  }
}
