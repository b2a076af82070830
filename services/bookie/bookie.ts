/** A bookie: a log-structured store of ledger entries on one folder. Rules LP-10 to LP-13, LP-23, LP-27, LP-29. */
import type { AppendEntry, BookieId, LacResult, ReadEntries, ReadLac, StoredEntry } from '../ledger/bookie.ts';
import { hasCode, MagnetarError, toMagnetarError } from '../lib/errors.ts';
import { type EntryId, type LedgerId, NO_ENTRY } from '../lib/ids.ts';
import { byteLength } from '../lib/views.ts';
import type { Environment } from '../runtime/environment.ts';
import { entryDigest } from '../wire/digest.ts';
import { MAX_FRAME_BYTES } from '../wire/server.ts';
import { checkCookie } from './cookie.ts';
import { type Damage, DamageList } from './damage.ts';
import { EntryReader, planSpan, type Span, SPAN_BYTES } from './entry-reader.ts';
import { openLevelIndex } from './index/level-store.ts';
import type { IndexStore } from './index/store.ts';
import { type LedgerState, LedgerTable, type Location } from './ledger-table.ts';
import { type LocalBookie, MeasuredBookie } from './measured-bookie.ts';
import { type BookieStand, BookieStats } from './metrics.ts';
import { fenceRecord, PendingRecord } from './pending-record.ts';
import { SegmentStore } from './segment-store.ts';
import { MASTER_KEY_BYTES } from './segments/format.ts';
import { Log, type LogHost, type LogOptions } from './segments/log.ts';
import { segmentName } from './segments/segment-file.ts';
import { SpaceWatch } from './space.ts';
import { Witness } from './witness.ts';

/** Bounds of a bookie. Bytes, where not said otherwise. */
export interface BookieOptions {
  /** Size of a segment. 128 MiB. */
  readonly segmentBytes?: number;
  /** Entries that may wait to be stored; more are refused with QUEUE_FULL. 32,768. */
  readonly maxPendingEntries?: number;
  /** Their payloads together. 64 MiB. */
  readonly maxPendingBytes?: number;
  /** Memory for the index of sealed segments. 32 MiB. */
  readonly indexCacheBytes?: number;
  /** Memory for reading ahead. 16 MiB. */
  readonly readAheadBytes?: number;
  /** Free bytes of the disk below which no entries are taken. 5 % of the disk; 32 MiB at least, 1 GiB at most. */
  readonly reserveBytes?: number | undefined;
  /** An idle log marks its last group committed after so many ms. 20. */
  readonly markDelayMs?: number;
}

/** What a bookie is opened with. */
export interface OpenBookie {
  readonly environment: Environment;
  /** Made where there is none. */
  readonly folder: string;
  readonly id: BookieId;
  readonly options?: BookieOptions;
  /** Where the index is: not given, a `level` in the folder, on the real file system. */
  readonly openIndex?: () => Promise<IndexStore>;
}

const DEFAULTS: Required<Omit<BookieOptions, 'reserveBytes'>> = {
  segmentBytes: 134_217_728,
  maxPendingEntries: 32_768,
  maxPendingBytes: 67_108_864,
  indexCacheBytes: 33_554_432,
  readAheadBytes: 16_777_216,
  markDelayMs: 20,
};
/** The largest entry: with its numbers it has to fit into one gRPC message. */
export const MAX_ENTRY_BYTES: number = MAX_FRAME_BYTES - 65_536;
const GROUP_RECORDS = 4_096;
const GROUP_BYTES = 4_194_304;
const FILL_AHEAD_BYTES = 8_388_608;
/** One step of reading ahead plans so many entries at most: it holds up the answer. */
const READ_AHEAD_ENTRIES = 4_096;
const ONE_ENTRY = { entries: 1, payloadBytes: 0 } as const;
/** Fences go past a full queue, up to so many: what recovers a ledger must not starve. */
const RESERVED_FENCES = 4_096;

/**
 * Opens a bookie, replaying what the log holds that is not sealed. Damage in segments and index does not keep it from starting: it is
 * logged, and listed in `damage`.
 * @throws FOLDER_NOT_WRITABLE, FOLDER_IN_USE, FOLDER_VERSION, DATA_LOSS (segments without a cookie), INVALID_ARGUMENT (another
 * bookie's folder), and what the disk throws.
 */
