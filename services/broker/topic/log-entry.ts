import { MagnetarError } from '../../lib/errors.ts';
import type { EntryId, Epoch, LedgerId, MessageIndex, Millis } from '../../lib/ids.ts';
import type { LedgerEntry } from '../../ledger/ledgers.ts';
import { decodeEntry } from '../../wire/entry.ts';

/** One entry of a topic's log. */
export interface LogEntry {
  readonly lost?: undefined;
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

/** Messages that are lost, in the place of the entries that held them (LP-31, LP-32). */
export interface LogLoss {
  readonly lost: true;
  readonly ledgerId: LedgerId;
  /** The first lost entry. */
  readonly entryId: EntryId;
  /** The last one; undefined: nobody knows how many there were. */
  readonly lastEntryId: EntryId | undefined;
  /** Index of the first lost message. */
  readonly index: MessageIndex;
  /** How many indexes were theirs; where the last entries of a ledger are lost, at most so many. */
  readonly count: number;
  /** Why the first one is lost. */
  readonly reason: string;
  /** What it takes while it waits, about. */
  readonly block: { readonly length: number };
}

/** What stands in a topic's log. */
export type LogItem = LogEntry | LogLoss;

/** The index after the item's last message. */
export function endOf(item: { readonly index: MessageIndex; readonly count: number }): MessageIndex {
  return (item.index + item.count) as MessageIndex;
}

/** DATA_LOSS, with everything that an app may want to know of a loss. `from`: the first index that concerns it. */
export function lossError(topic: string, loss: LogLoss, from: MessageIndex = loss.index): MagnetarError {
  const { ledgerId, entryId, lastEntryId, reason } = loss;
  const lastIndex = endOf(loss) - 1;
  const entries =
    lastEntryId === undefined
      ? `whatever came behind entry ${entryId - 1}`
      : lastEntryId === entryId
        ? `entry ${entryId}`
        : `entries ${entryId} to ${lastEntryId}`;
  const details = {
    topic,
    firstIndex: String(from),
    lastIndex: String(lastIndex),
    ledgerId: String(ledgerId),
    firstEntryId: String(entryId),
    ...(lastEntryId === undefined ? {} : { lastEntryId: String(lastEntryId) }),
  };
  const text = `messages ${from} to ${lastIndex} of ${topic} are lost: ${entries} of ledger ${ledgerId}: ${reason}`;
  return new MagnetarError('DATA_LOSS', text, { details });
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
