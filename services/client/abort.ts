import { type ErrorCode, hasCode, MagnetarError } from '../lib/errors.ts';

/** What every method that waits takes. */
export interface WaitOptions {
  /** Ends the wait: the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** The reason of an aborted signal, as it is to be rejected with. */
export function abortReason(signal: AbortSignal): Error {
  const reason: unknown = signal.reason;
  return reason instanceof Error ? reason : new MagnetarError('CANCELLED', 'the wait was aborted', { cause: reason });
}

/** Calls `onAbort` when the signal aborts; the function returned ends that. */
export function onAbort(signal: AbortSignal | undefined, abort: (reason: Error) => void): () => void {
  if (signal === undefined) return () => {};
  const listener = (): void => abort(abortReason(signal));
  signal.addEventListener('abort', listener, { once: true });
  return () => signal.removeEventListener('abort', listener);
}

/** The outcome of `work`, or a rejection as soon as the signal aborts. The work itself goes on. */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  if (signal.aborted) {
    work.catch(() => {});
    throw abortReason(signal);
  }
  const aborted = deferred<never>();
  const stop = onAbort(signal, (reason) => aborted.reject(reason));
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    stop();
  }
}

/** The code of what was tried again until it was too late: a full disk is named, whatever else stood in the way is a matter of time. */
export function codeOfTimeout(reason: MagnetarError | undefined): ErrorCode {
  return hasCode(reason, 'DISK_FULL') ? 'DISK_FULL' : 'DEADLINE_EXCEEDED';
}

/** A promise with its ends in hand. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: Error): void;
}

export function deferred<T>(): Deferred<T> {
  let ends: Omit<Deferred<T>, 'promise'> | undefined;
  const promise = new Promise<T>((resolve, reject) => {
    ends = { resolve, reject };
  });
  return { promise, resolve: (value) => ends?.resolve(value), reject: (error) => ends?.reject(error) };
}
