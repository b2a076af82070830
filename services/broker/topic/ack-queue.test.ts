import { describe, expect, test } from 'vitest';
import type { EntryId, LedgerId, MessageIndex, Millis, SequenceId } from '../../lib/ids.ts';
import { ackLogEntry } from '../../wire/records.ts';
import { AckState } from '../protocol/ack-state.ts';
import { AckQueue } from './ack-queue.ts';
import type { AckSubscription } from './ack-replay.ts';
import { AckSnapshot, type SizedRecord } from './ack-snapshot.ts';

const at = (value: number): MessageIndex => value as MessageIndex;
const done = (): void => {};

function delta(below: number, ranges: readonly number[] = []) {
  return { below: at(below), ranges, count: 1 };
}

describe('AckQueue', () => {
  test('merges deltas of one subscription, and leaves out ranges that are swallowed', () => {
    const queue = new AckQueue(10_000, 1);
    queue.pushDelta(1, delta(0, [5, 2]), done);
    queue.pushDelta(2, delta(7), done);
    queue.pushDelta(1, delta(0, [7, 1, 20, 1]), done);
    queue.pushDelta(1, delta(8), done);
    expect(queue.items).toBe(4);
    const batch = queue.shift();
    expect(batch?.records).toEqual([
      { type: 'delta', subscription: 1, below: 8, ranges: [20, 1] },
      { type: 'delta', subscription: 2, below: 7, ranges: [] },
    ]);
    expect(batch?.done).toHaveLength(4);
    expect([queue.items, queue.bytes, queue.empty]).toEqual([0, 0, true]);
    expect(queue.shift()).toBeUndefined();
  });

  test('nothing passes a record that is not a delta of the same subscription', () => {
    const queue = new AckQueue(10_000, 1);
    const reset = { type: 'reset', subscription: 1, markDelete: at(0) } as const;
    queue.pushDelta(1, delta(0, [5, 1]), done);
    queue.pushDelta(2, delta(0, [5, 1]), done);
    queue.push(reset, 64, done, 1);
    queue.pushDelta(2, delta(0, [9, 1]), done);
    queue.pushDelta(1, delta(0, [9, 1]), done);
    expect(queue.shift()?.records).toEqual([
      { type: 'delta', subscription: 1, below: 0, ranges: [5, 1] },
      { type: 'delta', subscription: 2, below: 0, ranges: [5, 1, 9, 1] },
      reset,
      { type: 'delta', subscription: 1, below: 0, ranges: [9, 1] },
    ]);
  });

  test('cuts entries by size, and keeps the order of what is to be called', () => {
    const queue = new AckQueue(1_000, 1);
    const called: number[] = [];
    for (let n = 0; n < 1_000; n++) queue.pushDelta(n % 3, delta(0, [10 * n, 1]), () => called.push(n));
    expect(queue.attach(() => called.push(1_000))).toBe(true);
    for (let batch = queue.shift(); batch !== undefined; batch = queue.shift()) {
      expect(ackLogEntry.encode(batch).length).toBeLessThan(1_100);
      for (const each of batch.done) each();
    }
    expect(called).toEqual(Array.from({ length: 1_001 }, (_, n) => n));
    expect(queue.attach(done)).toBe(false);
  });
});

function subscription(number: number, holes: number): AckSubscription {
  const state = new AckState(at(0));
  for (let n = 0; n < holes; n++) state.acknowledge(at(0), [2 * n + 1, 1]);
  return { number, name: `subscription ${number}`, createdAt: number as Millis, state };
}

test('a delta that is larger than an entry is cut, and answered with its last part', () => {
  const queue = new AckQueue(1_000, 1);
  const ranges = Array.from({ length: 2_000 }, (_, i) => (i % 2 === 0 ? 3 * i + 100 : 2));
  let answered = false;
  queue.pushDelta(1, delta(9, ranges), () => {
    answered = true;
  });
  const found: number[] = [];
  let batches = 0;
  for (let batch = queue.shift(); batch !== undefined; batch = queue.shift()) {
    expect(answered).toBe(false);
    expect(ackLogEntry.encode(batch).length).toBeLessThan(2_000);
    for (const record of batch.records) found.push(...(record.type === 'delta' ? record.ranges : []));
    for (const each of batch.done) each();
    batches++;
  }
  expect(answered).toBe(true);
  expect(found).toEqual(ranges);
  expect(batches).toBeGreaterThan(5);
});

describe('AckSnapshot', () => {
  test('comes in parts whose size is bounded as it is said; a page keeps later deltas behind it', () => {
    const live = new Map([1, 2, 3].map((number) => [number, subscription(number, number * 10_000)]));
    const batch = {
      firstSequenceId: 0n as SequenceId,
      lastSequenceId: (2n ** 64n - 1n) as SequenceId,
      ledgerId: (2 ** 53 - 1) as LedgerId,
      entryId: (2 ** 53 - 1) as EntryId,
      index: at(2 ** 53 - 1),
      count: 2 ** 32 - 1,
    };
    const producers = Array.from({ length: 1_000 }, (_, n) => {
      return {
        name: `${n}-ü`.padEnd(40, 'ü'),
        batches: Array.from({ length: 5 }, () => batch),
        lastUsed: 2e12 as Millis,
      };
    });
    const partBytes = 16_384;
    const dedup = { coveredIndex: at(5), producers };
    const snapshot = new AckSnapshot({
      number: 9,
      highestSubscription: 4,
      live,
      dedup,
      missingBelow: at(0),
      partBytes,
    });
    const all: SizedRecord[] = [];
    for (let part = snapshot.next(); part.length > 0; part = snapshot.next()) {
      const encoded = ackLogEntry.encode({ records: part.map(({ record }) => record), structure: 1 }).length;
      expect(encoded).toBeLessThanOrEqual(part.reduce((sum, { bytes }) => sum + bytes, 0));
      expect(encoded).toBeLessThan(2 * partBytes + 1_000);
      all.push(...part);
    }
    expect(all[0]?.record).toEqual({ type: 'snapshotBegin', snapshot: 9, missingBelow: 0 });
    expect(all[1]?.record).toEqual({ type: 'deleted', subscription: 4 });
    expect(all.at(-1)?.record).toEqual({ type: 'snapshotEnd', snapshot: 9 });
    const pages = all.flatMap(({ record, subscription: barrier }) =>
      record.type === 'page' ? [{ record, barrier }] : [],
    );
    expect(pages.length).toBeGreaterThan(3);
    for (const { record, barrier } of pages) expect(barrier).toBe(record.subscription.subscription);
  });
});
