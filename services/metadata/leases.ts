/** Leases of a store that lives in this process: whoever holds one and whoever grants it share a clock. */
import { MagnetarError } from '../lib/errors.ts';
import type { Millis } from '../lib/ids.ts';
import type { Clock, Timer } from '../runtime/clock.ts';
import type { Random } from '../runtime/random.ts';
import { type Lease, type LeaseId, LIMITS, type WatchEvent, type Write } from './store.ts';
import { eventKey } from './transaction.ts';

interface Granted {
  readonly id: LeaseId;
  readonly ttl: Millis;
  readonly keys: Set<string>;
  expiresAt: number;
  timer: Timer;
}

/** A key, and the lease that it hangs on. */
export interface LeasedKey {
  readonly key: string;
  readonly lease: LeaseId;
}

/** Ends a lease's keys. Resolves when that is durable. */
export type DeleteKeys = (keys: readonly string[]) => Promise<void>;

/** The granting side: which leases there are, which keys hang on them, when they expire. */
export class LeaseTable {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #deleteKeys: DeleteKeys;
  readonly #leases = new Map<LeaseId, Granted>();
  readonly #leaseOf = new Map<string, Granted>();

  constructor({ clock, random, deleteKeys }: { clock: Clock; random: Random; deleteKeys: DeleteKeys }) {
    this.#clock = clock;
    this.#random = random;
    this.#deleteKeys = deleteKeys;
  }

  grant(ttl: Millis): LeaseId {
    let id = 0n;
    while (id === 0n || this.#leases.has(id)) id = this.#random.bytes(8).readBigUInt64BE() >> 1n;
    const expiresAt = this.#clock.monotonic() + ttl;
    this.#leases.set(id, { id, ttl, keys: new Set(), expiresAt, timer: this.#expireAfter(id, ttl) });
    return id;
  }

  #expireAfter(id: LeaseId, ms: number): Timer {
    return this.#clock.after(ms, () => this.#live(id), { unref: true });
  }

  /** The lease, unless it is gone or its time is over; then it is ended. */
  #live(id: LeaseId): Granted | undefined {
    const lease = this.#leases.get(id);
    if (lease === undefined || this.#clock.monotonic() < lease.expiresAt) return lease;
    // The store reports a failure to everybody; here nobody waits for it. What is not deleted now is when the store is opened again.
    this.end(id).catch(() => {});
    return undefined;
  }

  /** Prolongs a lease by its time to live from now. False: it is gone. */
  renew(id: LeaseId): boolean {
    const lease = this.#live(id);
    if (lease === undefined) return false;
    lease.timer.cancel();
    lease.expiresAt = this.#clock.monotonic() + lease.ttl;
    lease.timer = this.#expireAfter(id, lease.ttl);
    return true;
  }

  /** Ends a lease and deletes its keys. Resolves when that is durable; at once when there is no such lease. */
  async end(id: LeaseId): Promise<void> {
    const lease = this.#leases.get(id);
    if (lease === undefined) return;
    this.#leases.delete(id);
    lease.timer.cancel();
    const keys = [...lease.keys];
    for (const key of keys) this.#leaseOf.delete(key);
    await this.#deleteKeys(keys);
  }

  /** @throws LEASE_LOST when a write names a lease that is not there. */
  checkWrites(writes: readonly Write[]): void {
    for (const write of writes) {
      if (!('put' in write) || write.lease === undefined || this.#live(write.lease) !== undefined) continue;
      throw new MagnetarError('LEASE_LOST', `lease ${write.lease} is gone: ${write.put} cannot be tied to it`);
    }
  }

  /** Notes which keys hang on which lease after a transaction. */
  applied(events: readonly WatchEvent[]): void {
    for (const event of events) {
      const key = eventKey(event);
      this.#leaseOf.get(key)?.keys.delete(key);
      const lease =
        event.type === 'put' && event.item.lease !== undefined ? this.#leases.get(event.item.lease) : undefined;
      if (lease === undefined) {
        this.#leaseOf.delete(key);
      } else {
        lease.keys.add(key);
        this.#leaseOf.set(key, lease);
      }
    }
  }

  /** Learns anew which keys hang on which lease. Returns those whose lease is gone. */
  adopt(items: readonly LeasedKey[]): string[] {
    this.#leaseOf.clear();
    for (const { keys } of this.#leases.values()) keys.clear();
    const orphans: string[] = [];
    for (const { key, lease: id } of items) {
      const lease = this.#leases.get(id);
      if (lease === undefined) {
        orphans.push(key);
      } else {
        lease.keys.add(key);
        this.#leaseOf.set(key, lease);
      }
    }
    return orphans;
  }

  /** Forgets everything, deleting nothing. */
  close(): void {
    for (const { timer } of this.#leases.values()) timer.cancel();
    this.#leases.clear();
    this.#leaseOf.clear();
  }
}

/** Deletes keys in as many transactions as the limit asks for. */
export function deletions(keys: readonly string[]): Write[][] {
  const slices: Write[][] = [];
  for (let at = 0; at < keys.length; at += LIMITS.operationsPerTransaction) {
    slices.push(keys.slice(at, at + LIMITS.operationsPerTransaction).map((key) => ({ delete: key })));
  }
  return slices;
}

/** The holding side: renews at every third of the time to live. */
class HeldLease implements Lease {
  readonly id: LeaseId;
  readonly lost: Promise<void>;
  #heldUntil: number;
  #timer: Timer;
  readonly #clock: Clock;
  readonly #table: LeaseTable;
  readonly #ttl: Millis;
  readonly #forget: (lease: HeldLease) => void;
  #resolveLost: () => void = () => {};

  constructor(clock: Clock, table: LeaseTable, ttl: Millis, forget: (lease: HeldLease) => void) {
    this.#clock = clock;
    this.#table = table;
    this.#ttl = ttl;
    this.#forget = forget;
    this.#heldUntil = clock.monotonic() + ttl;
    this.id = table.grant(ttl);
    this.lost = new Promise((resolve) => {
      this.#resolveLost = resolve;
    });
    this.#timer = this.#renewLater();
  }

  get heldUntil(): number {
    return this.#heldUntil;
  }

  #renewLater(): Timer {
    return this.#clock.after(this.#ttl / 3, () => this.#renew(), { unref: true });
  }

  #renew(): void {
    const sentAt = this.#clock.monotonic();
    if (!this.#table.renew(this.id)) {
      this.drop();
      return;
    }
    this.#heldUntil = sentAt + this.#ttl;
    this.#timer = this.#renewLater();
  }

  /** Counts on it no longer; its keys stay until it expires. */
  drop(): void {
    this.#timer.cancel();
    this.#heldUntil = Math.min(this.#heldUntil, this.#clock.monotonic());
    this.#forget(this);
    this.#resolveLost();
  }

  async revoke(): Promise<void> {
    this.drop();
    await this.#table.end(this.id);
  }
}

/** The leases that one user of a store holds. */
export class HeldLeases {
  readonly #held = new Set<HeldLease>();
  readonly #clock: Clock;
  readonly #table: LeaseTable;

  constructor(clock: Clock, table: LeaseTable) {
    this.#clock = clock;
    this.#table = table;
  }

  grant(ttl: Millis): Lease {
    const lease = new HeldLease(this.#clock, this.#table, ttl, (gone) => this.#held.delete(gone));
    this.#held.add(lease);
    return lease;
  }

  /** All are lost; none is revoked. */
  close(): void {
    for (const lease of this.#held) lease.drop();
  }
}