export async function openBookie(open: OpenBookie): Promise<MeasuredBookie> {
  const { environment, folder, id } = open;
  const options = { ...DEFAULTS, ...open.options };
  const segments = `${folder}/segments`;
  await makeFolder(environment, folder);
  const instance = await checkCookie(environment, folder, id);
  await makeFolder(environment, segments);
  await makeFolder(environment, `${folder}/index`);
  const space = new SpaceWatch({ environment, folder, id, reserveBytes: options.reserveBytes });
  const closing: (() => Promise<void>)[] = [async () => await space.close()];
  try {
    await space.check();
    const index = await (open.openIndex ?? (() => openLevelIndex(environment.disk, `${folder}/index`)))();
    closing.push(async () => await index.close());
    const { witness, known: witnessKnown } = await Witness.open(environment, folder, instance);
    closing.unshift(async () => await witness.close(false));
    const damage = new DamageList(environment.logger, (segment) => `${segments}/${segmentName(segment)}`);
    const table = new LedgerTable(index, damage, options.indexCacheBytes);
    const { segmentBytes } = options;
    const parts = { environment, folder: segments, index, table, damage, witness, witnessKnown, space, segmentBytes };
    const store = new SegmentStore(parts);
    let log: Log<PendingRecord> | undefined;
    const start = await store.open((error) => log?.fail(error));
    const stats = new BookieStats(environment.clock);
    const host = hostOf({ store, table, witness, space, stats });
    log = new Log(environment, logOptions(options), host, start.active, start);
    space.probe = async () => await log.probe();
    const identityOf = witness.identity.bind(witness);
    const readOptions = { folder: segments, aheadBytes: options.readAheadBytes, identityOf };
    const reader = new EntryReader(environment, readOptions, damage);
    const opened = { environment, id, instance, options, table, damage, log, reader, store, witness, index, space };
    return measured(new StoreBookie(opened), opened, stats);
  } catch (error) {
    for (const close of closing) await close();
    throw error;
  }
}

function logOptions({
  segmentBytes,
  markDelayMs,
}: Required<Pick<BookieOptions, 'segmentBytes' | 'markDelayMs'>>): LogOptions {
  return {
    segmentBytes,
    group: { records: GROUP_RECORDS, bytes: GROUP_BYTES },
    markDelayMs,
    fillAheadBytes: FILL_AHEAD_BYTES,
  };
}

function hostOf(parts: {
  readonly store: SegmentStore;
  readonly table: LedgerTable;
  readonly witness: Witness;
  readonly space: SpaceWatch;
  readonly stats: BookieStats;
}): LogHost<PendingRecord> {
  const { store, table, witness, space, stats } = parts;
  return {
    room: space,
    createNext: store.createNext.bind(store),
    index: (segment, record, offset) => table.apply(record.state, segment, record, offset),
    dropped: (record) => table.release(record.state),
    stored: stats.group.bind(stats),
    seal: store.seal.bind(store),
    allows: witness.allows.bind(witness),
    allow: witness.allow.bind(witness),
    synced: witness.progress.bind(witness),
  };
}

function measured(bookie: StoreBookie, parts: Parts, stats: BookieStats): MeasuredBookie {
  const { environment, space, table, log, damage } = parts;
  const stand = (): BookieStand => ({
    ...space.known,
    ledgers: table.ledgers,
    entries: table.entries,
    pendingEntries: log.pendingRecords,
    pendingBytes: log.pendingBytes,
    limbo: damage.inDoubt,
  });
  return new MeasuredBookie(bookie, { clock: environment.clock, stats, stand });
}

async function makeFolder(environment: Environment, folder: string): Promise<void> {
  try {
    await environment.disk.makeFolder(folder);
  } catch (error) {
    const reason = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new MagnetarError('FOLDER_NOT_WRITABLE', `${folder} cannot be written to: ${reason}`, { cause: error });
  }
}

type Limits = Pick<Required<BookieOptions>, 'maxPendingEntries' | 'maxPendingBytes'>;

