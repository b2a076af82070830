/**
 * Who may serve topics. For now one broker owns every topic: its registration key `brokers/<id>` is the owner key.
 *
 * The lease gives liveness alone. Safety is the owner key's create revision, compared in every transaction of a topic
 * (`topic-record.ts`), and the fencing of ledgers.
 */
import { ProtoWriter } from '../../lib/bytes.ts';
import { MagnetarError } from '../../lib/errors.ts';
import { type Epoch, epoch, type Millis } from '../../lib/ids.ts';
import type { Compare, Lease, MetadataStore } from '../../metadata/store.ts';
import { keys } from '../../metadata/keys.ts';
import type { Clock } from '../../runtime/clock.ts';

/** A right to serve that was acquired. */
export interface Ownership {
  readonly ownerKey: string;
  /** The owner key's create revision. */
  readonly epoch: Epoch;
  /** True while the lease is provably held: nothing is accepted or dispatched otherwise. */
  readonly held: boolean;
  /** Resolves when it is lost for good. Never rejects. */
  readonly lost: Promise<void>;
  /** The condition of every transaction of a topic. */
  compare(): Compare;
  /** Gives it up. Idempotent. */
  release(): Promise<void>;
}

/** Tries to get past a registration that an earlier process of the same name has left. */
const ATTEMPTS: number = 5;

function registration(): Buffer {
  const writer = new ProtoWriter(8);
  writer.varint(1, 1); // format version
  return writer.finish();
}

class LeasedOwnership implements Ownership {
  readonly ownerKey: string;
  readonly epoch: Epoch;
  readonly #lease: Lease;
  readonly #clock: Clock;

  constructor(ownerKey: string, ownerEpoch: Epoch, lease: Lease, clock: Clock) {
    this.ownerKey = ownerKey;
    this.epoch = ownerEpoch;
    this.#lease = lease;
    this.#clock = clock;
  }

  get held(): boolean {
    return this.#clock.monotonic() < this.#lease.heldUntil;
  }

  get lost(): Promise<void> {
    return this.#lease.lost;
  }

  compare(): Compare {
    return { key: this.ownerKey, createRevision: this.epoch };
  }

  async release(): Promise<void> {
    await this.#lease.revoke();
  }
}

/**
 * Registers the broker under a lease. A registration of the same name that is there already belongs to an earlier process
 * of this broker: it is replaced, which fences that process.
 *
 * @throws METADATA_CONFLICT when somebody keeps registering under this name; whatever the store throws.
 */
export async function acquireOwnership(options: {
  readonly store: MetadataStore;
  readonly clock: Clock;
  readonly brokerId: string;
  readonly leaseTtl: Millis;
}): Promise<Ownership> {
  const { store, clock, brokerId } = options;
  const key = keys.broker(brokerId);
  const lease = await store.grantLease(options.leaseTtl);
  try {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const put = { put: key, value: registration(), lease: lease.id };
      const result = await store.transact([{ key, createRevision: 0 }], [put]);
      if (result.committed) return new LeasedOwnership(key, epoch(result.revision), lease, clock);
      const present = result.current[0];
      if (present === undefined) continue;
      await store.transact([{ key, createRevision: present.createRevision }], [{ delete: key }]);
    }
    throw new MagnetarError('METADATA_CONFLICT', `broker "${brokerId}" cannot register: another process uses its name`);
  } catch (error) {
    await lease.revoke().catch(() => undefined);
    throw error;
  }
}
