import { describe, expect, test } from 'vitest';
import { millis } from '../../lib/ids.ts';
import { MemoryDatabase, openMemoryStore } from '../../metadata/memory.ts';
import type { MetadataStore } from '../../metadata/store.ts';
import { ManualClock } from '../../runtime/testing/manual-clock.ts';
import { seededRandom } from '../../runtime/testing/seeded-random.ts';
import { acquireOwnership, type Ownership } from './ownership.ts';

interface World {
  readonly clock: ManualClock;
  readonly store: () => MetadataStore;
}

function newWorld(): World {
  const clock = new ManualClock();
  const random = seededRandom(1);
  const database = new MemoryDatabase({ clock, random });
  return { clock, store: () => openMemoryStore({ clock, random, database }) };
}

async function acquire(store: MetadataStore, clock: ManualClock): Promise<Ownership> {
  return acquireOwnership({ store, clock, brokerId: 'b', leaseTtl: millis(10_000) });
}

describe('ownership', () => {
  test("its epoch is the owner key's create revision, and rises with every owner", async () => {
    const { clock, store } = newWorld();
    const one = store();
    const first = await acquire(one, clock);
    const [item] = (await one.get([first.ownerKey])).items;
    expect(item?.createRevision).toBe(first.epoch);
    await first.release();
    expect((await one.get([first.ownerKey])).items).toEqual([undefined]);
    expect((await acquire(one, clock)).epoch).toBeGreaterThan(first.epoch);
  });

  test('a process of the same name that starts anew replaces the older one, whose transactions fail from then on', async () => {
    const { clock, store } = newWorld();
    const [one, two] = [store(), store()];
    const old = await acquire(one, clock);
    const next = await acquire(two, clock);
    expect(next.epoch).toBeGreaterThan(old.epoch);
    expect((await one.transact([old.compare()], [])).committed).toBe(false);
    expect((await two.transact([next.compare()], [])).committed).toBe(true);
  });

  test('it is held only while the lease provably is, by the monotonic clock alone', async () => {
    const { clock, store } = newWorld();
    const one = store();
    const ownership = await acquire(one, clock);
    clock.jump(1_000_000);
    expect(ownership.held).toBe(true);
    clock.advance(60_000); // renewed all along
    expect(ownership.held).toBe(true);
    clock.stall(10_001); // the process stood still
    expect(ownership.held).toBe(false);
  });

  test('nothing is left behind when it cannot be had', async () => {
    const { clock, store } = newWorld();
    const one = store();
    const stubborn: MetadataStore = {
      get: async (keys) => one.get(keys),
      range: async (query) => one.range(query),
      watch: (options) => one.watch(options),
      compact: async (below) => one.compact(below),
      close: async () => one.close(),
      grantLease: async (ttl) => one.grantLease(ttl),
      transact: async (compares, writes) => {
        const result = await one.transact([...compares, { key: 'never', createRevision: 1 }], writes);
        return result;
      },
    };
    await expect(acquire(stubborn, clock)).rejects.toMatchObject({ code: 'METADATA_CONFLICT' });
    expect((await one.range({ prefix: 'brokers/' })).items).toEqual([]);
    await acquire(one, clock);
  });
});
