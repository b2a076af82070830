/**
 * Reading a topic's log by message index, place or append time. What is recent comes from the cache at once. In the place of
 * entries that are lost stands what they held: the indexes between their neighbours.
 */
import { assert } from '../../lib/assert.ts';
import { hasCode, MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import { type EntryId, type LedgerId, type MessageIndex, NO_ENTRY } from '../../lib/ids.ts';
import { unpinned } from '../../lib/views.ts';
import type { LedgerEntry, LedgerReader, Ledgers } from '../../ledger/ledgers.ts';
import type { ReadLimits, TopicCache } from './entry-cache.ts';
import { endOf, type LogEntry, type LogItem, type LogLoss, toLogEntry } from './log-entry.ts';
import { type LogIndex, type LogSpan, POINT_EVERY } from './log-index.ts';

/** Bytes read at once while looking for an entry. */
const SEARCH_BYTES: number = 262_144;
/** An entry is taken to have so many bytes at least, where its ledger's length is not known for sure. */
const LEAST_ENTRY_BYTES: number = 64;
/** What a loss takes in memory, about. */
const LOSS_SIZE: LogLoss['block'] = { length: 512 };

/** The place of a message. */
export interface MessagePlace {
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  readonly batchIndex: number;
}

/** Where a reader that goes on and on is: the entry that follows the last one it got. Its own to keep; the log moves it. */
export interface ReadCursor {
  index: number;
  ledgerId: number;
  entryId: EntryId;
}

/** An entry, or the end of a ledger, and the index at which it begins. */
interface Mark {
  readonly entry: number;
  readonly index: MessageIndex;
}

export function newCursor(): ReadCursor {
  return { index: -1, ledgerId: -1, entryId: NO_ENTRY };
}

export class LogReader {
  readonly #ledgers: Ledgers;
  readonly #index: LogIndex;
  readonly #cache: TopicCache;
  readonly #topic: string;

  constructor(options: {
    readonly ledgers: Ledgers;
    readonly index: LogIndex;
    readonly cache: TopicCache;
    readonly topic: string;
  }) {
    this.#ledgers = options.ledgers;
    this.#index = options.index;
    this.#cache = options.cache;
    this.#topic = options.topic;
  }

  /** Bytes of all entries, each counted once, however many copies there are. */
  get storedBytes(): number {
    return this.#index.bytes;
  }

  /** Of those from a message on, about. */
  storedBytesFrom(index: MessageIndex): number {
    return this.#index.bytesFrom(index);
  }

  /** The ledgers that hold the entries, oldest first. */
  get spans(): readonly LogSpan[] {
    return this.#index.spans;
  }

  /** Index of the oldest message that is kept. */
  get oldestIndex(): MessageIndex {
    return this.#index.oldestIndex;
  }

  /** Index after the newest confirmed message. */
  get endIndex(): MessageIndex {
    return this.#index.endIndex;
  }

  /**
   * Consecutive entries from the one that holds `index` on, or from the oldest one where that is newer: at least one, and
   * none when `index` is at the end. Within one ledger. At once when they are in the cache. A loss comes alone.
   *
   * @throws UNAVAILABLE, as ledgers do.
   */
  read(index: MessageIndex, limits: ReadLimits, cursor: ReadCursor): readonly LogItem[] | Promise<readonly LogItem[]> {
    const cached = this.#cache.read(index, limits);
    return cached === undefined ? this.#readStored(index, limits, cursor) : advance(cursor, cached);
  }

  /** The bytes of the block of the entry that holds `index`; where it is not in the cache, what its ledger's have on average. */
  entryBytesAt(index: MessageIndex): number {
    const cached = this.#cache.bytesAt(index);
    if (cached !== undefined) return cached;
    const span = this.#index.spanAt(Math.max(index, this.#index.oldestIndex) as MessageIndex);
    return span === undefined || span.entries === 0 ? 0 : Math.ceil(span.bytes / span.entries);
  }

  /**
   * The index of a message, by its place.
   * @throws POSITION_NOT_FOUND naming the oldest and the newest message.
   */
  async indexOf(place: MessagePlace): Promise<MessageIndex> {
    const span = this.#index.spanOf(place.ledgerId);
    if (span !== undefined && place.entryId >= 0 && place.entryId < span.entries) {
      const entry = await this.#entry(span, place.entryId);
      if (place.batchIndex < entry.count) return (entry.index + place.batchIndex) as MessageIndex;
    }
    const { ledgerId, entryId, batchIndex } = place;
    throw await this.notFound(`message ${ledgerId}:${entryId}:${batchIndex}`);
  }

  /** The index of the first message appended at or after a time (milliseconds since 1970-01-01 UTC); the end when there is none. */
  async indexAtTime(time: number): Promise<MessageIndex> {
    const span = this.#index.spanAtTime(time);
    if (span === undefined) return this.#index.endIndex;
    if (span.firstAppendTime >= time) return span.firstIndex;
    // Appended before the time: low; at or after it, or lost: high.
    let [low, high]: [Mark, number] = [{ entry: 0, index: await this.#endOfFirst(span) }, span.entries - 1];
    while (high - low.entry > 1) {
      const middle = (low.entry + high) >>> 1;
      const entry = await this.#goodFrom(span, middle, high);
      if (entry !== undefined && entry.appendTime < time) low = { entry: entry.entryId, index: endOf(entry) };
      else high = middle;
    }
    return low.index;
  }

  async #endOfFirst(span: LogSpan): Promise<MessageIndex> {
    const first = await this.#goodFrom(span, 0, 1);
    return first === undefined ? span.firstIndex : endOf(first);
  }

  /** POSITION_NOT_FOUND, with what exists instead. */
  async notFound(what: string): Promise<MagnetarError> {
    const ends = this.#index.ends();
    let text = `there is no ${what} in topic ${this.#topic}, which is empty; the next message gets index ${this.endIndex}`;
    const details: Record<string, string> = { oldestIndex: String(this.oldestIndex), endIndex: String(this.endIndex) };
    if (ends !== undefined) {
      const { oldest, newest } = ends;
      const last = await this.#goodFrom(newest, newest.lastEntryId, newest.entries);
      details['oldestId'] = `${oldest.ledgerId}:0:0`;
      details['newestId'] = `${newest.ledgerId}:${newest.lastEntryId}:${(last?.count ?? 1) - 1}`;
      const range = `${details['oldestId']} (index ${oldest.firstIndex}) to ${details['newestId']} (index ${this.endIndex - 1})`;
      text = `there is no ${what} in topic ${this.#topic}; it has the messages ${range}`;
    }
    return new MagnetarError('POSITION_NOT_FOUND', text, { details });
  }

  async #readStored(wanted: MessageIndex, limits: ReadLimits, cursor: ReadCursor): Promise<readonly LogItem[]> {
    const index = Math.max(wanted, this.#index.oldestIndex) as MessageIndex;
    const span = this.#index.spanAt(index);
    if (span === undefined) return [];
    const known = cursor.index === index && cursor.ledgerId === span.ledgerId;
    let from: Mark = known ? { entry: cursor.entryId, index } : await this.#locate(span, index);
    const maxEntries = known ? limits.maxEntries : Math.max(limits.maxEntries, POINT_EVERY);
    const maxBytes = known ? limits.maxBytes : Math.max(limits.maxBytes, SEARCH_BYTES);
    for (;;) {
      const items = await this.#items(span, from, { maxEntries, maxBytes });
      const at = items.findIndex((item) => endOf(item) > index);
      const last = items.at(-1);
      assert(last !== undefined, 'a read of a ledger gives at least one entry');
      if (at >= 0) return advance(cursor, within(items.slice(at), index, limits));
      from = { entry: lastEntryOf(last) + 1, index: endOf(last) };
    }
  }

  /** Entries from a place on, or the loss that stands there. */
  async #items(span: LogSpan, from: Mark, limits: ReadLimits): Promise<readonly LogItem[]> {
    if (from.entry > span.lastEntryId) return [lossOf(span, from, undefined, 'nobody can say what there was')];
    try {
      return await this.#span(span, from.entry as EntryId, limits.maxEntries, limits.maxBytes);
    } catch (error) {
      if (!hasCode(error, 'DATA_LOSS')) throw error;
      const behind = await this.#goodFrom(span, from.entry, span.entries);
      return [lossOf(span, from, behind, error.message)];
    }
  }

  /** An entry at or a little before the one that holds a message, or one that is followed by losses alone up to there. */
  async #locate(span: LogSpan, index: MessageIndex): Promise<Mark> {
    const bracket = span.bracket(index);
    let low: Mark = bracket;
    let high: number = bracket.nextEntry;
    const entryBytes = Math.max(LEAST_ENTRY_BYTES, span.bytes / Math.max(1, span.entries));
    while (high - low.entry > 1 && (high - low.entry) * entryBytes > SEARCH_BYTES) {
      const middle = middleOf(low.entry, high);
      const entry = await this.#goodFrom(span, middle, high);
      if (entry !== undefined && entry.index <= index) low = { entry: entry.entryId, index: entry.index };
      else high = middle;
    }
    return low;
  }

  async #entry(span: LogSpan, entryId: EntryId): Promise<LogEntry> {
    const [entry] = await this.#span(span, entryId, 1, 1);
    assert(entry !== undefined, 'a read of a ledger gives at least one entry');
    return entry;
  }

  /** The first entry of [from, until) that is not lost. */
  async #goodFrom(span: LogSpan, from: number, until: number): Promise<LogEntry | undefined> {
    for (let next = from as EntryId; next < until; ) {
      try {
        return await this.#entry(span, next);
      } catch (error) {
        if (!hasCode(error, 'DATA_LOSS')) throw error;
        next = ((await (await this.#reader(span)).lostUpTo(next)) + 1) as EntryId;
      }
    }
    return undefined;
  }

  async #span(span: LogSpan, first: EntryId, maxEntries: number, maxBytes: number): Promise<LogEntry[]> {
    const reader = await this.#reader(span);
    const entries: LogEntry[] = [];
    for (const each of await reader.read(first, { maxEntries, maxBytes })) {
      const entry = toGoodEntry(span.ledgerId, each, entries.length === 0);
      if (entry === undefined) break;
      span.note(entry.entryId, entry.index);
      this.#cache.missed(entry.block.length);
      entries.push(entry);
    }
    return entries;
  }

  async #reader(span: LogSpan): Promise<LedgerReader> {
    span.reader ??= this.#ledgers.reader(span.ledgerId, () => span.lastEntryId);
    const opening = span.reader;
    try {
      return await opening;
    } catch (error) {
      if (span.reader === opening) span.reader = undefined;
      throw error;
    }
  }
}

