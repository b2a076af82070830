/** Randomness, injected everywhere, so that a simulation can seed it. */
export interface Random {
  /** A number in [0, 1). */
  next(): number;
  /** `length` bytes; unpredictable in production. */
  bytes(length: number): Buffer;
}

/** A span of `ms`, moved at random by up to `share` of itself up or down, so that many waiters do not march in step. */
export function jittered(random: Random, ms: number, share = 0.2): number {
  return ms * (1 + share * (2 * random.next() - 1));
}

/** The wait before try number `attempt` (from 0): doubling from `firstMs` up to `highestMs`, jittered. */
export function backoff(random: Random, attempt: number, firstMs: number, highestMs: number): number {
  return jittered(random, Math.min(highestMs, firstMs * 2 ** Math.min(attempt, 30)));
}
