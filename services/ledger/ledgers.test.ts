import { afterEach, describe, expect, test } from 'vitest';
import { type ErrorCode, hasCode, MagnetarError } from '../lib/errors.ts';
import { type EntryId, type LedgerId, NO_ENTRY } from '../lib/ids.ts';
import { keys } from '../metadata/keys.ts';
import type { LogFields } from '../runtime/logger.ts';
import { silentLogger } from '../runtime/logger.ts';
import type { LedgerWriter } from './ledgers.ts';
import { openLedgers } from './open-ledgers.ts';
import { Gate } from './testing/gate.ts';
import {
  append,
  type ClusterOptions,
  createLedger,
  MemoryCluster,
  readTexts,
  THREE,
} from './testing/memory-cluster.ts';

const clusters: MemoryCluster[] = [];

function newCluster(options?: ClusterOptions): MemoryCluster {
  const cluster = new MemoryCluster(options);
  clusters.push(cluster);
  return cluster;
}

afterEach(async () => {
  for (const cluster of clusters.splice(0)) await cluster.close();
});

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}

function code(expected: ErrorCode): { code: ErrorCode } {
  return { code: expected };
}

/** A bookie that cannot be reached. */
function unreachable(): never {
  throw new MagnetarError('UNAVAILABLE', 'cut off');
}

async function appendAll(writer: LedgerWriter, texts: readonly string[]): Promise<void> {
  await Promise.all(texts.map(async (text) => await append(writer, text)));
}

