/**
 * Gives memory back when a load is over: a server that has nothing to do allocates nothing, and so nothing makes the
 * engine look for what is no longer in use. For a process of our own: in another's, collecting is the app's business.
 */
import v8 from 'node:v8';
import vm from 'node:vm';
import type { Clock, Timer } from '../runtime/clock.ts';

const TICK_MS = 2_000;
/**
 * After so many ticks without a load the young generation is collected: only when little was allocated in the five seconds
 * before a major collection, and since the one before it, does the engine give back the room that it had made for the load,
 * up to 32 MB.
 */
const MINOR_TICK = 1;
/** By then what the caches held for those who keep up has left them. */
const MAJOR_TICK = 5;
/** Milliseconds of work in one tick that are no load: leases, probes, the pings of some thousand idle connections. */
const QUIET_MS = 150;
/** So much work leaves something behind that is worth collecting. */
const BUSY_MS = 500;

/** What the collector looks at, and does. */
export interface IdleCollectorOptions {
  readonly clock: Clock;
  /** Milliseconds that the event loop has been at work. */
  readonly activeMs: () => number;
  readonly collect: (type: CollectionType) => void;
}

type CollectionType = 'minor' | 'major';

/** A collection; a major one takes some 25 ms of an idle server. */
export function collectGarbage(type: CollectionType): void {
  v8.setFlagsFromString('--expose-gc');
  const collect = vm.runInNewContext('gc') as (options?: { type: 'minor' }) => void;
  v8.setFlagsFromString('--no-expose-gc');
  if (type === 'minor') collect({ type });
  else collect();
}

/** Collects once after each load, when it has been over for a while. */
export class IdleCollector {
  readonly #options: IdleCollectorOptions;
  #timer: Timer;
  #seenMs: number;
  #busyMs = 0;
  /** Ticks without a load, since one that was worth it. */
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
    if (active > QUIET_MS) {
      this.#busyMs += active;
      this.#quiet = 0;
    } else if (this.#busyMs >= BUSY_MS) {
      this.#quiet++;
      if (this.#quiet === MINOR_TICK) collect('minor');
      if (this.#quiet === MAJOR_TICK) {
        collect('major');
        this.#busyMs = 0;
      }
    }
    this.#seenMs = activeMs();
    this.#timer = this.#later();
  }

  close(): void {
    this.#timer.cancel();
  }
}
