/**
 * What is acknowledged of one subscription: everything below the mark-delete index, and single messages above it
 * (ML-2). There is no limit on holes.
 */
import { IndexSet } from '../../lib/collections/index-set.ts';
import { MagnetarError } from '../../lib/errors.ts';
import type { MessageIndex } from '../../lib/ids.ts';

/** The end of the last page of a subscription: no index is as high. */
const END_OF_INDEXES: MessageIndex = Number.MAX_SAFE_INTEGER as MessageIndex;

/** What an acknowledgment adds. */
export interface AckDelta {
  /** Everything below is acknowledged; 0: nothing to say. */
  readonly below: MessageIndex;
  /** Pairs of (first index, count), flat, all at or above `below`. */
  readonly ranges: readonly number[];
  /** How many messages are newly acknowledged. */
  readonly count: number;
}

/** A part of the state: exactly these messages of [from, to) are acknowledged above the mark-delete index. */
export interface AckPage {
  readonly from: MessageIndex;
  readonly to: MessageIndex;
  /** Pairs of (gap since the end of the last run, count), flat, from `from` on. */
  readonly runs: readonly number[];
}

function checkRanges(below: number, ranges: readonly number[]): void {
  if (!Number.isSafeInteger(below) || below < 0 || ranges.length % 2 !== 0) {
    throw new MagnetarError(
      'INVALID_ARGUMENT',
      `ack of all below ${below} and ${ranges.length} numbers: ranges are pairs`,
    );
  }
  for (let i = 0; i < ranges.length; i += 2) {
    const [first, count] = [ranges[i] as number, ranges[i + 1] as number];
    if (first >= 0 && count >= 1 && Number.isSafeInteger(first) && Number.isSafeInteger(first + count)) continue;
    throw new MagnetarError(
      'INVALID_ARGUMENT',
      `ack of ${count} messages from index ${first}; it takes 1 or more, from 0 on`,
    );
  }
}

/** The state of one subscription. Pure; changes at once. */
export class AckState {
  #markDelete: MessageIndex;
  /** Single messages above `#markDelete`, which itself is never in it. */
  readonly #above = new IndexSet();
  #moves: number;

  /** @param moves how often it was moved before */
  constructor(markDelete: MessageIndex, moves = 0) {
    this.#markDelete = markDelete;
    this.#moves = moves;
  }

  /** How often it was moved. */
  get moves(): number {
    return this.#moves;
  }

  /** Everything below is acknowledged, this message is not. */
  get markDelete(): MessageIndex {
    return this.#markDelete;
  }

  /** How many messages above the mark-delete index are acknowledged. */
  get ackedAbove(): number {
    return this.#above.size;
  }

  /** How many messages are acknowledged, of all that the topic ever had. */
  get acked(): number {
    return this.#markDelete + this.#above.size;
  }

