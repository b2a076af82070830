/**
 * What the bookie knows of its ledgers. Ledgers with records in segments that are not sealed yet, or on their way there, are held in
 * memory; all others come from the index, through caches that are bounded in bytes.
 */
import { MagnetarError } from '../lib/errors.ts';
import type { DamageList } from './damage.ts';
import { type EntryId, type LedgerId, NO_ENTRY } from '../lib/ids.ts';
import { LruCache } from './index/lru.ts';
import {
  decodeLedgerRow,
  encodeLedgerRow,
  entriesKey,
  type LedgerRow,
  type LedgerSegment,
  ledgerKey,
  openedRow,
  sealedRow,
} from './index/rows.ts';
import type { IndexRow, IndexStore } from './index/store.ts';
import { EntryTable } from './segments/entry-table.ts';
import { decodeLedgerPart, encodeLedgerPart, type LedgerPart } from './segments/footer.ts';
import type { RecordPlace } from './segments/directory.ts';
import type { RecordHeader } from './segments/format.ts';

/** Where an entry is. */
export interface Location {
  readonly segment: number;
  /** Of the record. */
  readonly offset: number;
  readonly payloadBytes: number;
}

interface UnsealedPart {
  readonly segment: number;
  readonly entries: EntryTable;
}

/** One ledger. */
export class LedgerState {
  readonly id: LedgerId;
  /** False: the bookie has nothing of this ledger. */
  known = false;
  /** Undefined: it is not known; of a ledger that is known: it was in records that are lost. */
  masterKey: Buffer | undefined;
  /** True when a fence record is durable. */
  fenced = false;
  /** A fence record on its way; settles with it. */
  fencing: Promise<void> | undefined;
  lac: EntryId = NO_ENTRY;
  lastEntryId: EntryId = NO_ENTRY;
  /** Records on their way to the log. */
  pending = 0;
  /** Oldest first. */
  readonly unsealed: UnsealedPart[] = [];
  sealed: readonly LedgerSegment[] = [];
  /** Where a sequential reader would go on. */
  readNext: EntryId = NO_ENTRY;

  constructor(id: LedgerId, row: LedgerRow | undefined) {
    this.id = id;
    if (row === undefined) return;
    this.known = true;
    this.masterKey = row.masterKey;
    this.fenced = row.fenced;
    this.lac = row.lac;
    this.lastEntryId = row.lastEntryId;
    this.sealed = row.segments;
  }

  part(segment: number): UnsealedPart {
    const last = this.unsealed.at(-1);
    if (last?.segment === segment) return last;
    const part = { segment, entries: new EntryTable() };
    this.unsealed.push(part);
    return part;
  }
}

/** A ledger's row with one more segment. Saying the same segment again changes nothing. */
function withPart(row: LedgerRow | undefined, segment: number, part: LedgerPart): LedgerRow {
  const { entries } = part;
  const [first, last] = entries.count === 0 ? [NO_ENTRY, NO_ENTRY] : [entries.idAt(0), entries.idAt(entries.count - 1)];
  const others = (row?.segments ?? []).filter((other) => other.segment !== segment);
  return {
    masterKey: part.masterKey ?? row?.masterKey,
    fenced: part.fenced || (row?.fenced ?? false),
    lac: Math.max(part.lac, row?.lac ?? NO_ENTRY) as EntryId,
    lastEntryId: Math.max(part.lastEntryId, row?.lastEntryId ?? NO_ENTRY) as EntryId,
    segments: [...others, { segment, first, last }].toSorted((a, b) => a.segment - b.segment),
  };
}

/** Bytes that a cached ledger takes, about. */
function stateBytes(state: LedgerState): number {
  return 300 + state.sealed.length * 56;
}

export class LedgerTable {
  readonly #index: IndexStore;
  /** Ledgers with pending or unsealed records. */
  readonly #hot = new Map<LedgerId, LedgerState>();
  readonly #cold: LruCache<LedgerId, LedgerState>;
  readonly #tables: LruCache<string, EntryTable>;
  /** Per unsealed segment its ledgers. */
  readonly #unsealed = new Map<number, Set<LedgerState>>();
  /** How many ledgers it knows, and entries of them. */
  ledgers = 0;
  entries = 0;
  readonly #damage: DamageList;

