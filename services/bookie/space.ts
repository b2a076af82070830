/**
 * Watches the room on a bookie's disk. A bookie takes no entries long before the disk is full: what is left is for those who must
 * not starve, that is fences, rewrites of recovery, footers, the index, and the metadata, where it is on the same disk.
 */
import type { BookieId } from '../ledger/bookie.ts';
import { MagnetarError } from '../lib/errors.ts';
import type { Timer } from '../runtime/clock.ts';
import { type DiskSpace, isDiskFull } from '../runtime/disk.ts';
import type { Environment } from '../runtime/environment.ts';
import { RoomReserve } from '../runtime/room-reserve.ts';

/** The reserve: a share of the disk, within bounds. */
const RESERVE_SHARE = 0.05;
const LEAST_RESERVE = 33_554_432;
const MOST_RESERVE = 1_073_741_824;
/** Entries are taken again when there is so much more room than the reserve, so that the bookie does not waver. */
const RESUME_FACTOR = 1.25;
/** While entries are taken, the room is looked at after this share of the reserve was written, or after so long. */
const CHECK_SHARE = 0.125;
const CHECK_MS = 1_000;
/** While they are refused. */
const POLL_MS = 500;
/**
 * Other programs may take the reserve, too. So some room is kept in a file: for the index to be opened, a segment to be sealed,
 * fences to be stored. It is given up when there is less room than that, and made again when there is enough.
 */
const MOST_KEPT = 16_777_216;
const KEEP_MS = 2_000;

interface SpaceWatchOptions {
  readonly environment: Environment;
  readonly folder: string;
  readonly id: BookieId;
  /** Free bytes below which no entries are taken; a share of the disk when not given. */
  readonly reserveBytes?: number | undefined;
}

export class SpaceWatch {
  readonly #options: SpaceWatchOptions;
  #full: MagnetarError | undefined;
  /** What the disk said last, and what it refused a write with since. */
  #space: DiskSpace = { freeBytes: 0, totalBytes: 0 };
  #refusal: unknown;
  #unchecked = 0;
  #checkedAt = 0;
  #checking: Promise<void> | undefined;
  #poll: Timer | undefined;
  #kept = false;
  /** It was open for a while. */
  #begun = false;
  #closed = false;
  /** What is being done again and again, and those who wait for the next try. */
  #persisting = 0;
  #waiters: (() => void)[] = [];
  /** Writes something into the space that entries go to next; rejects when the disk takes nothing. */
  probe: () => Promise<void> = async () => await Promise.resolve();
  /** Told when entries are refused from now on, or no longer. */
  readonly listeners: Set<() => void> = new Set();

  constructor(options: SpaceWatchOptions) {
    this.#options = options;
  }

