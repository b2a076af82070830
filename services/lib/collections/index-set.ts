/**
 * A set of message indexes: safe integers, not negative.
 *
 * Indexes fall into pages of 65,536. A page without members does not exist; full pages are kept as runs of page
 * numbers; any other page is a short sorted list of runs, or, with more than MAX_RUNS of them, a bitmap of 8 KiB.
 */

const PAGE = 65_536;
const WORDS = PAGE / 32;
/** A list of so many runs is about as large as 2 KiB; above that a page turns into a bitmap. */
const MAX_RUNS = 64;

/** Members among the numbers 0 to PAGE-1. Bounds are [from, to). */
interface Page {
  count: number;
  /** Adds; returns how many are new. */
  add(from: number, to: number): number;
  has(at: number): boolean;
  /** The first number from `at` on that is no member; PAGE when there is none. */
  nextUnset(at: number): number;
  /** The first member from `at` on; PAGE when there is none. */
  nextSet(at: number): number;
  /** How many members there are in [from, to). */
  countIn(from: number, to: number): number;
  /** Removes; returns how many there were. */
  remove(from: number, to: number): number;
}

/** Sorted runs in one flat array: start, end, start, end, … with `end` exclusive; runs do not touch. */
class RunList {
  readonly bounds: number[] = [];
  count = 0;

  /** Position in `bounds` of the first bound above `at`: odd inside a run. */
  #above(at: number): number {
    const bounds = this.bounds;
    let low = 0;
    let high = bounds.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((bounds[middle] as number) > at) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  add(from: number, to: number): number {
    const bounds = this.bounds;
    const last = bounds.length - 1;
    if (last < 0 || from > (bounds[last] as number)) {
      bounds.push(from, to);
      this.count += to - from;
      return to - from;
    }
    if (from === bounds[last]) {
      bounds[last] = to;
      this.count += to - from;
      return to - from;
    }
    // The run that contains or touches `from` begins the new one; so does the one at `to` with its end.
    let first = this.#above(from - 1);
    const start = first % 2 === 1 ? (bounds[--first] as number) : from;
    let after = this.#above(to);
    const end = after % 2 === 1 ? (bounds[after++] as number) : to;
    return this.#replace(first, after, start, end);
  }

  /** Puts one run in the place of bounds [first, after), which it covers; returns how many members that adds. */
  #replace(first: number, after: number, start: number, end: number): number {
    const bounds = this.bounds;
    let covered = 0;
    for (let i = first; i < after; i += 2) covered += (bounds[i + 1] as number) - (bounds[i] as number);
    if (after - first === 2) {
      bounds[first] = start;
      bounds[first + 1] = end;
    } else {
      bounds.splice(first, after - first, start, end);
    }
    const added = end - start - covered;
    this.count += added;
    return added;
  }

  has(at: number): boolean {
    return this.#above(at) % 2 === 1;
  }

  nextUnset(at: number): number {
    const above = this.#above(at);
    return above % 2 === 1 ? (this.bounds[above] as number) : at;
  }

  /** Infinity when there is none. */
  nextSet(at: number): number {
    const above = this.#above(at);
    return above % 2 === 1 ? at : (this.bounds[above] ?? Number.POSITIVE_INFINITY);
  }

  countIn(from: number, to: number): number {
    const bounds = this.bounds;
    let count = 0;
    for (let i = this.#above(from) & ~1; i < bounds.length && (bounds[i] as number) < to; i += 2) {
      count += Math.min(bounds[i + 1] as number, to) - Math.max(bounds[i] as number, from);
    }
    return count;
  }

  remove(from: number, to: number): number {
    const removed = this.countIn(from, to);
    if (removed === 0) return 0;
    const first = this.#above(from - 1);
    const after = this.#above(to);
    const kept: number[] = [];
    if (first % 2 === 1) kept.push(from);
    if (after % 2 === 1) kept.push(to);
    this.bounds.splice(first, after - first, ...kept);
    this.count -= removed;
    return removed;
  }
}

class RunPage extends RunList implements Page {
  override nextSet(at: number): number {
    return Math.min(super.nextSet(at), PAGE);
  }

  get crowded(): boolean {
    return this.bounds.length > 2 * MAX_RUNS;
  }
}