  /**
   * Acknowledges everything below `below`, and single messages: pairs of (first index, count). Idempotent. Gives what
   * is new, or undefined when nothing is. Applying the delta to the state before has the same effect.
   *
   * @throws INVALID_ARGUMENT for malformed ranges; nothing has changed then. The topic's end is the caller's to check.
   */
  acknowledge(below: MessageIndex, ranges: readonly number[]): AckDelta | undefined {
    checkRanges(below, ranges);
    const above = this.#above;
    const before = this.#markDelete;
    let mark: number = before;
    let count = 0;
    if (below > mark) {
      count += below - mark - above.countIn(mark, below);
      mark = above.nextUnset(below);
    }
    const fresh: number[] = [];
    for (let i = 0; i < ranges.length; i += 2) {
      const to = (ranges[i] as number) + (ranges[i + 1] as number);
      const from = above.nextUnset(Math.max(ranges[i] as number, mark));
      if (from >= to) continue;
      if (from === mark) {
        count += to - mark - above.countIn(mark, to);
        mark = above.nextUnset(to);
      } else {
        count += above.add(from, to);
        fresh.push(from, to - from);
      }
    }
    if (mark === before) return count === 0 ? undefined : { below: 0 as MessageIndex, ranges: fresh, count };
    this.#markDelete = mark as MessageIndex;
    above.removeBelow(mark);
    return { below: this.#markDelete, ranges: rangesAbove(fresh, mark), count };
  }

  isAcked(index: MessageIndex): boolean {
    return index < this.#markDelete || this.#above.has(index);
  }

  /** How many of the `count` messages from `first` on are acknowledged. */
  countAcked(first: MessageIndex, count: number): number {
    const mark = this.#markDelete;
    if (first + count <= mark) return count;
    if (first >= mark) return this.#above.countIn(first, first + count);
    return mark - first + this.#above.countIn(mark, first + count);
  }

  /** True when all of the `count` messages from `first` on are. */
  allAcked(first: MessageIndex, count: number): boolean {
    return this.nextUnacked(first) >= first + count;
  }

  /** The first message from `from` on that is not acknowledged. */
  nextUnacked(from: MessageIndex): MessageIndex {
    if (from <= this.#markDelete) return this.#markDelete;
    return this.#above.nextUnset(from) as MessageIndex;
  }

  /**
   * For a Delivery of `count` messages from `first` on: bit i of the little-endian bit string is set when message i
   * is acknowledged.
   */
  skipBits(first: MessageIndex, count: number): Buffer | undefined {
    if (this.countAcked(first, count) === 0) return undefined;
    const bits = Buffer.alloc(Math.ceil(count / 8));
    const set = (from: number, to: number): void => {
      for (let i = from - first; i < to - first; i++) bits[i >>> 3] = (bits[i >>> 3] as number) | (1 << (i & 7));
    };
    const end = first + count;
    const mark = Math.min(this.#markDelete, end);
    if (mark > first) set(first, mark);
    for (const [from, to] of this.#above.runs(Math.max(first, mark), end)) set(from, to);
    return bits;
  }

  /** Moves the subscription: exactly what is below `to` is acknowledged. */
  reset(to: MessageIndex): void {
    this.#markDelete = to;
    this.#above.clear();
    this.#moves++;
  }

  /** The index behind the next `count` messages that are not acknowledged, `end` at most. */
  behindUnacked(count: number, end: MessageIndex): MessageIndex {
    const mark = this.#markDelete;
    const unackedBelow = (index: number): number => index - mark - this.#above.countIn(mark, index);
    let [low, high] = [mark as number, Math.max(mark, end)];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (unackedBelow(middle) >= count) high = middle;
      else low = middle + 1;
    }
    return low as MessageIndex;
  }

  /** The first runs of acknowledged messages above the mark-delete index: pairs of (first, last). */
  firstRanges(most: number): (readonly [number, number])[] {
    const ranges: (readonly [number, number])[] = [];
    for (const [from, to] of this.#above.runs(this.#markDelete, END_OF_INDEXES)) {
      if (ranges.length >= most) break;
      ranges.push([from, to - 1]);
    }
    return ranges;
  }

  /** The part of the state from `from` on that has at most `maxRuns` runs. The last part reaches to 2^53-1. */
  page(from: MessageIndex, maxRuns: number): AckPage {
    const runs: number[] = [];
    let end: number = from;
    for (const [start, to] of this.#above.runs(from, END_OF_INDEXES)) {
      if (runs.length >= 2 * maxRuns) return { from, to: end as MessageIndex, runs };
      runs.push(start - end, to - start);
      end = to;
    }
    return { from, to: END_OF_INDEXES, runs };
  }

  /**
   * Puts a page in the place of what is known of its part, with the mark-delete index and the number of moves of the time
   * when it was taken.
   *
   * @throws INVALID_ARGUMENT when the page is malformed.
   */
  replace(markDelete: MessageIndex, moves: number, page: AckPage): void {
    const { from, to, runs } = page;
    this.#moves = moves;
    this.#above.remove(from, to);
    let at: number = from;
    for (let i = 0; i < runs.length; i += 2) {
      const gap = runs[i] as number;
      const start = at + gap;
      at = start + (runs[i + 1] ?? Number.NaN);
      if (!(gap >= 0 && start < at && at <= to)) {
        throw new MagnetarError(
          'INVALID_ARGUMENT',
          `page of acknowledgments [${from}, ${to}) has a run that ends at ${at}`,
        );
      }
      this.#above.add(start, at);
    }
    this.#above.removeBelow(markDelete);
    this.#markDelete = this.#above.nextUnset(markDelete) as MessageIndex;
    this.#above.removeBelow(this.#markDelete);
  }
}

function rangesAbove(ranges: readonly number[], mark: number): readonly number[] {
  const kept: number[] = [];
  for (let i = 0; i < ranges.length; i += 2) {
    if ((ranges[i] as number) >= mark) kept.push(ranges[i] as number, ranges[i + 1] as number);
  }
  return kept;
}
