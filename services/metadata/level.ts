/**
 * The metadata store of one process, on LevelDB. When its disk is full, writes fail, what is durable can be read, and leases
 * go on; when there is room the database is opened anew, because nothing may be written to it before, and everything in it is
 * read and checked again.
 */
import { hasCode, MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { Millis, Revision } from '../lib/ids.ts';
import type { Timer } from '../runtime/clock.ts';
import { isDiskFull } from '../runtime/disk.ts';
import type { Environment } from '../runtime/environment.ts';
import { RoomReserve } from '../runtime/room-reserve.ts';
import { Followers, follow, type History } from './follow.ts';
import { HeldLeases, LeaseTable } from './leases.ts';
import { type Database, folderError, openDatabase } from './level-database.ts';
import { checkStore } from './level-open.ts';
import { LevelStore } from './level-store.ts';
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
import { checkTtl } from './transaction.ts';
import { Witness } from './witness.ts';

/** LevelDB needs so much room to be opened and to work for a while: its log is written anew, at 4 MiB. Kept in a file. */
const ROOM_BYTES = 16_777_216;
/** How often it is looked for while nothing is written; and while there is no room to keep. */
const POLL_MS = 500;
const KEEP_MS = 2_000;

/** What a level store is opened with. `open` opens the database in a folder, and makes it if it may. */
export interface LevelStoreOptions {
  readonly environment: Environment;
  /** Is made when it is not there; one process at a time can have it. */
  readonly folder: string;
  readonly open?: (folder: string, options: { create: boolean }) => Promise<Database>;
}

class SturdyStore implements MetadataStore, History {
  readonly #options: LevelStoreOptions;
  readonly #environment: Environment;
  readonly #followers = new Followers();
  readonly #leases: LeaseTable;
  readonly #held: HeldLeases;
  /** Undefined while the database is closed, to be opened anew. */
  #store: LevelStore | undefined;
  /** Why nothing is written. */
  #full: MagnetarError | undefined;
  /** Some room is kept in a file. */
  #kept = false;
  /** Set for good. */
  #failure: MagnetarError | undefined;
  readonly #reserve: RoomReserve;
  #reopening: Promise<void> | undefined;
  #poll: Timer | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: LevelStoreOptions) {
    this.#options = options;
    this.#environment = options.environment;
    const { clock, random, disk } = options.environment;
    this.#reserve = new RoomReserve(disk, `${options.folder}/reserve`, ROOM_BYTES);
    this.#leases = new LeaseTable({ clock, random, deleteKeys: async (keys) => await this.#deleteKeys(keys) });
    this.#held = new HeldLeases(clock, this.#leases);
  }

  /** Opens the database, and checks all that is in it. Keys that hang on no lease of this process are deleted. */
  async open(): Promise<void> {
    const { folder, environment, open = openDatabase } = this.#options;
    const { clock, disk } = environment;
    const path = `${folder}/witness`;
    const witnessed = await prepareFolder(environment, folder, path);
    if ((await disk.space(folder)).freeBytes < ROOM_BYTES) await this.#reserve.release();
    // LevelDB must not make a new database where there was one: it would clear away what is left of that.
    const database = await open(`${folder}/level`, { create: witnessed === undefined });
    let witness: Witness | undefined;
    try {
      const found = await checkStore(database, witnessed);
      const witnessFailed = (error: unknown): void => store.fail(error);
      witness = await Witness.open({ disk, clock, path, failed: witnessFailed }, found.newest);
      const landed = (): void => this.#followers.wake();
      const failed = (cause: unknown): MagnetarError => this.#failed(cause);
      const store = new LevelStore({ database, witness, leases: this.#leases, landed, failed }, found);
      this.#full = undefined;
      this.#store = store;
      await this.#deleteKeys(this.#leases.adopt(found.leased)).catch((error: unknown) => {
        if (!hasCode(error, 'DISK_FULL')) throw error; // else it is opened again, sooner or later
      });
      this.#pollLater();
    } catch (error) {
      this.#store = undefined;
      await witness?.close(undefined);
      await database.close();
      throw error;
    }
  }

  readonly #check = (): void => {
    if (this.#closing !== undefined) throw new MagnetarError('ALREADY_CLOSED', 'the metadata store is closed');
    if (this.#failure !== undefined) throw this.#failure;
  };

  #failed(cause: unknown): MagnetarError {
    const { folder, environment } = this.#options;
    const { message } = toMagnetarError(cause);
    if (isDiskFull(cause)) {
      const text = `the metadata store cannot write because its disk is full: ${folder} needs ${ROOM_BYTES} bytes: ${message}`;
      this.#full = new MagnetarError('DISK_FULL', text, { details: { folder, neededBytes: `${ROOM_BYTES}` }, cause });
      environment.logger.warn('nothing is written to the metadata until there is room', { error: this.#full });
      if (this.#reopening === undefined) {
        this.#poll?.cancel();
        this.#poll = undefined;
      }
      this.#pollLater();
      return this.#full;
    }
    const text = `a write of the metadata store failed: ${message}; nothing more is accepted`;
    return this.#end(new MagnetarError('STORE_FAILED', text, { cause }));
  }

  /** Nothing is acknowledged from here on. */
  #end(failure: MagnetarError): MagnetarError {
    this.#failure = failure;
    this.#held.close();
    this.#leases.close();
    this.#followers.wake();
    this.#environment.fatal(failure);
    return failure;
  }

  // After the disk was full.

  /** Looks for room: to write again, or to keep some for the next time. */
  #pollLater(): void {
    if (this.#closing !== undefined || this.#failure !== undefined || this.#poll !== undefined) return;
    const look = (): void => {
      const work = this.#full === undefined ? this.#keepRoom() : this.#reopen();
      this.#reopening = work.finally(() => {
        this.#reopening = undefined;
        this.#poll = undefined;
        if (!this.#kept || this.#full !== undefined) this.#pollLater();
      });
    };
    const ms = this.#full === undefined ? KEEP_MS : this.#kept ? 0 : POLL_MS;
    this.#poll = this.#environment.clock.after(ms, look, { unref: true });
  }

  /** Never rejects. */
  async #keepRoom(): Promise<void> {
    const { disk, logger } = this.#environment;
    const { folder } = this.#options;
    try {
      const { freeBytes } = await disk.space(folder);
      this.#kept = freeBytes >= 2 * ROOM_BYTES && (await this.#reserve.restore());
    } catch (error) {
      logger.warn('no room can be kept for the metadata', { folder, error });
    }
  }

  /** Opens the database anew if there is room, or some was kept. Never rejects. */
  async #reopen(): Promise<void> {
    const { logger, disk } = this.#environment;
    const { folder } = this.#options;
    try {
      this.#kept = false;
      const hadSome = await this.#reserve.release();
      const { freeBytes } = await disk.space(folder);
      // Only a write tells whether there is room: a quota is not seen otherwise.
      if (!hadSome && (freeBytes < ROOM_BYTES || !(await this.#reserve.restore()))) return;
      await this.#reserve.release();
      const before = this.#store;
      this.#store = undefined;
      await before?.close();
      await this.open();
      logger.info('the metadata is written again', { folder, freeBytes });
    } catch (error) {
      if (isDiskFull(error)) logger.warn('the metadata cannot be opened for want of room', { error });
      else this.#end(toMagnetarError(error));
    }
    this.#followers.wake();
  }

  /** The store over the open database. @throws DISK_FULL while it cannot be opened */
  async #current(): Promise<LevelStore> {
    if (this.#store === undefined) await this.#reopening;
    return this.#opened();
  }

  // What a store does.

  /** Reads, once more when the database was closed below the read. */
  async #read<Result>(read: (store: LevelStore) => Promise<Result>): Promise<Result> {
    for (;;) {
      const store = await this.#current();
      try {
        return await read(store);
      } catch (error) {
        if (store === this.#store) throw error;
      }
    }
  }

  async get(keys: readonly string[]): Promise<{ revision: Revision; items: readonly (KeyValue | undefined)[] }> {
    return await this.#read(async (store) => await store.get(keys));
  }

  async range(query: RangeQuery): Promise<RangeResult> {
    return await this.#read(async (store) => await store.range(query));
  }

  async transact(compares: readonly Compare[], writes: readonly Write[]): Promise<TransactResult> {
    return await this.#opened().transact(compares, writes);
  }

  async compact(below: Revision): Promise<void> {
    await this.#opened().compact(below);
  }

  #opened(): LevelStore {
    this.#check();
    if (this.#store !== undefined) return this.#store;
    throw this.#full ?? new MagnetarError('UNAVAILABLE', 'the metadata store is being opened');
  }

  async #deleteKeys(keys: readonly string[]): Promise<void> {
    await this.#store?.deleteKeys(keys);
  }

  get floor(): number {
    return this.#store?.floor ?? 0;
  }

  get newest(): number {
    return this.#store?.newest ?? 0;
  }

  changes(revision: number): readonly WatchEvent[] {
    return this.#store?.changes(revision) ?? [];
  }

  watch(options: { prefix: string; from?: Revision; signal: AbortSignal }): AsyncIterable<WatchBatch> {
    const { prefix, from = this.newest + 1, signal } = options;
    const { clock } = this.#environment;
    return follow({ history: this, followers: this.#followers, clock, check: this.#check, prefix, from, signal });
  }

  async grantLease(ttl: Millis): Promise<Lease> {
    this.#check();
    checkTtl(ttl);
    return await Promise.resolve(this.#held.grant(ttl));
  }

  async close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    await this.#closing;
  }

  async #closeAll(): Promise<void> {
    await Promise.resolve(); // `#closing` is set from here on.
    this.#poll?.cancel();
    this.#held.close();
    this.#leases.close();
    this.#followers.wake();
    await this.#reopening;
    this.#poll?.cancel();
    await this.#store?.close();
  }
}

/**
 * The metadata store of one process, on LevelDB. It reads and checks everything that it holds before it opens: a store from
 * which anything is missing is refused. Leases of the process before are over: their keys are deleted.
 *
 * @throws FOLDER_IN_USE, FOLDER_NOT_WRITABLE, METADATA_DAMAGED (naming revision or key), DISK_FULL, STORE_FAILED
 */
export async function openLevelStore(options: LevelStoreOptions): Promise<MetadataStore> {
  const store = new SturdyStore(options);
  await store.open();
  return store;
}

async function prepareFolder({ disk }: Environment, folder: string, path: string): Promise<number | undefined> {
  try {
    await disk.makeFolder(folder);
    return await Witness.read({ disk, path });
  } catch (error) {
    throw folderError(error, folder);
  }
}
