import { expect, test } from 'vitest';
import { RunningClock } from './running-clock.ts';
import { ManualClock } from './testing/manual-clock.ts';

interface Fixture {
  readonly manual: ManualClock;
  readonly clock: RunningClock;
  /** When timers fired, by name, on the manual clock. */
  readonly fired: [string, number][];
  readonly set: (name: string, ms: number) => void;
}

function fixture(): Fixture {
  const manual = new ManualClock();
  const clock = new RunningClock(manual);
  const fired: [string, number][] = [];
  const set = (name: string, ms: number): void => {
    clock.after(ms, () => fired.push([name, manual.monotonic()]));
  };
  return { manual, clock, fired, set };
}

test('a timer fires at its time, to the millisecond, unless it is cancelled', () => {
  const { manual, clock, fired, set } = fixture();
  set('none', 0);
  set('short', 5);
  set('long', 12_345);
  const cancelled = clock.after(5_000, () => fired.push(['cancelled', 0]));
  manual.advance(3_500);
  cancelled.cancel();
  manual.advance(20_000);
  expect(fired).toEqual([
    ['none', 0],
    ['short', 5],
    ['long', 12_345],
  ]);
  expect(manual.pendingTimers).toBe(0);
});

test('a standstill does not count: a timer has what was left of its time', () => {
  const { manual, clock, fired, set } = fixture();
  set('long', 10_000);
  manual.advance(2_500);
  manual.stall(60_000); // its next look was due 500 ms later
  manual.advance(0);
  expect(clock.monotonic()).toBe(3_000);
  manual.advance(10_000);
  expect(fired).toEqual([['long', 62_500 + 7_000]]);
});

test('what fell due in a standstill fires a second after it, or after its own time when that is shorter', () => {
  const { manual, fired, set } = fixture();
  for (const ms of [1_500, 1_000, 800, 20]) set(`${ms} ms`, ms);
  manual.stall(5_000);
  manual.advance(5_000);
  expect(fired).toEqual([
    ['20 ms', 5_020],
    ['800 ms', 5_800],
    ['1000 ms', 6_000],
    ['1500 ms', 6_000],
  ]);
});

test('a standstill is counted once, however many timers were due in it', () => {
  const { manual, clock, set } = fixture();
  for (const ms of [100, 200, 300]) set('one', ms);
  manual.stall(10_100);
  manual.advance(0);
  expect(clock.monotonic()).toBe(100);
});

test('a process that runs by fits and starts ends its waits all the same', () => {
  const { manual, fired, set } = fixture();
  set('one', 3_000);
  for (let i = 0; i < 5; i++) {
    manual.stall(4_000);
    manual.advance(0);
  }
  expect(fired).toHaveLength(1);
});

test('a second of delay is no standstill: it counts, and is waited out once more, for what lies in the sockets', () => {
  const { manual, clock, fired, set } = fixture();
  for (const ms of [1_000, 300, 200]) set(`${ms} ms`, ms);
  manual.advance(250);
  manual.stall(250);
  manual.advance(0);
  expect(clock.monotonic()).toBe(500);
  manual.advance(300);
  manual.stall(1_200); // the last one is a second late
  manual.advance(2_000);
  expect(clock.monotonic()).toBe(4_000);
  expect(fired).toEqual([
    ['200 ms', 200],
    ['300 ms', 700],
    ['1000 ms', 3_000],
  ]);
});

test('a timer that is a little late fires at once', () => {
  const { manual, fired, set } = fixture();
  set('one', 100);
  manual.stall(150);
  manual.advance(0);
  expect(fired).toEqual([['one', 150]]);
});
