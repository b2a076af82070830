/** What tests of the client do again and again. */
import { MagnetarError } from '../../lib/errors.ts';
import { nodeClock } from '../../runtime/node/clock.ts';
import { ManualClock } from '../../runtime/testing/manual-clock.ts';
import type { Client } from '../client.ts';
import type { FakeBroker } from './fake-broker.ts';

/** The end of a test: the client closes while its broker goes away, and neither leaves anything behind. */
export async function endOf(client: Client, broker: FakeBroker): Promise<void> {
  const closing = client.close();
  broker.crash();
  await closing;
  broker.checkClean();
}

/** The error with which something rejects. */
export async function rejection(work: Promise<unknown>): Promise<MagnetarError> {
  const error: unknown = await work.then(
    () => new Error('it did not reject'),
    (reason: unknown) => reason,
  );
  if (error instanceof MagnetarError) return error;
  throw error;
}

/** "m0", "m1" and so on. */
export function numbered(count: number, from = 0): string[] {
  return Array.from({ length: count }, (_, i) => `m${from + i}`);
}

/** The end of a turn of the event loop: frames come and go. */
export function turn(): Promise<void> {
  return new Promise((resolve) => nodeClock.nextTurn(resolve));
}

/** Time that stands still until it is moved; turns of the event loop go on. */
export function clockWithTurns(): ManualClock {
  return Object.assign(new ManualClock(), {
    nextTurn: (callback: () => void) => nodeClock.nextTurn(callback),
  });
}
