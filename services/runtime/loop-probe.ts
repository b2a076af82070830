import type { Clock, Timer } from './clock.ts';
import { Buckets, LATENCY_MS } from './metrics.ts';

/** While the loop is busy it is asked so often, in ms; while it is not, more and more seldom. */
const BUSY_MS = 10;
const IDLE_MS = 500;
/** Share of the time that the loop must be active to count as busy: well above what asking takes. */
const BUSY_SHARE = 0.03;

/**
 * Measures how long new work waits for the event loop: the delay of timers. A timer every 10 ms would cost
 * a process that does nothing half a percent of a core, so there are as many only while the loop has work; else two a second,
 * which cost 0.03 %.
 *
 * What comes while the loop is blocked waits, too: a delay of 50 ms counts as 50, 40, 30, 20 and 10. So a quantile is one
 * over time, of the times when there was something to do.
 */
export class LoopProbe {
  /** Delays in ms. */
  readonly delays: Buckets = new Buckets(LATENCY_MS);
  readonly #clock: Clock;
  readonly #activeMs: () => number;
  #interval = BUSY_MS;
  #askedAt: number;
  #activeBefore: number;
  #timer: Timer;

  /** @param activeMs the time that the loop has not spent waiting for something to do, since some start */
  constructor(clock: Clock, activeMs: () => number) {
    this.#clock = clock;
    this.#activeMs = activeMs;
    this.#askedAt = clock.monotonic();
    this.#activeBefore = activeMs();
    this.#timer = this.#set();
  }

  close(): void {
    this.#timer.cancel();
  }

  #set(): Timer {
    return this.#clock.after(this.#interval, () => this.#ask(), { unref: true });
  }

  #ask(): void {
    const now = this.#clock.monotonic();
    const active = this.#activeMs();
    const elapsed = now - this.#askedAt;
    for (let delay = Math.max(0, elapsed - this.#interval), first = true; first || delay > 0; delay -= BUSY_MS) {
      this.delays.observe(delay);
      first = false;
    }
    const busy = active - this.#activeBefore >= elapsed * BUSY_SHARE;
    this.#interval = busy ? BUSY_MS : Math.min(IDLE_MS, this.#interval * 2);
    this.#askedAt = now;
    this.#activeBefore = active;
    this.#timer = this.#set();
  }
}
