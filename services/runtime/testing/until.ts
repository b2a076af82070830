import { delay } from '../clock.ts';
import { nodeClock } from '../node/clock.ts';

/** Resolves once something is so that others bring about in real time. The test's own time-out bounds the wait. */
export async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await delay(nodeClock, 1);
}
