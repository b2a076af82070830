/** What a stream may still send: items and bytes, as granted by the other side and not yet used. */
export class Credits {
  #items = 0;
  #bytes = 0;

  get items(): number {
    return this.#items;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Adds what the other side grants. */
  grant(items: number, bytes: number): void {
    this.#items += items;
    this.#bytes += bytes;
  }

  /** Takes both, or nothing and answers false: a sender never overdraws. */
  take(items: number, bytes: number): boolean {
    if (this.#items < items || this.#bytes < bytes) return false;
    this.#items -= items;
    this.#bytes -= bytes;
    return true;
  }

  /** Grants belong to a stream: a new one starts with none. */
  reset(): void {
    this.#items = 0;
    this.#bytes = 0;
  }
}
