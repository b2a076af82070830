/** Tenants and their namespaces. */
import { type ErrorCode, MagnetarError } from '../lib/errors.ts';
import type { Millis } from '../lib/ids.ts';
import { type NamespaceRecord, namespaceRecord, type TenantRecord, tenantRecord } from '../wire/records.ts';
import { keys } from './keys.ts';
import type { Compare, KeyValue, MetadataStore, Write } from './store.ts';

/** What a new installation has, and what short topic names mean. */
const DEFAULT_TENANT = 'public';
const DEFAULT_NAMESPACE = 'default';

const NAME = /^[A-Za-z0-9_\-=:.]{1,255}$/;

/** Each try but the first follows on a change by somebody else. */
const ATTEMPTS = 10;
const KEYS_PER_PAGE = 500;

/** What a tenant is given: who may administrate it, and the clusters that its namespaces may be in. */
export type TenantSettings = Pick<TenantRecord, 'adminRoles' | 'allowedClusters'>;

const NO_SETTINGS: TenantSettings = { adminRoles: [], allowedClusters: [] };

function checkName(what: string, name: string): void {
  const short = JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name);
  if (name === '.' || name === '..')
    throw new MagnetarError('INVALID_ARGUMENT', `${what} name ${short} is not allowed`);
  if (NAME.test(name)) return;
  throw new MagnetarError(
    'INVALID_ARGUMENT',
    `${what} name ${short} is not allowed; use 1 to 255 of A-Z a-z 0-9 _ - = : .`,
  );
}

function missing(code: ErrorCode, what: string, fallback: string): MagnetarError {
  return new MagnetarError(code, `${what} does not exist; create it first, or use "${fallback}"`);
}

function noTenant(tenant: string): MagnetarError {
  return missing('TENANT_NOT_FOUND', `tenant "${tenant}"`, DEFAULT_TENANT);
}

function noNamespace(tenant: string, namespace: string): MagnetarError {
  const shown = `${DEFAULT_TENANT}/${DEFAULT_NAMESPACE}`;
  return missing('NAMESPACE_NOT_FOUND', `namespace "${tenant}/${namespace}"`, shown);
}

function existing(what: string): MagnetarError {
  return new MagnetarError('ALREADY_EXISTS', `${what} exists already`);
}

/** Runs `attempt` until it succeeds: it gives false when somebody else was faster. @throws METADATA_CONFLICT */
async function untilDone(what: string, attempt: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < ATTEMPTS; tries++) if (await attempt()) return;
  throw new MagnetarError('METADATA_CONFLICT', `${what} keeps being changed by others`);
}

/** Creates what a new installation has and this one lacks. `now`: the creation time. */
export async function ensureDefaults(store: MetadataStore, now: Millis): Promise<void> {
  const wanted: readonly Extract<Write, { put: string }>[] = [
    { put: keys.tenant(DEFAULT_TENANT), value: tenantRecord.encode({ createdAt: now, ...NO_SETTINGS }) },
    {
      put: keys.namespace(DEFAULT_TENANT, DEFAULT_NAMESPACE),
      value: namespaceRecord.encode({ createdAt: now, deleting: false }),
    },
  ];
  await untilDone(`${DEFAULT_TENANT}/${DEFAULT_NAMESPACE}`, async () => {
    const { items } = await store.get(wanted.map(({ put }) => put));
    const writes = wanted.filter((_, at) => items[at] === undefined);
    if (writes.length === 0) return true;
    const compares = writes.map(({ put }) => ({ key: put, modRevision: 0 }));
    return (await store.transact(compares, writes)).committed;
  });
}

/** The last parts of all keys under a prefix, a page at a time. */
async function* names(store: MetadataStore, prefix: string): AsyncGenerator<readonly string[], void, undefined> {
  let after: string | undefined;
  for (;;) {
    const query = { prefix, limit: KEYS_PER_PAGE, ...(after === undefined ? {} : { after }) };
    const { items, more } = await store.range(query);
    if (items.length > 0) yield items.map(({ key }) => key.slice(prefix.length));
    after = items.at(-1)?.key;
    if (!more || after === undefined) return;
  }
}

