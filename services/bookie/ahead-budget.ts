/**
 * Shares the memory for reading ahead among the ledgers that are read in sequence. What is fetched is never taken from who still
 * comes for it: those that there is no room for wait until the others have used theirs up. Who holds least has precedence, and among
 * equals who waits longest, so that with more ledgers than there is room for they take turns.
 */
import type { LedgerId } from '../lib/ids.ts';

/** More than so many wait in no order. */
const MAX_WAITING = 4_096;

/** A wish for more bytes ahead of a ledger's reader. */
interface Ask {
  /** What the ledger has ahead already. */
  readonly held: number;
  readonly bytes: number;
  /** On the monotonic clock, as all times here. */
  readonly now: number;
}

interface Waiting {
  ask: Ask;
  /** Since when it has nothing ahead. */
  since: number;
  /** What was read without reading ahead since then, in bytes. */
  missed: number;
}

export class AheadBudget {
  readonly #capacity: number;
  /** Who waits longest is first. */
  readonly #waiting = new Map<LedgerId, Waiting>();
  #taken = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Bytes that are being fetched, or held. */
  get taken(): number {
    return this.#taken;
  }

  /** How many ledgers wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** What a ledger that waits asked for; undefined: it does not wait. */
  wish(ledgerId: LedgerId): number | undefined {
    return this.#waiting.get(ledgerId)?.ask.bytes;
  }

  /** True when the ledger may take so many bytes. Otherwise it waits, and asks again when more of it is read. */
  allows(ledgerId: LedgerId, ask: Ask): boolean {
    if (ask.bytes > this.#capacity) return false;
    if (this.#isTurn(ledgerId, ask)) return true;
    this.#wait(ledgerId, ask);
    return false;
  }

  take(ledgerId: LedgerId, bytes: number): void {
    this.#waiting.delete(ledgerId);
    this.#taken += bytes;
  }

  #isTurn(ledgerId: LedgerId, { held, bytes }: Ask): boolean {
    let free = this.#capacity - this.#taken - bytes;
    let behind = false;
    for (const [other, { ask }] of this.#waiting) {
      if (free < 0) break;
      if (other === ledgerId) behind = true;
      else if (ask.held < held || (ask.held === held && !behind)) free -= ask.bytes;
    }
    return free >= 0;
  }

  #wait(ledgerId: LedgerId, ask: Ask): void {
    const known = this.#waiting.get(ledgerId);
    if (known === undefined) {
      if (this.#waiting.size < MAX_WAITING) this.#waiting.set(ledgerId, { ask, since: ask.now, missed: 0 });
      return;
    }
    known.ask = ask;
    if (ask.held === 0) return;
    known.since = ask.now;
    known.missed = 0;
  }

  /** Gives back what is neither held nor being fetched any more. */
  give(bytes: number): void {
    this.#taken -= bytes;
  }

  /** A ledger was read without anything ahead. */
  missed(ledgerId: LedgerId, bytes: number): void {
    const waiting = this.#waiting.get(ledgerId);
    if (waiting !== undefined) waiting.missed += bytes;
  }

  /**
   * Since when a ledger that waits has done without, if it has been read for as many bytes as there are for all. Whoever was
   * not read at all meanwhile, however slow the disk, is not worth waiting for.
   */
  starvedSince(ledgerId: LedgerId): number | undefined {
    const waiting = this.#waiting.get(ledgerId);
    return waiting !== undefined && waiting.missed >= this.#capacity ? waiting.since : undefined;
  }

  /** There is nothing more to fetch. */
  forget(ledgerId: LedgerId): void {
    this.#waiting.delete(ledgerId);
  }

  /** Forgets who waits but has not asked after this time. */
  forgetUntil(time: number): void {
    for (const [ledgerId, { ask }] of this.#waiting) if (ask.now <= time) this.#waiting.delete(ledgerId);
  }
}
