/** Tenants and their namespaces. */
import { type ErrorCode, MagnetarError } from '../lib/errors.ts';
import type { Millis } from '../lib/ids.ts';
import { namespaceRecord, tenantRecord } from '../wire/records.ts';
import { keys } from './keys.ts';
import type { MetadataStore, Write } from './store.ts';

/** What a new installation has, and what short topic names mean. */
const DEFAULT_TENANT = 'public';
const DEFAULT_NAMESPACE = 'default';

const NAME = /^[A-Za-z0-9_\-=:.]{1,255}$/;

/** Each try but the first follows on a change by somebody else. */
const ATTEMPTS = 10;

function checkName(what: string, name: string): void {
  if (NAME.test(name)) return;
  const shown = JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name);
  throw new MagnetarError(
    'INVALID_ARGUMENT',
    `${what} name ${shown} is not allowed; use 1 to 255 of A-Z a-z 0-9 _ - = : .`,
  );
}

function missing(code: ErrorCode, what: string, fallback: string): MagnetarError {
  return new MagnetarError(code, `${what} does not exist; create it first, or use "${fallback}"`);
}

function noTenant(tenant: string): MagnetarError {
  return missing('TENANT_NOT_FOUND', `tenant "${tenant}"`, DEFAULT_TENANT);
}

function existing(what: string): MagnetarError {
  return new MagnetarError('ALREADY_EXISTS', `${what} exists already`);
}

/** Creates what a new installation has and this one lacks. `now`: the creation time. */
export async function ensureDefaults(store: MetadataStore, now: Millis): Promise<void> {
  const wanted: readonly Extract<Write, { put: string }>[] = [
    { put: keys.tenant(DEFAULT_TENANT), value: tenantRecord.encode({ createdAt: now }) },
    { put: keys.namespace(DEFAULT_TENANT, DEFAULT_NAMESPACE), value: namespaceRecord.encode({ createdAt: now }) },
  ];
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const { items } = await store.get(wanted.map(({ put }) => put));
    const writes = wanted.filter((_, at) => items[at] === undefined);
    if (writes.length === 0) return;
    const compares = writes.map(({ put }) => ({ key: put, modRevision: 0 }));
    if ((await store.transact(compares, writes)).committed) return;
  }
  throw new MagnetarError('METADATA_CONFLICT', `${DEFAULT_TENANT}/${DEFAULT_NAMESPACE} keeps being changed by others`);
}

/** @throws INVALID_ARGUMENT (name), ALREADY_EXISTS */
export async function createTenant(store: MetadataStore, tenant: string, now: Millis): Promise<void> {
  checkName('tenant', tenant);
  const key = keys.tenant(tenant);
  const write = { put: key, value: tenantRecord.encode({ createdAt: now }) };
  const { committed } = await store.transact([{ key, modRevision: 0 }], [write]);
  if (!committed) throw existing(`tenant "${tenant}"`);
}

/** @throws INVALID_ARGUMENT (name), TENANT_NOT_FOUND, ALREADY_EXISTS */
export async function createNamespace(
  store: MetadataStore,
  tenant: string,
  namespace: string,
  now: Millis,
): Promise<void> {
  checkName('tenant', tenant);
  checkName('namespace', namespace);
  const [tenantKey, key] = [keys.tenant(tenant), keys.namespace(tenant, namespace)];
  const write = { put: key, value: namespaceRecord.encode({ createdAt: now }) };
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const [owner, there] = (await store.get([tenantKey, key])).items;
    if (owner === undefined) throw noTenant(tenant);
    if (there !== undefined) throw existing(`namespace "${tenant}/${namespace}"`);
    // The tenant must still be there, whatever has become of its settings.
    const compares = [
      { key: tenantKey, createRevision: owner.createRevision },
      { key, modRevision: 0 },
    ];
    if ((await store.transact(compares, [write])).committed) return;
  }
  throw new MagnetarError('METADATA_CONFLICT', `namespace "${tenant}/${namespace}" keeps being changed by others`);
}

/** Resolves when the namespace is there. @throws INVALID_ARGUMENT (name), TENANT_NOT_FOUND, NAMESPACE_NOT_FOUND */
export async function requireNamespace(store: MetadataStore, tenant: string, namespace: string): Promise<void> {
  checkName('tenant', tenant);
  checkName('namespace', namespace);
  const [owner, there] = (await store.get([keys.tenant(tenant), keys.namespace(tenant, namespace)])).items;
  if (owner === undefined) throw noTenant(tenant);
  if (there === undefined) {
    const shown = `${DEFAULT_TENANT}/${DEFAULT_NAMESPACE}`;
    throw missing('NAMESPACE_NOT_FOUND', `namespace "${tenant}/${namespace}"`, shown);
  }
}