/** Resolves when every bookie has stored all entries but the first. */
async function ledgersIdle(bookies: MemoryCluster['bookies'], writer: LedgerWriter, count: number): Promise<void> {
  while (bookies.some((bookie) => bookie.entries(writer.ledgerId).size < count)) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const WORDS = Array.from({ length: 40 }, (_, i) => `entry ${i}`);

describe('writing and reading', () => {
  test('what was confirmed is read back, before and after the close', async () => {
    const { ledgers } = newCluster();
    const writer = await createLedger(ledgers);
    await appendAll(writer, WORDS);
    expect(writer.lastConfirmed).toBe(39);
    expect([writer.pendingEntries, writer.pendingBytes]).toEqual([0, 0]);
    expect(await readTexts(ledgers, writer.ledgerId, writer.lastConfirmed)).toEqual(WORDS);
    const end = await writer.close();
    expect(end).toMatchObject({ ledgerId: writer.ledgerId, lastEntryId: 39, length: WORDS.join('').length });
    expect(await writer.close()).toEqual(end);
    expect(await ledgers.recover(writer.ledgerId)).toEqual(end);
    expect(await readTexts(ledgers, writer.ledgerId, end.lastEntryId)).toEqual(WORDS);
  });

  test('striping over five bookies gives the same', async () => {
    const { ledgers, bookies } = newCluster({
      bookies: 5,
      quorum: { ensembleSize: 5, writeQuorum: 3, ackQuorum: 2 },
    });
    const writer = await createLedger(ledgers);
    await appendAll(writer, WORDS);
    expect(bookies.map((bookie) => bookie.entries(writer.ledgerId).size)).toEqual([24, 24, 24, 24, 24]);
    expect(await readTexts(ledgers, writer.ledgerId, writer.lastConfirmed)).toEqual(WORDS);
  });

  test('LP-4: confirmed strictly in order, whatever order bookies answer in', async () => {
    const { ledgers, bookies } = newCluster();
    const writer = await createLedger(ledgers);
    const gate = new Gate();
    for (const bookie of bookies) {
      bookie.before = async (call) => {
        if (call.type === 'append' && call.entry.entryId === 0) await gate.passed;
      };
    }
    const told: number[] = [];
    const all = WORDS.map(async (text) => told.push(await append(writer, text)));
    await ledgersIdle(bookies, writer, 39);
    expect(told).toEqual([]);
    expect(writer.pendingEntries).toBe(40);
    gate.open();
    await Promise.all(all);
    expect(told).toEqual(Array.from({ length: 40 }, (_, i) => i));
  });

  test('a read gives at least one entry, and no more than was asked for', async () => {
    const { ledgers } = newCluster();
    const writer = await createLedger(ledgers);
    await appendAll(writer, ['aaaa', 'bbbb', 'cccc', 'dddd']);
    const reader = await ledgers.reader(writer.ledgerId, () => 2 as EntryId);
    const read = async (first: number, maxEntries: number, maxBytes: number): Promise<string> =>
      (await reader.read(first as EntryId, { maxEntries, maxBytes }))
        .map(({ payload }) => payload.toString()[0])
        .join('');
    expect(await read(0, 10, 1_000)).toBe('abc'); // LP-8: not beyond what was said to be confirmed
    expect(await read(0, 2, 1_000)).toBe('ab');
    expect(await read(1, 10, 8)).toBe('bc');
    expect(await read(1, 10, 1)).toBe('b');
    await expect(read(3, 1, 1)).rejects.toMatchObject(code('NO_SUCH_ENTRY'));
    await expect(read(-1, 1, 1)).rejects.toMatchObject(code('INVALID_ARGUMENT'));
  });

  test('a callback may append, and may close', async () => {
    const { ledgers } = newCluster();
    const writer = await createLedger(ledgers);
    const closed = await new Promise<unknown>((resolve) => {
      writer.append([Buffer.from('a')], () => {
        writer.append([Buffer.from('bc')], () => resolve(writer.close()));
      });
    });
    expect(closed).toMatchObject({ lastEntryId: 1, length: 3 });
  });

  test('LP-20: a close fails what is pending, in order, and what comes later, never before append returns', async () => {
    const { ledgers, bookies } = newCluster();
    const writer = await createLedger(ledgers);
    await append(writer, 'confirmed');
    const gate = new Gate();
    for (const bookie of bookies) bookie.before = async () => await gate.passed;
    const failed: string[] = [];
    const outcome = (name: string) => (error?: MagnetarError) => void failed.push(`${name} ${error?.code}`);
    writer.append([Buffer.from('x')], outcome('first'));
    writer.append([Buffer.from('y')], outcome('second'));
    const closing = writer.close();
    expect(failed).toEqual(['first LEDGER_CLOSED', 'second LEDGER_CLOSED']);
    const late = new Promise<void>((resolve) => {
      writer.append([Buffer.from('z')], (error) => {
        outcome('late')(error);
        resolve();
      });
    });
    expect(failed).toHaveLength(2);
    expect(await closing).toMatchObject({ lastEntryId: 0, length: 9 });
    await late;
    expect(failed[2]).toBe('late LEDGER_CLOSED');
    gate.open();
  });
});

describe('bookies that fail', () => {
  test('entries complete with two of three; the third gets later entries when it is back, and a hole is reported', async () => {
    const warnings: LogFields[] = [];
    const logger = { ...silentLogger, warn: (_: string, fields?: LogFields) => void warnings.push(fields ?? {}) };
    const cluster = newCluster({ logger });
    const { ledgers } = cluster;
    const writer = await createLedger(ledgers);
    const b2 = cluster.bookie('b2');
    await append(writer, 'a');
    b2.before = unreachable;
    await append(writer, 'b');
    await append(writer, 'c');
    b2.before = undefined;
    await append(writer, 'd');
    await writer.close();
    expect([...b2.entries(writer.ledgerId).keys()]).toEqual([0, 3]);
    expect(warnings).toMatchObject([{ holes: [{ bookie: 'b2', first: 1, last: 2 }] }]);
    expect(await readTexts(ledgers, writer.ledgerId, 3 as EntryId)).toEqual(['a', 'b', 'c', 'd']);
  });

  test('without an ack quorum the writer fails, everything pending in order; it closes at what was confirmed', async () => {
    const cluster = newCluster();
    const writer = await createLedger(cluster.ledgers);
    await append(writer, 'a');
    for (const id of ['b0', 'b1']) cluster.bookie(id).before = unreachable;
    const told: string[] = [];
    const failures = ['b', 'c', 'd'].map(async (text, i) => {
      await expect(append(writer, text)).rejects.toMatchObject(code('NOT_ENOUGH_BOOKIES'));
      told.push(`${text}${i + 1}`);
    });
    await Promise.all(failures);
    expect(told).toEqual(['b1', 'c2', 'd3']);
    expect(writer.failure?.message).toMatch(/cannot reach 2 bookies: cut off/);
    expect(await writer.close()).toMatchObject({ lastEntryId: 0, length: 1 });
    expect(await readTexts(cluster.ledgers, writer.ledgerId, 0 as EntryId)).toEqual(['a']);
  });

  test('LP-3: a damaged copy is passed over, and is told from a missing one', async () => {
    const cluster = newCluster();
    const writer = await createLedger(cluster.ledgers);
    await appendAll(writer, ['a', 'b', 'c']);
    const damage = (id: string, entry: number): void => {
      const entries = cluster.bookie(id).entries(writer.ledgerId);
      const stored = entries.get(entry as EntryId);
      if (stored !== undefined) entries.set(entry as EntryId, { ...stored, payload: Buffer.from('!') });
    };
    for (const id of ['b0', 'b1', 'b2']) damage(id, 0);
    for (const id of ['b0', 'b1']) damage(id, 1);
    cluster
      .bookie('b2')
      .entries(writer.ledgerId)
      .delete(2 as EntryId);
    const reader = await cluster.ledgers.reader(writer.ledgerId, () => 2 as EntryId);
    const read = async (first: number): Promise<string[]> =>
      (await reader.read(first as EntryId, { maxEntries: 9, maxBytes: 99 })).map(({ payload }) => payload.toString());
    await expect(read(0)).rejects.toMatchObject(code('DATA_LOSS'));
    expect(await read(1)).toEqual(['b']);
    expect(await read(2)).toEqual(['c']);
    // The only good copy of 1 out of reach: nobody can say that it is lost.
    cluster.bookie('b2').before = unreachable;
    await expect(read(1)).rejects.toMatchObject(code('UNAVAILABLE'));
  });

  test('LP-3: an entry under another one’s id is damaged', async () => {
    const { ledgers, bookies } = newCluster();
    const writer = await createLedger(ledgers);
    await appendAll(writer, ['a', 'b']);
    for (const bookie of bookies) {
      const entries = bookie.entries(writer.ledgerId);
      const [zero, one] = [entries.get(0 as EntryId), entries.get(1 as EntryId)];
      if (zero !== undefined && one !== undefined) entries.set(0 as EntryId, { ...one, entryId: 0 as EntryId });
    }
    await expect(readTexts(ledgers, writer.ledgerId, 1 as EntryId)).rejects.toMatchObject(code('DATA_LOSS'));
  });

  test('LP-8, LP-31: a confirmed entry is lost when every copy was asked for, whatever they say; not while one is out of reach', async () => {
    const cluster = newCluster();
    const writer = await createLedger(cluster.ledgers);
    await append(writer, 'a');
    const read = async (): Promise<string[]> => readTexts(cluster.ledgers, writer.ledgerId, 0 as EntryId);
    for (const bookie of cluster.bookies) bookie.entries(writer.ledgerId).delete(0 as EntryId);
    cluster.bookie('b0').limbo = true;
    await expect(read()).rejects.toMatchObject(code('DATA_LOSS'));
    cluster.bookie('b1').before = unreachable;
    await expect(read()).rejects.toMatchObject(code('UNAVAILABLE'));
    cluster.bookie('b1').before = undefined;
    cluster.bookie('b0').limbo = false;
    await expect(read()).rejects.toMatchObject(code('DATA_LOSS'));
  });

  test('LP-31: a loss names exactly the entries that are lost, and reading goes on behind them', async () => {
    const cluster = newCluster();
    const writer = await createLedger(cluster.ledgers);
    const texts = Array.from({ length: 400 }, (_, i) => `entry ${i}`);
    await appendAll(writer, texts);
    const gone = new Set([3, ...range(50, 349), 399]);
    for (const [slot, bookie] of cluster.bookies.entries()) {
      const entries = bookie.entries(writer.ledgerId);
      for (const [id, stored] of entries) {
        if (gone.has(id)) entries.set(id, { ...stored, payload: Buffer.from('!') });
        else if (id % 3 === slot) entries.delete(id); // one of three copies is missing anyhow
      }
    }
    const reader = await cluster.ledgers.reader(writer.ledgerId, () => 399 as EntryId);
    const losses: string[] = [];
    const seen: number[] = [];
    for (let next = 0; next <= 399; ) {
      try {
        const entries = await reader.read(next as EntryId, { maxEntries: 100, maxBytes: 1_000_000 });
        for (const { entryId, payload } of entries) expect(payload.toString()).toBe(texts[entryId]);
        seen.push(...entries.map(({ entryId }) => entryId));
        next = (entries.at(-1)?.entryId ?? next) + 1;
      } catch (error) {
        if (!hasCode(error, 'DATA_LOSS')) throw error;
        const last = await reader.lostUpTo(next as EntryId);
        losses.push(`${next}-${last}`);
        next = last + 1;
      }
    }
    expect(losses).toEqual(['3-3', '50-348', '399-399']);
    expect(seen).toEqual(texts.map((_, i) => i).filter((i) => !gone.has(i)));
    await expect(reader.read(60 as EntryId, { maxEntries: 1, maxBytes: 1 })).rejects.toThrow(
      /entry 60 of ledger \d+ is lost: 0 copies are absent, 3 damaged, 0 out of reach: bookie b\d has a damaged copy/,
    );
  });

  test('a reader stays with one bookie, leaves it when it fails, and does not ask who cannot be reached', async () => {
    const cluster = newCluster();
    const writer = await createLedger(cluster.ledgers);
    await appendAll(writer, WORDS);
    const asked: string[] = [];
    for (const bookie of cluster.bookies) {
      bookie.before = (call) => {
        if (call.type === 'read') asked.push(bookie.id);
      };
    }
    const reader = await cluster.ledgers.reader(writer.ledgerId, () => writer.lastConfirmed);
    const read = async (first: number): Promise<unknown> =>
      await reader.read(first as EntryId, { maxEntries: 2, maxBytes: 1_000 });
    for (let first = 0; first < 8; first += 2) await read(first);
    expect(asked).toEqual(['b0', 'b0', 'b0', 'b0']);
    cluster.bookie('b0').up = false;
    cluster.bookie('b1').before = unreachable;
    asked.length = 0;
    for (let first = 8; first < 16; first += 2) await read(first);
    expect(asked).toEqual(['b2', 'b2', 'b2', 'b2']);
  });
});

describe('creating', () => {
  test('ids rise over restarts and between processes; ledger and list appear together', async () => {
    const cluster = newCluster();
    const clients = [cluster.client(), cluster.client()];
    const ids: number[] = [];
    for (let round = 0; round < 12; round++) {
      const { ledgers, store } = (round === 6 ? cluster.client() : clients[round % 2]) ?? cluster.client();
      const writer = await ledgers.create((id) => ({
        compares: [],
        writes: [{ put: `list/${round}`, value: Buffer.from(`${id}`) }],
      }));
      ids.push(writer.ledgerId);
      const { items } = await store.get([`list/${round}`, keys.ledger(writer.ledgerId)]);
      expect(items.map((item) => item?.createRevision)).toEqual([items[0]?.createRevision, items[0]?.createRevision]);
      expect(items[0]?.value.toString()).toBe(`${writer.ledgerId}`);
    }
    expect(ids.toSorted((a, b) => a - b)).toEqual(ids);
    expect(new Set(ids).size).toBe(12);
  });

  test('one transaction a ledger, mostly', async () => {
    const { store, ledgers } = newCluster().client();
    await createLedger(ledgers);
    const before = (await store.get(['x'])).revision;
    const writers = await Promise.all(Array.from({ length: 40 }, async () => await createLedger(ledgers)));
    expect(new Set(writers.map(({ ledgerId }) => ledgerId)).size).toBe(40);
    expect((await store.get(['x'])).revision).toBe(before + 40);
  });

  test('a compare that does not hold is a conflict, and leaves nothing', async () => {
    const { store, ledgers } = newCluster().client();
    let tried: LedgerId | undefined;
    const creating = ledgers.create((id) => {
      tried = id;
      return { compares: [{ key: 'topic', modRevision: 7 }], writes: [{ put: 'topic', value: Buffer.alloc(0) }] };
    });
    await expect(creating).rejects.toMatchObject(code('METADATA_CONFLICT'));
    const { items } = await store.get(['topic', keys.ledger(tried ?? (0 as LedgerId))]);
    expect(items).toEqual([undefined, undefined]);
  });

  test('needs an ack quorum of available bookies, and takes others only to fill up', async () => {
    const cluster = newCluster({ bookies: 4 });
    cluster.bookie('b3').up = false;
    for (let i = 0; i < 4; i++) await append(await createLedger(cluster.ledgers), 'x');
    expect(cluster.bookie('b3').entries(0 as LedgerId).size).toBe(0);
    cluster.bookie('b0').up = false;
    await append(await createLedger(cluster.ledgers), 'x');
    expect(cluster.ledgers.unwritable).toBe(undefined);
    cluster.bookie('b1').up = false;
    await expect(createLedger(cluster.ledgers)).rejects.toThrow(/1 of 4 bookies are available; ensemble 3 .* needs 2/);
    expect(cluster.ledgers.unwritable).toMatchObject(code('NOT_ENOUGH_BOOKIES'));
    cluster.bookie('b1').up = true;
    expect(cluster.ledgers.unwritable).toBe(undefined);
    await cluster.ledgers.close();
    expect(cluster.ledgers.unwritable).toMatchObject(code('ALREADY_CLOSED'));
  });

  test('deleting leaves a tombstone', async () => {
    const { store, ledgers } = newCluster().client();
    const { ledgerId } = await createLedger(ledgers);
    await store.transact([], ledgers.deletion([ledgerId]));
    await expect(ledgers.recover(ledgerId)).rejects.toMatchObject(code('NO_SUCH_LEDGER'));
    await expect(ledgers.reader(ledgerId, () => NO_ENTRY)).rejects.toMatchObject(code('NO_SUCH_LEDGER'));
    expect((await store.get([keys.deletedLedger(ledgerId)])).items[0]).toBeDefined();
  });

  test('a quorum that the bookies cannot serve is refused at once', () => {
    const { environment, bookies } = newCluster();
    const { store } = newCluster().client();
    const open = (ensembleSize: number) => () =>
      openLedgers({ environment, store, bookies, quorum: { ...THREE, ensembleSize } });
    expect(open(4)).toThrow(/needs as many bookies; there are 3/);
    expect(open(2)).toThrow(/it must hold/);
  });
});

test('closing fails writers, pending entries in order, and refuses what comes later', async () => {
  const { ledgers } = newCluster().client();
  const writer = await createLedger(ledgers);
  const pending = [append(writer, 'a'), append(writer, 'b')];
  const closed = ledgers.close();
  for (const one of pending) await expect(one).rejects.toMatchObject(code('ALREADY_CLOSED'));
  await closed;
  await ledgers.close();
  await expect(append(writer, 'c')).rejects.toMatchObject(code('ALREADY_CLOSED'));
  await expect(createLedger(ledgers)).rejects.toMatchObject(code('ALREADY_CLOSED'));
  await expect(ledgers.recover(writer.ledgerId)).rejects.toMatchObject(code('ALREADY_CLOSED'));
});