interface Parts {
  readonly environment: Environment;
  readonly id: BookieId;
  readonly instance: Buffer;
  readonly options: Limits;
  readonly table: LedgerTable;
  readonly damage: DamageList;
  readonly log: Log<PendingRecord>;
  readonly reader: EntryReader;
  readonly store: SegmentStore;
  readonly witness: Witness;
  readonly index: IndexStore;
  readonly space: SpaceWatch;
}

class StoreBookie implements LocalBookie {
  readonly id: BookieId;
  readonly instance: Buffer;
  readonly #environment: Environment;
  readonly #options: Limits;
  readonly #table: LedgerTable;
  readonly #log: Log<PendingRecord>;
  readonly #damage: DamageList;
  readonly #reader: EntryReader;
  readonly #store: SegmentStore;
  readonly #witness: Witness;
  readonly #index: IndexStore;
  readonly #space: SpaceWatch;
  #reads = 0;
  #readsDone: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  constructor(parts: Parts) {
    this.id = parts.id;
    this.instance = parts.instance;
    this.#environment = parts.environment;
    this.#options = parts.options;
    this.#table = parts.table;
    this.#log = parts.log;
    this.#damage = parts.damage;
    this.#reader = parts.reader;
    this.#store = parts.store;
    this.#witness = parts.witness;
    this.#index = parts.index;
    this.#space = parts.space;
  }

  get available(): boolean {
    return this.#closing === undefined && this.#log.failure === undefined && this.full === undefined;
  }

  get full(): MagnetarError | undefined {
    return this.#space.full;
  }

  get damage(): readonly Damage[] {
    return this.#damage.all;
  }

  onFull(changed: () => void): () => void {
    const { listeners } = this.#space;
    listeners.add(changed);
    return () => listeners.delete(changed);
  }

  append(entry: AppendEntry, done: (error?: MagnetarError) => void): void {
    let state: LedgerState;
    try {
      state = this.#admit(entry);
    } catch (error) {
      const refusal = toMagnetarError(error);
      this.#environment.clock.nextTurn(() => done(refusal));
      return;
    }
    this.#table.hold(state, entry.masterKey);
    this.#log.submit(new PendingRecord(state, entry, done));
  }

  /** The ledger that an entry goes to. From here to `hold` nothing waits: check and store are one decision (LP-10). */
  #admit(entry: AppendEntry): LedgerState {
    this.#requireRoom(entry.payloadBytes);
    checkEntry(entry);
    const state = this.#table.get(entry.ledgerId);
    checkKey(state, entry.masterKey);
    if (entry.recovery) return state;
    if (state.fenced || state.fencing !== undefined) {
      throw new MagnetarError('LEDGER_FENCED', `ledger ${state.id} is fenced on bookie ${this.id}`);
    }
    // "Not fenced" is a negative, too (LP-29): the fence may be what was lost, and so may the key be that this one has to be.
    const keyLost = state.known && state.masterKey === undefined;
    if (keyLost || this.#inLimbo(state)) throw this.#unknown(state, 'whether it is fenced');
    // Rewrites of recovery, above, and fences have the reserve.
    if (this.full !== undefined) throw this.full;
    return state;
  }

  #requireOpen(): void {
    if (this.#closing !== undefined) throw new MagnetarError('ALREADY_CLOSED', `bookie ${this.id} is closed`);
  }

  #requireRoom(bytes: number): void {
    this.#requireOpen();
    if (this.#log.failure !== undefined) throw this.#log.failure;
    const { maxPendingEntries, maxPendingBytes } = this.#options;
    const { pendingRecords, pendingBytes } = this.#log;
    if (pendingRecords < maxPendingEntries && (pendingBytes + bytes <= maxPendingBytes || pendingRecords === 0)) return;
    const text = `bookie ${this.id} has ${pendingRecords} entries of ${pendingBytes} bytes waiting for its disk; allowed are`;
    throw new MagnetarError('QUEUE_FULL', `${text} ${maxPendingEntries} entries of ${maxPendingBytes} bytes`);
  }

  #unknown(state: LedgerState, what: string): MagnetarError {
    const doubt = this.#damage.doubt(state.id);
    const where = doubt === undefined ? '' : ` in ${doubt.file}`;
    const text = `bookie ${this.id} may have lost records of ledger ${state.id}${where} and cannot say ${what}`;
    const details = { ledgerId: `${state.id}`, ...(doubt === undefined ? {} : { file: doubt.file }) };
    return new MagnetarError('ENTRY_UNKNOWN', text, { details });
  }

  /** True when "there is none" cannot be said of this ledger (LP-29). */
  #inLimbo(state: LedgerState): boolean {
    return this.#damage.doubt(state.id) !== undefined;
  }

  /** Fences a ledger, known or not; resolves when that is durable (LP-11). */
  async #fence(ledgerId: LedgerId, masterKey: Buffer): Promise<void> {
    if (this.#log.failure !== undefined) throw this.#log.failure;
    checkKeyLength(masterKey);
    const state = this.#table.get(ledgerId);
    checkKey(state, masterKey);
    if (state.fenced) return;
    if (state.fencing === undefined) {
      if (this.#log.pendingRecords >= this.#options.maxPendingEntries + RESERVED_FENCES) this.#requireRoom(0);
      this.#table.hold(state, masterKey);
      state.fencing = new Promise((resolve, reject) => {
        const record = new PendingRecord(state, fenceRecord(masterKey), (error) => {
          state.fencing = undefined;
          if (error === undefined) resolve();
          else reject(error);
        });
        this.#log.submit(record);
      });
    }
    await state.fencing;
  }

  async read(request: ReadEntries): Promise<readonly StoredEntry[]> {
    return await this.#reading(async () => {
      if (!(request.maxEntries >= 1)) {
        throw new MagnetarError('INVALID_ARGUMENT', `maxEntries is ${request.maxEntries}; it must be at least 1`);
      }
      if (request.fence !== undefined) await this.#fence(request.ledgerId, request.fence.masterKey);
      return await this.#readEntries(request);
    });
  }

  async #readEntries(request: ReadEntries): Promise<StoredEntry[]> {
    const { ledgerId, firstEntryId, maxEntries, maxBytes } = request;
    const entries: StoredEntry[] = [];
    let [next, left] = [firstEntryId as number, maxBytes];
    while (entries.length < maxEntries) {
      try {
        const state = this.#table.get(ledgerId);
        const limits = { entries: maxEntries - entries.length, payloadBytes: left };
        const span = planSpan((id) => this.#table.locate(state, id), next as EntryId, limits);
        const firstBytes = span?.entries[0]?.location.payloadBytes ?? 0;
        if (entries.length > 0 && (span === undefined || firstBytes > left)) break;
        if (span === undefined) throw this.#negative(state, firstEntryId);
        for (const entry of await this.#readSpan(state, span)) {
          entries.push(entry);
          left -= entry.payload.length;
          next++;
        }
      } catch (error) {
        if (entries.length === 0) throw error;
        break; // The answer ends before an entry that is not good; who asks for that one gets the error.
      }
    }
    this.#readAhead(this.#table.get(ledgerId), firstEntryId, next as EntryId);
    return entries;
  }

  /** The first entries of a span. Of one whose newest copy is damaged, an older one is as good: both are what its writer sent. */
  async #readSpan(state: LedgerState, span: Span): Promise<readonly StoredEntry[]> {
    try {
      return await this.#reader.read(state.id, span);
    } catch (error) {
      const [first] = span.entries;
      if (first === undefined || !hasCode(error, 'CHECKSUM_MISMATCH')) throw error;
      const older = planSpan((id) => this.#table.locate(state, id, first.location), first.entryId, ONE_ENTRY);
      if (older === undefined) throw error;
      return await this.#readSpan(state, older);
    }
  }

  /** Only where the bookie knows for certain that it never stored an entry does it say so (LP-12, LP-29). */
  #negative(state: LedgerState, id: EntryId): MagnetarError {
    if (this.#inLimbo(state)) return this.#unknown(state, `whether it had entry ${id}`);
    if (!state.known) return this.#noSuchLedger(state.id);
    return new MagnetarError('NO_SUCH_ENTRY', `bookie ${this.id} has no entry ${id} of ledger ${state.id}`);
  }

  #noSuchLedger(ledgerId: LedgerId): MagnetarError {
    return new MagnetarError('NO_SUCH_LEDGER', `bookie ${this.id} has nothing of ledger ${ledgerId}`);
  }

  #readAhead(state: LedgerState, first: EntryId, next: EntryId): void {
    const sequential = state.readNext === first;
    state.readNext = next;
    if (!sequential) return;
    const limits = { entries: READ_AHEAD_ENTRIES, payloadBytes: SPAN_BYTES };
    try {
      const locate = (id: EntryId): Location | undefined => this.#table.locate(state, id);
      this.#reader.prefetch(state.id, next, (from) => planSpan(locate, from, limits));
    } catch {
      // A damaged index: whoever asks for these entries gets the error.
    }
  }

  async readLac(request: ReadLac): Promise<LacResult> {
    return await this.#reading(async () => {
      const { ledgerId, fence } = request;
      if (fence !== undefined) await this.#fence(ledgerId, fence.masterKey);
      const state = this.#table.get(ledgerId);
      const { lac, lastEntryId } = state;
      if (this.#inLimbo(state)) return { lac, lastEntryId, unsure: true };
      if (!state.known || (state.lastEntryId === NO_ENTRY && !state.fenced && state.pending > 0)) {
        throw this.#noSuchLedger(ledgerId);
      }
      return { lac, lastEntryId };
    });
  }

  /** Runs a read; `close` waits for it. */
  async #reading<Result>(work: () => Promise<Result>): Promise<Result> {
    this.#requireOpen();
    this.#reads++;
    try {
      return await work();
    } catch (error) {
      throw hasCode(error) ? error : toMagnetarError(error);
    } finally {
      this.#reads--;
      if (this.#reads === 0) this.#readsDone?.();
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await Promise.resolve(); // Lets `#closing` be set, so that nothing new is taken.
    await this.#space.close();
    try {
      await this.#log.close();
      if (this.#reads > 0) await new Promise<void>((resolve) => (this.#readsDone = resolve));
      await this.#reader.close();
      await this.#store.close();
      await this.#witness.close(this.#log.inOrder);
    } finally {
      await this.#witness.close(false);
      await this.#index.close(); // it has the folder's lock
    }
  }
}

function checkKeyLength(masterKey: Buffer): void {
  if (masterKey.length === MASTER_KEY_BYTES) return;
  throw new MagnetarError(
    'INVALID_ARGUMENT',
    `a master key has ${masterKey.length} bytes; it must have ${MASTER_KEY_BYTES}`,
  );
}

function checkKey(state: LedgerState, masterKey: Buffer): void {
  if (state.masterKey === undefined || state.masterKey.equals(masterKey)) return;
  throw new MagnetarError('BAD_MASTER_KEY', `the master key given is not that of ledger ${state.id}`);
}

/** Whatever is damaged or makes no sense is refused on arrival, never stored. */
function checkEntry(entry: AppendEntry): void {
  const { ledgerId, entryId, lac, length, payload, payloadBytes } = entry;
  checkKeyLength(entry.masterKey);
  if (!(ledgerId >= 0 && entryId >= 0 && lac >= NO_ENTRY && lac < entryId && length >= 0)) {
    const text = `ledger ${ledgerId}, entry ${entryId}, last-add-confirmed ${lac}, length ${length}`;
    throw new MagnetarError('INVALID_ARGUMENT', `${text}: the last-add-confirmed must lie from -1 to below the entry`);
  }
  // Rows and footers hold one more than the id of an entry.
  if (entryId >= Number.MAX_SAFE_INTEGER) {
    throw new MagnetarError('INVALID_ARGUMENT', `entry ${entryId} of ledger ${ledgerId} must be 2^53-2 at most`);
  }
  const bytes = byteLength(payload);
  if (bytes !== payloadBytes) {
    throw new MagnetarError('INVALID_ARGUMENT', `payloadBytes is ${payloadBytes}; the pieces have ${bytes}`);
  }
  if (bytes > MAX_ENTRY_BYTES) {
    throw new MagnetarError('MESSAGE_TOO_LARGE', `an entry has ${bytes} bytes; at most ${MAX_ENTRY_BYTES} are allowed`);
  }
  if (entry.checked !== true && entryDigest({ ledgerId, entryId, lac, length, payload }) !== entry.digest) {
    throw new MagnetarError('CHECKSUM_MISMATCH', `entry ${entryId} of ledger ${ledgerId} was damaged on its way`);
  }
}
