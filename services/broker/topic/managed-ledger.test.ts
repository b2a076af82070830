import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { memoryBudget } from '../../runtime/memory.ts';
import { MagnetarError } from '../../lib/errors.ts';
import { type LedgerId, type MessageIndex, millis } from '../../lib/ids.ts';
import type { BookieCall } from '../../ledger/testing/memory-bookie.ts';
import { MemoryCluster } from '../../ledger/testing/memory-cluster.ts';
import { defaultLedgerOptions, type LedgerOptions } from '../options.ts';
import { acquireOwnership } from '../ownership/ownership.ts';
import { parseTopicName } from '../protocol/topic-name.ts';
import { EntryCache } from './entry-cache.ts';
import type { LogEntry } from './log-entry.ts';
import { LogIndex } from './log-index.ts';
import { LogReader, newCursor } from './log-reader.ts';
import { recoverLog } from './log-recovery.ts';
import { ManagedLedger } from './managed-ledger.ts';
import { openTopicRecord } from './topic-record.ts';

const QUICK: LedgerOptions = { ...defaultLedgerOptions, retryFirstMs: 2, retryHighestMs: 5, replaceMs: 2_000 };
const TOPIC = parseTopicName('orders');

let cluster: MemoryCluster;

beforeEach(() => {
  cluster = new MemoryCluster({ bookies: 1, quorum: { ensembleSize: 1, writeQuorum: 1, ackQuorum: 1 } });
});

afterEach(async () => {
  await cluster.close();
});

/** The log of a topic under a new owner. */
async function openLog(limits: LedgerOptions = QUICK) {
  const { clock, random, logger } = cluster.environment;
  const { ledgers, store } = cluster.client();
  const ownership = await acquireOwnership({ store, clock, brokerId: 'b', leaseTtl: millis(10_000) });
  const namespace = { key: 'namespaces/public/default', modRevision: 0 };
  const options = { store, ledgers, ownership, clock, name: TOPIC, maxListedLedgers: 1_000, namespace };
  const record = await openTopicRecord(options);
  const found = await recoverLog(ledgers, record);
  await record.change(found.amend, ledgers.deletion(found.dropped));
  const index = new LogIndex(found.ledgers, found.floor);
  const cache = new EntryCache(0, memoryBudget().share('cache')).topic();
  const failures: MagnetarError[] = [];
  const log = new ManagedLedger({
    clock,
    random,
    logger,
    topic: TOPIC.full,
    epoch: ownership.epoch,
    record,
    index,
    cache,
    limits,
    lastAppendTime: found.lastAppendTime,
    onConfirmed: () => undefined,
    onFailed: (error) => failures.push(error),
  });
  const reader = new LogReader({ ledgers, index, cache, topic: TOPIC.full });
  return { log, reader, index, record, failures, found };
}

type Opened = Awaited<ReturnType<typeof openLog>>;

async function append({ log }: Opened, text: string, count = 1): Promise<LogEntry> {
  return new Promise((resolve, reject) => {
    log.append({ block: Buffer.from(text), count, crc32c: 7 }, (error, entry) => {
      if (entry === undefined) reject(error ?? new Error('nothing'));
      else resolve(entry);
    });
  });
}

async function readAll({ reader }: Opened): Promise<LogEntry[]> {
  const all: LogEntry[] = [];
  const cursor = newCursor();
  for (let next = reader.oldestIndex; next < reader.endIndex; ) {
    const entries = await reader.read(next, { maxEntries: 3, maxBytes: 1_000_000 }, cursor);
    for (const entry of entries) {
      all.push(entry);
      next = (entry.index + entry.count) as MessageIndex;
    }
  }
  return all;
}

function summary(entries: readonly LogEntry[]): [number, string][] {
  return entries.map((entry) => [entry.index, entry.block.toString()]);
}

function failAppends(how: (call: BookieCall) => boolean): void {
  const [bookie] = cluster.bookies;
  if (bookie === undefined) return;
  bookie.before = (call) => {
    if (call.type === 'append' && how(call)) throw new MagnetarError('UNAVAILABLE', 'the bookie is away');
  };
}

