import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Ledgers } from '../../ledger/ledgers.ts';
import { MemoryCluster } from '../../ledger/testing/memory-cluster.ts';
import { MagnetarError } from '../../lib/errors.ts';
import { type LedgerId, millis } from '../../lib/ids.ts';
import { keys } from '../../metadata/keys.ts';
import type { MetadataStore, Write } from '../../metadata/store.ts';
import { type TopicLedger, topicRecord } from '../../wire/records.ts';
import { acquireOwnership, type Ownership } from '../ownership/ownership.ts';
import { parseTopicName } from '../protocol/topic-name.ts';
import { deleteTopicRecord, finishDeletion, finishDeletions } from './topic-deletion.ts';
import { openTopicRecord, type TopicRecordHandle } from './topic-record.ts';

const NAME = parseTopicName('orders');
const KEY = keys.topic('public', 'default', 'orders');
const LEFT = keys.topicDeleting('public', 'default', 'orders');
const NAMESPACE = { key: keys.namespace('public', 'default'), modRevision: 0 };

let cluster: MemoryCluster;
let ledgers: Ledgers;
let store: MetadataStore;

beforeEach(() => {
  cluster = new MemoryCluster();
  ({ ledgers, store } = cluster.client());
});

afterEach(async () => {
  await cluster.close();
});

async function own(): Promise<Ownership> {
  return acquireOwnership({ store, clock: cluster.environment.clock, brokerId: 'b', leaseTtl: millis(10_000) });
}

type Dependencies = Parameters<typeof deleteTopicRecord>[0];

async function dependencies(over: Partial<Dependencies> = {}): Promise<Dependencies> {
  return { store, ledgers, ownership: over.ownership ?? (await own()), clock: cluster.environment.clock, ...over };
}

async function open(ownership: Ownership, maxListedLedgers = 1_000): Promise<TopicRecordHandle> {
  const { clock } = cluster.environment;
  return openTopicRecord({ store, ledgers, ownership, clock, name: NAME, maxListedLedgers, namespace: NAMESPACE });
}

function listed(ledgerId: LedgerId): TopicLedger {
  const zero = millis(0);
  const numbers = { closed: true, messages: 0, entries: 0, bytes: 0, firstAppendTime: zero, lastAppendTime: zero };
  return { ledgerId, firstIndex: 0 as TopicLedger['firstIndex'], ...numbers };
}

/** Makes a topic with so many ledgers for data and for acknowledgments. */
async function fill(ownership: Ownership, data: number, acks: number, maxListed?: number): Promise<LedgerId[]> {
  const handle = await open(ownership, maxListed);
  const ids: LedgerId[] = [];
  for (let i = 0; i < data; i++) {
    const link = (record: typeof handle.record, id: LedgerId): typeof handle.record => ({
      ...record,
      ledgers: [...record.ledgers, listed(id)],
    });
    ids.push((await handle.createLedger(link)).ledgerId);
  }
  for (let i = 0; i < acks; i++) {
    const writer = await handle.createLedger((record, id) => ({ ...record, ackLedgers: [...record.ackLedgers, id] }));
    ids.push(writer.ledgerId);
  }
  return ids;
}

async function count(prefix: string): Promise<number> {
  return (await store.range({ prefix, limit: 10_000 })).items.length;
}

/** Every ledger is there, or has a tombstone, never both; and if the topic is gone, somebody knows of those that are there. */
async function check(ids: readonly LedgerId[]): Promise<'whole' | 'going' | 'gone'> {
  const [topic, left] = (await store.get([KEY, LEFT])).items;
  let [alive, dead] = [0, 0];
  for (const id of ids) {
    const [ledger, tombstone] = (await store.get([keys.ledger(id), keys.deletedLedger(id)])).items;
    if ((ledger === undefined) === (tombstone === undefined)) throw new Error(`ledger ${id} is in both, or in neither`);
    if (ledger === undefined) dead++;
    else alive++;
  }
  if (topic !== undefined) {
    if (dead > 0) throw new Error(`half of the topic is deleted: ${dead} of its ledgers are gone`);
    return 'whole';
  }
  if (left === undefined) {
    if (alive > 0) throw new Error(`nobody knows of ${alive} ledgers`);
    return 'gone';
  }
  return 'going';
}

/** A store that dies after so many transactions: what is left of the process does nothing any more. */
function mortal(
  transactions: number,
  change: (writes: readonly Write[]) => readonly Write[] = (w) => w,
): MetadataStore {
  let left = transactions;
  return {
    get: (wanted) => store.get(wanted),
    range: (query) => store.range(query),
    transact: async (compares, writes) => {
      if (left-- <= 0) throw new MagnetarError('STORE_FAILED', 'the process is dead');
      return store.transact(compares, change(writes));
    },
    watch: (options) => store.watch(options),
    compact: (below) => store.compact(below),
    grantLease: (ttl) => store.grantLease(ttl),
    close: () => store.close(),
  };
}

/** Deletes a large topic with processes that die after one transaction each; what everybody sees in between. */
async function deleteDying(change?: (writes: readonly Write[]) => readonly Write[]): Promise<string[]> {
  const ownership = await own();
  const ids = await fill(ownership, 260, 70, 100);
  expect((await open(ownership, 100)).record.chunks).toBe(2);
  const seen: string[] = [await check(ids)];
  const first = await dependencies({ ownership, store: mortal(1, change) });
  await deleteTopicRecord(first, NAME).catch(() => undefined);
  seen.push(await check(ids));
  for (let steps = 0; steps < 30 && seen.at(-1) === 'going'; steps++) {
    const next = await dependencies({ store: mortal(1, change) }); // a new owner
    await finishDeletions(next, () => false).catch(() => undefined);
    seen.push(await check(ids));
  }
  expect(await count('topics-chunks/')).toBe(0);
  expect(await count(keys.topicsDeleting)).toBe(0);
  return seen;
}

