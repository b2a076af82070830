import { MagnetarError } from '../lib/errors.ts';
import type { Millis, Revision } from '../lib/ids.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Random } from '../runtime/random.ts';
import { Followers, follow, type History } from './follow.ts';
import { deletions, HeldLeases, LeaseTable } from './leases.ts';
import type {
  Compare,
  KeyValue,
  Lease,
  MetadataStore,
  RangeQuery,
  RangeResult,
  TransactResult,
  WatchBatch,
  WatchEvent,
  Write,
} from './store.ts';
import {
  checkCompaction,
  checkKeys,
  checkTransaction,
  checkTtl,
  compareKeys,
  decide,
  HISTORY_REVISIONS,
  RANGE_PAGE_BYTES,
  rangeLimit,
} from './transaction.ts';

/** What several memory stores can share, as processes share a store on the network: each has its own leases and its own end. */
export class MemoryDatabase implements History {
  readonly followers: Followers = new Followers();
  readonly leases: LeaseTable;
  readonly #items = new Map<string, KeyValue>();
  /** Keys in order. */
  readonly #order: string[] = [];
  readonly #changes = new Map<number, readonly WatchEvent[]>();
  #floor = 1;
  #newest = 0;

  constructor({ clock, random }: { clock: Clock; random: Random }) {
    const deleteKeys = async (keys: readonly string[]): Promise<void> => {
      for (const writes of deletions(keys)) this.transact([], writes);
      await Promise.resolve();
    };
    this.leases = new LeaseTable({ clock, random, deleteKeys });
  }

  get floor(): number {
    return this.#floor;
  }

  get newest(): number {
    return this.#newest;
  }

  item(key: string): KeyValue | undefined {
    return this.#items.get(key);
  }

  changes(revision: number): readonly WatchEvent[] {
    return this.#changes.get(revision) ?? [];
  }

  range(query: RangeQuery): RangeResult {
    const limit = rangeLimit(query);
    const { prefix, after } = query;
    const items: KeyValue[] = [];
    let bytes = 0;
    const first =
      after === undefined || compareKeys(after, prefix) < 0 ? this.#place(prefix) : this.#placeBehind(after);
    for (let at = first; ; at++) {
      const key = this.#order[at];
      const item = key?.startsWith(prefix) === true ? this.#items.get(key) : undefined;
      if (item === undefined) return { revision: this.#newest as Revision, items, more: false };
      if (items.length >= limit || bytes >= RANGE_PAGE_BYTES) {
        return { revision: this.#newest as Revision, items, more: true };
      }
      items.push(item);
      bytes += item.value.length;
    }
  }

  /** Where a key is in the order, or would be. */
  #place(key: string): number {
    let [low, high] = [0, this.#order.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (compareKeys(this.#order[middle] ?? '', key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #placeBehind(key: string): number {
    const place = this.#place(key);
    return this.#order[place] === key ? place + 1 : place;
  }

  transact(compares: readonly Compare[], writes: readonly Write[]): TransactResult {
    const revision = (this.#newest + 1) as Revision;
    const decision = decide((key) => this.#items.get(key), compares, writes, revision);
    if (!decision.committed) {
      return { committed: false, revision: this.#newest as Revision, current: decision.current };
    }
    if (decision.events.length === 0) return { committed: true, revision: this.#newest as Revision };
    for (const event of decision.events) this.#apply(event);
    this.leases.applied(decision.events);
    this.#changes.set(revision, decision.events);
    this.#newest = revision;
    this.compact(revision - HISTORY_REVISIONS + 1);
    this.followers.wake();
    return { committed: true, revision };
  }

  #apply(event: WatchEvent): void {
    if (event.type === 'delete') {
      this.#items.delete(event.key);
      this.#order.splice(this.#place(event.key), 1);
      return;
    }
    const { key } = event.item;
    if (!this.#items.has(key)) this.#order.splice(this.#place(key), 0, key);
    this.#items.set(key, event.item);
  }

  compact(below: number): void {
    for (; this.#floor < below; this.#floor++) this.#changes.delete(this.#floor);
  }
}

class MemoryStore implements MetadataStore {
  readonly #clock: Clock;
  readonly #database: MemoryDatabase;
  readonly #leases: HeldLeases;
  #closed = false;

  constructor(clock: Clock, database: MemoryDatabase) {
    this.#clock = clock;
    this.#database = database;
    this.#leases = new HeldLeases(clock, database.leases);
  }

  readonly #check = (): void => {
    if (this.#closed) throw new MagnetarError('ALREADY_CLOSED', 'the metadata store is closed');
  };

  async get(keys: readonly string[]): Promise<{ revision: Revision; items: readonly (KeyValue | undefined)[] }> {
    this.#check();
    checkKeys(keys);
    const items = keys.map((key) => this.#database.item(key));
    return await Promise.resolve({ revision: this.#database.newest as Revision, items });
  }

  async range(query: RangeQuery): Promise<RangeResult> {
    this.#check();
    return await Promise.resolve(this.#database.range(query));
  }

  async transact(compares: readonly Compare[], writes: readonly Write[]): Promise<TransactResult> {
    this.#check();
    checkTransaction(compares, writes);
    this.#database.leases.checkWrites(writes);
    return await Promise.resolve(this.#database.transact(compares, writes));
  }

  watch(options: { prefix: string; from?: Revision; signal: AbortSignal }): AsyncIterable<WatchBatch> {
    const { prefix, from = this.#database.newest + 1, signal } = options;
    const [history, followers] = [this.#database, this.#database.followers];
    return follow({ history, followers, clock: this.#clock, check: this.#check, prefix, from, signal });
  }

  async compact(below: Revision): Promise<void> {
    this.#check();
    checkCompaction(below, this.#database.newest);
    this.#database.compact(below);
    await Promise.resolve();
  }

  async grantLease(ttl: Millis): Promise<Lease> {
    this.#check();
    checkTtl(ttl);
    return await Promise.resolve(this.#leases.grant(ttl));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#leases.close();
    this.#database.followers.wake();
    await Promise.resolve();
  }
}

/**
 * A store in memory, for tests and simulation. Stores over one `database` see the same keys; when one of them closes, its
 * leases run out, as those of a process that has died.
 */
export function openMemoryStore(options: { clock: Clock; random: Random; database?: MemoryDatabase }): MetadataStore {
  return new MemoryStore(options.clock, options.database ?? new MemoryDatabase(options));
}
