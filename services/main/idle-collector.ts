/**
 * Gives memory back when a load is over: a server that has nothing to do allocates nothing, and so nothing makes the
 * engine look for what is no longer in use. For a process of our own: in another's, collecting is the app's business.
 */
import v8 from 'node:v8';
import vm from 'node:vm';
import type { Clock, Timer } from '../runtime/clock.ts';

const TICK_MS = 5_000;
/** By then what the caches held for those who keep up has left them. */
const QUIET_TICKS = 3;
/** Milliseconds of work in one tick that are none to speak of: leases, probes. */
const QUIET_MS = 50;
/** So much work leaves something behind that is worth collecting. */
const BUSY_MS = 500;

/** What the collector looks at, and does. */
export interface IdleCollectorOptions {
  readonly clock: Clock;
  /** Milliseconds that the event loop has been at work. */
  readonly activeMs: () => number;
  readonly collect: () => void;
}

/** A full collection; some 25 ms for an idle server. */
export function collectGarbage(): void {
  v8.setFlagsFromString('--expose-gc');
  const collect = vm.runInNewContext('gc') as () => void;
  v8.setFlagsFromString('--no-expose-gc');
  collect();
}

/** Collects once after each load, in the third tick in which there is nothing to do. */
export class IdleCollector {
  readonly #options: IdleCollectorOptions;
  #timer: Timer;
  #seenMs: number;
  #busyMs = 0;
  #quiet = 0;

  constructor(options: IdleCollectorOptions) {
    this.#options = options;
    this.#seenMs = options.activeMs();
    this.#timer = this.#later();
  }

  #later(): Timer {
    return this.#options.clock.after(TICK_MS, () => this.#tick(), { unref: true });
  }

  #tick(): void {
    const { activeMs, collect } = this.#options;
    const active = activeMs() - this.#seenMs;
    this.#busyMs += active;
    this.#quiet = active <= QUIET_MS ? this.#quiet + 1 : 0;
    if (this.#busyMs >= BUSY_MS && this.#quiet >= QUIET_TICKS) {
      collect();
      this.#busyMs = 0;
    }
    this.#seenMs = activeMs();
    this.#timer = this.#later();
  }

  close(): void {
    this.#timer.cancel();
  }
}
