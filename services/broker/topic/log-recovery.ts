/** Finding out where a topic's log ends, when a broker takes it over. */
import { type EntryId, type LedgerId, type MessageIndex, type Millis, NO_ENTRY } from '../../lib/ids.ts';
import type { Ledgers } from '../../ledger/ledgers.ts';
import type { TopicLedger, TopicRecord } from '../../wire/records.ts';
import { endOf, type LogEntry, toLogEntry } from './log-entry.ts';
import type { TopicRecordHandle } from './topic-record.ts';

/** The log as it was found. */
export interface RecoveredLog {
  /** Every ledger that holds messages, oldest first, all closed. */
  readonly ledgers: readonly TopicLedger[];
  /** Index of the next message when there are no ledgers. */
  readonly floor: MessageIndex;
  readonly lastAppendTime: Millis;
  /** What the record has to say of it. */
  readonly amend: (record: TopicRecord) => TopicRecord;
  /** True when the record does not say it yet. */
  readonly amended: boolean;
  /** A ledger that was found empty: it leaves the list, and goes. */
  readonly dropped: readonly LedgerId[];
}

/**
 * Recovery-opens the last ledger of the list (ML-1): the close of all others is committed in the record. Afterwards nobody
 * else can append to the log. Nothing is written to the record.
 *
 * @throws what Ledgers.recover and reading throw.
 */
export async function recoverLog(ledgers: Ledgers, handle: TopicRecordHandle): Promise<RecoveredLog> {
  const { record } = handle;
  const older = handle.olderLedgers;
  const tail = record.ledgers.at(-1);
  if (tail === undefined || tail.closed) {
    const all = [...older, ...record.ledgers];
    const lastAppendTime = all.findLast((ledger) => ledger.entries > 0)?.lastAppendTime ?? (0 as Millis);
    return { ledgers: all, floor: record.floorIndex, lastAppendTime, amend: unchanged, amended: false, dropped: [] };
  }
  const before = record.ledgers.slice(0, -1);
  const closed = await ledgers.recover(tail.ledgerId);
  if (closed.lastEntryId === NO_ENTRY) {
    const all = [...older, ...before];
    const lastAppendTime = all.findLast((ledger) => ledger.entries > 0)?.lastAppendTime ?? (0 as Millis);
    const floor = tail.firstIndex;
    const amend = (current: TopicRecord): TopicRecord => ({
      ...current,
      ledgers: current.ledgers.filter((ledger) => ledger.ledgerId !== tail.ledgerId),
      floorIndex: floor,
    });
    return { ledgers: all, floor, lastAppendTime, amend, amended: true, dropped: [tail.ledgerId] };
  }
  const [first, last] = await ends(ledgers, tail.ledgerId, closed.lastEntryId);
  const found: TopicLedger = {
    ledgerId: tail.ledgerId,
    firstIndex: tail.firstIndex,
    closed: true,
    messages: endOf(last) - tail.firstIndex,
    entries: closed.lastEntryId + 1,
    bytes: closed.length,
    firstAppendTime: first.appendTime,
    lastAppendTime: last.appendTime,
  };
  return {
    ledgers: [...older, ...before, found],
    floor: record.floorIndex,
    lastAppendTime: last.appendTime,
    amend: (current) => ({
      ...current,
      ledgers: current.ledgers.map((ledger) => (ledger.ledgerId === found.ledgerId ? found : ledger)),
    }),
    amended: true,
    dropped: [],
  };
}

function unchanged(record: TopicRecord): TopicRecord {
  return record;
}

/** The first and the last entry of a closed ledger. */
async function ends(ledgers: Ledgers, id: LedgerId, lastEntryId: EntryId): Promise<[LogEntry, LogEntry]> {
  const reader = await ledgers.reader(id, () => lastEntryId);
  const read = async (entryId: number): Promise<LogEntry> => {
    const [stored] = await reader.read(entryId as EntryId, { maxEntries: 1, maxBytes: 1 });
    if (stored === undefined) throw new RangeError(`ledger ${id} gave no entry ${entryId}`);
    return toLogEntry(id, stored);
  };
  return Promise.all([read(0), read(lastEntryId)]);
}