/**
 * An entry; undefined for one whose header is damaged although the copy is as it was stored. @throws DATA_LOSS when that is the
 * first one; UNSUPPORTED
 */
function toGoodEntry(ledgerId: LedgerId, stored: LedgerEntry, isFirst: boolean): LogEntry | undefined {
  try {
    return toLogEntry(ledgerId, stored);
  } catch (error) {
    if (!hasCode(error, 'CHECKSUM_MISMATCH')) throw error;
    if (!isFirst) return undefined;
    const text = `entry ${stored.entryId} of ledger ${ledgerId} was stored damaged: ${toMagnetarError(error).message}`;
    throw new MagnetarError('DATA_LOSS', text, { cause: error });
  }
}

/** What is missing from a place on: up to an entry that is there, or to the end of the ledger. */
function lossOf(span: LogSpan, from: Mark, behind: LogEntry | undefined, reason: string): LogLoss {
  const end = behind?.index ?? span.endIndex;
  const beyond = from.entry > span.lastEntryId;
  return {
    lost: true,
    ledgerId: span.ledgerId,
    entryId: from.entry as EntryId,
    lastEntryId: beyond ? undefined : (((behind?.entryId ?? span.entries) - 1) as EntryId),
    index: from.index,
    count: Math.max(0, end - from.index),
    reason,
    block: LOSS_SIZE,
  };
}

