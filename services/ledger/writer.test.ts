import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type ErrorCode, MagnetarError } from '../lib/errors.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { openLedgers } from './open-ledgers.ts';
import { Gate } from './testing/gate.ts';
import type { MemoryBookie } from './testing/memory-bookie.ts';
import { append, createLedger, MemoryCluster, THREE } from './testing/memory-cluster.ts';

let cluster: MemoryCluster;

beforeEach(() => {
  cluster = new MemoryCluster({ limits: { laggingBytes: 30 } });
});

afterEach(async () => await cluster.close());

function code(expected: ErrorCode): { code: ErrorCode } {
  return { code: expected };
}

/** A store whose transactions, from the next one on, meet with `fault` after they were carried out. */
function faulty(store: MetadataStore): { store: MetadataStore; fault: { after?: () => void } } {
  const fault: { after?: () => void } = {};
  const transact: MetadataStore['transact'] = async (compares, writes) => {
    const result = await store.transact(compares, writes);
    fault.after?.();
    return result;
  };
  const get: MetadataStore['get'] = async (keys) => await store.get(keys);
  const wrapped = Object.create(store, { transact: { value: transact }, get: { value: get } }) as MetadataStore;
  return { store: wrapped, fault };
}

/** Resolves when the bookie has so many entries of a ledger. */
async function stored(
  bookie: MemoryBookie,
  ledgerId: Parameters<MemoryBookie['entries']>[0],
  count: number,
): Promise<void> {
  while (bookie.entries(ledgerId).size < count) await new Promise((resolve) => setImmediate(resolve));
}

describe('a writer', () => {
  test('does not wait for a straggler, nor keeps more than a bound for it; later entries go to it again', async () => {
    const writer = await createLedger(cluster.ledgers);
    const slow = cluster.bookie('b2');
    const gate = new Gate();
    slow.before = async () => await gate.passed;
    for (let i = 0; i < 10; i++) await append(writer, 'ten bytes.');
    expect(writer.lastConfirmed).toBe(9);
    gate.open();
    await stored(slow, writer.ledgerId, 3);
    await append(writer, 'ten bytes.');
    await stored(slow, writer.ledgerId, 4);
    expect([...slow.entries(writer.ledgerId).keys()]).toEqual([0, 1, 2, 10]);
  });

  test('LP-20: a close whose answer was lost is found done by the next one', async () => {
    const { store, fault } = faulty(cluster.client().store);
    const { environment, bookies } = cluster;
    const ledgers = openLedgers({ environment, store, bookies, quorum: THREE });
    const writer = await createLedger(ledgers);
    await append(writer, 'a');
    fault.after = () => {
      throw new MagnetarError('UNAVAILABLE', 'the answer was lost');
    };
    await expect(writer.close()).rejects.toMatchObject(code('UNAVAILABLE'));
    delete fault.after;
    expect(await writer.close()).toMatchObject({ lastEntryId: 0, length: 1 });
  });

  test('LP-20: a close does not move the end that another client has set', async () => {
    const writer = await createLedger(cluster.ledgers);
    await append(writer, 'a');
    // Both bookies that hold it store one more entry, but the writer does not hear of it.
    for (const bookie of cluster.bookies) {
      bookie.after = async (call) => {
        if (call.type === 'append' && !call.entry.recovery) await new Promise<void>(() => {});
      };
    }
    const pending = append(writer, 'b');
    for (const bookie of cluster.bookies) {
      while (bookie.entries(writer.ledgerId).size < 2) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await cluster.client().ledgers.recover(writer.ledgerId)).toMatchObject({ lastEntryId: 1 });
    const closing = writer.close();
    await expect(pending).rejects.toMatchObject(code('LEDGER_CLOSED'));
    await expect(closing).rejects.toMatchObject(code('LEDGER_FENCED'));
  });

  test('an entry of many pieces is one entry, and an empty one is one, too', async () => {
    const writer = await createLedger(cluster.ledgers);
    const pieces = ['a', '', 'bc'].map((text) => Buffer.from(text));
    await new Promise<void>((resolve, reject) => {
      writer.append(pieces, () => {});
      writer.append([], (error) => (error === undefined ? resolve() : reject(error)));
    });
    const reader = await cluster.ledgers.reader(writer.ledgerId, () => writer.lastConfirmed);
    const entries = await reader.read(writer.lastConfirmed, { maxEntries: 1, maxBytes: 1 });
    expect(entries[0]?.payload.length).toBe(0);
    expect(await writer.close()).toMatchObject({ lastEntryId: 1, length: 3 });
  });
});
