/**
 * Numbers of producers or consumers that ended from this side, which the client may still use: of the last ones to end those that
 * are not in use again. An idle connection has none, and nothing is allocated for it.
 */
export class EndedNumbers {
  readonly #most: number;
  /**
   * The numbers as they ended, in a ring, and where each stands in it. A Set knows their order, too, but takes ever longer to find
   * its oldest one after many were deleted.
   */
  #ring: number[] | undefined;
  #places: Map<number, number> | undefined;
  #next = 0;

  constructor(most: number) {
    this.#most = most;
  }

  has(number: number): boolean {
    return this.#places?.has(number) === true;
  }

  add(number: number): void {
    if (this.has(number)) return;
    this.#ring ??= [];
    this.#places ??= new Map();
    const place = this.#next;
    const oldest = this.#ring[place];
    // It may be in use again, or have ended once more later.
    if (oldest !== undefined && this.#places.get(oldest) === place) this.#places.delete(oldest);
    this.#ring[place] = number;
    this.#places.set(number, place);
    this.#next = (place + 1) % this.#most;
  }

  /** The number is in use again. */
  delete(number: number): void {
    this.#places?.delete(number);
  }
}
