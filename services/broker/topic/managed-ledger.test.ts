import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { memoryBudget } from '../../runtime/memory.ts';
import { MagnetarError } from '../../lib/errors.ts';
import { type EntryId, type LedgerId, type MessageIndex, millis } from '../../lib/ids.ts';
import { seededRandom } from '../../runtime/testing/seeded-random.ts';
import { silentLogger } from '../../runtime/logger.ts';
import { Gate } from '../../ledger/testing/gate.ts';
import type { BookieCall } from '../../ledger/testing/memory-bookie.ts';
import { MemoryCluster } from '../../ledger/testing/memory-cluster.ts';
import { defaultLedgerOptions, type LedgerOptions } from '../options.ts';
import { acquireOwnership } from '../ownership/ownership.ts';
import { parseTopicName } from '../protocol/topic-name.ts';
import { EntryCache } from './entry-cache.ts';
import { endOf, type LogEntry, type LogItem } from './log-entry.ts';
import { LogIndex } from './log-index.ts';
import { LogReader, newCursor } from './log-reader.ts';
import { recoverLog, SKIPPED_INDEXES } from './log-recovery.ts';
import { ManagedLedger } from './managed-ledger.ts';
import { openTopicRecord } from './topic-record.ts';

const QUICK: LedgerOptions = { ...defaultLedgerOptions, retryFirstMs: 2, retryHighestMs: 5, replaceMs: 2_000 };
const TOPIC = parseTopicName('orders');

let cluster: MemoryCluster;
/** What was logged as an error. */
let lines: string[];

beforeEach(() => {
  lines = [];
  cluster = new MemoryCluster({ bookies: 1, quorum: { ensembleSize: 1, writeQuorum: 1, ackQuorum: 1 } });
});

afterEach(async () => {
  await cluster.close();
});

