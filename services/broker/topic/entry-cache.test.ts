import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ByteBudget } from '../../runtime/byte-budget.ts';
import { memoryBudget } from '../../runtime/memory.ts';
import { smallMemory } from '../../runtime/testing/small-memory.ts';
import { ManualClock } from '../../runtime/testing/manual-clock.ts';
import type { EntryId, Epoch, LedgerId, MessageIndex, Millis } from '../../lib/ids.ts';
import { EntryCache } from './entry-cache.ts';
import type { LogEntry } from './log-entry.ts';

const ALL = { maxEntries: 1_000, maxBytes: 1_000_000_000 };

function entry(index: number, count: number, block: Buffer): LogEntry {
  return {
    ledgerId: 1 as LedgerId,
    entryId: index as EntryId,
    index: index as MessageIndex,
    count,
    appendTime: 1 as Millis,
    ownerEpoch: 1 as Epoch,
    blockCrc32c: 0,
    block,
  };
}

function own(bytes: number): Buffer {
  return Buffer.allocUnsafeSlow(bytes);
}

describe('EntryCache', () => {
  test('entries leave between 5 and 10 s after they came, however much room there is', () => {
    const clock = new ManualClock();
    const share = memoryBudget().share('cache');
    const cache = new EntryCache(1_000_000_000, share, clock);
    const topic = cache.topic();
    const many = 10_000; // more than leave in one turn
    const held = (index: number): boolean => topic.read(index as MessageIndex, ALL) !== undefined;
    for (let i = 0; i < many; i++) topic.push(entry(i, 1, own(100)));
    clock.advance(6_000);
    topic.push(entry(many, 1, own(100)));
    expect([held(0), held(many)]).toEqual([true, true]);
    clock.advance(4_000);
    while (clock.pendingTurns > 0) clock.turn();
    expect([held(many - 1), held(many)]).toEqual([false, true]);
    clock.advance(5_000);
    expect([held(many), cache.bytes, share.usedBytes, cache.slots]).toEqual([false, 0, 0, 0]);
    expect(clock.pendingTimers).toBe(0); // an empty cache costs nothing
    topic.push(entry(many + 1, 1, own(100)));
    expect(clock.pendingTimers).toBe(1);
    cache.close();
    expect(clock.pendingTimers).toBe(0);
  });

  test('gives consecutive entries from the one that holds the index on', () => {
    const topic = new EntryCache(1_000_000, memoryBudget().share('cache'), new ManualClock()).topic();
    for (let i = 0; i < 5; i++) topic.push(entry(i * 3, 3, own(100)));
    expect(topic.read(7 as MessageIndex, ALL)?.map((e) => e.index)).toEqual([6, 9, 12]);
    expect(topic.read(7 as MessageIndex, { maxEntries: 10, maxBytes: 150 })?.map((e) => e.index)).toEqual([6]);
    expect(topic.read(0 as MessageIndex, { maxEntries: 2, maxBytes: 1_000 })?.map((e) => e.index)).toEqual([0, 3]);
    expect(topic.read(15 as MessageIndex, ALL)).toBeUndefined();
  });

  test('a frame is charged once however many entries it has, and leaves with the last of them', () => {
    const cache = new EntryCache(1_000_000, memoryBudget().share('cache'), new ManualClock());
    const topic = cache.topic();
    const frame = own(100_000);
    topic.push(entry(0, 1, frame.subarray(0, 50_000)));
    const one = cache.bytes;
    topic.push(entry(1, 1, frame.subarray(50_000)));
    expect(cache.bytes - one).toBeLessThan(1_000);
    topic.clear();
    expect(cache.bytes).toBe(0);
  });

  test('a small entry does not pin the large frame that it came in', () => {
    const cache = new EntryCache(1_000_000, memoryBudget().share('cache'), new ManualClock());
    const topic = cache.topic();
    const frame = own(1_000_000);
    frame.fill(7);
    topic.push(entry(0, 1, frame.subarray(500, 700)));
    const [kept] = topic.read(0 as MessageIndex, ALL) ?? [];
    expect(kept?.block.buffer.byteLength).toBe(200);
    expect(kept?.block).toEqual(frame.subarray(500, 700));
    expect(cache.bytes).toBeLessThan(1_000);
  });

  test('what has been passed leaves but for the newest MiB, and what others hold stays', () => {
    const MiB = 1_048_576;
    const cache = new EntryCache(100 * MiB, memoryBudget().share('cache'), new ManualClock());
    const [topic, other] = [cache.topic(), cache.topic()];
    for (let i = 0; i < 10; i++) {
      topic.push(entry(i, 1, own(MiB)));
      other.push(entry(i, 1, own(MiB)));
    }
    expect(topic.oldestIndex).toBe(0);
    topic.passed(4);
    expect(topic.oldestIndex).toBe(4);
    topic.passed(Number.POSITIVE_INFINITY);
    expect([topic.oldestIndex, other.oldestIndex]).toEqual([9, 0]);
    expect(cache.bytes).toBeLessThan(11.01 * MiB);
    // The order in which entries leave does not suffer from those that left out of turn.
    for (let i = 10; i < 200; i++) other.push(entry(i, 1, own(MiB)));
    expect(topic.oldestIndex).toBeUndefined();
    expect(other.oldestIndex).toBeGreaterThan(100);
    expect(cache.bytes).toBeLessThanOrEqual(100 * MiB);
    topic.push(entry(10, 1, own(100)));
    topic.push(entry(11, 1, own(100)));
    topic.passed(11);
    expect(topic.oldestIndex).toBe(10);
  });

  test('gives way to others, oldest entries first, down to its reserve; without any memory it keeps nothing', () => {
    const memory = memoryBudget();
    const [share, read] = [memory.share('cache'), memory.share('read')];
    const cache = new EntryCache(Number.MAX_SAFE_INTEGER, share, new ManualClock());
    memory.onShort((bytes) => cache.shrink(bytes));
    const topic = cache.topic();
    const MiB = 1_048_576;
    for (let i = 0; share.availableBytes > 2 * MiB; i++) topic.push(entry(i, 1, own(MiB)));
    const before = share.usedBytes;
    expect(read.tryTake(read.mostBytes)).toBe(true);
    expect(share.usedBytes).toBeLessThan(before);
    expect(share.usedBytes).toBeGreaterThan(share.limits.reserveBytes - 2 * MiB);
    expect(topic.read(0 as MessageIndex, ALL)).toBeUndefined();
    const none = new EntryCache(Number.MAX_SAFE_INTEGER, smallMemory({ cache: 0 }).share('cache'), new ManualClock());
    const bare = none.topic();
    bare.push(entry(0, 1, own(10)));
    expect([bare.read(0 as MessageIndex, ALL), none.bytes]).toEqual([undefined, 0]);
  });

  test('an entry that does not fit gives back what its frame was charged, when its neighbours had to leave for it', () => {
    const none = { reserveBytes: 0, limitBytes: 1_000_000 };
    const budget = new ByteBudget({ totalBytes: 1_000_000, waiters: 10, shares: { cache: none, read: none } });
    const [share, others] = [budget.share('cache'), budget.share('read')];
    const cache = new EntryCache(1_000_000, share, new ManualClock());
    budget.onShort((bytes) => cache.shrink(bytes));
    const topic = cache.topic();
    const frame = Buffer.allocUnsafeSlow(200_000);
    topic.push(entry(0, 1, frame.subarray(0, 100_000)));
    others.charge(1_100_000); // above the budget for a moment, as what was sent already may be
    topic.push(entry(1, 1, frame.subarray(100_000)));
    expect([share.usedBytes, cache.bytes]).toEqual([0, 0]);
  });

  test('gives no entry behind those that have as many messages as are wanted', () => {
    const topic = new EntryCache(1_000_000, memoryBudget().share('cache'), new ManualClock()).topic();
    for (let i = 0; i < 5; i++) topic.push(entry(i * 10, 10, own(100)));
    const read = (index: number, maxMessages: number): number =>
      topic.read(index as MessageIndex, { ...ALL, maxMessages })?.length ?? 0;
    expect([read(0, 1), read(0, 10), read(0, 11), read(5, 5), read(5, 6), read(0, 1_000)]).toEqual([1, 1, 2, 1, 2, 5]);
  });

  test('a gap empties the topic: what it gives has none', () => {
    const topic = new EntryCache(1_000_000, memoryBudget().share('cache'), new ManualClock()).topic();
    topic.push(entry(0, 1, own(10)));
    topic.push(entry(5, 1, own(10)));
    expect(topic.read(0 as MessageIndex, ALL)).toBeUndefined();
    expect(topic.read(5 as MessageIndex, ALL)).toHaveLength(1);
  });

  test('topics that come and go leave nothing behind, although the cache is never full', () => {
    const cache = new EntryCache(1_000_000, memoryBudget().share('cache'), new ManualClock());
    const stays = cache.topic();
    for (let i = 0; i < 10; i++) stays.push(entry(i, 1, own(10)));
    for (let i = 0; i < 20_000; i++) {
      const topic = cache.topic();
      topic.push(entry(i, 1, own(10)));
      topic.clear();
    }
    expect(cache.slots).toBeLessThan(2_100);
    for (let i = 10; i < 5_000; i++) stays.push(entry(i, 1, own(10)));
    expect(cache.bytes).toBeLessThanOrEqual(1_050_000);
    expect(stays.read(4_999 as MessageIndex, ALL)).toHaveLength(1);
    expect(stays.read(0 as MessageIndex, ALL)).toBeUndefined();
  });

  test('stays within its bytes over all topics, and each topic keeps a gapless tail', () => {
    const step = fc.record({
      topic: fc.nat(2),
      count: fc.integer({ min: 1, max: 4 }),
      bytes: fc.integer({ min: 1, max: 30_000 }),
    });
    const steps = fc.array(
      fc.oneof({ weight: 20, arbitrary: step }, { weight: 1, arbitrary: fc.record({ clear: fc.nat(2) }) }),
    );
    fc.assert(
      fc.property(steps, (all) => {
        const limit = 100_000;
        const cache = new EntryCache(limit, memoryBudget().share('cache'), new ManualClock());
        const topics = [0, 1, 2].map(() => ({ cache: cache.topic(), next: 0, from: 0 }));
        for (const one of all) {
          if ('clear' in one) {
            const topic = topics[one.clear];
            topic?.cache.clear();
            if (topic !== undefined) topic.from = topic.next;
            continue;
          }
          const topic = topics[one.topic];
          if (topic === undefined) continue;
          topic.cache.push(entry(topic.next, one.count, own(one.bytes)));
          topic.next += one.count;
          expect(cache.bytes).toBeLessThanOrEqual(limit);
          const last = topic.cache.read((topic.next - 1) as MessageIndex, ALL);
          expect(last).toHaveLength(1);
          for (const other of topics) {
            let at = other.next - 1;
            while (at >= other.from && other.cache.read(at as MessageIndex, ALL) !== undefined) at--;
            for (; at >= 0; at--) expect(other.cache.read(at as MessageIndex, ALL)).toBeUndefined();
          }
        }
        for (const topic of topics) topic.cache.clear();
        expect(cache.bytes).toBe(0);
      }),
      { numRuns: 60 },
    );
  });
});
