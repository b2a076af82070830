import type { EntryId, Epoch, LedgerId, MessageIndex, Millis } from '../../lib/ids.ts';
import type { LedgerEntry } from '../../ledger/ledgers.ts';
import { decodeEntry } from '../../wire/entry.ts';

/** One entry of a topic's log. */
export interface LogEntry {
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  /** Index of its first message. */
  readonly index: MessageIndex;
  /** How many messages it has. */
  readonly count: number;
  readonly appendTime: Millis;
  readonly ownerEpoch: Epoch;
  readonly blockCrc32c: number;
  /** The producer's block. A view of a larger buffer, frozen. */
  readonly block: Buffer;
}

/** The index after the entry's last message. */
export function endOf(entry: LogEntry): MessageIndex {
  return (entry.index + entry.count) as MessageIndex;
}

/** @throws CHECKSUM_MISMATCH, UNSUPPORTED */
export function toLogEntry(ledgerId: LedgerId, stored: LedgerEntry): LogEntry {
  const { header, block } = decodeEntry(stored.payload);
  return {
    ledgerId,
    entryId: stored.entryId,
    index: header.baseIndex,
    count: header.count,
    appendTime: header.appendTime,
    ownerEpoch: header.ownerEpoch,
    blockCrc32c: header.blockCrc32c,
    block,
  };
}