function bitsIn(word: number): number {
  let n = word - ((word >>> 1) & 0x55555555);
  n = (n & 0x33333333) + ((n >>> 2) & 0x33333333);
  return Math.imul((n + (n >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** The bits of word number `word` that lie in [from, to). */
function maskOf(word: number, from: number, to: number): number {
  const low = Math.max(from - word * 32, 0);
  const high = Math.min(to - word * 32, 32);
  return (high === 32 ? -1 : (1 << high) - 1) & (-1 << low);
}

class BitmapPage implements Page {
  count = 0;
  readonly #words: Int32Array = new Int32Array(WORDS);

  add(from: number, to: number): number {
    const words = this.#words;
    if (to - from === 1) {
      const word = words[from >>> 5] as number;
      const bit = 1 << (from & 31);
      if ((word & bit) !== 0) return 0;
      words[from >>> 5] = word | bit;
      this.count++;
      return 1;
    }
    let added = 0;
    for (let w = from >>> 5; w <= (to - 1) >>> 5; w++) {
      const before = words[w] as number;
      const mask = maskOf(w, from, to);
      added += bitsIn(mask & ~before);
      words[w] = before | mask;
    }
    this.count += added;
    return added;
  }

  has(at: number): boolean {
    return (((this.#words[at >>> 5] as number) >>> (at & 31)) & 1) === 1;
  }

  #next(at: number, flip: number): number {
    if (at >= PAGE) return PAGE;
    let w = at >>> 5;
    let word = ((this.#words[w] as number) ^ flip) & (-1 << (at & 31));
    while (word === 0) {
      if (++w === WORDS) return PAGE;
      word = (this.#words[w] as number) ^ flip;
    }
    return w * 32 + (31 - Math.clz32(word & -word));
  }

  nextUnset(at: number): number {
    return this.#next(at, -1);
  }

  nextSet(at: number): number {
    return this.#next(at, 0);
  }

  countIn(from: number, to: number): number {
    if (from === 0 && to === PAGE) return this.count;
    let count = 0;
    for (let w = from >>> 5; w <= (to - 1) >>> 5; w++) {
      count += bitsIn((this.#words[w] as number) & maskOf(w, from, to));
    }
    return count;
  }

  remove(from: number, to: number): number {
    const removed = this.countIn(from, to);
    for (let w = from >>> 5; w <= (to - 1) >>> 5; w++) {
      this.#words[w] = (this.#words[w] as number) & ~maskOf(w, from, to);
    }
    this.count -= removed;
    return removed;
  }
}

/** A set of message indexes, cheap for ranges, for adding in order and for holes without limit. */
export class IndexSet {
  /** Numbers of the pages that are neither empty nor full, sorted; `#pages` beside it. */
  readonly #numbers: number[] = [];
  readonly #pages: Page[] = [];
  /** Numbers of full pages. */
  readonly #full = new RunList();
  #size = 0;
  /** The slot that was touched last: acknowledgments come mostly in order. */
  #lastSlot = 0;

  /** How many members there are. */
  get size(): number {
    return this.#size;
  }

  /** The first slot whose page number is `number` or above. */
  #slotFrom(number: number): number {
    const numbers = this.#numbers;
    let low = 0;
    let high = numbers.length;
    if (high > 0 && number > (numbers[high - 1] as number)) return high;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((numbers[middle] as number) >= number) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #page(number: number): Page | undefined {
    if (this.#numbers[this.#lastSlot] === number) return this.#pages[this.#lastSlot];
    const slot = this.#slotFrom(number);
    if (this.#numbers[slot] !== number) return undefined;
    this.#lastSlot = slot;
    return this.#pages[slot];
  }

  #put(number: number, page: Page): void {
    const slot = this.#slotFrom(number);
    if (this.#numbers[slot] === number) {
      this.#pages[slot] = page;
    } else if (slot === this.#numbers.length) {
      this.#numbers.push(number);
      this.#pages.push(page);
    } else {
      this.#numbers.splice(slot, 0, number);
      this.#pages.splice(slot, 0, page);
    }
    this.#lastSlot = slot;
  }

  /** Forgets the pages of numbers [from, to); returns how many members they had. */
  #drop(from: number, to: number): number {
    const first = this.#slotFrom(from);
    const after = this.#slotFrom(to);
    if (first === after) return 0;
    this.#numbers.splice(first, after - first);
    return this.#pages.splice(first, after - first).reduce((count, page) => count + page.count, 0);
  }

  #isFull(number: number): boolean {
    return this.#full.count > 0 && this.#full.has(number);
  }

  /** Adds the indexes of [from, to); returns how many of them are new. */
  add(from: number, to: number): number {
    const number = Math.floor(from / PAGE);
    const start = number * PAGE;
    let added = 0;
    if (to <= start + PAGE) {
      if (from < to) added = this.#addToPage(number, from - start, to - start);
    } else {
      const wholeFrom = Math.ceil(from / PAGE);
      const wholeTo = Math.floor(to / PAGE);
      if (number < wholeFrom) added += this.#addToPage(number, from - start, PAGE);
      if (wholeFrom < wholeTo) {
        const pages = this.#full.add(wholeFrom, wholeTo);
        if (pages > 0) added += pages * PAGE - this.#drop(wholeFrom, wholeTo);
      }
      if (to > wholeTo * PAGE) added += this.#addToPage(wholeTo, 0, to - wholeTo * PAGE);
    }
    this.#size += added;
    return added;
  }

  #addToPage(number: number, from: number, to: number): number {
    let page = this.#page(number);
    if (page === undefined) {
      if (this.#isFull(number)) return 0;
      page = new RunPage();
      this.#put(number, page);
    }
    const added = page.add(from, to);
    if (page.count === PAGE) {
      this.#drop(number, number + 1);
      this.#full.add(number, number + 1);
    } else if (page instanceof RunPage && page.crowded) {
      const bitmap = new BitmapPage();
      for (let i = 0; i < page.bounds.length; i += 2) {
        bitmap.add(page.bounds[i] as number, page.bounds[i + 1] as number);
      }
      this.#put(number, bitmap);
    }
    return added;
  }

  has(index: number): boolean {
    const number = Math.floor(index / PAGE);
    const page = this.#page(number);
    return page === undefined ? this.#isFull(number) : page.has(index - number * PAGE);
  }

  /** The first index from `from` on that is no member. */
  nextUnset(from: number): number {
    for (let at = from; ; ) {
      const number = Math.floor(at / PAGE);
      const page = this.#page(number);
      if (page === undefined) {
        if (!this.#isFull(number)) return at;
        at = this.#full.nextUnset(number) * PAGE;
        continue;
      }
      const found = page.nextUnset(at - number * PAGE);
      if (found < PAGE) return number * PAGE + found;
      at = (number + 1) * PAGE;
    }
  }

  /** The first member from `from` on and below `to`; `to` when there is none. */
  nextSet(from: number, to: number): number {
    if (this.#size === 0) return to;
    for (let at = from; at < to; ) {
      const number = Math.floor(at / PAGE);
      const page = this.#page(number);
      if (page !== undefined) {
        const found = page.nextSet(at - number * PAGE);
        if (found < PAGE) return Math.min(number * PAGE + found, to);
      } else if (this.#isFull(number)) {
        return at;
      }
      const next = this.#numbers[this.#slotFrom(number + 1)] ?? Number.POSITIVE_INFINITY;
      at = Math.min(next, this.#full.nextSet(number + 1)) * PAGE;
    }
    return to;
  }

  /** How many members there are in [from, to). */
  countIn(from: number, to: number): number {
    if (to <= from || this.#size === 0) return 0;
    const first = Math.floor(from / PAGE);
    const last = Math.floor((to - 1) / PAGE);
    let count = 0;
    for (let slot = this.#slotFrom(first); slot < this.#numbers.length; slot++) {
      const number = this.#numbers[slot] as number;
      if (number > last) break;
      const start = number * PAGE;
      count += (this.#pages[slot] as Page).countIn(Math.max(from - start, 0), Math.min(to - start, PAGE));
    }
    if (this.#full.count === 0) return count;
    const full = this.#full.countIn(first, last + 1) * PAGE;
    const before = this.#isFull(first) ? from - first * PAGE : 0;
    const behind = this.#isFull(last) ? (last + 1) * PAGE - to : 0;
    return count + full - before - behind;
  }

  /** Removes everything below `index`. */
  removeBelow(index: number): void {
    if (this.#size === 0) return;
    const number = Math.floor(index / PAGE);
    this.#size -= this.#drop(0, number) + this.#full.remove(0, number) * PAGE;
    this.#removeFromPage(number, 0, index - number * PAGE);
  }

  /** Removes the indexes of [from, to). */
  remove(from: number, to: number): void {
    if (to <= from || this.#size === 0) return;
    const first = Math.floor(from / PAGE);
    const last = Math.floor((to - 1) / PAGE);
    if (first === last) {
      this.#removeFromPage(first, from - first * PAGE, to - first * PAGE);
      return;
    }
    this.#removeFromPage(first, from - first * PAGE, PAGE);
    this.#size -= this.#drop(first + 1, last) + this.#full.remove(first + 1, last) * PAGE;
    this.#removeFromPage(last, 0, to - last * PAGE);
  }

  #removeFromPage(number: number, from: number, to: number): void {
    if (from === to) return;
    let page = this.#page(number);
    if (page === undefined) {
      if (!this.#isFull(number)) return;
      this.#full.remove(number, number + 1);
      page = new RunPage();
      page.add(0, PAGE);
      this.#put(number, page);
    }
    this.#size -= page.remove(from, to);
    if (page.count === 0) this.#drop(number, number + 1);
  }

  clear(): void {
    this.#numbers.length = 0;
    this.#pages.length = 0;
    this.#full.remove(0, Number.POSITIVE_INFINITY);
    this.#size = 0;
  }

  /** Runs of members within [from, to), in order, as [start, end). */
  *runs(from: number, to: number): Generator<readonly [number, number], void, undefined> {
    for (let start = this.nextSet(from, to); start < to; ) {
      const end = Math.min(this.nextUnset(start), to);
      yield [start, end];
      start = this.nextSet(end, to);
    }
  }
}
