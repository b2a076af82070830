const SMALLEST = 16;

function emptyRing<T>(length: number): (T | undefined)[] {
  return Array.from<T | undefined>({ length });
}

/**
 * A first-in-first-out queue as a ring: every operation takes constant time. Gives room back when it runs empty, and takes none
 * before something is in it.
 */
export class Deque<T> {
  #ring: (T | undefined)[] = [];
  #head = 0;
  #length = 0;

  /** Items in it. */
  get length(): number {
    return this.#length;
  }

  /** Adds an item at the end. */
  push(item: T): void {
    if (this.#length === this.#ring.length) this.#grow();
    this.#ring[(this.#head + this.#length) & (this.#ring.length - 1)] = item;
    this.#length++;
  }

  /** Takes the first item; undefined when there is none. */
  shift(): T | undefined {
    if (this.#length === 0) return undefined;
    const item = this.#ring[this.#head];
    this.#ring[this.#head] = undefined;
    this.#head = (this.#head + 1) & (this.#ring.length - 1);
    this.#length--;
    if (this.#length === 0 && this.#ring.length > 1_024) this.#ring = emptyRing<T>(SMALLEST);
    if (this.#length === 0) this.#head = 0;
    return item;
  }

  /** The first item; undefined when there is none. */
  peek(): T | undefined {
    return this.#length === 0 ? undefined : this.#ring[this.#head];
  }

  /** The item at a place, 0 being the first; undefined beyond the last. */
  at(place: number): T | undefined {
    return place < this.#length ? this.#ring[(this.#head + place) & (this.#ring.length - 1)] : undefined;
  }

  /** Drops all items. */
  clear(): void {
    this.#ring = [];
    this.#head = 0;
    this.#length = 0;
  }

  #grow(): void {
    const ring = emptyRing<T>(Math.max(SMALLEST, this.#ring.length * 2));
    for (let at = 0; at < this.#length; at++) ring[at] = this.#ring[(this.#head + at) & (this.#ring.length - 1)];
    this.#ring = ring;
    this.#head = 0;
  }
}
