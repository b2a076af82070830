import type { MagnetarError } from '../lib/errors.ts';
import type { Holder, StallGuard } from '../runtime/stall-guard.ts';

/** This part of the memory is for windows of more than one piece; the rest stays for those who have nothing yet. */
const PART_FOR_WIDTH: number = 1 / 2;
/** A window may have this part of what is free of that: with many that stand still, each one's becomes narrower. */
const PART_OF_FREE: number = 1 / 16;

/** What a window begins with; it widens as its client takes. */
const FIRST_BYTES = 131_072;
/** Who has taken so much is a client that reads. */
const PROVEN_BYTES = 262_144;

/** How a window is made. */
export interface SendWindowOptions {
  readonly guard: StallGuard;
  /** Of the memory for clients that have not yet taken much; the same when not given. */
  readonly firstGuard?: StallGuard;
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
 * as it is his turn. One whose client has never taken much never has a wide one, and takes its memory from another part: no
 * number of clients that connect and read nothing comes in the way of those who read.
 */
export class SendWindow implements Holder {
  readonly #options: SendWindowOptions;
  /** Of the memory that it takes from now. */
  #guard: StallGuard;
  /** For reads that are under way; sent and not taken. */
  #reserved = 0;
  #sent = 0;
  #width = FIRST_BYTES;
  #takenBytes = 0;
  #progressAt: number;
  /** Bytes that came after waiting for them, for the next `reserve`. */
  #granted = 0;
  #waiting: AbortController | undefined;
  #closed = false;

  constructor(options: SendWindowOptions) {
    this.#options = options;
    this.#guard = options.firstGuard ?? options.guard;
    this.#progressAt = this.#guard.clock.monotonic();
    this.#guard.add(this);
  }

  get heldBytes(): number {
    return this.#reserved + this.#sent;
  }

  get progressAt(): number {
    return this.#progressAt;
  }

  /** Takes room for a read, from `least` to `wanted` bytes, more than 0; 0: there is none, and `onRoom` is called when it is worth a try. */
  reserve(wanted: number, least: number): number {
    if (this.#closed || this.#waiting !== undefined) return 0;
    const { share } = this.#guard;
    const one = Math.min(least, share.mostBytes);
    if (this.#granted >= one) {
      const granted = this.#granted;
      this.#granted = 0;
      return granted;
    }
    this.#giveGranted();
    const held = this.heldBytes;
    const limit = Math.min(this.#width, (share.mostBytes * PART_FOR_WIDTH - share.usedBytes) * PART_OF_FREE);
    const bytes = Math.max(one, Math.min(wanted, Math.floor(limit) - held));
    if (held > 0 && held + bytes > limit) return 0;
    if (share.tryTake(bytes)) {
      this.#begin();
      this.#reserved += bytes;
      return bytes;
    }
    if (held === 0) void this.#wait(one);
    return 0;
  }

  /** Before it holds anything: the time in which nothing is taken begins. */
  #begin(): void {
    if (this.heldBytes === 0) this.#progressAt = this.#guard.clock.monotonic();
  }

  async #wait(bytes: number): Promise<void> {
    const waiting = new AbortController();
    const guard = this.#guard;
    this.#waiting = waiting;
    try {
      await guard.take(bytes, waiting.signal);
    } catch {
      this.#waiting = undefined; // when too many wait, this one is asked again as soon as something is taken
      return;
    }
    this.#waiting = undefined;
    if (this.#closed) {
      guard.share.give(bytes);
      return;
    }
    this.#begin();
    this.#reserved += bytes;
    this.#granted = bytes;
    this.#options.onRoom();
    this.#giveGranted();
  }

  #giveGranted(): void {
    const granted = this.#granted;
    this.#granted = 0;
    this.cancel(granted);
  }

  /** Gives room back that was reserved, when the read is through, also when the stream is over: what was read is charged by `add`. */
  cancel(bytes: number): void {
    if (bytes === 0) return;
    this.#reserved -= bytes;
    this.#guard.share.give(bytes);
  }

  /** Something goes to the client, who has to take it. */
  add(bytes: number): void {
    if (this.#closed) return;
    this.#begin();
    this.#sent += bytes;
    this.#guard.share.charge(bytes);
  }

  /** The client has taken it. */
  taken(bytes: number): void {
    if (this.#closed) return;
    this.#progressAt = this.#guard.clock.monotonic();
    this.#width = Math.min(this.#options.mostBytes, this.#width + bytes);
    this.#sent -= bytes;
    this.#guard.share.give(bytes);
    this.#takenBytes += bytes;
    if (this.#takenBytes >= PROVEN_BYTES && this.#waiting === undefined) this.#proven();
    this.#options.onRoom();
  }

  #proven(): void {
    const { guard } = this.#options;
    if (this.#guard === guard) return;
    guard.share.charge(this.heldBytes);
    this.#guard.share.give(this.heldBytes);
    this.#guard.remove(this);
    this.#guard = guard;
    guard.add(this);
  }

  end(error: MagnetarError): void {
    this.#options.end(error);
  }

  /** The stream is over. Reads that are under way keep their memory until they are through. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#waiting?.abort();
    this.#guard.remove(this);
    this.#giveGranted();
    this.#guard.share.give(this.#sent);
    this.#sent = 0;
  }
}
