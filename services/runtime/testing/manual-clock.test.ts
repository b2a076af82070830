import { expect, test } from 'vitest';
import { delay } from '../clock.ts';
import { ManualClock } from './manual-clock.ts';
import { seededRandom } from './seeded-random.ts';

test('timers run at their times, in order, also those set meanwhile', () => {
  const clock = new ManualClock(1_000);
  const log: string[] = [];
  const say = (what: string) => () => log.push(`${what}@${clock.monotonic()}`);
  clock.after(20, say('b'));
  clock.after(10, () => {
    say('a')();
    clock.after(5, say('inner'));
    clock.after(50, say('late'));
  });
  clock.after(20, say('c'));
  clock.after(12, say('cancelled')).cancel();
  clock.advance(30);
  expect(log).toEqual(['a@10', 'inner@15', 'b@20', 'c@20']);
  expect([clock.now(), clock.monotonic(), clock.pendingTimers]).toEqual([1_030, 30, 1]);
  clock.jump(-500);
  expect([clock.now(), clock.monotonic()]).toEqual([530, 30]);
});

test('a stall makes timers late', () => {
  const clock = new ManualClock();
  const times: number[] = [];
  clock.after(10, () => times.push(clock.monotonic()));
  clock.stall(50);
  expect(times).toEqual([]);
  clock.advance(0);
  expect(times).toEqual([50]);
});

test('what a turn adds waits for the next one', () => {
  const clock = new ManualClock();
  const log: string[] = [];
  clock.nextTurn(() => {
    log.push('first');
    clock.nextTurn(() => log.push('second'));
  });
  clock.turn();
  expect(log).toEqual(['first']);
  expect(clock.pendingTurns).toBe(1);
  clock.turn();
  expect(log).toEqual(['first', 'second']);
});

test('delay resolves on time, and rejects when aborted', async () => {
  const clock = new ManualClock();
  const plain = delay(clock, 10);
  const controller = new AbortController();
  const aborted = delay(clock, 10, controller.signal);
  controller.abort(new Error('enough'));
  await expect(aborted).rejects.toThrow('enough');
  clock.advance(10);
  await plain;
  expect(clock.pendingTimers).toBe(0);
});

test('a seed determines the numbers', () => {
  const [a, b, c] = [seededRandom(1), seededRandom(1), seededRandom(2)];
  const numbers = Array.from({ length: 1_000 }, () => a.next());
  expect(Array.from({ length: 1_000 }, () => b.next())).toEqual(numbers);
  expect(c.next()).not.toBe(numbers[0]);
  expect(Math.min(...numbers)).toBeLessThan(0.01);
  expect(Math.max(...numbers)).toBeGreaterThan(0.99);
  expect(Math.max(...numbers)).toBeLessThan(1);
  expect(a.bytes(8)).toEqual(b.bytes(8));
});
