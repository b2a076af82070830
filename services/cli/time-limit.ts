import { MagnetarError } from '../lib/errors.ts';
import type { Shell } from './shell.ts';

/** The time that a command may take. */
export interface TimeLimit {
  /** Aborts (CANCELLED) when the time is over, or when the person has asked for the end. */
  readonly signal: AbortSignal;
  /** Ends the watch. */
  readonly stop: () => void;
}

/** Begins now. */
export function timeLimit(shell: Shell, seconds: number): TimeLimit {
  const over = new AbortController();
  const timer = shell.clock.after(seconds * 1_000, () => {
    over.abort(new MagnetarError('CANCELLED', 'the time is over'));
  });
  return { signal: AbortSignal.any([over.signal, shell.interrupted]), stop: () => timer.cancel() };
}
