import { expect, test } from 'vitest';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { collectGarbage, IdleCollector } from './idle-collector.ts';

test('collects once after a load, when it has been over for a while', () => {
  const clock = new ManualClock();
  let [active, collections] = [0, 0];
  const collect = (): void => {
    collections++;
    active += 1_000; // its own work is none that leaves something behind
  };
  const collector = new IdleCollector({ clock, activeMs: () => active, collect });
  const pass = (seconds: number, msPerSecond: number): void => {
    for (let i = 0; i < seconds; i++) {
      active += msPerSecond;
      clock.advance(1_000);
    }
  };
  pass(60, 0);
  expect(collections).toBe(0);
  pass(10, 200);
  pass(10, 1);
  expect(collections).toBe(0);
  pass(10, 1);
  expect(collections).toBe(1);
  pass(60, 1); // the work of an idle server does not add up to a load soon
  expect(collections).toBe(1);
  pass(60, 200);
  expect(collections).toBe(1);
  pass(20, 1);
  expect(collections).toBe(2);
  collector.close();
  expect(clock.pendingTimers).toBe(0);
});

test('a collection gives back what nobody holds', async () => {
  const held = new WeakRef(Buffer.alloc(1_048_576).buffer);
  await new Promise((resolve) => setImmediate(resolve)); // a weak reference holds on for the rest of its turn
  collectGarbage();
  expect(held.deref()).toBeUndefined();
});
