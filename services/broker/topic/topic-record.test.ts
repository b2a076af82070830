import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MagnetarError } from '../../lib/errors.ts';
import { type LedgerId, millis } from '../../lib/ids.ts';
import type { Ledgers } from '../../ledger/ledgers.ts';
import { MemoryCluster } from '../../ledger/testing/memory-cluster.ts';
import { keys } from '../../metadata/keys.ts';
import type { MetadataStore } from '../../metadata/store.ts';
import type { TopicLedger } from '../../wire/records.ts';
import { acquireOwnership, type Ownership } from '../ownership/ownership.ts';
import { parseTopicName } from '../protocol/topic-name.ts';
import { openTopicRecord, type TopicRecordHandle } from './topic-record.ts';

const NAME = parseTopicName('orders');
const KEY = keys.topic('public', 'default', 'orders');
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

async function own(brokerId = 'b'): Promise<Ownership> {
  return acquireOwnership({ store, clock: cluster.environment.clock, brokerId, leaseTtl: millis(10_000) });
}

async function open(
  ownership: Ownership,
  over: { store?: MetadataStore } = {},
  max = 1_000,
): Promise<TopicRecordHandle> {
  const { clock } = cluster.environment;
  const options = { store, ledgers, ownership, clock, name: NAME, maxListedLedgers: max, namespace: NAMESPACE };
  return openTopicRecord({ ...options, ...over });
}

function ledger(id: number): TopicLedger {
  const zero = millis(0);
  return {
    ledgerId: id as LedgerId,
    firstIndex: 0 as TopicLedger['firstIndex'],
    closed: true,
    messages: 0,
    entries: 0,
    bytes: 0,
    firstAppendTime: zero,
    lastAppendTime: zero,
  };
}

describe('a topic record', () => {
  test('is made on first use, and its incarnation is the revision that made it', async () => {
    const ownership = await own();
    const { record } = await open(ownership);
    const [item] = (await store.get([KEY])).items;
    expect(record).toMatchObject({ incarnation: item?.createRevision, ownerEpoch: ownership.epoch, ledgers: [] });
    const again = await open(ownership);
    await again.change((current) => ({ ...current, chunks: 0, floorIndex: 7 as typeof current.floorIndex }));
    expect((await open(ownership)).record).toEqual({ ...record, floorIndex: 7 });
  });

  test('of somebody who was replaced can no longer be changed, although its version is the same', async () => {
    const old = await open(await own());
    const next = await own(); // the same name registers again: a later epoch
    await expect(old.change((record) => record)).rejects.toMatchObject({ code: 'NOT_OWNER' });
    await expect(old.createLedger((record) => record)).rejects.toMatchObject({ code: 'NOT_OWNER' });
    const taken = await open(next);
    await taken.change((record) => record);
    expect(taken.record.ownerEpoch).toBe(next.epoch);
  });

  test('sabotage: over a store whose conditions always hold, it would be changed', async () => {
    const careless: MetadataStore = {
      ...bound(store),
      transact: async (_, writes) => store.transact([], writes),
    };
    const old = await open(await own(), { store: careless });
    await own();
    await expect(old.change((record) => record)).resolves.toBeUndefined();
  });

  test('that was changed by another handle of the same owner fences the older handle', async () => {
    const ownership = await own();
    const [one, two] = [await open(ownership), await open(ownership)];
    await two.change((record) => ({ ...record, floorIndex: 1 as typeof record.floorIndex }));
    await expect(one.change((record) => record)).rejects.toMatchObject({ code: 'NOT_OWNER' });
    await expect(one.change((record) => record)).rejects.toMatchObject({ code: 'NOT_OWNER' });
  });

  test('changes run one after another', async () => {
    const handle = await open(await own());
    const change = (): Promise<void> =>
      handle.change((record) => ({ ...record, floorIndex: (record.floorIndex + 1) as typeof record.floorIndex }));
    const ids = await Promise.all([
      change(),
      handle.createLedger((record, id) => ({ ...record, ledgers: [...record.ledgers, ledger(id)] })),
      change(),
      handle.createLedger((record, id) => ({ ...record, ackLedgers: [...record.ackLedgers, id] })),
      change(),
    ]);
    const [data, acks] = [ids[1].ledgerId, ids[3].ledgerId];
    expect(handle.record).toMatchObject({ floorIndex: 3, ledgers: [ledger(data)], ackLedgers: [acks] });
    expect((await store.get([keys.ledger(data), keys.ledger(acks)])).items.every((item) => item !== undefined)).toBe(
      true,
    );
  });

  test('older ledgers move into chunks in the same transaction, and are read again', async () => {
    const ownership = await own();
    const handle = await open(ownership, {}, 10);
    for (let id = 1; id <= 25; id++) {
      await handle.change((record) => ({ ...record, ledgers: [...record.ledgers, ledger(id)] }));
    }
    expect(handle.record.chunks).toBe(2);
    const again = await open(ownership, {}, 10);
    const all = [...again.olderLedgers, ...again.record.ledgers].map((one) => one.ledgerId);
    expect(all).toEqual(Array.from({ length: 25 }, (_, i) => i + 1));
  });

  test.each([true, false])(
    'after a lost answer it goes on from what is there (it had happened: %s)',
    async (happened) => {
      let lose = false;
      const flaky: MetadataStore = {
        ...bound(store),
        transact: async (compares, writes) => {
          if (!lose) return store.transact(compares, writes);
          lose = false;
          if (happened) await store.transact(compares, writes);
          throw new MagnetarError('UNAVAILABLE', 'the answer was lost');
        },
      };
      const ownership = await own();
      const handle = await open(ownership, { store: flaky });
      lose = true;
      const add = (id: number): Promise<void> =>
        handle.change((record) => ({ ...record, ledgers: [...record.ledgers, ledger(id)] }));
      await expect(add(1)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
      await add(2);
      const ids = handle.record.ledgers.map((one) => Number(one.ledgerId));
      expect(ids).toEqual(happened ? [1, 2] : [2]);
      expect((await open(ownership)).record).toEqual(handle.record);
    },
  );

  test('a ledger whose creation was not answered fences the handle: nobody has its writer', async () => {
    const ownership = await own();
    const lossy: Ledgers = {
      ...bound(ledgers),
      create: async (linkedAs) => {
        await ledgers.create(linkedAs);
        throw new MagnetarError('UNAVAILABLE', 'the answer was lost');
      },
    };
    const { clock } = cluster.environment;
    const options = { store, ownership, clock, name: NAME, maxListedLedgers: 10, namespace: NAMESPACE };
    const handle = await openTopicRecord({ ...options, ledgers: lossy });
    const link = (record: typeof handle.record, id: LedgerId): typeof handle.record => ({
      ...record,
      ledgers: [ledger(id)],
    });
    await expect(handle.createLedger(link)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(handle.createLedger(link)).rejects.toMatchObject({ code: 'NOT_OWNER' });
  });
});

/** The methods of an object as properties, so that some can be replaced. */
function bound<T extends object>(object: T): T {
  return new Proxy({} as T, {
    ownKeys: () => Reflect.ownKeys(Object.getPrototypeOf(object) as object),
    getOwnPropertyDescriptor: () => ({ enumerable: true, configurable: true }),
    get: (_, name) => {
      const value: unknown = Reflect.get(object, name);
      return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(object) : value;
    },
  });
}
