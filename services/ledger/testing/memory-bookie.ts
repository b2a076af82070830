/**
 * A bookie in memory, for tests: keeps the contract of `bookie.ts`, and can be held up, cut off, damaged and emptied.
 */
import { MagnetarError } from '../../lib/errors.ts';
import { type EntryId, type LedgerId, NO_ENTRY } from '../../lib/ids.ts';
import type { Clock } from '../../runtime/clock.ts';
import { entryDigest } from '../../wire/digest.ts';
import type { AppendEntry, Bookie, BookieId, LacResult, ReadEntries, ReadLac, StoredEntry } from '../bookie.ts';

/** A request before it is carried out. */
export type BookieCall =
  | { readonly type: 'append'; readonly entry: AppendEntry }
  | { readonly type: 'read'; readonly request: ReadEntries }
  | { readonly type: 'readLac'; readonly request: ReadLac };

interface Ledger {
  masterKey: Buffer | undefined;
  fenced: boolean;
  readonly entries: Map<EntryId, StoredEntry>;
}

export class MemoryBookie implements Bookie {
  readonly id: BookieId;
  /** False: it looks as if it could not be reached; it answers all the same. */
  up = true;
  /** Set: it has no room for entries, and says so. */
  full: MagnetarError | undefined;
  /** Barriers and faults: runs before a request is carried out; what it throws is the answer. */
  before: ((call: BookieCall) => Promise<void> | void) | undefined;
  /** The same after it was carried out: an error here is an answer that was lost. */
  after: ((call: BookieCall) => Promise<void> | void) | undefined;
  /** LP-29: its disk was lost or is in doubt, so that it cannot say what it never stored. */
  limbo = false;
  readonly #clock: Clock;
  readonly #ledgers: Map<LedgerId, Ledger>;
  #closed = false;
  #done: (() => void)[] = [];

  /** `data`: a closed bookie, whose data it takes over. */
  constructor(id: BookieId, clock: Clock, data?: MemoryBookie) {
    this.id = id;
    this.#clock = clock;
    this.#ledgers = data === undefined ? new Map<LedgerId, Ledger>() : data.#ledgers;
  }

  get available(): boolean {
    return this.up && !this.#closed && this.full === undefined;
  }

  /** What it stores of a ledger, for tests to look at and to damage. */
  entries(id: LedgerId): Map<EntryId, StoredEntry> {
    return this.#ledger(id).entries;
  }

  isFenced(id: LedgerId): boolean {
    return this.#ledger(id).fenced;
  }

  #ledger(id: LedgerId): Ledger {
    let ledger = this.#ledgers.get(id);
    if (ledger === undefined) {
      ledger = { masterKey: undefined, fenced: false, entries: new Map() };
      this.#ledgers.set(id, ledger);
    }
    return ledger;
  }

  append(entry: AppendEntry, done: (error?: MagnetarError) => void): void {
    if (this.before === undefined && this.after === undefined) {
      const error = this.#append(entry);
      this.#later(() => (error === undefined ? done() : done(error)));
      return;
    }
    const call: BookieCall = { type: 'append', entry };
    this.#carriedOut(call, () => {
      const error = this.#append(entry);
      if (error !== undefined) throw error;
    }).then(
      () => done(),
      (error: unknown) => done(error as MagnetarError),
    );
  }

  /** All answers of a turn at once, as a group commit does. */
  #later(callback: () => void): void {
    this.#done.push(callback);
    if (this.#done.length > 1) return;
    this.#clock.nextTurn(() => {
      const done = this.#done;
      this.#done = [];
      for (const one of done) one();
    });
  }

  async #carriedOut<T>(call: BookieCall, action: () => T): Promise<T> {
    await this.before?.(call);
    const result = action();
    await this.after?.(call);
    return result;
  }

  #append(entry: AppendEntry): MagnetarError | undefined {
    const { ledgerId, entryId, lac, length, digest, masterKey, recovery } = entry;
    if (this.#closed) return this.#closedError();
    if (this.#ledgers.get(ledgerId)?.masterKey?.equals(masterKey) === false) return badKey(ledgerId);
    if (entryDigest({ ledgerId, entryId, lac, length, payload: entry.payload }) !== digest) {
      return new MagnetarError('CHECKSUM_MISMATCH', `entry ${entryId} of ledger ${ledgerId} is damaged`);
    }
    const ledger = this.#ledger(ledgerId);
    if (ledger.fenced && !recovery) return new MagnetarError('LEDGER_FENCED', `ledger ${ledgerId} is fenced`);
    if (this.full !== undefined && !recovery) return this.full;
    ledger.masterKey = masterKey;
    const [only] = entry.payload;
    const payload = only !== undefined && entry.payload.length === 1 ? only : Buffer.concat(entry.payload);
    ledger.entries.set(entryId, { entryId, lac, length, digest, payload });
    return undefined;
  }

  #closedError(): MagnetarError {
    return new MagnetarError('ALREADY_CLOSED', `bookie ${this.id} is closed`);
  }

  /** The ledger, fenced if asked for. */
  #fence(id: LedgerId, fence: { readonly masterKey: Buffer } | undefined): Ledger | undefined {
    if (this.#closed) throw this.#closedError();
    if (fence === undefined) return this.#ledgers.get(id);
    const ledger = this.#ledger(id);
    if (ledger.masterKey?.equals(fence.masterKey) === false) throw badKey(id);
    ledger.masterKey = fence.masterKey;
    ledger.fenced = true;
    return ledger;
  }

  async read(request: ReadEntries): Promise<readonly StoredEntry[]> {
    return await this.#carriedOut({ type: 'read', request }, () => this.#read(request));
  }

  #read({ ledgerId, firstEntryId, maxEntries, maxBytes, fence }: ReadEntries): readonly StoredEntry[] {
    const ledger = this.#fence(ledgerId, fence);
    const found: StoredEntry[] = [];
    let bytes = 0;
    while (found.length < maxEntries) {
      const entry = ledger?.entries.get((firstEntryId + found.length) as EntryId);
      if (entry === undefined) break;
      bytes += entry.payload.length;
      if (found.length > 0 && bytes > maxBytes) break;
      found.push(entry);
    }
    if (found.length > 0) return found;
    if (this.limbo) throw new MagnetarError('ENTRY_UNKNOWN', `bookie ${this.id} may have had entry ${firstEntryId}`);
    const code = ledger === undefined ? 'NO_SUCH_LEDGER' : 'NO_SUCH_ENTRY';
    throw new MagnetarError(code, `bookie ${this.id} has no entry ${firstEntryId} of ledger ${ledgerId}`);
  }

  async readLac(request: ReadLac): Promise<LacResult> {
    return await this.#carriedOut({ type: 'readLac', request }, () => {
      const ledger = this.#fence(request.ledgerId, request.fence);
      if (ledger === undefined && !this.limbo)
        throw new MagnetarError('NO_SUCH_LEDGER', `bookie ${this.id} has no ledger ${request.ledgerId}`);
      let lac: EntryId = NO_ENTRY;
      let lastEntryId: EntryId = NO_ENTRY;
      for (const entry of ledger?.entries.values() ?? []) {
        if (entry.lac > lac) lac = entry.lac;
        if (entry.entryId > lastEntryId) lastEntryId = entry.entryId;
      }
      return this.limbo ? { lac, lastEntryId, unsure: true } : { lac, lastEntryId };
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.resolve();
  }
}

function badKey(id: LedgerId): MagnetarError {
  return new MagnetarError('BAD_MASTER_KEY', `the master key is not that of ledger ${id}`);
}
