import type { LedgerId } from '../lib/ids.ts';

/** Ledger ids in keys have as many digits as the largest 64-bit number, so that they sort as numbers. */
const LEDGER_DIGITS = 20;

function digits(id: LedgerId): string {
  return String(id).padStart(LEDGER_DIGITS, '0');
}

/**
 * The keys of the metadata store. Names of tenants, namespaces, topics, bookies and brokers contain no `/`, so that no name
 * can reach into another's keys. A prefix ends in `/`, so that `a` is not taken for the beginning of `ab`.
 */
export const keys = {
  /** Of the cluster as a whole. */
  cluster: 'cluster',
  tenant: (tenant: string): string => `tenants/${tenant}`,
  tenants: 'tenants/',
  namespace: (tenant: string, namespace: string): string => `namespaces/${tenant}/${namespace}`,
  /** All namespaces, or those of a tenant. */
  namespaces: (tenant?: string): string => (tenant === undefined ? 'namespaces/' : `namespaces/${tenant}/`),
  topic: (tenant: string, namespace: string, local: string): string => `topics/${tenant}/${namespace}/${local}`,
  /** All topics of a namespace. */
  topics: (tenant: string, namespace: string): string => `topics/${tenant}/${namespace}/`,
  /** One immutable chunk of a topic's older ledgers; `chunk` counts from 0. */
  topicChunk: (tenant: string, namespace: string, local: string, chunk: number): string =>
    `topics-chunks/${tenant}/${namespace}/${local}/${chunk}`,
  /** What is left of a topic that was deleted. */
  topicDeleting: (tenant: string, namespace: string, local: string): string =>
    `topics-deleting/${tenant}/${namespace}/${local}`,
  topicsDeleting: 'topics-deleting/',
  ledger: (id: LedgerId): string => `ledgers/${digits(id)}`,
  ledgers: 'ledgers/',
  /** The tombstone of a deleted ledger. */
  deletedLedger: (id: LedgerId): string => `deleted/${digits(id)}`,
  deletedLedgers: 'deleted/',
  /** What proves that a bookie's folder is the one that it always had. */
  bookieCookie: (id: string): string => `bookies/cookies/${id}`,
  bookieCookies: 'bookies/cookies/',
  /** A bookie that is there, under its lease. */
  bookieLive: (id: string): string => `bookies/live/${id}`,
  bookiesLive: 'bookies/live/',
  /** A broker that is there, under its lease. */
  broker: (id: string): string => `brokers/${id}`,
  brokers: 'brokers/',
  /** The owner of a part of a namespace's topics, under its lease; `range` as in 00000000-ffffffff. */
  bundle: (tenant: string, namespace: string, range: string): string => `bundles/${tenant}/${namespace}/${range}`,
  bundles: (tenant: string, namespace: string): string => `bundles/${tenant}/${namespace}/`,
  /** The broker that assigns bundles. */
  leader: 'leader',
  /** A ledger that has lost copies. */
  repair: (id: LedgerId): string => `repair/${digits(id)}`,
  /** The next ledger id that nobody has taken. */
  nextLedgerId: 'ids/ledger',
} as const;