/** The names of all tenants, sorted by their bytes, a page at a time. */
export function listTenants(store: MetadataStore): AsyncGenerator<readonly string[], void, undefined> {
  return names(store, keys.tenants);
}

/** The names of a tenant's namespaces, without the tenant. A tenant that does not exist has none. */
export function listNamespaces(
  store: MetadataStore,
  tenant: string,
): AsyncGenerator<readonly string[], void, undefined> {
  return names(store, keys.namespaces(tenant));
}

/** The last parts of the names of a namespace's topics. A namespace that does not exist has none. */
export function listTopics(
  store: MetadataStore,
  tenant: string,
  namespace: string,
): AsyncGenerator<readonly string[], void, undefined> {
  return names(store, keys.topics(tenant, namespace));
}

async function isEmpty(store: MetadataStore, prefix: string): Promise<boolean> {
  return (await store.range({ prefix, limit: 1 })).items.length === 0;
}

/** @throws INVALID_ARGUMENT (name), ALREADY_EXISTS */
export async function createTenant(
  store: MetadataStore,
  tenant: string,
  now: Millis,
  settings: TenantSettings = NO_SETTINGS,
): Promise<void> {
  checkName('tenant', tenant);
  const key = keys.tenant(tenant);
  const write = { put: key, value: tenantRecord.encode({ createdAt: now, ...settings }) };
  const { committed } = await store.transact([{ key, modRevision: 0 }], [write]);
  if (!committed) throw existing(`tenant "${tenant}"`);
}

async function tenantItem(store: MetadataStore, tenant: string): Promise<KeyValue> {
  checkName('tenant', tenant);
  const [item] = (await store.get([keys.tenant(tenant)])).items;
  if (item === undefined) throw noTenant(tenant);
  return item;
}

/** @throws INVALID_ARGUMENT (name), TENANT_NOT_FOUND */
export async function getTenant(store: MetadataStore, tenant: string): Promise<TenantRecord> {
  return tenantRecord.decode((await tenantItem(store, tenant)).value);
}

/** Replaces what a tenant was given. @throws INVALID_ARGUMENT (name), TENANT_NOT_FOUND */
export async function updateTenant(store: MetadataStore, tenant: string, settings: TenantSettings): Promise<void> {
  await untilDone(`tenant "${tenant}"`, async () => {
    const { key, value, modRevision } = await tenantItem(store, tenant);
    const next = { ...tenantRecord.decode(value), ...settings };
    const result = await store.transact([{ key, modRevision }], [{ put: key, value: tenantRecord.encode(next) }]);
    return result.committed;
  });
}

/** @throws INVALID_ARGUMENT (name), TENANT_NOT_FOUND, NOT_EMPTY when it has namespaces */
export async function deleteTenant(store: MetadataStore, tenant: string): Promise<void> {
  await untilDone(`tenant "${tenant}"`, async () => {
    const { key, modRevision } = await tenantItem(store, tenant);
    if (!(await isEmpty(store, keys.namespaces(tenant)))) {
      throw new MagnetarError('NOT_EMPTY', `tenant "${tenant}" has namespaces; delete them first`);
    }
    // Whoever has made a namespace since has changed the tenant's revision.
    return (await store.transact([{ key, modRevision }], [{ delete: key }])).committed;
  });
}

