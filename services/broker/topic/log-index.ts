/**
 * Where the messages of a topic are: its ledgers in order, and within each a sparse map from message index to entry,
 * filled while writing and reading.
 */
import type { EntryId, LedgerId, MessageIndex, Millis } from '../../lib/ids.ts';
import type { LedgerReader } from '../../ledger/ledgers.ts';
import type { TopicLedger } from '../../wire/records.ts';

/** Every so manyth entry of a ledger is remembered. */
export const POINT_EVERY: number = 64;

/** A place between two entries of a ledger that are known. */
export interface Bracket {
  /** An entry at or before the message. */
  readonly entry: EntryId;
  readonly index: MessageIndex;
  /** An entry behind the message, or the number of entries. */
  readonly nextEntry: EntryId;
  readonly nextIndex: MessageIndex;
}

/** One ledger of the topic. Its numbers grow while it is written. */
export class LogSpan {
  readonly ledgerId: LedgerId;
  readonly firstIndex: MessageIndex;
  messages: number;
  entries: number;
  bytes: number;
  firstAppendTime: Millis;
  lastAppendTime: Millis;
  /** True when the numbers are final. */
  closed: boolean;
  /** The reader, once somebody has read. */
  reader: Promise<LedgerReader> | undefined;
  readonly #pointEntries: number[] = [];
  readonly #pointIndexes: number[] = [];

  constructor(ledger: TopicLedger) {
    this.ledgerId = ledger.ledgerId;
    this.firstIndex = ledger.firstIndex;
    this.messages = ledger.messages;
    this.entries = ledger.entries;
    this.bytes = ledger.bytes;
    this.firstAppendTime = ledger.firstAppendTime;
    this.lastAppendTime = ledger.lastAppendTime;
    this.closed = ledger.closed;
  }

  /** Index after its last confirmed message. */
  get endIndex(): MessageIndex {
    return (this.firstIndex + this.messages) as MessageIndex;
  }

  /** Its last confirmed entry; -1: none. */
  get lastEntryId(): EntryId {
    return (this.entries - 1) as EntryId;
  }

  /** The numbers as the topic record holds them. */
  toRecord(): TopicLedger {
    return {
      ledgerId: this.ledgerId,
      firstIndex: this.firstIndex,
      closed: this.closed,
      messages: this.messages,
      entries: this.entries,
      bytes: this.bytes,
      firstAppendTime: this.firstAppendTime,
      lastAppendTime: this.lastAppendTime,
    };
  }

  /** Counts an entry that was confirmed at the end. */
  confirm(index: MessageIndex, count: number, bytes: number, appendTime: Millis): void {
    if (this.entries === 0) this.firstAppendTime = appendTime;
    this.note(this.entries as EntryId, index);
    this.entries++;
    this.messages += count;
    this.bytes += bytes;
    this.lastAppendTime = appendTime;
  }

  /** Learns where an entry begins. */
  note(entry: EntryId, index: MessageIndex): void {
    if (entry % POINT_EVERY !== 0) return;
    const at = this.#pointAfter(index);
    if (this.#pointEntries[at - 1] === entry) return;
    this.#pointEntries.splice(at, 0, entry);
    this.#pointIndexes.splice(at, 0, index);
  }

  /** The known entries around a message of this ledger. */
  bracket(index: MessageIndex): Bracket {
    const at = this.#pointAfter(index);
    return {
      entry: (this.#pointEntries[at - 1] ?? 0) as EntryId,
      index: (this.#pointIndexes[at - 1] ?? this.firstIndex) as MessageIndex,
      nextEntry: (this.#pointEntries[at] ?? this.entries) as EntryId,
      nextIndex: (this.#pointIndexes[at] ?? this.endIndex) as MessageIndex,
    };
  }

  /** The place of the first known point above `index`. */
  #pointAfter(index: number): number {
    let [low, high] = [0, this.#pointIndexes.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#pointIndexes[middle] as number) <= index) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** The ledgers of a topic, oldest first. */
export class LogIndex {
  readonly #spans: LogSpan[];
  readonly #floor: MessageIndex;

  constructor(ledgers: readonly TopicLedger[], floor: MessageIndex) {
    this.#spans = ledgers.map((ledger) => new LogSpan(ledger));
    this.#floor = floor;
  }

  get last(): LogSpan | undefined {
    return this.#spans.at(-1);
  }

  /** Index of the oldest message that is kept, or of the next one when there is none. */
  get oldestIndex(): MessageIndex {
    return this.#spans[0]?.firstIndex ?? this.#floor;
  }

  /** Index after the newest confirmed message. */
  get endIndex(): MessageIndex {
    return this.last?.endIndex ?? this.#floor;
  }

  /** Of all confirmed entries. */
  get bytes(): number {
    let bytes = 0;
    for (const span of this.#spans) bytes += span.bytes;
    return bytes;
  }

  /** Of the entries from a message on, about: the messages of a ledger count as equally long. */
  bytesFrom(index: MessageIndex): number {
    let bytes = 0;
    for (let at = this.#spans.length - 1; at >= 0; at--) {
      const span = this.#spans[at] as LogSpan;
      if (span.firstIndex < index) {
        if (span.endIndex > index) bytes += (span.bytes * (span.endIndex - index)) / span.messages;
        break;
      }
      bytes += span.bytes;
    }
    return Math.round(bytes);
  }

  /** Oldest first. */
  get spans(): readonly LogSpan[] {
    return this.#spans;
  }

  push(ledger: TopicLedger): LogSpan {
    const span = new LogSpan(ledger);
    this.#spans.push(span);
    return span;
  }

  /** The ledger that holds a message. */
  spanAt(index: MessageIndex): LogSpan | undefined {
    const span = this.#spans[this.#count((candidate) => candidate.firstIndex <= index) - 1];
    return span !== undefined && index < span.endIndex ? span : undefined;
  }

  spanOf(id: LedgerId): LogSpan | undefined {
    const span = this.#spans[this.#count((candidate) => candidate.ledgerId <= id) - 1];
    return span?.ledgerId === id ? span : undefined;
  }

  /** The first ledger whose newest entry was appended at or after a time. */
  spanAtTime(time: number): LogSpan | undefined {
    return this.#spans.find((span) => span.entries > 0 && span.lastAppendTime >= time);
  }

  /** The oldest and the newest ledger that hold a message. */
  ends(): { oldest: LogSpan; newest: LogSpan } | undefined {
    const oldest = this.#spans.find((span) => span.entries > 0);
    const newest = this.#spans.findLast((span) => span.entries > 0);
    return oldest === undefined || newest === undefined ? undefined : { oldest, newest };
  }

  /** How many spans, from the oldest on, `holds` is true for; it must be so for a prefix. */
  #count(holds: (span: LogSpan) => boolean): number {
    let [low, high] = [0, this.#spans.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (holds(this.#spans[middle] as LogSpan)) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
