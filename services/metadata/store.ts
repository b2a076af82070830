/**
 * The metadata store: a small, strongly consistent map with revisions, cut for etcd's semantics.
 *
 * Keys are strings that sort by their UTF-8 bytes; values are opaque bytes. Every transaction that writes gets the next
 * revision; all its writes carry it. Errors of every method: UNAVAILABLE (may be tried again; a `transact` that failed
 * with it may have happened), DEADLINE_EXCEEDED and DISK_FULL (likewise), ALREADY_CLOSED, METADATA_DAMAGED, STORE_FAILED (a write
 * of the store's own disk has failed: nothing is accepted any more).
 */
import type { Millis, Revision } from '../lib/ids.ts';

/** Limits that every store enforces with INVALID_ARGUMENT. */
export const LIMITS: {
  readonly operationsPerTransaction: number;
  readonly valueBytes: number;
  readonly keyBytes: number;
} = { operationsPerTransaction: 128, valueBytes: 1_048_576, keyBytes: 4_096 };

/** A key with its value. Frozen: the value must not be written to. */
export interface KeyValue {
  readonly key: string;
  readonly value: Buffer;
  /** The revision that created the key (again, after a delete). */
  readonly createRevision: Revision;
  /** The revision that wrote it last. */
  readonly modRevision: Revision;
  /** The lease that it is tied to. */
  readonly lease?: LeaseId;
}

/** A lease, as the store names it. 64 bits in etcd. */
export type LeaseId = bigint;

/** A condition of a transaction. Revision 0 stands for "there is no such key". */
export type Compare =
  | { readonly key: string; readonly modRevision: number }
  | { readonly key: string; readonly createRevision: number };

/** A write of a transaction. No key twice in one transaction. */
export type Write =
  | { readonly put: string; readonly value: Uint8Array; readonly lease?: LeaseId }
  | { readonly delete: string };

/** What became of a transaction. */
export type TransactResult =
  | { readonly committed: true; readonly revision: Revision }
  /** Some condition did not hold. `current`: the compared keys as they are, in the order of the compares. */
  | { readonly committed: false; readonly revision: Revision; readonly current: readonly (KeyValue | undefined)[] };

/** Which keys: all that begin with `prefix`, from `after` (exclusive) on. */
export interface RangeQuery {
  readonly prefix: string;
  readonly after?: string;
  /** At most so many; 1,000 when not given. */
  readonly limit?: number;
}

/** A page of keys in order. */
export interface RangeResult {
  readonly revision: Revision;
  readonly items: readonly KeyValue[];
  /** True when there are more behind the last one. */
  readonly more: boolean;
}

/** One change of one key. */
export type WatchEvent =
  | { readonly type: 'put'; readonly item: KeyValue }
  | { readonly type: 'delete'; readonly key: string; readonly revision: Revision };

/** The changes of one revision, as far as they fall under the watch. */
export interface WatchBatch {
  readonly revision: Revision;
  readonly events: readonly WatchEvent[];
}

/** A lease that this process holds and keeps alive. */
export interface Lease {
  readonly id: LeaseId;
  /** Monotonic time (clock.monotonic) until which it is provably held: counted from the sending of the last renewal that succeeded. */
  readonly heldUntil: number;
  /** Resolves when it can no longer be counted on: expired, revoked, or the store closed. Never rejects. */
  readonly lost: Promise<void>;
  /** Ends it; its keys are deleted. Idempotent. */
  revoke(): Promise<void>;
}

export interface MetadataStore {
  /** The values of several keys at one revision. At most LIMITS.operationsPerTransaction keys. */
  get(
    keys: readonly string[],
  ): Promise<{ readonly revision: Revision; readonly items: readonly (KeyValue | undefined)[] }>;
  /** A page of keys at the current revision. Ends early, with `more`, when its values reach 8 MiB. */
  range(query: RangeQuery): Promise<RangeResult>;
  /**
   * All writes, or none: when every compare holds. Durable when it resolves. A transaction that changes nothing (no writes,
   * deletes of what is not there) only compares and takes no revision. Throws LEASE_LOST when a put names a lease that is
   * gone, QUEUE_FULL when too many wait; neither has happened then.
   */
  transact(compares: readonly Compare[], writes: readonly Write[]): Promise<TransactResult>;
  /**
   * Every change under a prefix from a revision on (inclusive; not given: from the next one), in order, without a gap.
   * Throws METADATA_COMPACTED when that revision is gone, also later, when a slow reader is overtaken by a compaction.
   * Ends when `signal` aborts; throws ALREADY_CLOSED when the store closes.
   */
  watch(options: {
    readonly prefix: string;
    readonly from?: Revision;
    readonly signal: AbortSignal;
  }): AsyncIterable<WatchBatch>;
  /** Forgets history below a revision, the newest one at most; watches from below it fail. */
  compact(below: Revision): Promise<void>;
  /** Gets a lease and keeps it alive until it is revoked or lost. */
  grantLease(ttl: Millis): Promise<Lease>;
  /** Idempotent. Leases end as lost; they are not revoked, as after a crash. */
  close(): Promise<void>;
}
