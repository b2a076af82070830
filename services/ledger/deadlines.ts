/**
 * Deadlines of one length for many requests, with one timer: they end in the order in which they began, so a sweep looks at
 * the oldest alone. A request ends up to a quarter of its time late. A standstill of this process does not count.
 */
import type { Clock, Timer } from '../runtime/clock.ts';
import { RunningClock } from '../runtime/running-clock.ts';

const SWEEPS_PER_DEADLINE = 8;

export class Deadlines<Request> {
  readonly #clock: RunningClock;
  readonly #ms: number;
  readonly #expired: (request: Request) => void;
  /** In order of insertion: the moment at which each ends. */
  readonly #ends = new Map<Request, number>();
  #timer: Timer | undefined;

  /** `expired` is called for each request that is not removed in time. */
  constructor(clock: Clock, ms: number, expired: (request: Request) => void) {
    this.#clock = new RunningClock(clock);
    this.#ms = ms;
    this.#expired = expired;
  }

  add(request: Request): void {
    this.#ends.set(request, this.#clock.monotonic() + this.#ms);
    this.#timer ??= this.#arm();
  }

  remove(request: Request): void {
    this.#ends.delete(request);
  }

  /** Forgets everything. */
  close(): void {
    this.#ends.clear();
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #arm(): Timer {
    return this.#clock.after(this.#ms / SWEEPS_PER_DEADLINE, () => this.#sweep(), { unref: true });
  }

  #sweep(): void {
    this.#timer = undefined;
    const now = this.#clock.monotonic();
    for (const [request, end] of this.#ends) {
      if (end > now) break;
      this.#ends.delete(request);
      this.#expired(request);
    }
    if (this.#ends.size > 0) this.#timer ??= this.#arm();
  }
}
