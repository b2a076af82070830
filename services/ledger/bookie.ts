/**
 * What a ledger client asks of one bookie. The bookie role implements it in the process; `grpc-bookie.ts` implements it
 * over gRPC. Both keep the same contract (`bookie.contract.ts`).
 */
import type { EntryId, LedgerId } from '../lib/ids.ts';
import type { MagnetarError } from '../lib/errors.ts';

/** Names a bookie, for ensembles: "host:port", or "local-0" for one in the process. */
export type BookieId = string;

/** An entry on its way to a bookie (LP-3). */
export interface AppendEntry {
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  /** The writer's last-add-confirmed; NO_ENTRY: none. */
  readonly lac: EntryId;
  /** Cumulative length of the ledger's payloads, with this one, in bytes. */
  readonly length: number;
  /** CRC32C of the four numbers (8 bytes little-endian each) and the payload. */
  readonly digest: number;
  /** 16 bytes. */
  readonly masterKey: Buffer;
  /** A rewrite of recovery: stored although the ledger is fenced (LP-17). */
  readonly recovery: boolean;
  /** The payload in pieces. Frozen: neither side writes to them, ever; they may be kept. */
  readonly payload: readonly Buffer[];
  /** Total length of the pieces in bytes. */
  readonly payloadBytes: number;
  /** This process has made the digest of these very pieces; absent: a bookie has to check it. It does not travel. */
  readonly checked?: true;
}

/** An entry as a bookie gives it back. */
export interface StoredEntry {
  readonly entryId: EntryId;
  readonly lac: EntryId;
  readonly length: number;
  readonly digest: number;
  /** A view of a larger buffer, frozen. */
  readonly payload: Buffer;
  /** This process has checked the digest; absent: whoever reads it has to. */
  readonly checked?: true;
}

export interface ReadEntries {
  readonly ledgerId: LedgerId;
  readonly firstEntryId: EntryId;
  /** At least 1. */
  readonly maxEntries: number;
  /** Stop before an entry that would take the answer above this; the first one always comes. */
  readonly maxBytes: number;
  /** Fence the ledger first: with its master key (LP-16). */
  readonly fence?: { readonly masterKey: Buffer };
}

export interface ReadLac {
  readonly ledgerId: LedgerId;
  /** Fence the ledger first, durably (LP-11, LP-14). */
  readonly fence?: { readonly masterKey: Buffer };
}

export interface LacResult {
  /** Highest last-add-confirmed known; NO_ENTRY: none. */
  readonly lac: EntryId;
  /** Highest entry stored, with those that are damaged by now; NO_ENTRY: none. */
  readonly lastEntryId: EntryId;
  /** The ledger is in limbo (LP-29): entries above `lastEntryId` may have been stored, and a higher last-add-confirmed known. */
  readonly unsure?: true;
}

/**
 * One bookie. Codes of its errors:
 * - NO_SUCH_LEDGER, NO_SUCH_ENTRY: it never stored it, provably: the only explicit negatives (LP-12);
 * - CHECKSUM_MISMATCH: the entry sent is damaged; or the entry asked for was stored, and is damaged now: `details` has file,
 *   offset, ledgerId and entryId;
 * - ENTRY_UNKNOWN: it may have stored it (limbo, LP-29); `details` has the file that is damaged, where it is known. To an append: the
 *   ledger may have been fenced;
 * - DISK_FULL: it has not stored it, for want of room; it may take it later;
 * - LEDGER_FENCED, BAD_MASTER_KEY, STORE_FAILED (its disk failed), UNAVAILABLE and DEADLINE_EXCEEDED (unknown whether it happened),
 *   QUEUE_FULL, ALREADY_CLOSED.
 */
export interface Bookie {
  readonly id: BookieId;
  /** False while it is known to be out of reach, or to be full; a hint for choosing ensembles. */
  readonly available: boolean;
  /** DISK_FULL while its disk has no room for entries: it serves reads and fences, and takes the rewrites of recovery. */
  readonly full?: MagnetarError | undefined;
  /** Calls back whenever `full` has changed, until the function is called that it returns. */
  onFull?(changed: () => void): () => void;
  /** 16 random bytes that its folder was given when it was made (LP-27). Undefined: it has no folder of its own. */
  readonly instance?: Buffer;
  /**
   * Stores an entry. `done` is called exactly once, never before `append` returns, without an error when the entry is
   * on disk. Appends of one ledger are answered in any order. Storing the same entry again succeeds.
   */
  append(entry: AppendEntry, done: (error?: MagnetarError) => void): void;
  /** Consecutive entries from the first one on, at least one; they end before one that is missing or damaged. */
  read(request: ReadEntries): Promise<readonly StoredEntry[]>;
  /** Answers for ledgers in limbo, too, and fences them; `unsure` says so. */
  readLac(request: ReadLac): Promise<LacResult>;
  /** Answers what is under way, or fails it. Idempotent. */
  close(): Promise<void>;
}