function lastEntryOf(item: LogItem): number {
  return item.lost === true ? (item.lastEntryId ?? item.entryId - 1) : item.entryId;
}

/** An entry between two others; one that the sparse index remembers, where there is one. */
function middleOf(low: number, high: number): EntryId {
  const middle = (low + high) >>> 1;
  const point = middle - (middle % POINT_EVERY);
  return (point > low ? point : middle) as EntryId;
}

function advance<Item extends LogItem>(cursor: ReadCursor, items: readonly Item[]): readonly Item[] {
  const last = items.at(-1);
  if (last !== undefined) {
    cursor.index = endOf(last);
    cursor.ledgerId = last.ledgerId;
    cursor.entryId = (lastEntryOf(last) + 1) as EntryId;
  }
  return items;
}

/** As many of the items as the limits allow, at least one; none of them pins much more memory than it has bytes. */
function within(items: readonly LogItem[], index: MessageIndex, limits: ReadLimits): readonly LogItem[] {
  const { maxBytes, maxEntries, maxMessages = Number.POSITIVE_INFINITY } = limits;
  let [bytes, messages, count] = [0, 0, 0];
  for (const item of items) {
    const { length } = item.block;
    if (count > 0 && (bytes + length > maxBytes || count >= maxEntries || messages >= maxMessages)) break;
    bytes += length;
    messages += endOf(item) - Math.max(item.index, index);
    count++;
  }
  const kept = count === items.length ? items : items.slice(0, count);
  // One read of a disk brings more than one reader may want of it.
  const [first] = kept;
  const pinned = first === undefined || first.lost === true ? 0 : first.block.buffer.byteLength;
  if (bytes * 2 >= pinned) return kept;
  return kept.map((item) => (item.lost === true ? item : { ...item, block: unpinned(item.block, 1) }));
}
