import type { Clock, Timer } from '../../runtime/clock.ts';
import { type DiskFile, isDiskFull } from '../../runtime/disk.ts';

const CHUNK_BYTES = 1_048_576;
/** Between two chunks: 100 MB/s at most, so that filling leaves the disk to the log. */
const PACE_MS = 10;
const ZEROS: Buffer = Buffer.alloc(CHUNK_BYTES);

/**
 * Fills a segment with zeros ahead of its writer: a sync of overwritten space changes no metadata and takes little more than half
 * the time, and cannot fail for want of room. Correctness does not depend on it. A chunk in flight never overlaps a write: the writer
 * asks for its range first.
 */
export class ZeroFill {
  readonly #clock: Clock;
  readonly #file: DiskFile;
  readonly #limit: number;
  /** Everything below is the writer's, or zeros; a chunk in flight begins here. */
  #filledTo: number;
  #target = 0;
  #outrun = false;
  #stopped = false;
  #chunk: Promise<void> | undefined;
  /** A writer waits for its range: no chunk begins. */
  #yielding: Promise<void> | undefined;
  /** What the last chunk failed with: there is no room. */
  #full: Error | undefined;
  #timer: Timer | undefined;

  readonly #refused: (error: unknown) => void;

  /** Fills `file` from `from` up to at most `limit`. `refused` is called when there is no room. */
  constructor(
    clock: Clock,
    file: DiskFile,
    range: { readonly from: number; readonly limit: number; readonly refused: (error: unknown) => void },
  ) {
    this.#clock = clock;
    this.#refused = range.refused;
    this.#file = file;
    this.#filledTo = range.from;
    this.#limit = range.limit;
  }

  /** Asks for zeros up to `target`. A writer that has outrun the filling is left alone until it is idle. */
  want(target: number, idle: boolean): void {
    if (idle) this.#outrun = false;
    if (this.#outrun || this.#stopped) return;
    this.#target = Math.min(target, this.#limit);
    if (this.#chunk === undefined && this.#timer === undefined) this.#next();
  }

  #next(): void {
    this.#timer = undefined;
    if (this.#stopped || this.#outrun || this.#yielding !== undefined || !this.#worthwhile) return;
    this.#chunk = this.#write();
  }

  /** Whole chunks, but for the last one: new space makes the next sync wait for metadata, so few times is better than little by little. */
  get #worthwhile(): boolean {
    const missing = this.#target - this.#filledTo;
    return missing >= CHUNK_BYTES || (missing > 0 && this.#target === this.#limit);
  }

  async #write(): Promise<void> {
    const length = Math.min(CHUNK_BYTES, this.#target - this.#filledTo);
    const from = this.#filledTo;
    this.#full = undefined;
    try {
      await this.#file.write([ZEROS.subarray(0, length)], from);
      this.#filledTo = from + length;
      this.#timer = this.#stopped ? undefined : this.#clock.after(PACE_MS, () => this.#next(), { unref: true });
    } catch (error) {
      if (isDiskFull(error)) {
        this.#full = error;
        this.#refused(error);
      } else this.#stopped = true; // A disk that takes no zeros refuses the log's own writes, too, and those are not ignored.
    } finally {
      this.#chunk = undefined;
    }
  }

  /** True when the space below `end` can be written to at once. */
  covers(end: number): boolean {
    return end <= this.#filledTo;
  }

  /** Hands everything below `end` to the writer. One call at a time. */
  async yieldTo(end: number): Promise<void> {
    if (this.covers(end)) return;
    this.#outrun = true;
    this.#yielding = this.#giveUpTo(end);
    await this.#yielding;
  }

  async #giveUpTo(end: number): Promise<void> {
    await this.#chunk;
    this.#filledTo = Math.max(this.#filledTo, end);
    this.#yielding = undefined;
  }

  /** Fills the next `bytes`, if they are not filled and within the limit. @throws what the disk throws when it is full */
  async probe(bytes: number): Promise<void> {
    await this.#quiet();
    this.#timer?.cancel();
    this.#outrun = false;
    this.#target = Math.min(this.#filledTo + bytes, this.#limit);
    this.#next();
    await this.#chunk;
    if (this.#full !== undefined) throw this.#full;
  }

  /** Resolves when no chunk is in flight, and no writer waits for that. */
  async #quiet(): Promise<void> {
    while (this.#chunk !== undefined || this.#yielding !== undefined) await (this.#yielding ?? this.#chunk);
  }

  /** Ends the filling; nothing is in flight any more when it resolves. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#chunk;
  }
}