/** The log of a topic under a new owner. */
async function openLog(limits: LedgerOptions = QUICK, heardOf = 0) {
  const { clock, random } = cluster.environment;
  const logger = { ...silentLogger, error: (line: string) => void lines.push(line) };
  const { ledgers, store } = cluster.client();
  const ownership = await acquireOwnership({ store, clock, brokerId: 'b', leaseTtl: millis(10_000) });
  const namespace = { key: 'namespaces/public/default', modRevision: 0 };
  const options = { store, ledgers, ownership, clock, name: TOPIC, maxListedLedgers: 1_000, namespace };
  const record = await openTopicRecord(options);
  const found = await recoverLog({
    ledgers,
    record,
    logger,
    topic: TOPIC.full,
    heardOf: async () => await Promise.resolve(heardOf as MessageIndex),
  });
  await record.change(found.amend, ledgers.deletion(found.dropped));
  const index = new LogIndex(found.ledgers, found.floor);
  const cache = new EntryCache(0, memoryBudget().share('cache'), clock).topic();
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

async function readAll({ reader }: Opened): Promise<LogItem[]> {
  const all: LogItem[] = [];
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

function summary(items: readonly LogItem[]): [number, string][] {
  return items.map((item) => [item.index, item.lost === true ? `lost ${item.count}` : item.block.toString()]);
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
    const refused = new Gate();
    failAppends(() => {
      refused.open();
      return true;
    });
    const lost = Promise.allSettled([append(old, 'lost')]);
    await refused.passed;
    const next = await openLog();
    const [bookie] = cluster.bookies;
    if (bookie !== undefined) bookie.before = undefined;
    expect(await lost).toMatchObject([{ status: 'rejected', reason: { retryable: true } }]);
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

/** The only copy of these entries no longer matches its digest. */
function damage(ledger: LedgerId, entryIds: readonly number[]): void {
  const entries = cluster.bookies[0]?.entries(ledger);
  for (const id of entryIds as readonly EntryId[]) {
    const stored = entries?.get(id);
    if (stored !== undefined) entries?.set(id, { ...stored, payload: Buffer.alloc(stored.payload.length) });
  }
}

/** One ledger with `count` entries of two messages, whose owner then has died. */
async function oneLedger(count: number): Promise<LedgerId> {
  const owner = await openLog();
  let ledger = 0 as LedgerId;
  for (let n = 0; n < count; n++) ledger = (await append(owner, `${n}`, 2)).ledgerId;
  await cluster.client().ledgers.recover(ledger); // it has no time to close it
  return ledger;
}

describe('entries that are lost', () => {
  test('stand in the log as the indexes between their neighbours; everything else is there', async () => {
    const ledger = await oneLedger(9);
    damage(ledger, [0, 1, 4, 6, 7]);
    const next = await openLog();
    expect(await readAll(next)).toMatchObject([
      { lost: true, index: 0, count: 4, ledgerId: ledger, entryId: 0, lastEntryId: 1 },
      { index: 4 },
      { index: 6 },
      { lost: true, index: 8, count: 2, entryId: 4, lastEntryId: 4 },
      { index: 10 },
      { lost: true, index: 12, count: 4, entryId: 6, lastEntryId: 7 },
      { index: 16 },
    ]);
    expect((await append(next, 'new')).index).toBe(18);
    expect(lines.filter((line) => line.includes('has lost'))).toEqual([]); // its end is known
  });

  test('at the end: the next index is above all that anybody has heard of, and the lost ones are not given again', async () => {
    const ledger = await oneLedger(5);
    damage(ledger, [3, 4]);
    const next = await openLog(QUICK, 77);
    const end = 77 + SKIPPED_INDEXES;
    expect(lines).toEqual([
      `topic ${TOPIC.full} has lost messages: entries 3 to 4 of ledger ${ledger}; indexes 6 to ${end - 1} are not given again`,
    ]);
    const { index } = await append(next, 'new');
    expect(index).toBe(end);
    const all = await readAll(next);
    expect(summary(all)).toEqual([
      [0, '0'],
      [2, '1'],
      [4, '2'],
      [6, `lost ${end - 6}`],
      [end, 'new'],
    ]);
    // The numbers are in the record: who opens it later sees the same, and skips nothing more.
    await next.log.close();
    lines = [];
    const later = await openLog();
    expect([summary(await readAll(later)), lines]).toEqual([summary(all), []]);
  });

  test('that nobody knows of, behind the last known one: the same, and that is said', async () => {
    const ledger = (await append(await openLog(), 'a')).ledgerId;
    for (const bookie of cluster.bookies) bookie.limbo = true;
    await cluster.client().ledgers.recover(ledger);
    for (const bookie of cluster.bookies) bookie.limbo = false;
    const next = await openLog();
    expect(lines).toEqual([
      expect.stringMatching(/has lost messages: what came behind entry 0 of ledger \d+; indexes 1 to/),
    ]);
    expect((await append(next, 'b')).index).toBe(2 + SKIPPED_INDEXES - 1);
    expect((await readAll(next))[1]).toMatchObject({ lost: true, index: 1, entryId: 1, lastEntryId: undefined });
  });

  test('all of a ledger: the topic goes on', async () => {
    const ledger = await oneLedger(40);
    damage(
      ledger,
      Array.from({ length: 40 }, (_, n) => n),
    );
    const next = await openLog();
    expect(await readAll(next)).toMatchObject([{ lost: true, index: 0, entryId: 0, lastEntryId: 39 }]);
    expect((await append(next, 'new')).index).toBe(40 + SKIPPED_INDEXES);
  });

  test('any subset: reads from anywhere give what there is, and times are found', async () => {
    const random = seededRandom(7);
    const ENTRIES = 300;
    const ledger = await oneLedger(ENTRIES);
    const lost = new Set<number>();
    while (lost.size < 150) lost.add(Math.floor(random.next() * (ENTRIES - 1)));
    damage(ledger, [...lost]);
    const next = await openLog();
    const all = await readAll(next);
    const held = all.flatMap((item) => (item.lost === true ? [] : [item.entryId]));
    expect(held).toEqual(Array.from({ length: ENTRIES }, (_, n) => n).filter((n) => !lost.has(n)));
    expect(all.every((item, at) => at === 0 || endOf(all[at - 1] as LogItem) === item.index)).toBe(true);
    for (let index = 0; index < 2 * ENTRIES; index += 7) {
      const [item] = await next.reader.read(index as MessageIndex, { maxEntries: 1, maxBytes: 1 }, newCursor());
      expect(item !== undefined && item.index <= index && endOf(item) > index).toBe(true);
      expect(item?.lost === true).toBe(lost.has(Math.floor(index / 2)));
    }
    for (const item of all) {
      if (item.lost === true) continue;
      const found = await next.reader.indexAtTime(item.appendTime);
      // Entries of the same millisecond, and lost ones before them, may come first.
      expect(found).toBeLessThanOrEqual(item.index);
    }
  });

  test('while a copy is out of reach nothing is called lost', async () => {
    const ledger = await oneLedger(3);
    damage(ledger, [1]);
    const next = await openLog();
    for (const bookie of cluster.bookies) {
      bookie.before = (call) => {
        if (call.type === 'read' && call.request.firstEntryId === 1) throw new MagnetarError('UNAVAILABLE', 'cut off');
      };
    }
    await expect(readAll(next)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });
});
