/**
 * A world for an ack log in memory: ledgers, a topic record and a clock in which everything that takes time waits in
 * one list until somebody picks it. So every order of events, and a crash at every point, is a sequence of picks.
 *
 * Fault model: a crash loses what is in the list; of the entries that were not confirmed, a prefix survives. A ledger
 * may fail with NOT_ENOUGH_BOOKIES. A transaction may fail with UNAVAILABLE, without effect. An owner that was
 * replaced goes on until it notices.
 */
import type { ClosedLedger, LedgerEntry, LedgerReader, Ledgers, LedgerWriter } from '../../../ledger/ledgers.ts';
import { MagnetarError, toMagnetarError } from '../../../lib/errors.ts';
import type { EntryId, LedgerId, Millis } from '../../../lib/ids.ts';
import type { Write } from '../../../metadata/store.ts';
import type { Clock } from '../../../runtime/clock.ts';
import type { Environment } from '../../../runtime/environment.ts';
import { silentLogger } from '../../../runtime/logger.ts';
import type { Random } from '../../../runtime/random.ts';
import { CrashDisk } from '../../../runtime/testing/crash-disk.ts';
import type { TopicRecord } from '../../../wire/records.ts';
import type { TopicRecordHandle } from '../topic-record.ts';

/** Something that will happen when it is picked. */
interface Event {
  readonly owner: number;
  readonly run: () => void;
}

/** Lets everything that needs no event of the world happen. */
async function microtasks(): Promise<void> {
  for (let i = 0; i < 30; i++) await Promise.resolve();
}

export interface StoredLedger {
  readonly id: LedgerId;
  readonly entries: Buffer[];
  /** How many of the entries are on disk. */
  durable: number;
  fenced: boolean;
  closed: boolean;
}

function fatal(error: Error): never {
  throw error;
}

/** What outlives an owner, and the list of what is under way. */
export class AckLogWorld {
  readonly random: Random;
  readonly ledgers: Map<LedgerId, StoredLedger> = new Map();
  /** Entries that were appended, over all ledgers. */
  appended = 0;
  ledgersMade = 0;
  ledgersFailed = 0;
  record: TopicRecord = {
    incarnation: 1,
    ownerEpoch: 0 as TopicRecord['ownerEpoch'],
    floorIndex: 0 as TopicRecord['floorIndex'],
    ledgers: [],
    chunks: 0,
    ackLedgers: [],
    createdAt: 0 as Millis,
  };
  /** The owner whose changes of the record are taken. */
  owner = 0;
  /** Chances of failures, from 0 to 1. */
  chances: { notEnoughBookies: number; unavailable: number } = { notEnoughBookies: 0, unavailable: 0 };
  #time = 1_000_000;
  #events: Event[] = [];

  constructor(random: Random) {
    this.random = random;
  }

  get time(): number {
    return this.#time;
  }

  /** How many events wait. */
  get pending(): number {
    return this.#events.length;
  }

  later(owner: number, run: () => void): void {
    this.#events.push({ owner, run });
  }