/** Leaves out what a process that dies would have to be known by. */
function forgetful(writes: readonly Write[]): readonly Write[] {
  return writes.filter((write) => !('put' in write && write.put === LEFT));
}

describe('deleting a topic', () => {
  test('takes the record and gives its ledgers tombstones, in one transaction', async () => {
    const ownership = await own();
    const ids = await fill(ownership, 40, 22);
    const { revision } = await store.get([KEY]);
    await deleteTopicRecord(await dependencies({ ownership }), NAME);
    expect((await store.get([KEY])).revision).toBe(revision + 1);
    expect(await check(ids)).toBe('gone');
    await expect(deleteTopicRecord(await dependencies({ ownership }), NAME)).rejects.toMatchObject({
      code: 'TOPIC_NOT_FOUND',
      message: 'topic persistent://public/default/orders does not exist',
    });
  });

  test('that does not fit into one: whenever its process dies, it is whole or gone, and no ledger is forgotten', async () => {
    const seen = await deleteDying();
    expect(seen[0]).toBe('whole');
    expect(seen.at(-1)).toBe('gone');
    expect(seen.filter((what) => what === 'going').length).toBeGreaterThan(4);
  });

  test('sabotage: without the note of what is left, the check finds ledgers that nobody knows of', async () => {
    await expect(deleteDying(forgetful)).rejects.toThrow('nobody knows of 330 ledgers');
  });

  test('sabotage: ledgers that go before the record does leave half a topic, which the check finds', async () => {
    const ownership = await own();
    const ids = await fill(ownership, 5, 0);
    await store.transact([], ledgers.deletion(ids.slice(0, 2)));
    await expect(check(ids)).rejects.toThrow('half of the topic is deleted');
  });

  test.each([true, false])('whose answer is lost is found out (it had happened: %s)', async (happened) => {
    const ownership = await own();
    const ids = await fill(ownership, 3, 1);
    let lost = 0;
    const flaky: MetadataStore = {
      ...mortal(0),
      transact: async (compares, writes) => {
        if (lost++ > 0) return store.transact(compares, writes);
        if (happened) await store.transact(compares, writes);
        throw new MagnetarError('UNAVAILABLE', 'the answer was lost');
      },
    };
    await deleteTopicRecord(await dependencies({ ownership, store: flaky }), NAME);
    expect(await check(ids)).toBe('gone');
    expect(lost).toBe(happened ? 1 : 2);
  });

  test('of what is not there is not found, also when it could not be looked for at once', async () => {
    let tries = 0;
    const get: MetadataStore['get'] = async (wanted) => {
      tries += 1;
      if (tries === 1) throw new MagnetarError('UNAVAILABLE', 'the store is away');
      return store.get(wanted);
    };
    const away = await dependencies({ store: Object.assign(Object.create(store) as MetadataStore, { get }) });
    await expect(deleteTopicRecord(away, NAME)).rejects.toMatchObject({ code: 'TOPIC_NOT_FOUND' });
    expect(tries).toBe(2);
  });

  test('is refused to whoever no longer owns it', async () => {
    const old = await own();
    const ids = await fill(old, 2, 0);
    await own();
    await expect(deleteTopicRecord(await dependencies({ ownership: old }), NAME)).rejects.toMatchObject({
      code: 'NOT_OWNER',
    });
    expect(await check(ids)).toBe('whole');
  });

  test('a topic of the same name is another incarnation, and is made only when nothing of the old one is left', async () => {
    const ownership = await own();
    const ids = await fill(ownership, 260, 0, 100);
    const { incarnation } = (await open(ownership)).record;
    const failing = await dependencies({ ownership, store: mortal(1) });
    await deleteTopicRecord(failing, NAME);
    await expect(finishDeletion(failing, LEFT)).rejects.toMatchObject({ code: 'STORE_FAILED' });
    expect(await check(ids)).toBe('going');
    const again = await open(ownership);
    expect(again.record.incarnation).toBeGreaterThan(incarnation);
    expect(again.record).toMatchObject({ ledgers: [], ackLedgers: [], chunks: 0, floorIndex: 0 });
    expect(await count(keys.topicsDeleting)).toBe(0);
    expect(await count(keys.deletedLedgers)).toBe(260);
  });

  test('an open record that was deleted takes no change any more', async () => {
    const handle = await open(await own());
    await handle.delete();
    const deleted = { code: 'TOPIC_NOT_FOUND', message: 'topic persistent://public/default/orders was deleted' };
    await expect(handle.change((record) => record)).rejects.toMatchObject(deleted);
    await expect(handle.createLedger((record) => record)).rejects.toMatchObject(deleted);
  });

  test('what is left keeps the incarnation', async () => {
    const ownership = await own();
    await fill(ownership, 260, 0, 100);
    const { incarnation } = (await open(ownership)).record;
    await deleteTopicRecord(await dependencies({ ownership, store: mortal(1) }), NAME);
    const [left] = (await store.get([LEFT])).items;
    expect(topicRecord.decode(left?.value ?? Buffer.alloc(0)).incarnation).toBe(incarnation);
  });
});
