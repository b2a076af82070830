const POOL_MESSAGES = 8_192;
const POOL_BYTES = 4_194_304;
const MULTIPLIER = 48_271;
const MODULUS = 2_147_483_647;

/**
 * Payloads of one size: JSON of orders, cut. So many that hardly any occurs twice in a batch, which would flatter
 * compression. The same in every run.
 */
export class Payloads {
  readonly #pool: readonly Buffer[];
  #at = 0;
  #seed = 1;

  /** `size`: bytes of each. */
  constructor(size: number) {
    const count = Math.max(1, Math.min(POOL_MESSAGES, Math.floor(POOL_BYTES / Math.max(size, 1))));
    this.#pool = Array.from({ length: count }, () => this.#payload(size));
  }

  /** The next one; all of them in turn. */
  next(): Buffer {
    if (this.#at === this.#pool.length) this.#at = 0;
    return this.#pool[this.#at++] as Buffer;
  }

  #payload(size: number): Buffer {
    const parts: string[] = [];
    for (let bytes = 0; bytes < size; bytes += parts.at(-1)?.length ?? 0) parts.push(this.#order());
    return Buffer.from(parts.join('').slice(0, size));
  }

  #order(): string {
    const amount = (this.#below(100_000) / 100).toFixed(2);
    const status = ['paid', 'open', 'sent', 'returned'][this.#below(4)];
    const ids = `"order":${this.#below(1e9)},"customer":"c-${this.#below(1e6)}"`;
    return `{${ids},"amount":${amount},"currency":"EUR","status":"${status}"}`;
  }

  #below(limit: number): number {
    this.#seed = (this.#seed * MULTIPLIER) % MODULUS;
    return this.#seed % limit;
  }
}
