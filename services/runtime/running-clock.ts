import type { Millis } from '../lib/ids.ts';
import type { Clock, Timer } from './clock.ts';

/** How often a timer looks whether this process runs. What fires later than this after its time, fires after a standstill. */
const LOOK_MS = 1_000;
/** A timer that is later than this waits for as long again, at most for its own time: once. */
const LATE_MS = 50;

/**
 * A clock whose spans do not count while this process stands still: stopped, starved, or its machine asleep. What others
 * have answered meanwhile lies unread in its sockets, so after a standstill each timer waits once more, for its own time but
 * at most a second, and only then fires. A delay below a second counts, but is waited out once more for the same reason.
 */
export class RunningClock implements Clock {
  readonly #clock: Clock;
  /** So long the process is known to have stood still. */
  #stoodStill = 0;
  /** When it was last seen to run, and when the last standstill ended, on the inner clock. */
  #seen = Number.NEGATIVE_INFINITY;
  #resumed = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  now(): Millis {
    return this.#clock.now();
  }

  monotonic(): number {
    return this.#clock.monotonic() - this.#stoodStill;
  }

  nextTurn(callback: () => void): void {
    this.#clock.nextTurn(callback);
  }

  after(ms: number, callback: () => void, options?: { unref?: boolean }): Timer {
    let inner: Timer;
    let left = ms;
    let waitedMore = false;
    const arm = (): void => {
      const wait = Math.min(left, LOOK_MS);
      left -= wait;
      const due = this.#clock.monotonic() + wait;
      inner = this.#clock.after(wait, () => fire(due), options);
    };
    const fire = (due: number): void => {
      const late = this.#clock.monotonic() - due;
      const running = this.#look(due);
      if (left <= 0 && !waitedMore) {
        waitedMore = true;
        const again = late > LATE_MS ? Math.min(late, LOOK_MS) : 0;
        left = Math.max(Math.min(ms, again), Math.min(ms, LOOK_MS) - running);
      }
      if (left > 0) arm();
      else callback();
    };
    arm();
    return { cancel: () => inner.cancel() };
  }

  /** Notes a standstill that a timer tells of, by being late. Returns for how long the process has been running since the last one. */
  #look(due: number): number {
    const now = this.#clock.monotonic();
    const late = now - Math.max(due, this.#seen);
    this.#seen = now;
    if (late > LOOK_MS) {
      this.#stoodStill += late;
      this.#resumed = now;
    }
    return now - this.#resumed;
  }
}
