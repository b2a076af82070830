import { expect, test } from 'vitest';
import { millis } from '../lib/ids.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { seededRandom } from '../runtime/testing/seeded-random.ts';
import { namespaceRecord, tenantRecord } from '../wire/records.ts';
import { keys } from './keys.ts';
import { openMemoryStore } from './memory.ts';
import {
  createNamespace,
  createTenant,
  deleteNamespace,
  deleteTenant,
  ensureDefaults,
  getTenant,
  listNamespaces,
  listTenants,
  listTopics,
  requireNamespace,
  updateTenant,
} from './namespaces.ts';
import type { MetadataStore } from './store.ts';

const now = millis(1_700_000_000_000);

function newStore(): MetadataStore {
  return openMemoryStore({ clock: new ManualClock(), random: seededRandom(1) });
}

/** A store in which `intrude` runs between a reading and the transaction that follows. */
function raced(store: MetadataStore, intrude: () => Promise<void>): MetadataStore {
  let runs = 0;
  return {
    get: async (wanted) => {
      const result = await store.get(wanted);
      if (runs++ === 0) await intrude();
      return result;
    },
    range: async (query) => await store.range(query),
    transact: async (compares, writes) => await store.transact(compares, writes),
    watch: (options) => store.watch(options),
    compact: async (below) => await store.compact(below),
    grantLease: async (ttl) => await store.grantLease(ttl),
    close: async () => await store.close(),
  };
}

test('a new store gets public/default, once, whoever comes first', async () => {
  const store = newStore();
  await Promise.all([ensureDefaults(store, now), ensureDefaults(store, millis(2)), ensureDefaults(store, millis(3))]);
  await ensureDefaults(store, millis(4));
  await requireNamespace(store, 'public', 'default');
  const { revision, items } = await store.get([keys.tenant('public'), keys.namespace('public', 'default')]);
  expect(revision).toBe(1);
  expect(tenantRecord.decode(items[0]?.value ?? Buffer.alloc(0))).toEqual({
    createdAt: now,
    adminRoles: [],
    allowedClusters: [],
  });
  expect(namespaceRecord.decode(items[1]?.value ?? Buffer.alloc(0))).toEqual({ createdAt: now, deleting: false });
});

test('defaults of which one was made by somebody else are completed', async () => {
  const store = newStore();
  await ensureDefaults(
    raced(store, async () => await createTenant(store, 'public', millis(5))),
    now,
  );
  await requireNamespace(store, 'public', 'default');
  const [tenant] = (await store.get([keys.tenant('public')])).items;
  expect(tenantRecord.decode(tenant?.value ?? Buffer.alloc(0))).toMatchObject({ createdAt: 5 });
});

test('errors name what is missing, what is there, and what is allowed', async () => {
  const store = newStore();
  await ensureDefaults(store, now);
  await expect(requireNamespace(store, 'acme', 'orders')).rejects.toMatchObject({
    code: 'TENANT_NOT_FOUND',
    message: 'tenant "acme" does not exist; create it first, or use "public"',
  });
  await expect(createNamespace(store, 'acme', 'orders', now)).rejects.toMatchObject({ code: 'TENANT_NOT_FOUND' });
  await createTenant(store, 'acme', now);
  await expect(requireNamespace(store, 'acme', 'orders')).rejects.toMatchObject({
    code: 'NAMESPACE_NOT_FOUND',
    message: 'namespace "acme/orders" does not exist; create it first, or use "public/default"',
  });
  await createNamespace(store, 'acme', 'orders', now);
  await requireNamespace(store, 'acme', 'orders');
  await expect(createTenant(store, 'acme', now)).rejects.toMatchObject({
    code: 'ALREADY_EXISTS',
    message: 'tenant "acme" exists already',
  });
  await expect(createNamespace(store, 'acme', 'orders', now)).rejects.toMatchObject({
    code: 'ALREADY_EXISTS',
    message: 'namespace "acme/orders" exists already',
  });
});

test('a namespace is not created under a tenant that goes away meanwhile, and only once', async () => {
  const store = newStore();
  await createTenant(store, 'acme', now);
  const deleted = raced(store, async () => void (await store.transact([], [{ delete: keys.tenant('acme') }])));
  await expect(createNamespace(deleted, 'acme', 'orders', now)).rejects.toMatchObject({ code: 'TENANT_NOT_FOUND' });
  await createTenant(store, 'acme', now);
  const both = raced(store, async () => await createNamespace(store, 'acme', 'orders', now));
  await expect(createNamespace(both, 'acme', 'orders', now)).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
});

