import type { Millis } from '../lib/ids.ts';

/** A timer that was set. */
export interface Timer {
  /** Ends it. Idempotent; after it the callback does not run. */
  cancel(): void;
}

/**
 * Time, injected everywhere, so that a simulation can own it.
 */
export interface Clock {
  /** Wall clock: milliseconds since 1970-01-01 UTC, an integer. May jump. For what people and other processes see. */
  now(): Millis;
  /** Milliseconds, with fractions, since some start. Never goes back. For spans, deadlines and leases. */
  monotonic(): number;
  /** Runs `callback` once after `ms`. Does not keep the process alive when `unref` is given. */
  after(ms: number, callback: () => void, options?: { unref?: boolean }): Timer;
  /** Runs `callback` in a later turn of the event loop, after the I/O of this turn: where frames are flushed. */
  nextTurn(callback: () => void): void;
}

/** Resolves after `ms`; rejects with the signal's reason as soon as `signal` aborts. */
export async function delay(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const timer = clock.after(ms, () => {
      signal?.removeEventListener('abort', abort);
      resolve();
    });
    const abort = (): void => {
      timer.cancel();
      reject(signal?.reason as Error);
    };
    signal?.addEventListener('abort', abort, { once: true });
  });
}