  get #keptBytes(): number {
    return Math.min(MOST_KEPT, Math.floor(this.#reserve / 2));
  }

  get #keeper(): RoomReserve {
    const { environment, folder } = this.#options;
    return new RoomReserve(environment.disk, `${folder}/reserve`, this.#keptBytes);
  }

  /** Why no entries are taken: DISK_FULL. Undefined: they are. */
  get full(): MagnetarError | undefined {
    return this.#full;
  }

  /** What the disk said last. */
  get known(): DiskSpace {
    return this.#space;
  }

  get #reserve(): number {
    const share = Math.floor(this.#space.totalBytes * RESERVE_SHARE);
    return this.#options.reserveBytes ?? Math.min(Math.max(share, LEAST_RESERVE), MOST_RESERVE);
  }

  /** So many bytes were written: looks at the room now and then. */
  wrote(bytes: number): void {
    this.#unchecked += bytes;
    const { clock } = this.#options.environment;
    if (this.#unchecked < this.#reserve * CHECK_SHARE && clock.monotonic() - this.#checkedAt < CHECK_MS) return;
    void this.check();
  }

  /** The disk has refused a write for want of room. Returns what those are told whose records are not stored. */
  refused(error: unknown): MagnetarError {
    this.#refusal = error;
    const full = this.#turnFull();
    void this.check();
    return full;
  }

  /** Looks at the room. Never rejects. */
  check(): Promise<void> {
    return this.#checkOnce(false);
  }

  #checkOnce(polled: boolean): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#checking ??= this.#check(polled).finally(() => {
      this.#checking = undefined;
    });
    return this.#checking;
  }

  /** Entries are taken again after a poll alone: whatever a disk says, it is not asked all the time. */
  async #check(polled: boolean): Promise<void> {
    const { environment, folder } = this.#options;
    this.#unchecked = 0;
    this.#checkedAt = environment.clock.monotonic();
    try {
      this.#space = await environment.disk.space(folder);
      const { freeBytes, totalBytes } = this.#space;
      const short = totalBytes > 0 && freeBytes < this.#reserve * (this.#full === undefined ? 1 : RESUME_FACTOR);
      if (short) this.#turnFull();
      else if (this.#full !== undefined && polled && this.#persisting === 0) await this.#resume();
      await this.#keep(freeBytes);
    } catch (error) {
      environment.logger.warn('the room on the disk of the bookie is not known', { folder, error });
    }
    if (this.#full !== undefined || !this.#kept) this.#pollLater();
  }

  /** Gives up the room that is kept in a file, or makes that again: for the first time a while after the start. */
  async #keep(freeBytes: number): Promise<void> {
    const bytes = this.#keptBytes;
    if (this.#full !== undefined && freeBytes < bytes) {
      this.#kept = false;
      if (await this.#keeper.release()) {
        const { environment, folder } = this.#options;
        environment.logger.warn('the last room of the bookie is being used', { folder, bytes });
      }
    } else if (this.#full === undefined && !this.#kept && this.#begun && freeBytes >= this.#reserve + 2 * bytes) {
      this.#kept = bytes === 0 || (await this.#keeper.restore());
    }
  }

  #turnFull(): MagnetarError {
    const { environment, folder, id } = this.#options;
    const before = this.#full;
    const { freeBytes } = this.#space;
    const needed = Math.ceil(this.#reserve * RESUME_FACTOR);
    const why = this.#refusal === undefined ? '' : `; a write failed: ${textOf(this.#refusal)}`;
    const text = `bookie ${id} takes no entries because its disk is full: ${folder} has ${freeBytes} bytes free, and needs ${needed}${why}`;
    const details = { folder, freeBytes: String(freeBytes), neededBytes: String(needed) };
    this.#full = new MagnetarError('DISK_FULL', text, { details });
    if (before === undefined) {
      environment.logger.warn('the disk is full; entries are refused until there is room', { error: this.#full });
      this.#poll?.cancel();
      this.#poll = undefined;
      this.#pollLater();
      this.#tell();
    }
    return this.#full;
  }

  /** There is room, it seems: only a write tells. */
  async #resume(): Promise<void> {
    try {
      await this.probe();
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      this.#refusal = error;
      this.#turnFull();
      return;
    }
    this.#full = undefined;
    this.#refusal = undefined;
    const { environment, folder, id } = this.#options;
    const { freeBytes } = this.#space;
    environment.logger.info('there is room on the disk; entries are taken again', { bookie: id, folder, freeBytes });
    this.#tell();
  }

  #tell(): void {
    for (const listener of this.listeners) listener();
  }

  #pollLater(): void {
    if (this.#closed || this.#poll !== undefined) return;
    const again = (): void => {
      this.#poll = undefined;
      this.#begun = true;
      // What failed may succeed with less room than entries need.
      void this.#checkOnce(true).then(() => this.#wake());
    };
    const ms = this.#full === undefined ? KEEP_MS : POLL_MS;
    this.#poll = this.#options.environment.clock.after(ms, again, { unref: true });
  }

  #wake(): void {
    for (const waiter of this.#waiters.splice(0)) waiter();
  }

  /** Does something that may fail for want of room, again and again until it does not, or until this is closed. */
  async persist(work: () => Promise<void>): Promise<void> {
    this.#persisting++;
    try {
      for (;;) {
        try {
          await work();
          return;
        } catch (error) {
          if (!isDiskFull(error)) throw error;
          this.refused(error);
          if (this.#closed) throw error;
          await new Promise<void>((resolve) => this.#waiters.push(resolve));
          if (this.#closed) throw error;
        }
      }
    } finally {
      this.#persisting--;
    }
  }

  /** Looks no more; what waits for room fails. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#poll?.cancel();
    this.#wake();
    await this.#checking;
    this.#poll?.cancel();
  }
}

function textOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n', 1)[0] ?? '';
}