/** @throws INVALID_ARGUMENT (name), TENANT_NOT_FOUND, ALREADY_EXISTS */
export async function createNamespace(
  store: MetadataStore,
  tenant: string,
  namespace: string,
  now: Millis,
): Promise<void> {
  checkName('namespace', namespace);
  const key = keys.namespace(tenant, namespace);
  const write = { put: key, value: namespaceRecord.encode({ createdAt: now, deleting: false }) };
  await untilDone(`namespace "${tenant}/${namespace}"`, async () => {
    const owner = await tenantItem(store, tenant);
    const [there] = (await store.get([key])).items;
    if (there !== undefined) throw existing(`namespace "${tenant}/${namespace}"`);
    // The tenant is written as it was, so that nobody who has seen it empty can delete it afterwards.
    const compares = [
      { key: owner.key, modRevision: owner.modRevision },
      { key, modRevision: 0 },
    ];
    const result = await store.transact(compares, [write, { put: owner.key, value: owner.value }]);
    return result.committed;
  });
}

interface FoundNamespace {
  readonly key: string;
  readonly record: NamespaceRecord;
  readonly modRevision: number;
}

async function findNamespace(store: MetadataStore, tenant: string, namespace: string): Promise<FoundNamespace> {
  checkName('tenant', tenant);
  checkName('namespace', namespace);
  const key = keys.namespace(tenant, namespace);
  const [owner, item] = (await store.get([keys.tenant(tenant), key])).items;
  if (owner === undefined) throw noTenant(tenant);
  if (item === undefined) throw noNamespace(tenant, namespace);
  return { key, record: namespaceRecord.decode(item.value), modRevision: item.modRevision };
}

/** @throws INVALID_ARGUMENT (name), TENANT_NOT_FOUND, NAMESPACE_NOT_FOUND */
export async function getNamespace(store: MetadataStore, tenant: string, namespace: string): Promise<NamespaceRecord> {
  return (await findNamespace(store, tenant, namespace)).record;
}

/**
 * Resolves when the namespace is there and takes topics: with the condition of the transaction that makes one.
 *
 * @throws INVALID_ARGUMENT (name), TENANT_NOT_FOUND, NAMESPACE_NOT_FOUND
 */
export async function requireNamespace(store: MetadataStore, tenant: string, namespace: string): Promise<Compare> {
  const { key, record, modRevision } = await findNamespace(store, tenant, namespace);
  if (!record.deleting) return { key, modRevision };
  throw new MagnetarError('NAMESPACE_NOT_FOUND', `namespace "${tenant}/${namespace}" is being deleted`);
}

/**
 * Deletes a namespace: from its first step on no topic is made in it. `clear` is to delete its topics; not given: it must
 * have none. After an error, or a crash, it can be called again.
 *
 * @throws INVALID_ARGUMENT (name), TENANT_NOT_FOUND, NAMESPACE_NOT_FOUND, NOT_EMPTY; what `clear` throws
 */
export async function deleteNamespace(
  store: MetadataStore,
  tenant: string,
  namespace: string,
  clear?: () => Promise<void>,
): Promise<void> {
  const what = `namespace "${tenant}/${namespace}"`;
  const mark = async (deleting: boolean): Promise<void> =>
    await untilDone(what, async () => {
      const { key, record, modRevision } = await findNamespace(store, tenant, namespace);
      if (record.deleting === deleting) return true;
      const value = namespaceRecord.encode({ ...record, deleting });
      return (await store.transact([{ key, modRevision }], [{ put: key, value }])).committed;
    });
  const prefix = keys.topics(tenant, namespace);
  const full = new MagnetarError('NOT_EMPTY', `${what} has topics; delete them first, or force it`);
  const { record } = await findNamespace(store, tenant, namespace);
  // One that was about to be deleted, when something went wrong, may have topics again later.
  if (clear === undefined && !record.deleting && !(await isEmpty(store, prefix))) throw full;
  await mark(true);
  await clear?.();
  if (!(await isEmpty(store, prefix))) {
    await mark(false);
    throw full;
  }
  await untilDone(what, async () => {
    const { key, modRevision } = await findNamespace(store, tenant, namespace);
    return (await store.transact([{ key, modRevision }], [{ delete: key }])).committed;
  });
}
