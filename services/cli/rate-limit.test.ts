import { expect, test } from 'vitest';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { RateLimit } from './rate-limit.ts';

const never = new AbortController().signal;

/** Turns taken within `ms` by a loop that waits whenever it is told to. */
async function turnsWithin(ms: number, perSecond: number): Promise<number> {
  const clock = new ManualClock();
  const limit = new RateLimit(clock, perSecond);
  for (let turns = 0; ; turns++) {
    const wait = limit.turn(never);
    while (clock.pendingTimers > 0) {
      if (clock.monotonic() >= ms) return turns;
      clock.advance(1);
    }
    if (wait !== undefined) await wait;
  }
}

test.each([
  [0.5, 1],
  [1, 2],
  [7, 14],
  [1_000, 2_000],
  [250_000, 500_000],
])('%d a second', async (perSecond, within2Seconds) => {
  const turns = await turnsWithin(2_000, perSecond);
  expect(turns).toBeGreaterThanOrEqual(within2Seconds);
  expect(turns).toBeLessThanOrEqual(within2Seconds + 1 + perSecond * 0.01);
});

test('a loop that was held up does not make up for all of it at once', () => {
  const clock = new ManualClock();
  const limit = new RateLimit(clock, 50);
  expect(limit.turn(never)).toBeUndefined();
  clock.advance(60_000);
  let turns = 0;
  while (limit.turn(never) === undefined) turns++;
  expect(turns).toBeGreaterThanOrEqual(49);
  expect(turns).toBeLessThanOrEqual(52);
});

test('an aborted signal ends the wait', async () => {
  const controller = new AbortController();
  const limit = new RateLimit(new ManualClock(), 1);
  expect(limit.turn(controller.signal)).toBeUndefined();
  const wait = limit.turn(controller.signal);
  controller.abort(new Error('enough'));
  await expect(wait).rejects.toThrow('enough');
});
