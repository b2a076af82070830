/**
 * Ledgers, as brokers use them. `openLedgers()` makes one out of a metadata store and a way to reach bookies.
 */
import type { MagnetarError } from '../lib/errors.ts';
import type { EntryId, LedgerId } from '../lib/ids.ts';
import type { Compare, Write } from '../metadata/store.ts';

/** An entry whose digest, ledger id and entry id have been checked. */
export interface LedgerEntry {
  readonly entryId: EntryId;
  /** A view of a larger buffer, frozen. `payload.buffer` is what it pins. */
  readonly payload: Buffer;
}

/** Writes one ledger; the only writer there is (LP-2). */
export interface LedgerWriter {
  readonly ledgerId: LedgerId;
  /** The last entry that was confirmed; NO_ENTRY: none. */
  readonly lastConfirmed: EntryId;
  /** Entries given out and not yet confirmed or failed. */
  readonly pendingEntries: number;
  readonly pendingBytes: number;
  /** Set after the first failure: nothing more can be appended. */
  readonly failure: MagnetarError | undefined;
  /**
   * Appends an entry; returns its id. The pieces are frozen from now on. `done` is called exactly once, never before this
   * returns: strictly in order of entry ids without an error (LP-4), or, once the writer has failed, with the error for
   * every pending entry in order. LEDGER_FENCED: another client has taken the ledger; whether the entry survives is
   * unknown (LP-6). NOT_ENOUGH_BOOKIES,
   * DISK_FULL: the ack quorum cannot be reached; close the ledger, go on in another.
   * LEDGER_CLOSED: closed by this client. `lastCrc32c`: that of the last piece, where the caller has just checked it.
   */
  append(payload: readonly Buffer[], done: (error?: MagnetarError) => void, lastCrc32c?: number): EntryId;
  /**
   * Closes the ledger at the last confirmed entry (LP-20); entries still pending fail with LEDGER_CLOSED. Resolves with what
   * the metadata says. Idempotent. @throws LEDGER_FENCED when another client has closed it elsewhere or is recovering it.
   */
  close(): Promise<ClosedLedger>;
  /** Fails everything that is pending; the ledger stays as it is, for another client to recover. Idempotent. */
  abandon(error: MagnetarError): void;
}

/** What is final about a closed ledger. */
export interface ClosedLedger {
  readonly ledgerId: LedgerId;
  /** NO_ENTRY: it is empty. */
  readonly lastEntryId: EntryId;
  /** Bytes of all payloads; at least so many where some are lost. */
  readonly length: number;
  /** There may have been further entries, confirmed ones among them: they are lost, and nobody knows how many (LP-32). */
  readonly lostTail: boolean;
}

/** Reads a closed ledger, or one that is being written by this process up to what `lastConfirmed` says. */
export interface LedgerReader {
  readonly ledgerId: LedgerId;
  /**
   * Consecutive entries from `first` on, at least one, as many as fit into `maxBytes`; fewer before one that is lost. Fails
   * over between copies.
   * @throws NO_SUCH_ENTRY (`first` is behind the end), DATA_LOSS (every copy of `first` has answered and none is good: this
   * entry is lost, those behind it may not be), UNAVAILABLE (a copy is out of reach, which may be good).
   */
  read(first: EntryId, limits: { maxEntries: number; maxBytes: number }): Promise<readonly LedgerEntry[]>;
  /**
   * How far a loss reaches, for an entry of which `read` says DATA_LOSS: all from it up to the one returned are lost. Looks at
   * some thousands at most; the one behind may be lost, too.
   */
  lostUpTo(first: EntryId): Promise<EntryId>;
}

export type { Quorum } from './protocol/distribution.ts';

export interface Ledgers {
  /** Of every entry of a new ledger: the write quorum. */
  readonly copies: number;
  /** Why no ledger can be created at the moment, as far as is known of the bookies: NOT_ENOUGH_BOOKIES, DISK_FULL, ALREADY_CLOSED. */
  readonly unwritable: MagnetarError | undefined;
  /**
   * Creates a ledger. Its metadata is written in one transaction together with `writes`, if `compares` hold, so that a
   * list of ledgers and the ledger itself appear together; `linkedAs` gets the new ledger's id to build them.
   * @throws METADATA_CONFLICT (a compare did not hold), NOT_ENOUGH_BOOKIES, DISK_FULL (too few bookies have room; or, as of every
   * transaction, the metadata has none).
   */
  create(linkedAs: (id: LedgerId) => { compares: readonly Compare[]; writes: readonly Write[] }): Promise<LedgerWriter>;
  /**
   * Recovery-open (LP-14 to LP-19): fences the ledger, finds its end, closes it. On a closed ledger it only reads the metadata.
   * Lost entries do not keep it from being closed (LP-31, LP-32): they are logged, and reading them says DATA_LOSS.
   * @throws NO_SUCH_LEDGER, UNAVAILABLE (too few copies answer), BAD_MASTER_KEY.
   */
  recover(id: LedgerId): Promise<ClosedLedger>;
  /** A reader. `upTo` says how far may be read: the closed ledger's last entry, or the writer's last confirmed (LP-8). */
  reader(id: LedgerId, upTo: () => EntryId): Promise<LedgerReader>;
  /** The writes that delete ledgers, for the transaction that unlinks them: metadata gone, tombstones in `deleted/`. */
  deletion(ids: readonly LedgerId[]): readonly Write[];
  /** Closes connections to bookies; writers fail. Idempotent. */
  close(): Promise<void>;
}
