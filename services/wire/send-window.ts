import type { MagnetarError } from '../lib/errors.ts';
import type { Holder, StallGuard } from '../runtime/stall-guard.ts';

/** This part of the memory is for windows of more than one piece; the rest stays for those who have nothing yet. */
const PART_FOR_WIDTH: number = 1 / 2;
/** A window may have this part of what is free of that: with many that stand still, each one's becomes narrower. */
const PART_OF_FREE: number = 1 / 16;

/** What a window begins with; it widens as its client takes. */
const FIRST_BYTES = 262_144;

/** How a window is made. */
export interface SendWindowOptions {
  readonly guard: StallGuard;
  /** The most that the stream may hold. */
  readonly mostBytes: number;
  /** Called when there may be room again. */
  readonly onRoom: () => void;
  /** Ends the stream. */
  readonly end: (error: MagnetarError) => void;
}

/**
 * What is read for one stream, until its client has taken it: charged to the memory of the process. Its limit follows what is
 * free, so that a few streams have wide windows and many have narrow ones; who holds nothing may always have one piece, as soon
 * as it is his turn. One whose client has never taken much has never a wide one.
 */
export class SendWindow implements Holder {
  readonly #options: SendWindowOptions;
  #held = 0;
  #width = FIRST_BYTES;
  #progressAt: number;
  /** Bytes that came after waiting for them, for the next `reserve`. */
  #granted = 0;
  #waiting: AbortController | undefined;
  #closed = false;

  constructor(options: SendWindowOptions) {
    this.#options = options;
    this.#progressAt = options.guard.clock.monotonic();
    options.guard.add(this);
  }

  get heldBytes(): number {
    return this.#held;
  }

  get progressAt(): number {
    return this.#progressAt;
  }

  /** Takes room for a read, from `least` to `wanted` bytes, more than 0; 0: there is none, and `onRoom` is called when it is worth a try. */
  reserve(wanted: number, least: number): number {
    if (this.#closed || this.#waiting !== undefined) return 0;
    const { share } = this.#options.guard;
    const one = Math.min(least, share.mostBytes);
    if (this.#granted >= one) {
      const granted = this.#granted;
      this.#granted = 0;
      return granted;
    }
    this.#giveGranted();
    const limit = Math.min(this.#width, (share.mostBytes * PART_FOR_WIDTH - share.usedBytes) * PART_OF_FREE);
    const bytes = Math.max(one, Math.min(wanted, Math.floor(limit) - this.#held));
    if (this.#held > 0 && this.#held + bytes > limit) return 0;
    if (share.tryTake(bytes)) {
      this.#hold(bytes);
      return bytes;
    }
    if (this.#held === 0) void this.#wait(one);
    return 0;
  }

  #hold(bytes: number): void {
    if (this.#held === 0) this.#progressAt = this.#options.guard.clock.monotonic();
    this.#held += bytes;
  }

  async #wait(bytes: number): Promise<void> {
    const waiting = new AbortController();
    this.#waiting = waiting;
    try {
      await this.#options.guard.take(bytes, waiting.signal);
    } catch {
      if (this.#closed) return; // else too many wait: this one is asked again when something is taken
      this.#waiting = undefined;
      return;
    }
    this.#waiting = undefined;
    if (this.#closed) {
      this.#options.guard.share.give(bytes);
      return;
    }
    this.#hold(bytes);
    this.#granted = bytes;
    this.#options.onRoom();
    this.#giveGranted();
  }

  #giveGranted(): void {
    const granted = this.#granted;
    this.#granted = 0;
    this.cancel(granted);
  }

  /** Gives room back that was reserved: what was read into it is charged by `add`. */
  cancel(bytes: number): void {
    if (this.#closed || bytes === 0) return;
    this.#held -= bytes;
    this.#options.guard.share.give(bytes);
  }

  /** Something goes to the client, who has to take it. */
  add(bytes: number): void {
    if (this.#closed) return;
    this.#hold(bytes);
    this.#options.guard.share.charge(bytes);
  }

  /** The client has taken it. */
  taken(bytes: number): void {
    if (this.#closed) return;
    const { guard, mostBytes } = this.#options;
    this.#progressAt = guard.clock.monotonic();
    this.#width = Math.min(mostBytes, this.#width + bytes);
    this.cancel(bytes);
    this.#options.onRoom();
  }

  end(error: MagnetarError): void {
    this.#options.end(error);
  }

  /** The stream is over. Idempotent. */
  close(): void {
    if (this.#closed) return;
    const { guard } = this.#options;
    guard.remove(this);
    this.#closed = true;
    guard.share.give(this.#held);
    this.#held = 0;
    this.#waiting?.abort();
  }
}
