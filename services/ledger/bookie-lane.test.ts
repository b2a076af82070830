import { describe, expect, test } from 'vitest';
import { type ErrorCode, MagnetarError } from '../lib/errors.ts';
import type { ByteShare } from '../runtime/byte-budget.ts';
import type { Environment } from '../runtime/environment.ts';
import { memoryBudget } from '../runtime/memory.ts';
import { silentLogger } from '../runtime/logger.ts';
import { CrashDisk } from '../runtime/testing/crash-disk.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { seededRandom } from '../runtime/testing/seeded-random.ts';
import { testEntry } from './bookie.contract.ts';
import type { AppendEntry, Bookie } from './bookie.ts';
import { BookieLane, type Copy, type LaneLimits } from './bookie-lane.ts';
import { LedgerStats } from './metrics.ts';

/** A bookie that answers when the test says so. */
class SlowBookie implements Bookie {
  readonly id = 'slow';
  readonly available = true;
  readonly waiting: { entry: AppendEntry; done: (error?: MagnetarError) => void }[] = [];

  append(entry: AppendEntry, done: (error?: MagnetarError) => void): void {
    this.waiting.push({ entry, done });
  }

  answer(error?: MagnetarError): void {
    this.waiting.shift()?.done(error);
  }

  read = (): Promise<never> => new Promise(() => {});
  readLac = (): Promise<never> => new Promise(() => {});
  close = async (): Promise<void> => await Promise.resolve();
}

function setUp(limits: Partial<LaneLimits> = {}): {
  lane: BookieLane;
  bookie: SlowBookie;
  clock: ManualClock;
  outcomes: (ErrorCode | 'stored')[];
  append: (entry: number) => Copy;
  memory: ByteShare;
} {
  const clock = new ManualClock();
  const environment: Environment = {
    clock,
    random: seededRandom(1),
    disk: new CrashDisk(),
    logger: silentLogger,
    fatal: () => {},
  };
  const bookie = new SlowBookie();
  const allLimits = {
    appendDeadlineMs: 10_000,
    readDeadlineMs: 5_000,
    laggingBytes: 40,
    inFlightEntries: 3,
    inFlightBytes: 1_000,
    ...limits,
  };
  const memory = memoryBudget().share('write');
  const lane = new BookieLane(environment, bookie, allLimits, new LedgerStats(), memory);
  const outcomes: (ErrorCode | 'stored')[] = [];
  const append = (entry: number): Copy => {
    const copy: Copy = {
      entry: testEntry(1, entry),
      settled: (error) => void outcomes.push(error === undefined ? 'stored' : error.code),
    };
    lane.append(copy);
    return copy;
  };
  return { lane, bookie, clock, outcomes, append, memory };
}

