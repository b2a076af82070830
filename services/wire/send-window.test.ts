import { expect, test } from 'vitest';
import type { ByteShare } from '../runtime/byte-budget.ts';
import { StallGuard } from '../runtime/stall-guard.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { smallMemory } from '../runtime/testing/small-memory.ts';
import { SendWindow } from './send-window.ts';

const KB = 10_000;
const FIRST = 13 * KB;
const MOST = 40 * KB;

class Streams {
  readonly clock = new ManualClock();
  readonly share: ByteShare;
  readonly guard: StallGuard;
  readonly ended: number[] = [];
  readonly room: number[] = [];

  constructor(bytes: number) {
    this.share = smallMemory({ read: bytes }).share('read');
    this.guard = new StallGuard(this.clock, this.share);
  }

  open(number: number): SendWindow {
    const window: SendWindow = new SendWindow({
      guard: this.guard,
      mostBytes: MOST,
      onRoom: () => this.room.push(number),
      end: () => {
        this.ended.push(number);
        window.close();
      },
    });
    return window;
  }
}

/** Reads into the window as long as it has room, and sends what was read. Returns how many bytes. */
function fill(window: SendWindow, bytes = KB): number {
  let sent = 0;
  for (let room = window.reserve(bytes, bytes); room > 0; room = window.reserve(bytes, bytes)) {
    window.cancel(room);
    window.add(bytes);
    sent += bytes;
  }
  return sent;
}

async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

test('a lone stream has a window that widens as its client takes, and gives everything back', () => {
  const streams = new Streams(1_600 * KB);
  const window = streams.open(1);
  expect(fill(window)).toBe(FIRST);
  expect(window.heldBytes).toBe(FIRST);
  window.taken(3 * KB);
  expect(streams.room).toEqual([1]);
  expect(fill(window)).toBe(6 * KB);
  window.taken(FIRST + 3 * KB);
  expect(fill(window)).toBe(32 * KB);
  window.taken(32 * KB);
  expect(fill(window)).toBe(MOST);
  window.close();
  window.taken(KB);
  expect(streams.share.usedBytes).toBe(0);
});

test('of many that stand still each has less, and a newcomer still finds room', () => {
  const streams = new Streams(400 * KB);
  const windows = Array.from({ length: 100 }, (_, n) => streams.open(n));
  const held = windows.map((window) => fill(window));
  expect(held[0]).toBeGreaterThan(10 * KB);
  expect(new Set(held.slice(-50))).toEqual(new Set([KB]));
  expect(fill(streams.open(101))).toBeGreaterThan(0);
  expect(streams.share.usedBytes).toBeLessThanOrEqual(400 * KB);
  for (const window of windows) window.close();
});

test('who holds nothing waits in turn, the large one is not passed by, and whoever stands still has to make room', async () => {
  const streams = new Streams(100 * KB);
  const stalled = Array.from({ length: 10 }, (_, n) => streams.open(n));
  for (const window of stalled) {
    expect(window.reserve(10 * KB, 10 * KB)).toBe(10 * KB);
    window.cancel(10 * KB);
    window.add(10 * KB);
  }
  const [large, small] = [streams.open(50), streams.open(51)];
  expect([large.reserve(60 * KB, 60 * KB), small.reserve(KB, KB)]).toEqual([0, 0]);
  stalled[3]?.taken(10 * KB);
  await settle();
  expect(streams.room).toEqual([3]); // not enough for the large one, and the small one is behind it
  streams.clock.advance(4_000);
  stalled[5]?.taken(KB); // this one still moves
  streams.room.length = 0;
  streams.clock.advance(1_000);
  await settle();
  expect(streams.ended).toEqual([0, 1, 2, 4, 6, 7, 8, 9]);
  expect(streams.room).toEqual([50, 51]);
  expect([stalled[3]?.heldBytes, stalled[5]?.heldBytes]).toEqual([0, 9 * KB]);
});

test('what was waited for is there for the next read, and goes back when nobody reads', async () => {
  const streams = new Streams(10 * KB);
  expect(streams.share.tryTake(10 * KB)).toBe(true);
  const windows: SendWindow[] = [];
  const granted: number[] = [];
  for (const reads of [true, false]) {
    const window = new SendWindow({
      guard: streams.guard,
      mostBytes: MOST,
      onRoom: () => granted.push(reads ? window.reserve(5 * KB, 3 * KB) : 0),
      end: () => undefined,
    });
    expect(window.reserve(5 * KB, 4 * KB)).toBe(0);
    windows.push(window);
  }
  streams.share.give(10 * KB);
  await settle();
  expect(granted).toEqual([4 * KB, 0]);
  expect(windows.map(({ heldBytes }) => heldBytes)).toEqual([4 * KB, 0]);
  expect(streams.share.usedBytes).toBe(4 * KB);
});

test('a read that is under way keeps its memory until it is through, also when its stream is gone', () => {
  const streams = new Streams(1_600 * KB);
  const window = streams.open(1);
  window.add(3 * KB);
  expect(window.reserve(5 * KB, KB)).toBe(5 * KB);
  window.close();
  expect(streams.share.usedBytes).toBe(5 * KB);
  window.add(5 * KB); // what was read goes nowhere
  window.cancel(5 * KB);
  expect(streams.share.usedBytes).toBe(0);
});

test('clients that have never taken much do not come in the way of those who have', async () => {
  const memory = smallMemory({ read: 100 * KB, firstRead: 50 * KB });
  const clock = new ManualClock();
  const [read, first] = [memory.share('read'), memory.share('firstRead')];
  const [guard, firstGuard] = [new StallGuard(clock, read), new StallGuard(clock, first, 2_000)];
  const window = (): SendWindow =>
    new SendWindow({ guard, firstGuard, mostBytes: MOST, onRoom: () => undefined, end: () => undefined });
  const live = window();
  for (let n = 0; n < 3; n++) {
    fill(live, 10 * KB);
    live.taken(10 * KB);
  }
  expect(fill(live, 10 * KB)).toBe(10 * KB);
  expect([read.usedBytes, first.usedBytes]).toEqual([10 * KB, 0]);
  const stalled = Array.from({ length: 20 }, window);
  for (const each of stalled) fill(each, 10 * KB);
  expect([first.usedBytes, first.waiting]).toEqual([50 * KB, 15]);
  live.taken(10 * KB);
  expect(fill(live, 10 * KB)).toBe(10 * KB);
  for (const each of [live, ...stalled]) each.close();
  await settle();
  expect([read.usedBytes, first.usedBytes, first.waiting]).toEqual([0, 0, 0]);
});

test('a stream that goes while it waits takes nothing', async () => {
  const streams = new Streams(10 * KB);
  streams.share.tryTake(10 * KB);
  const window = streams.open(1);
  expect(window.reserve(KB, KB)).toBe(0);
  window.close();
  streams.share.give(10 * KB);
  await settle();
  expect([streams.share.usedBytes, streams.share.waiting, streams.room]).toEqual([0, 0, []]);
});