describe('the managed ledger', () => {
  test('makes a ledger at the first write, and none for a topic that is only opened', async () => {
    const opened = await openLog();
    expect(opened.record.record.ledgers).toEqual([]);
    const entry = await append(opened, 'a', 3);
    expect(opened.record.record.ledgers).toMatchObject([{ ledgerId: entry.ledgerId, firstIndex: 0, closed: false }]);
    expect((await append(opened, 'b')).index).toBe(3);
  });

  test('rolls by entries: the numbers of the old ledger are final in the transaction that links the next', async () => {
    const opened = await openLog({ ...QUICK, rollEntries: 2 });
    const entries = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((text) => append(opened, text, 2)));
    expect(entries.map((entry) => entry.index)).toEqual([0, 2, 4, 6, 8]);
    const ids = [...new Set(entries.map((entry) => entry.ledgerId))];
    expect(opened.record.record.ledgers).toMatchObject([
      { ledgerId: ids[0], firstIndex: 0, closed: true, messages: 4, entries: 2 },
      { ledgerId: ids[1], firstIndex: 4, closed: true, messages: 4, entries: 2 },
      { ledgerId: ids[2], firstIndex: 8, closed: false },
    ]);
    expect(summary(await readAll(opened))).toEqual([
      [0, 'a'],
      [2, 'b'],
      [4, 'c'],
      [6, 'd'],
      [8, 'e'],
    ]);
  });

  test('rolls by age, at the next write', async () => {
    const opened = await openLog({ ...QUICK, rollAgeMs: 0 });
    const [one, two] = [await append(opened, 'a'), await append(opened, 'b')];
    expect(two.ledgerId).toBeGreaterThan(one.ledgerId);
  });

  test('goes on in another ledger when one fails: unconfirmed entries keep their order and their indexes', async () => {
    const opened = await openLog();
    const first = await append(opened, 'a');
    let failing = true;
    failAppends((call) => failing && call.type === 'append' && call.entry.ledgerId === first.ledgerId);
    const later = await Promise.all(['b', 'c', 'd'].map((text) => append(opened, text)));
    failing = false;
    expect(later.map((entry) => entry.index)).toEqual([1, 2, 3]);
    expect(later.every((entry) => entry.ledgerId > first.ledgerId)).toBe(true);
    expect(opened.record.record.ledgers[0]).toMatchObject({ closed: true, entries: 1, messages: 1 });
    const all = [
      [0, 'a'],
      [1, 'b'],
      [2, 'c'],
      [3, 'd'],
    ];
    expect(summary(await readAll(opened))).toEqual(all);
    expect(summary(await readAll(await openLog()))).toEqual(all);
    expect(opened.failures).toEqual([]);
  });

  test('gives up after its time: everything pending fails with an error that may be retried', async () => {
    const opened = await openLog({ ...QUICK, replaceMs: 30 });
    await append(opened, 'a');
    failAppends(() => true);
    const [bookie] = cluster.bookies;
    const pending = ['b', 'c'].map((text) => append(opened, text));
    if (bookie !== undefined) bookie.up = false;
    const results = await Promise.allSettled(pending);
    for (const result of results) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'NOT_ENOUGH_BOOKIES', retryable: true } });
    }
    expect(opened.failures).toHaveLength(1);
    expect(() => opened.log.append({ block: Buffer.from('d'), count: 1, crc32c: 0 }, () => undefined)).toThrow(
      /bookie/,
    );
    if (bookie !== undefined) [bookie.up, bookie.before] = [true, undefined];
    const next = await openLog();
    expect(summary(await readAll(next))[0]).toEqual([0, 'a']);
    expect((await append(next, 'e')).index).toBe(next.found.ledgers.reduce((sum, ledger) => sum + ledger.messages, 0));
  });

  test('backs off and gives up, too, when ledgers can be made and every one of them fails', async () => {
    const opened = await openLog({ ...QUICK, replaceMs: 60, retryFirstMs: 5, retryHighestMs: 10 });
    failAppends(() => true);
    await expect(append(opened, 'a')).rejects.toMatchObject({ code: 'NOT_ENOUGH_BOOKIES' });
    expect(opened.record.record.ledgers.length).toBeLessThan(20);
    expect(opened.failures).toHaveLength(1);
  });

  test('a new owner fences the old one: what the old one appends from then on fails, and is nowhere', async () => {
    const old = await openLog();
    await append(old, 'a', 2);
    const next = await openLog();
    expect((await append(next, 'b')).index).toBe(2);
    await expect(append(old, 'late')).rejects.toMatchObject({ code: 'NOT_OWNER', retryable: true });
    expect(old.failures).toMatchObject([{ code: 'NOT_OWNER' }]);
    expect(summary(await readAll(next))).toEqual([
      [0, 'a'],
      [2, 'b'],
    ]);
  });

  test('a ledger that was made and never written to leaves the list when it is taken over', async () => {
    const old = await openLog();
    failAppends(() => true);
    const lost = append(old, 'lost');
    await new Promise((resolve) => setTimeout(resolve, 20));
    const next = await openLog();
    const [bookie] = cluster.bookies;
    if (bookie !== undefined) bookie.before = undefined;
    await expect(lost).rejects.toMatchObject({ retryable: true });
    expect(next.record.record.ledgers.filter((ledger) => !ledger.closed)).toEqual([]);
    expect((await append(next, 'a')).index).toBe(0);
    expect(summary(await readAll(await openLog()))).toEqual([[0, 'a']]);
  });

  test('append times never fall, also over a clock that is set back and over owners', async () => {
    const opened = await openLog();
    const first = await append(opened, 'a');
    const { clock } = cluster.environment;
    const ahead = { ...clock, now: () => millis(clock.now() + 1_000_000) };
    Object.assign(cluster.environment, { clock: ahead });
    const second = await append(await openLog(), 'b');
    Object.assign(cluster.environment, { clock });
    const third = await append(await openLog(), 'c');
    expect(second.appendTime).toBeGreaterThan(first.appendTime + 900_000);
    expect(third.appendTime).toBe(second.appendTime);
  });

  test('close commits the final numbers, so that nothing is left to recover', async () => {
    const opened = await openLog();
    await append(opened, 'a', 5);
    const waiting = append(opened, 'b');
    await opened.log.close();
    await waiting;
    expect(opened.record.record.ledgers).toMatchObject([{ closed: true, messages: 6, entries: 2 }]);
    expect(() => opened.log.append({ block: Buffer.from('c'), count: 1, crc32c: 0 }, () => undefined)).toThrow(
      /closed/,
    );
    const next = await openLog();
    expect(next.found.amended).toBe(false);
    expect((await append(next, 'c')).index).toBe(6);
  });

  test('bounds what waits', async () => {
    const opened = await openLog({ ...QUICK, maxPendingEntries: 2 });
    const [one, two] = [append(opened, 'a'), append(opened, 'b')];
    await expect(append(opened, 'c')).rejects.toMatchObject({ code: 'QUEUE_FULL', retryable: true });
    await Promise.all([one, two]);
    expect((await append(opened, 'd')).index).toBe(2);
  });
});

