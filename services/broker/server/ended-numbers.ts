/**
 * Numbers of producers or consumers that ended from this side, which the client may still use: the oldest ones go when there are
 * too many. An idle connection has none, and nothing is allocated for it.
 */
export class EndedNumbers {
  readonly #most: number;
  #numbers: Set<number> | undefined;

  constructor(most: number) {
    this.#most = most;
  }

  has(number: number): boolean {
    return this.#numbers?.has(number) === true;
  }

  add(number: number): void {
    this.#numbers ??= new Set();
    this.#numbers.add(number);
    for (const oldest of this.#numbers) {
      if (this.#numbers.size <= this.#most) break;
      this.#numbers.delete(oldest);
    }
  }

  /** The number is in use again. */
  delete(number: number): void {
    this.#numbers?.delete(number);
  }
}
