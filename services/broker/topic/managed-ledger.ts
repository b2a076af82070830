/**
 * The writing side of a topic's log: one ledger after another, message indexes dense over all of them.
 *
 * A ledger is made at the first write. When it is full, or its writer fails, it is closed at its last confirmed entry and
 * the next one is made; entries wait meanwhile. Nothing is appended to a ledger before the close of the one before is
 * committed, in the transaction that links the new one (ML-1, LP-22). Entries that the failed ledger did not confirm are
 * appended again, in order, under the indexes that they had: a confirmed index never moves, an unconfirmed one was never
 * shown to anybody.
 */
import { assert } from '../../lib/assert.ts';
import { Deque } from '../../lib/collections/deque.ts';
import { hasCode, MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import type { EntryId, Epoch, LedgerId, MessageIndex, Millis } from '../../lib/ids.ts';
import type { LedgerWriter } from '../../ledger/ledgers.ts';
import { type Clock, delay } from '../../runtime/clock.ts';
import { backoff, type Random } from '../../runtime/random.ts';
import type { Logger } from '../../runtime/logger.ts';
import { encodeEntryHeader } from '../../wire/entry.ts';
import type { TopicLedger } from '../../wire/records.ts';
import type { LedgerOptions } from '../options.ts';
import type { TopicCache } from './entry-cache.ts';
import type { LogEntry } from './log-entry.ts';
import type { LogIndex, LogSpan } from './log-index.ts';
import type { TopicRecordHandle } from './topic-record.ts';

/** Called once: with the entry as it was stored, and the monotonic time; or with an error that a producer may be told. */
export type AppendDone = (error: MagnetarError | undefined, entry: LogEntry | undefined, now?: number) => void;

/** A block that was checked. */
export interface BlockToAppend {
  readonly block: Buffer;
  readonly count: number;
  readonly crc32c: number;
}

export interface ManagedLedgerOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly topic: string;
  readonly epoch: Epoch;
  readonly record: TopicRecordHandle;
  readonly index: LogIndex;
  readonly cache: TopicCache;
  /** Append time of the newest entry. */
  readonly lastAppendTime: Millis;
  readonly limits: LedgerOptions;
  /** An entry was confirmed, so many ms after it was appended, at a monotonic time; it can be read. */
  readonly onConfirmed: (entry: LogEntry, latencyMs: number, now: number) => void;
  /** Nothing can be appended any more: the topic has to be opened again. Called once, after all that was pending has failed. */
  readonly onFailed: (error: MagnetarError) => void;
}

/**
 * idle: there is no open ledger; one that failed for want of room is yet to be closed. open: entries go to the writer. rolling: what was handed to the writer is awaited, the
 * rest waits. turning: one ledger is being closed, or the next one made. failed, closed: for good.
 */
type State = 'idle' | 'open' | 'rolling' | 'turning' | 'failed' | 'closed';

/** An entry that is not confirmed. */
interface Pending {
  readonly header: Buffer;
  readonly block: Buffer;
  readonly index: MessageIndex;
  readonly count: number;
  readonly crc32c: number;
  readonly appendTime: Millis;
  /** Monotonic time. */
  readonly appendedAt: number;
  readonly done: AppendDone;
}

export class ManagedLedger {
  readonly #options: ManagedLedgerOptions;
  readonly #index: LogIndex;
  /** Unconfirmed entries, oldest first; the first `#sent` of them were handed to the writer. */
  readonly #queue: Deque<Pending> = new Deque();
  #sent = 0;
  #pendingBytes = 0;
  #state: State = 'idle';
  #closing = false;
  #failure: MagnetarError | undefined;
  #writer: LedgerWriter | undefined;
  #handedEntries = 0;
  #handedBytes = 0;
  #openedAt = 0;
  #nextIndex: MessageIndex;
  #lastAppendTime: Millis;
  /** Failures since an entry was confirmed, and the time of the first of them. */
  #failures = 0;
  #failingSince: number | undefined;
  #waiters: (() => void)[] = [];

