import { expect, test } from 'vitest';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { collectGarbage, IdleCollector } from './idle-collector.ts';

test('collects once after a load, when it has been over for a while', () => {
  const clock = new ManualClock();
  let active = 0;
  const collections: string[] = [];
  const collect = (type: 'minor' | 'major'): void => {
    collections.push(type);
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
  pass(10, 200);
  pass(1, 1);
  expect(collections).toEqual([]);
  pass(1, 1);
  expect(collections).toEqual(['minor']);
  pass(7, 60); // a thousand idle connections have pings
  expect(collections).toEqual(['minor']);
  pass(1, 60);
  expect(collections).toEqual(['minor', 'major']);
  pass(120, 60); // and do not add up to a load
  pass(60, 200);
  expect(collections.splice(0)).toEqual(['minor', 'major']);
  pass(8, 1);
  pass(4, 200); // it goes on
  pass(9, 1);
  expect(collections).toEqual(['minor', 'minor']);
  pass(1, 1);
  expect(collections).toEqual(['minor', 'minor', 'major']);
  collector.close();
  expect(clock.pendingTimers).toBe(0);
});

test('a collection gives back what nobody holds', async () => {
  const held = new WeakRef(Buffer.alloc(1_048_576).buffer);
  await new Promise((resolve) => setImmediate(resolve)); // a weak reference holds on for the rest of its turn
  collectGarbage('major');
  expect(held.deref()).toBeUndefined();
});