describe('reading the log', () => {
  test('finds every message by index, by place and by time, over ledgers of any size', async () => {
    const opened = await openLog({ ...QUICK, rollEntries: 150 });
    const entries: LogEntry[] = [];
    for (let n = 0; n < 500; n++) entries.push(await append(opened, `e${n}`.padEnd(n % 97, '.'), 1 + (n % 5)));
    // A second owner has no sparse index yet, and a log that fills it as it searches.
    for (const { reader } of [opened, await openLog()]) {
      for (const entry of entries.filter((_, n) => n % 7 === 3)) {
        const inside = (entry.index + entry.count - 1) as MessageIndex;
        const [found] = await reader.read(inside, { maxEntries: 1, maxBytes: 1 }, newCursor());
        expect([found?.index, found?.entryId]).toEqual([entry.index, entry.entryId]);
        const { ledgerId, entryId, count } = entry;
        expect(await reader.indexOf({ ledgerId, entryId, batchIndex: count - 1 })).toBe(inside);
        const at = await reader.indexAtTime(entry.appendTime);
        expect(at).toBe(entries.find((other) => other.appendTime >= entry.appendTime)?.index);
      }
      expect(await reader.indexAtTime(Date.now() + 1_000_000)).toBe(reader.endIndex);
      const { ledgerId, entryId, count } = entries[10] as LogEntry;
      await expect(reader.indexOf({ ledgerId, entryId, batchIndex: count })).rejects.toMatchObject({
        code: 'POSITION_NOT_FOUND',
      });
      await expect(reader.indexOf({ ledgerId: 999_999 as LedgerId, entryId, batchIndex: 0 })).rejects.toMatchObject({
        code: 'POSITION_NOT_FOUND',
      });
    }
  });
});