  /** An answer that takes its time. */
  async answer<T>(owner: number, make: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.later(owner, () => {
        try {
          resolve(make());
        } catch (error) {
          reject(toMagnetarError(error));
        }
      });
    });
  }

  /** Lets one event happen, and all that follows from it at once. False when there is none. */
  async step(): Promise<boolean> {
    const [event] = this.#events.splice(Math.floor(this.random.next() * this.#events.length), 1);
    event?.run();
    await microtasks();
    return event !== undefined;
  }

  /** Lets events happen until there is none left, or `until` holds. */
  async settle(until: () => boolean = () => false): Promise<void> {
    await microtasks();
    for (let steps = 0; !until() && (await this.step()); steps++) {
      if (steps > 100_000) throw new Error('the world does not come to rest');
    }
  }

  /** An owner's process is gone. */
  crash(owner: number): void {
    this.#events = this.#events.filter((event) => event.owner !== owner);
  }

  clock(owner: number): Clock {
    // Turns come in their order.
    const turns: (() => void)[] = [];
    return {
      now: () => this.#time as Millis,
      monotonic: () => this.#time,
      nextTurn: (callback) => {
        turns.push(callback);
        this.later(owner, () => turns.shift()?.());
      },
      after: (ms, callback) => {
        let cancelled = false;
        this.later(owner, () => {
          if (cancelled) return;
          this.#time += ms;
          callback();
        });
        return {
          cancel: () => {
            cancelled = true;
          },
        };
      },
    };
  }

  environment(owner: number): Environment {
    return { clock: this.clock(owner), random: this.random, disk: new CrashDisk(), logger: silentLogger, fatal };
  }

  /** Takes a transaction of an owner in, or throws. */
  transact(owner: number, change: () => void): void {
    if (this.random.next() < this.chances.unavailable) throw new MagnetarError('UNAVAILABLE', 'the store is away');
    if (owner !== this.owner) throw new MagnetarError('NOT_OWNER', 'somebody else owns the topic');
    change();
  }

  newLedger(): StoredLedger {
    const id = ++this.ledgersMade as LedgerId;
    const ledger = { id, entries: [], durable: 0, fenced: false, closed: false };
    this.ledgers.set(id, ledger);
    return ledger;
  }

  ledger(id: LedgerId): StoredLedger {
    const ledger = this.ledgers.get(id);
    if (ledger === undefined) throw new MagnetarError('NO_SUCH_LEDGER', `there is no ledger ${id}`);
    return ledger;
  }

  apply(writes: readonly Write[]): void {
    for (const write of writes) if ('delete' in write) this.ledgers.delete(Number(write.delete) as LedgerId);
  }
}

/** Writes a ledger of the world. */
class WorldWriter implements LedgerWriter {
  readonly ledgerId: LedgerId;
  lastConfirmed = -1 as EntryId;
  pendingEntries = 0;
  readonly pendingBytes = 0;
  failure: MagnetarError | undefined;
  readonly #world: AckLogWorld;
  readonly #owner: number;
  readonly #ledger: StoredLedger;
  readonly #pending: ((error?: MagnetarError) => void)[] = [];

  constructor(world: AckLogWorld, owner: number, ledger: StoredLedger) {
    this.ledgerId = ledger.id;
    this.#world = world;
    this.#owner = owner;
    this.#ledger = ledger;
  }

