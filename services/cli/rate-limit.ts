import { type Clock, delay } from '../runtime/clock.ts';

const SLICE_MS = 10;
/** A loop that was held up makes up for this much of the time that it lost. */
const MOST_LATE_MS = 1_000;

/** Paces a loop to so many turns a second, in slices of ten milliseconds. */
export class RateLimit {
  readonly #clock: Clock;
  readonly #perSecond: number;
  #start: number;
  #turns = 0;

  constructor(clock: Clock, perSecond: number) {
    this.#clock = clock;
    this.#perSecond = perSecond;
    this.#start = clock.monotonic();
  }

  /** Counts one turn. Returns what to wait for before it; undefined: nothing. Rejects when `signal` aborts. */
  turn(signal: AbortSignal): Promise<void> | undefined {
    const dueMs = this.#start + (this.#turns * 1_000) / this.#perSecond;
    this.#turns += 1;
    const early = dueMs - this.#clock.monotonic();
    if (early < -MOST_LATE_MS) this.#start -= early + MOST_LATE_MS;
    if (early <= 0 || (early < SLICE_MS && this.#perSecond > 1_000 / SLICE_MS)) return undefined;
    return delay(this.#clock, early, signal);
  }
}
