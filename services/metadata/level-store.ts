/** The metadata store over one open database. It ends with the first write that fails; `level.ts` opens it again. */
import { MagnetarError } from '../lib/errors.ts';
import { Deque } from '../lib/collections/deque.ts';
import type { Revision } from '../lib/ids.ts';
import { isDiskFull } from '../runtime/disk.ts';
import type { History } from './follow.ts';
import { deletions, type LeaseTable } from './leases.ts';
import type { BatchOperation, Database, Snapshot } from './level-database.ts';
import {
  decodeItem,
  decodeMark,
  decodeRow,
  type Digest,
  encodeItem,
  encodeMark,
  encodeRow,
  FLOOR_KEY,
  itemKey,
  NEWEST_KEY,
  rowKey,
} from './level-format.ts';
import type { Found } from './level-open.ts';
import type { Compare, KeyValue, RangeQuery, RangeResult, TransactResult, WatchEvent, Write } from './store.ts';
import {
  checkCompaction,
  checkKeys,
  checkTransaction,
  compareKeys,
  decide,
  eventKey,
  HISTORY_REVISIONS,
  RANGE_PAGE_BYTES,
  rangeLimit,
} from './transaction.ts';
import type { Witness } from './witness.ts';

/** The history also ends where its rows have so many bytes, so that a start reads no more. */
const HISTORY_BYTES = 33_554_432;
/** A batch drops at most so many old revisions on its own account. */
const DROPPED_PER_BATCH = 512;
/** A batch takes no more transactions when it has so many of them, or so many bytes. */
const BATCH_TRANSACTIONS = 500;
const BATCH_BYTES = 4_194_304;
/** Beyond these, transactions are refused with QUEUE_FULL. */
const PENDING_TRANSACTIONS = 10_000;
const PENDING_BYTES = 67_108_864;
/** Of so many revisions the decoded changes are kept for watches, if their rows are not large. */
const RECENT_REVISIONS = 256;
const RECENT_ROW_BYTES = 65_536;
const SCAN_PAGE = 256;

/** Transactions that become durable together. */
interface Group {
  readonly operations: BatchOperation[];
  readonly revisions: Staged[];
  bytes: number;
  /** Settles when the batch has. */
  readonly done: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

interface Staged {
  readonly revision: number;
  readonly events: readonly WatchEvent[];
  readonly rowBytes: number;
}

function newGroup(): Group {
  let [resolve, reject]: [() => void, (error: Error) => void] = [() => {}, () => {}];
  const done = new Promise<void>((onResolve, onReject) => {
    [resolve, reject] = [onResolve, onReject];
  });
  // A group of deletes of an expired lease has nobody who waits for it; the store's failure reaches everybody otherwise.
  done.catch(() => {});
  return { operations: [], revisions: [], bytes: 0, done, resolve, reject };
}

/** What it works with. */
export interface LevelStoreParts {
  readonly database: Database;
  readonly witness: Witness;
  readonly leases: LeaseTable;
  /** There are new revisions. */
  readonly landed: () => void;
  /** A write has failed: nothing more is accepted. Returns what those are told who wait. */
  readonly failed: (cause: unknown) => MagnetarError;
}

/**
 * State: transactions are decided in their order against the *decided* state, which is the durable one with the writes in
 * `#overlay` over it; reads see the durable state alone. Invariants: durable <= decided; the overlay holds exactly the keys
 * written by revisions in (durable, decided], each with its newest value.
 */
export class LevelStore implements History {
  readonly #parts: LevelStoreParts;
  readonly #database: Database;
  readonly #leases: LeaseTable;
  readonly #overlay = new Map<string, { readonly item: KeyValue | undefined; readonly revision: number }>();
  readonly #groups = new Deque<Group>();
  /** The newest group; the last one in `#groups`, or the one that is being written. */
  #last: Group | undefined;
  /** Takes transactions until it is written. */
  #open: Group | undefined;
  #writing: Promise<void> | undefined;
  #pendingTransactions = 0;
  #pendingBytes = 0;
  #decided: number;
  #durable: number;
  #floor: number;
  /** Where a caller wants the history to begin. */
  #wantedFloor = 0;
  #digest: Digest;
  readonly #rowBytes = new Deque<number>();
  #historyBytes = 0;
  readonly #recent = new Map<number, readonly WatchEvent[]>();
  #failure: MagnetarError | undefined;
  /** False: what the database shows may be what is not durable. */
  #readable = true;
  #closing: Promise<void> | undefined;

