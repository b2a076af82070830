import type { Millis } from '../../lib/ids.ts';
import type { Clock, Timer } from '../clock.ts';

/** The longest span that a timer of the platform takes; a longer one would fire at once. */
const LONGEST_TIMER_MS = 2_147_483_647;

class NodeTimer implements Timer {
  #handle: NodeJS.Timeout | undefined;
  readonly #due: number;
  readonly #callback: () => void;
  readonly #unref: boolean;

  constructor(ms: number, callback: () => void, unref: boolean) {
    this.#due = performance.now() + ms;
    this.#callback = callback;
    this.#unref = unref;
    this.#set(ms);
  }

  #set(ms: number): void {
    this.#handle = setTimeout(this.#fire, Math.min(ms, LONGEST_TIMER_MS));
    if (this.#unref) this.#handle.unref();
  }

  readonly #fire = (): void => {
    const left = this.#due - performance.now();
    // The platform may fire up to a millisecond early; only a span that was cut short is set again.
    if (left > 1_000) this.#set(left);
    else this.#callback();
  };

  cancel(): void {
    clearTimeout(this.#handle);
  }
}

/** The time of this machine. */
export const nodeClock: Clock = {
  now: () => Date.now() as Millis,
  monotonic: () => performance.now(),
  after: (ms, callback, options) => new NodeTimer(ms, callback, options?.unref === true),
  nextTurn(callback) {
    setImmediate(callback);
  },
};
