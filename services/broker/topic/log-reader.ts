/**
 * Reading a topic's log by message index, place or append time. What is recent comes from the cache at once.
 */
import { assert } from '../../lib/assert.ts';
import { MagnetarError } from '../../lib/errors.ts';
import { type EntryId, type LedgerId, type MessageIndex, NO_ENTRY } from '../../lib/ids.ts';
import { unpinned } from '../../lib/views.ts';
import type { Ledgers } from '../../ledger/ledgers.ts';
import type { ReadLimits, TopicCache } from './entry-cache.ts';
import { endOf, type LogEntry, toLogEntry } from './log-entry.ts';
import { type LogIndex, type LogSpan, POINT_EVERY } from './log-index.ts';

/** Bytes read at once while looking for an entry. */
const SEARCH_BYTES: number = 262_144;

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
   * none when `index` is at the end. Within one ledger. At once when they are in the cache.
   *
   * @throws DATA_LOSS, UNAVAILABLE, as ledgers do.
   */
  read(
    index: MessageIndex,
    limits: ReadLimits,
    cursor: ReadCursor,
  ): readonly LogEntry[] | Promise<readonly LogEntry[]> {
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
    let [low, high] = [0, span.entries - 1]; // appended before the time: low; at or after it: high
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if ((await this.#entry(span, middle as EntryId)).appendTime < time) low = middle;
      else high = middle;
    }
    return (await this.#entry(span, high as EntryId)).index;
  }

  /** POSITION_NOT_FOUND, with what exists instead. */
  async notFound(what: string): Promise<MagnetarError> {
    const ends = this.#index.ends();
    let text = `there is no ${what} in topic ${this.#topic}, which is empty; the next message gets index ${this.endIndex}`;
    const details: Record<string, string> = { oldestIndex: String(this.oldestIndex), endIndex: String(this.endIndex) };
    if (ends !== undefined) {
      const { oldest, newest } = ends;
      const last = await this.#entry(newest, newest.lastEntryId);
      details['oldestId'] = `${oldest.ledgerId}:0:0`;
      details['newestId'] = `${last.ledgerId}:${last.entryId}:${last.count - 1}`;
      const range = `${details['oldestId']} (index ${oldest.firstIndex}) to ${details['newestId']} (index ${endOf(last) - 1})`;
      text = `there is no ${what} in topic ${this.#topic}; it has the messages ${range}`;
    }
    return new MagnetarError('POSITION_NOT_FOUND', text, { details });
  }

  async #readStored(wanted: MessageIndex, limits: ReadLimits, cursor: ReadCursor): Promise<readonly LogEntry[]> {
    const index = Math.max(wanted, this.#index.oldestIndex) as MessageIndex;
    const span = this.#index.spanAt(index);
    if (span === undefined) return [];
    const known = cursor.index === index && cursor.ledgerId === span.ledgerId;
    let from = known ? cursor.entryId : await this.#locate(span, index);
    const maxEntries = known ? limits.maxEntries : Math.max(limits.maxEntries, POINT_EVERY);
    const maxBytes = known ? limits.maxBytes : Math.max(limits.maxBytes, SEARCH_BYTES);
    for (;;) {
      const entries = await this.#span(span, from, maxEntries, maxBytes);
      const at = entries.findIndex((entry) => endOf(entry) > index);
      const last = entries.at(-1);
      assert(last !== undefined, 'a read of a ledger gives at least one entry');
      if (at >= 0) return advance(cursor, within(entries.slice(at), index, limits));
      from = (last.entryId + 1) as EntryId;
    }
  }

  /** An entry at or a little before the one that holds a message. */
  async #locate(span: LogSpan, index: MessageIndex): Promise<EntryId> {
    const bracket = span.bracket(index);
    let low: number = bracket.entry;
    let high: number = bracket.nextEntry;
    const entryBytes = span.bytes / span.entries;
    while (high - low > 1 && (high - low) * entryBytes > SEARCH_BYTES) {
      const middle = middleOf(low, high);
      const entry = await this.#entry(span, middle);
      if (entry.index <= index) low = middle;
      else high = middle;
    }
    return low as EntryId;
  }

  async #entry(span: LogSpan, entryId: EntryId): Promise<LogEntry> {
    const [entry] = await this.#span(span, entryId, 1, 1);
    assert(entry !== undefined, 'a read of a ledger gives at least one entry');
    return entry;
  }

  async #span(span: LogSpan, first: EntryId, maxEntries: number, maxBytes: number): Promise<LogEntry[]> {
    span.reader ??= this.#ledgers.reader(span.ledgerId, () => span.lastEntryId);
    const opening = span.reader;
    let reader;
    try {
      reader = await opening;
    } catch (error) {
      if (span.reader === opening) span.reader = undefined;
      throw error;
    }
    const stored = await reader.read(first, { maxEntries, maxBytes });
    return stored.map((each) => {
      const entry = toLogEntry(span.ledgerId, each);
      span.note(entry.entryId, entry.index);
      this.#cache.missed(entry.block.length);
      return entry;
    });
  }
}

/** An entry between two others; one that the sparse index remembers, where there is one. */
function middleOf(low: number, high: number): EntryId {
  const middle = (low + high) >>> 1;
  const point = middle - (middle % POINT_EVERY);
  return (point > low ? point : middle) as EntryId;
}

function advance(cursor: ReadCursor, entries: readonly LogEntry[]): readonly LogEntry[] {
  const last = entries.at(-1);
  if (last !== undefined) {
    cursor.index = endOf(last);
    cursor.ledgerId = last.ledgerId;
    cursor.entryId = (last.entryId + 1) as EntryId;
  }
  return entries;
}

/** As many of the entries as the limits allow, at least one; none of them pins much more memory than it has bytes. */
function within(entries: readonly LogEntry[], index: MessageIndex, limits: ReadLimits): readonly LogEntry[] {
  const { maxBytes, maxEntries, maxMessages = Number.POSITIVE_INFINITY } = limits;
  let [bytes, messages, count] = [0, 0, 0];
  for (const entry of entries) {
    const { length } = entry.block;
    if (count > 0 && (bytes + length > maxBytes || count >= maxEntries || messages >= maxMessages)) break;
    bytes += length;
    messages += endOf(entry) - Math.max(entry.index, index);
    count++;
  }
  const kept = count === entries.length ? entries : entries.slice(0, count);
  // One read of a disk brings more than one reader may want of it.
  const pinned = kept[0]?.block.buffer.byteLength ?? 0;
  if (bytes * 2 >= pinned) return kept;
  return kept.map((entry) => ({ ...entry, block: unpinned(entry.block, 1) }));
}