  append(payload: readonly Buffer[], done: (error?: MagnetarError) => void): EntryId {
    const { entries } = this.#ledger;
    if (!this.#ledger.fenced && !this.#ledger.closed) entries.push(Buffer.concat(payload));
    this.#world.appended++;
    this.#pending.push(done);
    this.pendingEntries++;
    this.#world.later(this.#owner, () => this.#settle());
    return (entries.length - 1) as EntryId;
  }

  /** The oldest pending entry reaches the disk, or fails. */
  #settle(): void {
    const done = this.#pending.shift();
    if (done === undefined) return;
    this.pendingEntries--;
    if (this.#ledger.fenced) this.failure ??= new MagnetarError('LEDGER_FENCED', 'fenced');
    else if (this.#ledger.closed) this.failure ??= new MagnetarError('LEDGER_CLOSED', 'closed');
    else if (this.#world.random.next() < this.#world.chances.notEnoughBookies) {
      if (this.failure === undefined) this.#world.ledgersFailed++;
      this.failure ??= new MagnetarError('NOT_ENOUGH_BOOKIES', 'no quorum');
    }
    if (this.failure === undefined) {
      this.#ledger.durable++;
      this.lastConfirmed = (this.#ledger.durable - 1) as EntryId;
    }
    done(this.failure);
  }

  abandon(error: MagnetarError): void {
    this.failure ??= error;
  }

  async close(): Promise<ClosedLedger> {
    return this.#world.answer(this.#owner, () => {
      if (this.#ledger.fenced) throw new MagnetarError('LEDGER_FENCED', 'fenced');
      this.#world.transact(this.#world.owner, () => {});
      this.#ledger.closed = true;
      this.#ledger.entries.length = this.#ledger.durable;
      return { ledgerId: this.ledgerId, lastEntryId: this.lastConfirmed, length: 0, lostTail: false };
    });
  }
}

/** The ledgers as one owner sees them. Tests replace methods to break guarantees. */
export class WorldLedgers implements Ledgers {
  readonly copies = 1;
  readonly unwritable: undefined;
  readonly #world: AckLogWorld;
  readonly #owner: number;

  constructor(world: AckLogWorld, owner: number) {
    this.#world = world;
    this.#owner = owner;
  }

  writer(ledger: StoredLedger): LedgerWriter {
    return new WorldWriter(this.#world, this.#owner, ledger);
  }

  /** Ledgers of a topic are made by its record. */
  async create(): Promise<LedgerWriter> {
    return Promise.reject(new Error('ask the record'));
  }

  async recover(id: LedgerId): Promise<ClosedLedger> {
    return this.#world.answer(this.#owner, () => {
      const ledger = this.#world.ledger(id);
      this.fence(ledger);
      if (!ledger.closed) {
        // Entries that no quorum has confirmed may be found, in order.
        const found = Math.round(this.#world.random.next() * (ledger.entries.length - ledger.durable));
        ledger.durable += found;
        ledger.entries.length = ledger.durable;
        ledger.closed = true;
      }
      return { ledgerId: id, lastEntryId: (ledger.durable - 1) as EntryId, length: 0, lostTail: false };
    });
  }

  fence(ledger: StoredLedger): void {
    ledger.fenced = true;
  }

  async reader(id: LedgerId, upTo: () => EntryId): Promise<LedgerReader> {
    const read = async (first: EntryId): Promise<readonly LedgerEntry[]> =>
      this.#world.answer(this.#owner, () => {
        const last = Math.min(upTo(), first + Math.floor(this.#world.random.next() * 5));
        const { entries } = this.#world.ledger(id);
        return entries.slice(first, last + 1).map((payload, i) => ({ entryId: (first + i) as EntryId, payload }));
      });
    return this.#world.answer(this.#owner, () => ({
      ledgerId: id,
      read,
      lostUpTo: async (first) => Promise.resolve(first),
    }));
  }

  deletion(ids: readonly LedgerId[]): readonly Write[] {
    return ids.map((id) => ({ delete: String(id) }));
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }
}

/** The topic's record as one owner sees it. */
export class WorldRecord implements TopicRecordHandle {
  readonly olderLedgers: TopicRecordHandle['olderLedgers'] = [];
  record: TopicRecord;
  readonly #world: AckLogWorld;
  readonly #owner: number;
  readonly #ledgers: WorldLedgers;

  constructor(world: AckLogWorld, owner: number, ledgers: WorldLedgers) {
    this.#world = world;
    this.#owner = owner;
    this.#ledgers = ledgers;
    this.record = world.record;
  }

  async change(transform: (record: TopicRecord) => TopicRecord, extraWrites: readonly Write[] = []): Promise<void> {
    await this.#world.answer(this.#owner, () =>
      this.#world.transact(this.#owner, () => {
        this.record = transform(this.record);
        this.#world.record = this.record;
        this.#world.apply(extraWrites);
      }),
    );
  }

  async delete(): Promise<void> {
    throw new Error('this world does not delete topics');
  }

  async createLedger(link: (record: TopicRecord, id: LedgerId) => TopicRecord): Promise<LedgerWriter> {
    return this.#world.answer(this.#owner, () => {
      let created: StoredLedger | undefined;
      this.#world.transact(this.#owner, () => {
        created = this.#world.newLedger();
        this.record = link(this.record, created.id);
        this.#world.record = this.record;
      });
      if (created === undefined) throw new Error('not made');
      return this.#ledgers.writer(created);
    });
  }
}