  constructor(options: ManagedLedgerOptions) {
    this.#options = options;
    this.#index = options.index;
    this.#nextIndex = options.index.endIndex;
    this.#lastAppendTime = options.lastAppendTime;
  }

  /** Index after the newest confirmed message. */
  get endIndex(): MessageIndex {
    return this.#index.endIndex;
  }

  /** Entries that are not confirmed yet. */
  get pendingEntries(): number {
    return this.#queue.length;
  }

  /**
   * Appends a block as the next entry. `done` is called once, later, in the order of the calls.
   * @throws QUEUE_FULL, ALREADY_CLOSED, or what the log has failed with; `done` is not called then.
   */
  append(data: BlockToAppend, done: AppendDone): void {
    if (this.#failure !== undefined) throw this.#failure;
    const { limits, topic, clock } = this.#options;
    if (this.#closing) throw new MagnetarError('NOT_OWNER', `topic ${topic} is being closed here; open it again`);
    if (this.#queue.length >= limits.maxPendingEntries || this.#pendingBytes >= limits.maxPendingBytes) {
      const text = `${this.#queue.length} entries of ${this.#pendingBytes} bytes wait to be stored in topic ${topic}`;
      throw new MagnetarError('QUEUE_FULL', `${text}, which is the most that may`);
    }
    const appendTime = Math.max(this.#lastAppendTime, clock.now()) as Millis;
    const header = encodeEntryHeader(
      {
        baseIndex: this.#nextIndex,
        count: data.count,
        appendTime,
        ownerEpoch: this.#options.epoch,
        blockCrc32c: data.crc32c,
      },
      data.block.length,
    );
    this.#queue.push({
      header,
      block: data.block,
      index: this.#nextIndex,
      count: data.count,
      crc32c: data.crc32c,
      appendTime,
      appendedAt: clock.monotonic(),
      done,
    });
    this.#pendingBytes += data.block.length;
    this.#lastAppendTime = appendTime;
    this.#nextIndex = (this.#nextIndex + data.count) as MessageIndex;
    this.#pump();
  }

  /**
   * Refuses further entries, waits for those under way, closes the ledger and commits its numbers. Rejects when that is not
   * possible; then the log has failed, or fails when it is opened again elsewhere, and nothing that was confirmed is lost.
   */
  async close(): Promise<void> {
    this.#closing = true;
    while (!this.#settled()) await new Promise<void>((resolve) => this.#waiters.push(resolve));
    if (this.#state !== 'open' && this.#state !== 'idle') return;
    this.#state = 'turning';
    try {
      const wasOpen = this.#writer !== undefined;
      await this.#closeWriter();
      if (wasOpen)
        await this.#options.record.change((record) => ({ ...record, ledgers: this.#listed(record.ledgers) }));
      if (this.#is('turning')) this.#state = 'closed';
    } catch (error) {
      this.fail(asTopicError(error, this.#options.topic));
      throw error;
    }
  }

  /** Ends the log at once: everything pending fails with this error. Idempotent. */
  fail(error: MagnetarError): void {
    if (this.#state === 'failed' || this.#state === 'closed') return;
    this.#state = 'failed';
    this.#failure = error;
    this.#sent = 0;
    for (let pending = this.#queue.shift(); pending !== undefined; pending = this.#queue.shift()) {
      pending.done(error, undefined);
    }
    this.#pendingBytes = 0;
    this.#writer?.abandon(error); // whoever opens the topic next recovers the ledger
    this.#wake();
    this.#options.onFailed(error);
  }

  #is(state: State): boolean {
    return this.#state === state;
  }

  /** Nothing is under way. */
  #settled(): boolean {
    return (
      (this.#queue.length === 0 && (this.#state === 'open' || this.#state === 'idle')) || this.#failure !== undefined
    );
  }

  #wake(): void {
    if (this.#waiters.length === 0 || !this.#settled()) return;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }

  /** Hands waiting entries to the writer, as long as the ledger takes them. */
  #pump(): void {
    while (this.#state === 'open' && this.#writer !== undefined) {
      const pending = this.#queue.at(this.#sent);
      if (pending === undefined) return;
      if (this.#full()) {
        this.#state = 'rolling';
        if (this.#sent === 0) this.#turnOver();
        return;
      }
      this.#hand(this.#writer, pending);
    }
    if (this.#state === 'idle' && this.#queue.length > 0) this.#turnOver();
  }

  #full(): boolean {
    const { limits, clock } = this.#options;
    if (this.#handedEntries === 0) return false;
    return (
      this.#handedEntries >= limits.rollEntries ||
      this.#handedBytes >= limits.rollBytes ||
      clock.monotonic() - this.#openedAt >= limits.rollAgeMs
    );
  }

  #hand(writer: LedgerWriter, pending: Pending): void {
    try {
      const done = (error: MagnetarError | undefined): void => this.#onDone(writer, pending, entryId, error);
      const entryId: EntryId = writer.append([pending.header, pending.block], done, pending.crc32c);
    } catch (error) {
      this.#onWriterFailed(toMagnetarError(error));
      return;
    }
    this.#sent++;
    this.#handedEntries++;
    this.#handedBytes += pending.header.length + pending.block.length;
  }

  #onDone(writer: LedgerWriter, pending: Pending, entryId: EntryId, error: MagnetarError | undefined): void {
    // What a writer says after its first failure, or after the log has gone on without it, changes nothing.
    if (writer !== this.#writer || (this.#state !== 'open' && this.#state !== 'rolling')) return;
    if (error !== undefined) {
      this.#onWriterFailed(error);
      return;
    }
    assert(this.#queue.shift() === pending, 'entries are confirmed in order (LP-4)');
    this.#sent--;
    this.#failures = 0;
    this.#failingSince = undefined;
    this.#pendingBytes -= pending.block.length;
    const span = this.#index.last;
    assert(span?.lastEntryId === entryId - 1, 'the last ledger is the one that is written');
    const { index, count, appendTime, block } = pending;
    span.confirm(index, count, pending.header.length + block.length, appendTime);
    const entry: LogEntry = {
      ledgerId: span.ledgerId,
      entryId,
      index,
      count,
      appendTime,
      ownerEpoch: this.#options.epoch,
      blockCrc32c: pending.crc32c,
      block,
    };
    this.#options.cache.push(entry);
    const now = this.#options.clock.monotonic();
    pending.done(undefined, entry, now);
    this.#options.onConfirmed(entry, now - pending.appendedAt, now);
    if (this.#is('rolling') && this.#sent === 0) this.#turnOver();
    this.#wake();
  }

  #onWriterFailed(error: MagnetarError): void {
    this.#sent = 0;
    const ledger = this.#writer?.ledgerId;
    this.#options.logger.warn('a ledger failed', { topic: this.#options.topic, ledger, error });
    this.#turnOver(error);
  }

  /** Goes on in another ledger, after a failure or because this one is full. It ends in the state open, idle or failed. */
  #turnOver(failure?: MagnetarError): void {
    this.#state = 'turning';
    void this.#turnOverWithRetries(failure);
  }

  /** Never rejects. */
  async #turnOverWithRetries(first: MagnetarError | undefined): Promise<void> {
    for (let failure = first; this.#is('turning'); ) {
      if (hasCode(failure, 'DISK_FULL')) {
        this.#refuse(failure);
        return;
      }
      if (failure !== undefined && !(await this.#mayTryAgain(failure))) {
        this.fail(asTopicError(failure, this.#options.topic));
        return;
      }
      try {
        await this.#closeWriter();
        await this.#openLedger();
        break;
      } catch (error) {
        failure = toMagnetarError(error);
      }
    }
    this.#pump();
    this.#wake();
  }

  /**
   * There is no room: whoever waits is told, and may come again; readers are not disturbed. The next entry tries anew. Indexes of
   * entries that were not confirmed were shown to nobody: they are given out again.
   */
  #refuse(error: MagnetarError): void {
    const refused: Pending[] = [];
    for (let pending = this.#queue.shift(); pending !== undefined; pending = this.#queue.shift()) refused.push(pending);
    this.#state = 'idle';
    this.#sent = 0;
    this.#pendingBytes = 0;
    this.#nextIndex = this.#index.endIndex;
    this.#failures = 0;
    this.#failingSince = undefined;
    for (const { done } of refused) done(error, undefined);
    this.#pump();
    this.#wake();
  }

  /** Waits as is fit; false when it makes no sense to go on, or nothing was confirmed for too long. */
  async #mayTryAgain(failure: MagnetarError): Promise<boolean> {
    const { clock, random, limits } = this.#options;
    if (!maySucceedElsewhere(failure)) return false;
    const now = clock.monotonic();
    this.#failingSince ??= now;
    const attempt = this.#failures++;
    const wait = attempt === 0 ? 0 : backoff(random, attempt - 1, limits.retryFirstMs, limits.retryHighestMs);
    if (now + wait > this.#failingSince + limits.replaceMs) return false;
    if (wait > 0) await delay(clock, wait);
    return true;
  }

  /** Closes the ledger at its last confirmed entry (LP-20). */
  async #closeWriter(): Promise<void> {
    const writer = this.#writer;
    const span = this.#index.last;
    if (writer === undefined || span === undefined) return;
    const closed = await writer.close();
    if (closed.lastEntryId !== span.lastEntryId) {
      const text = `ledger ${closed.ledgerId} ends at entry ${closed.lastEntryId}; this owner confirmed ${span.lastEntryId}`;
      throw new MagnetarError('NOT_OWNER', `topic ${this.#options.topic} cannot be served here: ${text}`);
    }
    span.closed = true;
    this.#writer = undefined;
  }

  /** Makes the next ledger, in the transaction that commits the close of the one before. */
  async #openLedger(): Promise<void> {
    if (!this.#is('turning')) return;
    const firstIndex = this.#queue.at(0)?.index ?? this.#nextIndex;
    const writer = await this.#options.record.createLedger((record, id) => ({
      ...record,
      ledgers: [...this.#listed(record.ledgers), emptyLedger(id, firstIndex)],
    }));
    if (!this.#is('turning')) {
      await writer.close().catch(() => undefined); // the log has failed meanwhile; whoever opens it next recovers the ledger
      return;
    }
    this.#index.push(emptyLedger(writer.ledgerId, firstIndex));
    this.#writer = writer;
    this.#handedEntries = 0;
    this.#handedBytes = 0;
    this.#openedAt = this.#options.clock.monotonic();
    this.#state = 'open';
  }

  /** The record's list, with the final numbers of its last ledger. */
  #listed(ledgers: readonly TopicLedger[]): readonly TopicLedger[] {
    const span: LogSpan | undefined = this.#index.last;
    if (span === undefined || ledgers.at(-1)?.ledgerId !== span.ledgerId) return ledgers;
    return [...ledgers.slice(0, -1), span.toRecord()];
  }
}

function emptyLedger(id: LedgerId, firstIndex: MessageIndex): TopicLedger {
  return {
    ledgerId: id,
    firstIndex,
    closed: false,
    messages: 0,
    entries: 0,
    bytes: 0,
    firstAppendTime: 0 as Millis,
    lastAppendTime: 0 as Millis,
  };
}

/** Failures after which another ledger, or another try, may do. Who is no longer the owner learns it from the record. */
function maySucceedElsewhere(error: MagnetarError): boolean {
  return hasCode(error, 'NOT_ENOUGH_BOOKIES', 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'QUEUE_FULL', 'METADATA_CONFLICT');
}

/** What the clients of a topic are told: always something after which they may open it again. */
export function asTopicError(error: unknown, topic: string): MagnetarError {
  const known = toMagnetarError(error);
  if (known.fencing || known.code === 'METADATA_CONFLICT') {
    const text = `topic ${topic} has been taken over: ${known.message}`;
    return new MagnetarError('NOT_OWNER', text, { cause: known });
  }
  if (known.retryable || known.code === 'TOPIC_NOT_FOUND') return known; // deleted: nobody is to open it again unasked
  return new MagnetarError('UNAVAILABLE', `topic ${topic} cannot be written: ${known.message}`, { cause: known });
}
