import type { Millis } from '../../lib/ids.ts';
import type { Clock, Timer } from '../clock.ts';

interface Pending {
  readonly due: number;
  readonly order: number;
  readonly callback: () => void;
}

/** A clock that stands still until it is moved. Timers run inside `advance`, turns inside `turn`. */
export class ManualClock implements Clock {
  #wall: number;
  #monotonic = 0;
  #order = 0;
  readonly #timers = new Set<Pending>();
  #turn: (() => void)[] = [];

  /** `start`: the wall clock's first time, in ms. */
  constructor(start = 1_700_000_000_000) {
    this.#wall = start;
  }

  now(): Millis {
    return Math.floor(this.#wall) as Millis;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  after(ms: number, callback: () => void): Timer {
    const timer: Pending = { due: this.#monotonic + Math.max(0, ms), order: this.#order++, callback };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  nextTurn(callback: () => void): void {
    this.#turn.push(callback);
  }

  /** Timers that are set. */
  get pendingTimers(): number {
    return this.#timers.size;
  }

  /** Callbacks that wait for the next turn. */
  get pendingTurns(): number {
    return this.#turn.length;
  }

  /** Moves time by `ms`, running each timer that falls due at its time, in order; also those that they set. */
  advance(ms: number): void {
    const end = this.#monotonic + ms;
    for (let timer = this.#firstDue(end); timer !== undefined; timer = this.#firstDue(end)) {
      this.#timers.delete(timer);
      this.#moveTo(Math.max(timer.due, this.#monotonic));
      timer.callback();
    }
    this.#moveTo(end);
  }

  #moveTo(time: number): void {
    this.#wall += time - this.#monotonic;
    this.#monotonic = time;
  }

  #firstDue(end: number): Pending | undefined {
    let first: Pending | undefined;
    for (const timer of this.#timers) {
      if (timer.due > end) continue;
      if (first === undefined || timer.due < first.due || (timer.due === first.due && timer.order < first.order)) {
        first = timer;
      }
    }
    return first;
  }

  /** Time passes without a timer running, as when the process was stopped; they run at the next `advance`. */
  stall(ms: number): void {
    this.#moveTo(this.#monotonic + ms);
  }

  /** Moves the wall clock alone, forwards or backwards, as a correction of a machine's time does. */
  jump(ms: number): void {
    this.#wall += ms;
  }

  /** Runs what waits for the next turn; what that adds waits for the one after it. */
  turn(): void {
    const callbacks = this.#turn;
    this.#turn = [];
    for (const callback of callbacks) callback();
  }
}