  constructor(parts: LevelStoreParts, found: Found) {
    this.#parts = parts;
    this.#database = parts.database;
    this.#leases = parts.leases;
    this.#decided = found.newest;
    this.#durable = found.newest;
    this.#floor = found.floor;
    this.#digest = found.digest;
    for (const bytes of found.rowBytes) this.#rememberRow(bytes);
  }

  #check(): void {
    if (this.#closing !== undefined) throw new MagnetarError('ALREADY_CLOSED', 'the metadata store is closed');
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** A write that failed was not durable, and is not seen: what was durable before can still be read. */
  #checkRead(): void {
    if (this.#closing !== undefined || !this.#readable) this.#check();
  }

  // Reads.

  #durableItem(key: string, snapshot?: Snapshot): KeyValue | undefined {
    const stored = this.#database.get(itemKey(key), snapshot);
    return stored === undefined ? undefined : decodeItem(key, stored).item;
  }

  /**
   * Runs a read at one revision. While a batch is being written it may become visible between two reads, hence the snapshot;
   * it costs more than the reads do, so at other times there is none.
   */
  async #atOneRevision<T>(read: (revision: Revision, snapshot: Snapshot | undefined) => T): Promise<Awaited<T>> {
    if (this.#writing === undefined) return await read(this.#durable as Revision, undefined);
    const snapshot = this.#database.snapshot();
    try {
      const newest = this.#database.get(NEWEST_KEY, snapshot);
      if (newest === undefined)
        throw new MagnetarError('METADATA_DAMAGED', `the metadata store is damaged: ${NEWEST_KEY} is missing`);
      return await read(decodeMark(NEWEST_KEY, newest), snapshot);
    } finally {
      await snapshot.close();
    }
  }

