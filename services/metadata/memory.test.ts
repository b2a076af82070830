import { expect, test } from 'vitest';
import { millis, revision } from '../lib/ids.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { seededRandom } from '../runtime/testing/seeded-random.ts';
import { MemoryDatabase, openMemoryStore } from './memory.ts';
import { storeContract } from './store.contract.ts';

storeContract('memory', async () => {
  const clock = new ManualClock();
  const random = seededRandom(1);
  const database = new MemoryDatabase({ clock, random });
  const store = openMemoryStore({ clock, random, database });
  const reopen = async (): Promise<typeof store> => {
    await store.close();
    clock.advance(3_600_000);
    return openMemoryStore({ clock, random, database });
  };
  return await Promise.resolve({ store, clock, reopen, end: async () => await store.close() });
});

test('two stores share a database; the leases of the one that closes run out and are not revoked', async () => {
  const clock = new ManualClock();
  const random = seededRandom(1);
  const database = new MemoryDatabase({ clock, random });
  const [one, two] = [openMemoryStore({ clock, random, database }), openMemoryStore({ clock, random, database })];
  const lease = await one.grantLease(millis(10_000));
  await one.transact([], [{ put: 'brokers/1', value: Buffer.from(''), lease: lease.id }]);
  clock.advance(4_000);
  await one.close();
  await lease.lost;
  clock.advance(9_000);
  expect((await two.get(['brokers/1'])).items[0]).toBeDefined();
  clock.advance(1_000);
  expect((await two.get(['brokers/1'])).items[0]).toBeUndefined();
});

test('remembers 10,000 revisions', async () => {
  const store = openMemoryStore({ clock: new ManualClock(), random: seededRandom(1) });
  for (let n = 0; n < 10_001; n++) await store.transact([], [{ put: 'a', value: Buffer.from('') }]);
  const first = async (from: number): Promise<unknown> => {
    const watch = store.watch({ prefix: '', from: revision(from), signal: new AbortController().signal });
    return await watch[Symbol.asyncIterator]().next();
  };
  await expect(first(1)).rejects.toMatchObject({ code: 'METADATA_COMPACTED' });
  expect(await first(2)).toMatchObject({ value: { revision: 2 } });
});
