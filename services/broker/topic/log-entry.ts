import type { EntryId, Epoch, LedgerId, MessageIndex, Millis } from '../../lib/ids.ts';
import type { LedgerEntry } from '../../ledger/ledgers.ts';
import { decodeEntry } from '../../wire/entry.ts';

/** One entry of a topic's log. */
export interface LogEntry {
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  /** Index of its first message. */
  readonly baseIndex: MessageIndex;
  /** How many messages it has. */
  readonly count: number;
  /** Size of the block. */
  readonly bytes: number;
  readonly appendTime: Millis;
  readonly ownerEpoch: Epoch;
  readonly blockCrc32c: number;
  /** The producer's block. A view of a larger buffer, frozen. */
  readonly block: Buffer;
}

/** The index after the entry's last message. */
export function endOf(entry: LogEntry): MessageIndex {
  return (entry.baseIndex + entry.count) as MessageIndex;
}

/** @throws CHECKSUM_MISMATCH, UNSUPPORTED */
export function toLogEntry(ledgerId: LedgerId, stored: LedgerEntry): LogEntry {
  const { header, block } = decodeEntry(stored.payload);
  return {
    ledgerId,
    entryId: stored.entryId,
    baseIndex: header.baseIndex,
    count: header.count,
    bytes: block.length,
    appendTime: header.appendTime,
    ownerEpoch: header.ownerEpoch,
    blockCrc32c: header.blockCrc32c,
    block,
  };
}