  constructor(index: IndexStore, damage: DamageList, cacheBytes: number) {
    this.#index = index;
    this.#damage = damage;
    this.#cold = new LruCache(cacheBytes / 4);
    this.#tables = new LruCache((cacheBytes * 3) / 4);
  }

  /** A ledger. @throws ENTRY_UNKNOWN when the index is damaged there. */
  get(id: LedgerId): LedgerState {
    const held = this.#hot.get(id) ?? this.#cold.get(id);
    if (held !== undefined) return held;
    const state = new LedgerState(id, this.#row(id));
    if (state.known) this.#cold.set(id, state, stateBytes(state));
    return state;
  }

  #read(key: Buffer): Buffer | undefined {
    let sealed: Buffer | undefined;
    try {
      sealed = this.#index.get(key);
    } catch (error) {
      throw new MagnetarError('ENTRY_UNKNOWN', `the bookie's index cannot be read`, { cause: error });
    }
    return sealed === undefined ? undefined : openedRow(key, sealed);
  }

  #row(id: LedgerId): LedgerRow | undefined {
    const value = this.#read(ledgerKey(id));
    return value === undefined ? undefined : decodeLedgerRow(value);
  }

  /** A record of this ledger is on its way to the log: keeps the ledger in memory. */
  hold(state: LedgerState, masterKey: Buffer): void {
    state.pending++;
    state.masterKey ??= Buffer.from(masterKey); // The caller's is a view of a whole frame.
    this.#keep(state);
  }

  #keep(state: LedgerState): void {
    if (state.known && this.#hot.has(state.id)) return;
    if (!state.known) this.ledgers++;
    state.known = true;
    this.#cold.delete(state.id);
    this.#hot.set(state.id, state);
  }

  /** A record that was held is durable. */
  apply(state: LedgerState, segment: number, record: RecordHeader, offset: number): void {
    state.pending--;
    const { entries } = this.#part(state, segment);
    if (record.type === 'fence') {
      state.fenced = true;
      return;
    }
    const before = entries.count;
    entries.put(record.entryId, offset, record.payloadBytes);
    this.entries += entries.count - before;
    if (record.lac > state.lac) state.lac = record.lac;
    if (record.entryId > state.lastEntryId) state.lastEntryId = record.entryId;
    if (!this.#damage.empty) this.#damage.restored(state.id, record.entryId);
  }

  /** A record that was held is not stored. */
  release(state: LedgerState): void {
    state.pending--;
    if (state.pending > 0 || state.unsealed.length > 0) return;
    this.#hot.delete(state.id);
    if (state.sealed.length > 0) this.#cold.set(state.id, state, stateBytes(state));
  }

  #part(state: LedgerState, segment: number): UnsealedPart {
    let ledgers = this.#unsealed.get(segment);
    if (ledgers === undefined) {
      ledgers = new Set();
      this.#unsealed.set(segment, ledgers);
    }
    ledgers.add(state);
    return state.part(segment);
  }

  /** A record that a scan of a segment found. */
  replay(segment: number, record: RecordHeader, offset: number): void {
    const state = this.get(record.ledgerId);
    this.hold(state, record.masterKey);
    this.apply(state, segment, record, offset);
  }

  /** A record that a scan of a segment knows of, but that is damaged. `header`: its header, where that is good. */
  replayLost(segment: number, place: RecordPlace, header: RecordHeader | undefined): void {
    const state = this.get(place.ledgerId);
    this.#keep(state);
    if (header !== undefined) state.masterKey ??= header.masterKey;
    const { entries } = this.#part(state, segment);
    if (place.entryId === NO_ENTRY) {
      state.fenced = true;
      return;
    }
    if (entries.find(place.entryId) < 0) {
      entries.put(place.entryId, place.offset, place.payloadBytes);
      this.entries++;
    }
    if (header !== undefined && header.lac > state.lac) state.lac = header.lac;
    if (place.entryId > state.lastEntryId) state.lastEntryId = place.entryId;
  }

  /** What an unsealed segment holds, in order of ledger ids. */
  parts(segment: number): LedgerPart[] {
    const parts: LedgerPart[] = [];
    for (const state of this.#unsealed.get(segment) ?? []) {
      const { id: ledgerId, masterKey, fenced, lac, lastEntryId } = state;
      const entries = state.unsealed.find((part) => part.segment === segment)?.entries;
      if (entries !== undefined) parts.push({ ledgerId, masterKey, fenced, lac, lastEntryId, entries });
    }
    return parts.toSorted((a, b) => a.ledgerId - b.ledgerId);
  }

  /** The rows of one ledger's part of a segment. `encoded`: the part, where it is at hand. */
  rows(segment: number, part: LedgerPart, encoded: Buffer = encodeLedgerPart(part)): IndexRow[] {
    const known = this.#row(part.ledgerId);
    if (!this.#hot.has(part.ledgerId)) {
      // Out of a footer: nothing of it was seen here.
      if (known === undefined) this.ledgers++;
      this.entries += part.entries.count;
    }
    const row = withPart(known, segment, part);
    return [
      sealedRow(entriesKey(part.ledgerId, segment), encoded),
      sealedRow(ledgerKey(part.ledgerId), encodeLedgerRow(row)),
    ];
  }

  /** The rows of a segment are in the index: its entries are no longer held in memory. */
  sealed(segment: number): void {
    for (const state of this.#unsealed.get(segment) ?? []) {
      state.sealed = this.#row(state.id)?.segments ?? [];
      const at = state.unsealed.findIndex((part) => part.segment === segment);
      if (at >= 0) state.unsealed.splice(at, 1);
      if (state.unsealed.length > 0 || state.pending > 0) continue;
      this.#hot.delete(state.id);
      this.#cold.set(state.id, state, stateBytes(state));
    }
    this.#unsealed.delete(segment);
  }

  /** The index has got to know more of a ledger than was seen through here: what is cached of it is old. */
  forget(id: LedgerId): void {
    this.#cold.delete(id);
  }

  /**
   * Where an entry is: the newest copy, or the newest one that is older than `than`, which has turned out to be damaged.
   * @throws ENTRY_UNKNOWN when the index is damaged there.
   */
  locate(state: LedgerState, id: EntryId, than?: Location): Location | undefined {
    const below = than?.segment ?? Number.POSITIVE_INFINITY;
    for (let at = state.unsealed.length - 1; at >= 0; at--) {
      const part = state.unsealed[at];
      if (part === undefined || part.segment >= below) continue;
      const found = locationIn(part.segment, part.entries, id);
      if (found !== undefined) return found;
    }
    for (let at = state.sealed.length - 1; at >= 0; at--) {
      const part = state.sealed[at];
      if (part === undefined || part.segment >= below || id < part.first || id > part.last) continue;
      const found = locationIn(part.segment, this.#table(state.id, part.segment), id);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #table(ledgerId: LedgerId, segment: number): EntryTable {
    const name = `${ledgerId}/${segment}`;
    const cached = this.#tables.get(name);
    if (cached !== undefined) return cached;
    const value = this.#read(entriesKey(ledgerId, segment));
    if (value === undefined) {
      throw new MagnetarError(
        'ENTRY_UNKNOWN',
        `the index lost the entries of ledger ${ledgerId} in segment ${segment}`,
      );
    }
    const { entries } = decodeLedgerPart(value);
    this.#tables.set(name, entries, entries.bytes);
    return entries;
  }
}

function locationIn(segment: number, entries: EntryTable, id: EntryId): Location | undefined {
  const at = entries.find(id);
  return at < 0 ? undefined : { segment, offset: entries.offsetAt(at), payloadBytes: entries.lengthAt(at) };
}
