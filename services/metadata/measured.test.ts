import { expect, test } from 'vitest';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { figures } from '../runtime/testing/figures.ts';
import { seededRandom } from '../runtime/testing/seeded-random.ts';
import { MeasuredStore } from './measured.ts';
import { MemoryDatabase, openMemoryStore } from './memory.ts';
import { storeContract } from './store.contract.ts';

storeContract('measured', async () => {
  const clock = new ManualClock();
  const random = seededRandom(1);
  const database = new MemoryDatabase({ clock, random });
  const open = (): MeasuredStore => new MeasuredStore(openMemoryStore({ clock, random, database }), clock);
  const store = open();
  const reopen = async (): Promise<MeasuredStore> => {
    await store.close();
    clock.advance(3_600_000);
    return open();
  };
  return await Promise.resolve({ store, clock, reopen, end: async () => await store.close() });
});

test('counts operations, conflicts and failures', async () => {
  const clock = new ManualClock();
  const random = seededRandom(1);
  const memory = openMemoryStore({ clock, random, database: new MemoryDatabase({ clock, random }) });
  const store = new MeasuredStore(memory, clock);
  const write = { put: 'cluster', value: Buffer.from('x') };
  await store.transact([], [write]);
  await store.transact([{ key: 'cluster', modRevision: 0 }], [write]);
  await store.get(['cluster']);
  await store.close();
  await expect(store.range({ prefix: 'x' })).rejects.toMatchObject({ code: 'ALREADY_CLOSED' });
  const told = await figures(store);
  const count = (operation: string): number | undefined =>
    told.get(`magnetar_metadata_duration_seconds_count{operation="${operation}"}`);
  expect([count('transact'), count('get'), count('range')]).toEqual([2, 1, 1]);
  expect(told.get('magnetar_metadata_conflicts_total')).toBe(1);
  expect(told.get('magnetar_metadata_errors_total{operation="range",code="ALREADY_CLOSED"}')).toBe(1);
});