test('names cannot reach into the keys of others', async () => {
  const store = newStore();
  for (const name of ['', 'a/b', 'a b', 'ü', 'a\n', 'x'.repeat(256)]) {
    await expect(createTenant(store, name, now)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(requireNamespace(store, 'public', name)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  await expect(createTenant(store, 'a/b', now)).rejects.toThrow(
    'tenant name "a/b" is not allowed; use 1 to 255 of A-Z a-z 0-9 _ - = : .',
  );
  await createTenant(store, 'Az_09-=:.', now);
});

async function all(pages: AsyncIterable<readonly string[]>): Promise<string[]> {
  const found: string[] = [];
  for await (const page of pages) found.push(...page);
  return found;
}

/** Makes a topic as a broker does: only if the namespace is as it was when it was looked at. */
async function makeTopic(store: MetadataStore, local: string): Promise<boolean> {
  const namespace = await requireNamespace(store, 'acme', 'orders');
  const key = keys.topic('acme', 'orders', local);
  return (await store.transact([namespace], [{ put: key, value: Buffer.from('x') }])).committed;
}

test('settings of a tenant are replaced, its creation time stays', async () => {
  const store = newStore();
  await createTenant(store, 'acme', now, { adminRoles: ['ann'], allowedClusters: ['standalone'] });
  await updateTenant(store, 'acme', { adminRoles: ['bob'], allowedClusters: ['standalone', 'b'] });
  expect(await getTenant(store, 'acme')).toEqual({
    createdAt: now,
    adminRoles: ['bob'],
    allowedClusters: ['standalone', 'b'],
  });
  await expect(updateTenant(store, 'b', { adminRoles: [], allowedClusters: [] })).rejects.toMatchObject({
    code: 'TENANT_NOT_FOUND',
  });
});

test('a tenant with namespaces is not deleted, also when the namespace comes at the last moment', async () => {
  const store = newStore();
  await createTenant(store, 'acme', now);
  const raceful = raced(store, async () => await createNamespace(store, 'acme', 'orders', now));
  await expect(deleteTenant(raceful, 'acme')).rejects.toMatchObject({
    code: 'NOT_EMPTY',
    message: 'tenant "acme" has namespaces; delete them first',
  });
  await requireNamespace(store, 'acme', 'orders');
  await deleteNamespace(store, 'acme', 'orders');
  await deleteTenant(store, 'acme');
  await expect(deleteTenant(store, 'acme')).rejects.toMatchObject({ code: 'TENANT_NOT_FOUND' });
  expect(await all(listTenants(store))).toEqual([]);
});

test('a namespace with topics is deleted by force alone, and takes no topic while it is', async () => {
  const store = newStore();
  await createTenant(store, 'acme', now);
  await createNamespace(store, 'acme', 'orders', now);
  await makeTopic(store, 'a');
  await expect(deleteNamespace(store, 'acme', 'orders')).rejects.toMatchObject({ code: 'NOT_EMPTY' });
  expect(await makeTopic(store, 'b')).toBe(true);
  const looked = await requireNamespace(store, 'acme', 'orders');
  await deleteNamespace(store, 'acme', 'orders', async () => {
    await expect(requireNamespace(store, 'acme', 'orders')).rejects.toThrow('namespace "acme/orders" is being deleted');
    // Whoever had looked before makes none either.
    expect((await store.transact([looked], [])).committed).toBe(false);
    for (const name of await all(listTopics(store, 'acme', 'orders'))) {
      await store.transact([], [{ delete: keys.topic('acme', 'orders', name) }]);
    }
  });
  expect(await all(listNamespaces(store, 'acme'))).toEqual([]);
});

test('a deletion of a namespace that went wrong can be repeated, and is taken back where topics are left', async () => {
  const store = newStore();
  await createTenant(store, 'acme', now);
  await createNamespace(store, 'acme', 'orders', now);
  await expect(deleteNamespace(store, 'acme', 'orders', () => Promise.reject(new Error('down')))).rejects.toThrow(
    'down',
  );
  await expect(requireNamespace(store, 'acme', 'orders')).rejects.toMatchObject({ code: 'NAMESPACE_NOT_FOUND' });
  await store.transact([], [{ put: keys.topic('acme', 'orders', 'a'), value: Buffer.from('x') }]);
  await expect(deleteNamespace(store, 'acme', 'orders')).rejects.toMatchObject({ code: 'NOT_EMPTY' });
  expect(await makeTopic(store, 'b')).toBe(true);
});

test('lists come in pages, however many there are', async () => {
  const store = newStore();
  for (let i = 0; i < 1_100; i++) {
    await store.transact([], [{ put: keys.topic('acme', 'orders', `t${1_000 + i}`), value: Buffer.from('x') }]);
  }
  const sizes: number[] = [];
  for await (const page of listTopics(store, 'acme', 'orders')) sizes.push(page.length);
  expect(sizes).toEqual([500, 500, 100]);
  expect(await all(listTopics(store, 'acme', 'order'))).toEqual([]);
});
