/**
 * Finding out where a topic's log ends, when a broker takes it over.
 *
 * Indexes are never given twice. Where the last entries of the last ledger are lost, their messages had indexes that nobody
 * can read any more. The next message then gets one that is above all that is known to have been given (by entries, acknowledgments,
 * deduplication), by `SKIPPED_INDEXES`. What lies between counts as lost, and readers are told.
 */
import { hasCode } from '../../lib/errors.ts';
import { type EntryId, type LedgerId, type MessageIndex, type Millis, NO_ENTRY } from '../../lib/ids.ts';
import type { ClosedLedger, LedgerReader, Ledgers } from '../../ledger/ledgers.ts';
import type { Logger } from '../../runtime/logger.ts';
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

/** More messages than a segment of a bookie has that was lost behind the last one that is known of, unless they are tiny. */
export const SKIPPED_INDEXES: number = 1_048_576;
const SEARCH: { maxEntries: number; maxBytes: number } = { maxEntries: 1_000, maxBytes: 262_144 };

/** What recovery needs. */
export interface LogRecoveryOptions {
  readonly ledgers: Ledgers;
  readonly record: TopicRecordHandle;
  readonly logger: Logger;
  readonly topic: string;
  /** An index that none of which others have heard is above: asked for when the log itself does not know its end. */
  readonly heardOf: () => Promise<MessageIndex>;
}

/**
 * Recovery-opens the last ledger of the list (ML-1): the close of all others is committed in the record. Afterwards nobody
 * else can append to the log. Nothing is written to the record.
 *
 * @throws what Ledgers.recover, reading and `heardOf` throw.
 */
export async function recoverLog(options: LogRecoveryOptions): Promise<RecoveredLog> {
  const { ledgers, record: handle } = options;
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
  const all = [...older, ...before];
  const timeBefore = all.findLast((ledger) => ledger.entries > 0)?.lastAppendTime ?? (0 as Millis);
  if (closed.lastEntryId === NO_ENTRY && !closed.lostTail) {
    const floor = tail.firstIndex;
    const amend = (current: TopicRecord): TopicRecord => ({
      ...current,
      ledgers: current.ledgers.filter((ledger) => ledger.ledgerId !== tail.ledgerId),
      floorIndex: floor,
    });
    return { ledgers: all, floor, lastAppendTime: timeBefore, amend, amended: true, dropped: [tail.ledgerId] };
  }
  const { first, last } = await ends(ledgers, closed);
  const lastAppendTime = last?.appendTime ?? timeBefore;
  const found: TopicLedger = {
    ledgerId: tail.ledgerId,
    firstIndex: tail.firstIndex,
    closed: true,
    messages: (await endIndex(options, { closed, last, firstIndex: tail.firstIndex })) - tail.firstIndex,
    entries: closed.lastEntryId + 1,
    bytes: closed.length,
    firstAppendTime: first?.appendTime ?? timeBefore,
    lastAppendTime,
  };
  return {
    ledgers: [...all, found],
    floor: record.floorIndex,
    lastAppendTime,
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

/** The index after the last message of a ledger that was recovered: exact when its last entry can be read. */
async function endIndex(
  { logger, topic, heardOf }: LogRecoveryOptions,
  {
    closed,
    last,
    firstIndex,
  }: { readonly closed: ClosedLedger; readonly last: LogEntry | undefined; readonly firstIndex: MessageIndex },
): Promise<MessageIndex> {
  const known = last === undefined ? firstIndex : endOf(last);
  const { ledgerId, lastEntryId, lostTail } = closed;
  const lost = lastEntryId - (last?.entryId ?? NO_ENTRY);
  if (lost === 0 && !lostTail) return known;
  const end = (Math.max(known + lost, await heardOf()) + SKIPPED_INDEXES) as MessageIndex;
  const what = lostTail
    ? `what came behind entry ${lastEntryId}`
    : `entries ${lastEntryId - lost + 1} to ${lastEntryId}`;
  const text = `topic ${topic} has lost messages: ${what} of ledger ${ledgerId}; indexes ${known} to ${end - 1} are not given again`;
  logger.error(text, { topic, ledger: ledgerId, lastEntryId, firstIndex: known, lastIndex: end - 1 });
  return end;
}

/** The first and the last entry of a closed ledger that are not lost. */
async function ends(ledgers: Ledgers, closed: ClosedLedger): Promise<{ first?: LogEntry; last?: LogEntry }> {
  const { ledgerId, lastEntryId } = closed;
  if (lastEntryId === NO_ENTRY) return {};
  const reader = await ledgers.reader(ledgerId, () => lastEntryId);
  const [first, last] = await Promise.all([
    firstGood(reader, 0 as EntryId, lastEntryId),
    lastGood(reader, lastEntryId),
  ]);
  return { ...(first === undefined ? {} : { first }), ...(last === undefined ? {} : { last }) };
}

async function goodAt(reader: LedgerReader, entryId: EntryId, limits = SEARCH): Promise<readonly LogEntry[]> {
  try {
    return (await reader.read(entryId, limits)).map((stored) => toLogEntry(reader.ledgerId, stored));
  } catch (error) {
    if (hasCode(error, 'DATA_LOSS', 'CHECKSUM_MISMATCH')) return [];
    throw error;
  }
}

async function firstGood(reader: LedgerReader, from: EntryId, last: EntryId): Promise<LogEntry | undefined> {
  for (let next = from; next <= last; next = ((await reader.lostUpTo(next)) + 1) as EntryId) {
    const [entry] = await goodAt(reader, next, { maxEntries: 1, maxBytes: 1 });
    if (entry !== undefined) return entry;
  }
  return undefined;
}

/** Goes back in growing steps to a good entry, and from there on forth again. */
async function lastGood(reader: LedgerReader, lastEntryId: EntryId): Promise<LogEntry | undefined> {
  let good: LogEntry | undefined;
  let from: number = lastEntryId;
  for (let step = 1; good === undefined && from >= 0; step *= 2) {
    [good] = await goodAt(reader, from as EntryId, { maxEntries: 1, maxBytes: 1 });
    if (good === undefined) from = from === 0 ? -1 : Math.max(0, from - step);
  }
  if (from === lastEntryId) return good;
  for (let next = Math.max(0, from) as EntryId; next <= lastEntryId; ) {
    const entries = await goodAt(reader, next);
    good = entries.at(-1) ?? good;
    next = ((entries.at(-1)?.entryId ?? (await reader.lostUpTo(next))) + 1) as EntryId;
  }
  return good;
}