  async get(keys: readonly string[]): Promise<{ revision: Revision; items: readonly (KeyValue | undefined)[] }> {
    this.#checkRead();
    checkKeys(keys);
    return await this.#atOneRevision((revision, snapshot) => ({
      revision,
      items: keys.map((key) => this.#durableItem(key, snapshot)),
    }));
  }

  async range(query: RangeQuery): Promise<RangeResult> {
    this.#checkRead();
    const limit = rangeLimit(query);
    const { prefix, after } = query;
    const exclusive = after !== undefined && compareKeys(after, prefix) >= 0;
    const range = { from: itemKey(exclusive ? after : prefix), exclusive, to: 'k0' };
    try {
      return await this.#atOneRevision(async (revision, snapshot) => {
        // The scan sees the moment at which it is made, also without a snapshot.
        const scan = this.#database.scan(range, snapshot);
        const items: KeyValue[] = [];
        let bytes = 0;
        try {
          for (;;) {
            const page = await scan.next(Math.min(SCAN_PAGE, limit + 1 - items.length));
            for (const [stored, value] of page) {
              const key = stored.slice(2);
              if (!key.startsWith(prefix)) return { revision, items, more: false };
              if (items.length >= limit || bytes >= RANGE_PAGE_BYTES) return { revision, items, more: true };
              const { item } = decodeItem(key, value);
              items.push(item);
              bytes += item.value.length;
            }
            if (page.length === 0) return { revision, items, more: false };
          }
        } finally {
          await scan.close();
        }
      });
    } catch (error) {
      this.#checkRead(); // A scan that the closing of the database has ended.
      throw error;
    }
  }

  // History.

  get floor(): number {
    return this.#floor;
  }

  get newest(): number {
    return this.#durable;
  }

  changes(revision: number): readonly WatchEvent[] {
    const recent = this.#recent.get(revision);
    if (recent !== undefined) return recent;
    const row = this.#database.get(rowKey(revision));
    if (row === undefined)
      throw new MagnetarError('METADATA_DAMAGED', `the metadata store is damaged: revision ${revision} is missing`);
    return decodeRow(revision as Revision, row).events;
  }

  async compact(below: Revision): Promise<void> {
    this.#check();
    checkCompaction(below, this.#durable);
    if (below <= this.#floor) return;
    this.#wantedFloor = Math.max(this.#wantedFloor, below);
    await this.#openGroup().done;
  }

  // Writes.

  async transact(compares: readonly Compare[], writes: readonly Write[]): Promise<TransactResult> {
    this.#check();
    checkTransaction(compares, writes);
    this.#leases.checkWrites(writes);
    if (this.#pendingTransactions >= PENDING_TRANSACTIONS || this.#pendingBytes >= PENDING_BYTES) {
      throw new MagnetarError(
        'QUEUE_FULL',
        `${this.#pendingTransactions} metadata transactions wait for the disk already`,
      );
    }
    return await this.#submit(compares, writes);
  }

  async #submit(compares: readonly Compare[], writes: readonly Write[]): Promise<TransactResult> {
    const revision = (this.#decided + 1) as Revision;
    const decision = decide((key) => this.#decidedItem(key), compares, writes, revision);
    if (decision.committed && decision.events.length > 0) {
      const group = this.#stage(revision, decision.events, decision.previous);
      await group.done;
      return { committed: true, revision };
    }
    const seen = this.#decided as Revision;
    // What it has seen must be durable before anybody hears of it.
    await this.#last?.done;
    return decision.committed
      ? { committed: true, revision: seen }
      : { committed: false, revision: seen, current: decision.current };
  }

  #decidedItem(key: string): KeyValue | undefined {
    const written = this.#overlay.get(key);
    return written === undefined ? this.#durableItem(key) : written.item;
  }

  #stage(revision: Revision, events: readonly WatchEvent[], previous: readonly (KeyValue | undefined)[]): Group {
    const group = this.#openGroup();
    const items = events.map((event) => (event.type === 'put' ? encodeItem(event.item) : undefined));
    let { keys, crcs } = this.#digest;
    for (const [at, event] of events.entries()) {
      const [item, before] = [items[at], previous[at]];
      const key = eventKey(event);
      if (before !== undefined) crcs ^= encodeItem(before).readUInt32LE(0);
      if (item !== undefined) crcs ^= item.readUInt32LE(0);
      keys += (item === undefined ? 0 : 1) - (before === undefined ? 0 : 1);
      group.operations.push(
        item === undefined ? { type: 'del', key: itemKey(key) } : { type: 'put', key: itemKey(key), value: item },
      );
      group.bytes += item?.length ?? 0;
      this.#overlay.set(key, { item: event.type === 'put' ? event.item : undefined, revision });
    }
    this.#digest = { keys, crcs: crcs >>> 0 };
    const row = encodeRow(revision, this.#digest, events, items);
    group.operations.push({ type: 'put', key: rowKey(revision), value: row });
    group.revisions.push({ revision, events, rowBytes: row.length });
    group.bytes += row.length;
    this.#pendingBytes += row.length;
    this.#pendingTransactions++;
    this.#decided = revision;
    this.#rememberRow(row.length);
    this.#leases.applied(events);
    return group;
  }

  #rememberRow(bytes: number): void {
    this.#rowBytes.push(bytes);
    this.#historyBytes += bytes;
  }

  /** The group that takes the next transaction; it will be written. */
  #openGroup(): Group {
    if (
      this.#open === undefined ||
      this.#open.revisions.length >= BATCH_TRANSACTIONS ||
      this.#open.bytes >= BATCH_BYTES
    ) {
      this.#open = newGroup();
      this.#last = this.#open;
      this.#groups.push(this.#open);
    }
    this.#writing ??= this.#writeGroups();
    return this.#open;
  }

  /** Writes groups one after another until none is left. */
  async #writeGroups(): Promise<void> {
    await Promise.resolve(); // What is started in the same turn goes along.
    for (let group = this.#groups.shift(); group !== undefined; group = this.#groups.shift()) {
      if (group === this.#open) this.#open = undefined;
      this.#finishBatch(group);
      try {
        await this.#database.write(group.operations);
      } catch (error) {
        this.#fail(error, group);
        break;
      }
      if (this.#failure !== undefined) {
        group.reject(this.#failure); // The witness has failed meanwhile.
        break;
      }
      this.#landed(group);
    }
    this.#writing = undefined;
  }

  /** Adds what the batch says about the store as a whole. */
  #finishBatch({ operations, revisions }: Group): void {
    const newest = revisions.at(-1)?.revision;
    if (newest !== undefined) operations.push({ type: 'put', key: NEWEST_KEY, value: encodeMark(NEWEST_KEY, newest) });
    const floor = this.#floor;
    this.#dropHistory(operations);
    if (this.#floor > floor)
      operations.push({ type: 'put', key: FLOOR_KEY, value: encodeMark(FLOOR_KEY, this.#floor) });
  }

  /** Moves the floor, up to the newest durable revision at most: that row stays. */
  #dropHistory(operations: BatchOperation[]): void {
    const start = this.#floor;
    while (this.#floor < this.#durable) {
      const tooLong = this.#rowBytes.length > HISTORY_REVISIONS || this.#historyBytes > HISTORY_BYTES;
      const drop = this.#floor < this.#wantedFloor || (tooLong && this.#floor - start < DROPPED_PER_BATCH);
      if (!drop) return;
      operations.push({ type: 'del', key: rowKey(this.#floor) });
      this.#historyBytes -= this.#rowBytes.shift() ?? 0;
      this.#recent.delete(this.#floor);
      this.#floor++;
    }
  }

  #landed(group: Group): void {
    for (const { revision, events, rowBytes } of group.revisions) {
      for (const event of events) {
        const key = eventKey(event);
        if (this.#overlay.get(key)?.revision === revision) this.#overlay.delete(key);
      }
      if (rowBytes <= RECENT_ROW_BYTES) this.#recent.set(revision, events);
      this.#recent.delete(revision - RECENT_REVISIONS);
      this.#pendingBytes -= rowBytes;
      this.#pendingTransactions--;
      this.#durable = revision;
    }
    if (this.#last === group) this.#last = undefined;
    if (group.revisions.length > 0) this.#parts.witness.note(this.#durable);
    group.resolve();
    this.#parts.landed();
  }

  /** Nothing is acknowledged from here on. */
  #fail(cause: unknown, group?: Group): void {
    if (this.#failure !== undefined) return;
    this.#readable =
      isDiskFull(cause) && this.#database.get(NEWEST_KEY)?.equals(encodeMark(NEWEST_KEY, this.#durable)) === true;
    const failure = this.#parts.failed(cause);
    this.#failure = failure;
    group?.reject(failure);
    for (let waiting = this.#groups.shift(); waiting !== undefined; waiting = this.#groups.shift())
      waiting.reject(failure);
  }

  /** Another write of the store has failed than one of its own. */
  fail(cause: unknown): void {
    this.#fail(cause);
  }

  /** Deletes keys in as many transactions as it takes, all decided at once. */
  async deleteKeys(keys: readonly string[]): Promise<void> {
    if (this.#failure !== undefined || this.#closing !== undefined) return;
    await Promise.all(deletions(keys).map(async (writes) => await this.#submit([], writes)));
  }

  async close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    await this.#closing;
  }

  async #closeAll(): Promise<void> {
    await Promise.resolve(); // `#closing` is set from here on.
    await this.#writing;
    try {
      await this.#parts.witness.close(this.#failure === undefined ? this.#durable : undefined);
    } finally {
      await this.#database.close();
    }
  }
}