describe('a lane', () => {
  test('keeps nothing that has failed for a bookie that hangs; what the bookie has is charged', () => {
    const { lane, bookie, clock, outcomes, append, memory } = setUp({ inFlightEntries: 2 });
    const bytes = testEntry(1, 0).payloadBytes;
    const rounds = 20;
    for (let round = 0; round < rounds; round++) {
      for (let entry = 0; entry < 10; entry++) append(10 * round + entry);
      clock.advance(13_000);
    }
    expect(outcomes).toEqual(Array(10 * rounds).fill('DEADLINE_EXCEEDED'));
    expect([lane.pendingEntries, bookie.waiting.length, memory.usedBytes]).toEqual([2, 2, 2 * bytes]);
    append(1_000);
    append(1_001);
    while (bookie.waiting.length > 0) bookie.answer();
    expect(outcomes.slice(10 * rounds)).toEqual(['stored', 'stored', 'stored', 'stored']);
    expect([lane.pendingEntries, memory.usedBytes]).toEqual([0, 0]);
  });

  test('fails a copy at its deadline, and tells of an answer that comes later', () => {
    const { bookie, clock, outcomes, append } = setUp();
    append(0);
    clock.advance(5_000);
    append(1);
    clock.advance(4_999);
    expect(outcomes).toEqual([]);
    clock.advance(2_500);
    expect(outcomes).toEqual(['DEADLINE_EXCEEDED']);
    bookie.answer();
    bookie.answer();
    expect(outcomes).toEqual(['DEADLINE_EXCEEDED', 'stored', 'stored']);
    clock.advance(20_000);
    expect(outcomes).toHaveLength(3);
    expect(clock.pendingTimers).toBe(0);
  });

  test('does not take its own standstill for a bookie’s: answers that have come meanwhile are looked at first', () => {
    const { bookie, clock, outcomes, append } = setUp();
    append(0);
    clock.advance(1_000);
    clock.stall(30_000);
    clock.advance(0); // timers run before I/O
    expect(outcomes).toEqual([]);
    bookie.answer();
    append(1);
    clock.advance(12_000);
    expect(outcomes).toEqual(['stored', 'DEADLINE_EXCEEDED']);
  });

  test('fails a read at its deadline', async () => {
    const { lane, clock } = setUp();
    const read = lane.readLac({ ledgerId: testEntry(1, 0).ledgerId });
    clock.advance(6_000);
    await expect(read).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  });

  test('gives a bookie so many copies at a time, the rest in their order', () => {
    const { bookie, outcomes, append } = setUp();
    for (let entry = 0; entry < 5; entry++) append(entry);
    expect(bookie.waiting.map(({ entry }) => entry.entryId)).toEqual([0, 1, 2]);
    bookie.answer();
    bookie.answer();
    expect(bookie.waiting.map(({ entry }) => entry.entryId)).toEqual([2, 3, 4]);
    expect(outcomes).toEqual(['stored', 'stored']);
  });

  test('copies of confirmed entries, which nobody else waits for, are charged until the bookie has them', () => {
    const { lane, bookie, append, memory } = setUp();
    const copies = [append(0), append(1)];
    expect(memory.usedBytes).toBe(0); // whoever publishes them is charged
    for (const copy of copies) lane.confirmed(copy);
    expect(memory.usedBytes).toBe(copies.reduce((sum, { entry }) => sum + entry.payloadBytes, 0));
    bookie.answer();
    bookie.answer(new MagnetarError('STORE_FAILED', 'test'));
    expect(memory.usedBytes).toBe(0);
  });

  test('a straggler’s copies of confirmed entries are bounded: then copies are dropped until it catches up', () => {
    const { lane, bookie, clock, outcomes, append } = setUp({ inFlightEntries: 100 });
    const copies = [append(0), append(1), append(2)]; // 16 bytes each
    expect(lane.available).toBe(true);
    for (const copy of copies) lane.confirmed(copy);
    expect(lane.available).toBe(false);
    append(3);
    expect(outcomes).toEqual([]); // never before append returns
    clock.turn();
    expect(outcomes).toEqual(['QUEUE_FULL']);
    bookie.answer();
    expect(lane.available).toBe(true);
    append(4);
    expect(bookie.waiting.map(({ entry }) => entry.entryId)).toEqual([1, 2, 4]);
  });

  test('a bookie that is merely as slow as all others is no straggler', () => {
    const { lane, outcomes, append } = setUp({ inFlightEntries: 1 });
    for (let entry = 0; entry < 100; entry++) append(entry);
    expect(lane.available).toBe(true);
    expect(outcomes).toEqual([]);
  });

  test('a full bookie is asked again, until the deadline', () => {
    const { bookie, clock, outcomes, append } = setUp();
    const full = new MagnetarError('QUEUE_FULL', 'full');
    append(0);
    bookie.answer(full);
    expect(bookie.waiting).toEqual([]);
    clock.advance(10);
    bookie.answer();
    expect(outcomes).toEqual(['stored']);
    append(1);
    clock.advance(12_000);
    bookie.answer(full);
    clock.advance(100);
    expect(outcomes).toEqual(['stored', 'DEADLINE_EXCEEDED', 'QUEUE_FULL']);
    expect(bookie.waiting).toEqual([]);
  });
});
