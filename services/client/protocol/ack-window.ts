/**
 * The acknowledgments of one consumer: those of this turn, gathered into one Ack, and the Acks that are not confirmed.
 *
 * Whoever acknowledges within one turn shares one waiter. An Ack is kept until its receipt comes, so that it can be
 * given again to the next stream: acknowledging is idempotent.
 */

/** One acknowledgment as it travels. */
export interface SealedAck<W> {
  readonly ackId: number;
  /** Everything below this index; 0: nothing. */
  readonly below: number;
  /** Pairs of (first index, count), flat, rising, apart from one another. */
  readonly ranges: readonly number[];
  /** Who waits for it. */
  readonly waiter: W;
}

/** An Ack has at most this many ranges, so that it fits into a frame by far. */
const MAX_RANGES = 16_384;

/** Sorted, merged and cut at `below`: runs [from, to) become pairs of (first, count). */
function mergedRanges(runs: readonly number[], below: number): number[] {
  const order: number[] = [];
  for (let i = 0; i < runs.length; i += 2) order.push(i);
  if (!isSorted(runs)) order.sort((a, b) => (runs[a] as number) - (runs[b] as number));
  const ranges: number[] = [];
  let from = -1;
  let to = -1;
  for (const i of order) {
    const start = Math.max(runs[i] as number, below);
    const end = runs[i + 1] as number;
    if (end <= start) continue;
    if (start <= to) {
      to = Math.max(to, end);
      continue;
    }
    if (to > from) ranges.push(from, to - from);
    from = start;
    to = end;
  }
  if (to > from) ranges.push(from, to - from);
  return ranges;
}

function isSorted(runs: readonly number[]): boolean {
  for (let i = 2; i < runs.length; i += 2) if ((runs[i] as number) < (runs[i - 2] as number)) return false;
  return true;
}

export class AckWindow<W> {
  readonly #newWaiter: () => W;
  /** Sealed and not confirmed, oldest first; up to `#sent` they were given to the stream. */
  #sealed: SealedAck<W>[] = [];
  #sent = 0;
  #lastId = 0;
  // What is being gathered: runs [from, to), flat, as they came.
  #runs: number[] = [];
  #from = -1;
  #to = -1;
  #below = 0;
  #waiter: W | undefined;

  constructor(newWaiter: () => W) {
    this.#newWaiter = newWaiter;
  }

  /** True when there is something to give to the stream. */
  get ready(): boolean {
    return this.#waiter !== undefined || this.#sent < this.#sealed.length;
  }

  /** Acks that are not confirmed; and how many of these were given to the stream. */
  get size(): number {
    return this.#sealed.length + (this.#waiter === undefined ? 0 : 1);
  }

  get sent(): number {
    return this.#sent;
  }

  /** Who shares what is being gathered. */
  get gathering(): W | undefined {
    return this.#waiter;
  }

  /** Who has waited longest. */
  get oldest(): W | undefined {
    return this.#sealed[0]?.waiter ?? this.#waiter;
  }

  /** Who waits. */
  get waiters(): W[] {
    const waiters = this.#sealed.map(({ waiter }) => waiter);
    if (this.#waiter !== undefined) waiters.push(this.#waiter);
    return waiters;
  }

  /** Acknowledges one message; returns the waiter that it shares. */
  add(index: number): W {
    if (index === this.#to) {
      this.#to++;
    } else {
      if (this.#to > this.#from) this.#runs.push(this.#from, this.#to);
      if (this.#runs.length >= 2 * MAX_RANGES) this.seal();
      this.#from = index;
      this.#to = index + 1;
    }
    this.#waiter ??= this.#newWaiter();
    return this.#waiter;
  }

  /** Acknowledges messages from `from` to below `to`; returns the waiter that it shares. */
  addRange(from: number, to: number): W {
    if (this.#runs.length >= 2 * MAX_RANGES) this.seal();
    this.#runs.push(from, to);
    this.#waiter ??= this.#newWaiter();
    return this.#waiter;
  }

  /** Acknowledges everything below `index`; returns the waiter that it shares. */
  addBelow(index: number): W {
    this.#below = Math.max(this.#below, index);
    this.#waiter ??= this.#newWaiter();
    return this.#waiter;
  }

  /** Ends what is being gathered: it becomes an Ack. */
  seal(): void {
    if (this.#to > this.#from) this.#runs.push(this.#from, this.#to);
    if (this.#waiter !== undefined) {
      const ranges = mergedRanges(this.#runs, this.#below);
      this.#sealed.push({ ackId: ++this.#lastId, below: this.#below, ranges, waiter: this.#waiter });
    }
    this.#runs = [];
    this.#from = -1;
    this.#to = -1;
    this.#below = 0;
    this.#waiter = undefined;
  }

  /** The next Ack to give to the stream. What was gathered so far is sealed when nothing older waits to be given. */
  next(): SealedAck<W> | undefined {
    if (this.#sent === this.#sealed.length) this.seal();
    const ack = this.#sealed[this.#sent];
    if (ack !== undefined) this.#sent++;
    return ack;
  }

  /** Everything given up to this id is durable; returns the Acks that this settles. */
  confirmed(ackId: number): SealedAck<W>[] {
    let count = 0;
    while (count < this.#sent && (this.#sealed[count] as SealedAck<W>).ackId <= ackId) count++;
    this.#sent -= count;
    return this.#sealed.splice(0, count);
  }

  /** This Ack alone was refused; returns it, and no longer keeps it. */
  refused(ackId: number): SealedAck<W> | undefined {
    const at = this.#sealed.findIndex((ack, i) => i < this.#sent && ack.ackId === ackId);
    if (at < 0) return undefined;
    this.#sent--;
    return this.#sealed.splice(at, 1)[0];
  }

  /** Gives an Ack that was refused for a while again, under a new id: ids rise strictly. */
  again(ack: SealedAck<W>): void {
    this.seal();
    this.#sealed.push({ ...ack, ackId: ++this.#lastId });
  }

  /** The stream is gone: every Ack that is not confirmed is to be given again. */
  restart(): void {
    this.#sent = 0;
  }

  /** Gives up what is late, oldest first, and returns its waiters. Receipts for it are of no consequence. */
  giveUp(isLate: (waiter: W) => boolean): W[] {
    if (this.#waiter !== undefined && isLate(this.#waiter)) this.seal();
    let count = 0;
    while (count < this.#sealed.length && isLate((this.#sealed[count] as SealedAck<W>).waiter)) count++;
    this.#sent = Math.max(0, this.#sent - count);
    return this.#sealed.splice(0, count).map((ack) => ack.waiter);
  }
}
