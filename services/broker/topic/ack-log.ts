/**
 * The ack log of a topic: what its subscriptions have acknowledged, and the deduplication state, in ledgers of its own.
 */
import type { Ledgers, LedgerWriter } from '../../ledger/ledgers.ts';
import { hasCode, MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import type { LedgerId, MessageIndex } from '../../lib/ids.ts';
import type { Environment } from '../../runtime/environment.ts';
import { type AckLogRecord, ackLogEntry } from '../../wire/records.ts';
import { AckState } from '../protocol/ack-state.ts';
import { reportLosses } from './ack-damage.ts';
import { AckLedgers } from './ack-ledgers.ts';
import type { AckLog } from './ack-log-api.ts';
import { type AckLogLimits, DEFAULT_LIMITS } from './ack-limits.ts';
import { type AckBatch, type AckDone, AckQueue } from './ack-queue.ts';
import { type AckSubscription, type DedupSnapshot, type RecoveredAcks, recoverAcks } from './ack-replay.ts';
import { AckSnapshot } from './ack-snapshot.ts';
import type { TopicRecordHandle } from './topic-record.ts';

export type { AckLog, AckSubscription, DedupSnapshot };

interface AckLogOptions {
  /** The deduplication state of everything that is stored at the time of the call. */
  readonly dedupSnapshot: () => DedupSnapshot;
  /** Index of the oldest message that is kept. */
  readonly oldestIndex: () => MessageIndex;
  /** Called once when the log has failed: the topic must be unloaded. */
  readonly onFailure: (error: MagnetarError) => void;
  /** Replaces defaults. */
  readonly limits?: Partial<AckLogLimits>;
}

/** What a request costs in an entry, at most, apart from names. */
const RECORD_BYTES = 64;

class Log implements AckLog {
  readonly subscriptions = new Map<string, AckSubscription>();
  readonly recovered: AckLog['recovered'];
  missingBelow: MessageIndex;
  coveredIndex: MessageIndex;
  failure: MagnetarError | undefined;
  readonly #environment: Environment;
  readonly #options: AckLogOptions;
  readonly #limits: AckLogLimits;
  readonly #ledgers: AckLedgers;
  readonly #byNumber = new Map<number, AckSubscription>();
  /** Numbers of subscriptions that are not durable yet. */
  readonly #creating = new Set<number>();
  readonly #queue: AckQueue;
  #highestNumber: number;
  #highestSnapshot: number;

  /** Undefined until the first write, and while a failed one is replaced. */
  #writer: LedgerWriter | undefined;
  /** Made ahead; takes over with the next entry. */
  #upcoming: LedgerWriter | undefined;
  /** Making a first ledger, or one in the place of a failed one: everything waits. */
  #making: Promise<void> | undefined;
  /** Making the next ledger while the current one goes on. */
  #makingNext: Promise<void> | undefined;
  /** Ledgers that have failed one after another, and since when. */
  #failedInRow = 0;
  #failingSince = 0;
  /** Written to the current ledger so far, and how much of that is allowed. */
  #written = { bytes: 0, entries: 0 };
  #allowed = { bytes: 0, entries: 0 };

  #inFlight: AckBatch | undefined;
  /** Not confirmed by a ledger that failed; goes out again before anything else. */
  #unconfirmed: AckBatch | undefined;
  #scheduled = false;
  /** To be called in the next turn. */
  readonly #answers: { readonly done: AckDone; readonly error: MagnetarError | undefined }[] = [];

  #snapshotWanted = false;
  #snapshot: AckSnapshot | undefined;
  /** The ledger that holds the begin of the snapshot. */
  #snapshotLedger: LedgerId | undefined;
  /** A part of the snapshot waits or is in flight. */
  #partQueued = false;
  /** A snapshot was finished in the current ledger. */
  #ledgerHasSnapshot = false;

  #closing = false;
  #closed: Promise<void> | undefined;
  #drained: (() => void) | undefined;

  constructor(environment: Environment, ledgers: AckLedgers, acks: RecoveredAcks, options: AckLogOptions) {
    this.#environment = environment;
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#ledgers = ledgers;
    this.#queue = new AckQueue(this.#limits.entryBytes, acks.structure);
    this.#highestNumber = acks.highestNumber;
    this.#highestSnapshot = acks.highestSnapshot;
    this.recovered = acks;
    this.missingBelow = acks.missingBelow;
    this.coveredIndex = acks.dedup?.coveredIndex ?? (0 as MessageIndex);
    for (const subscription of acks.subscriptions) this.#add(subscription);
  }

  #add(subscription: AckSubscription): void {
    this.subscriptions.set(subscription.name, subscription);
    this.#byNumber.set(subscription.number, subscription);
  }

  async create(name: string, markDelete: MessageIndex): Promise<AckSubscription> {
    const known = this.subscriptions.get(name);
    if (known !== undefined) {
      if (this.#creating.has(known.number)) await this.#durable((done) => this.#afterAll(done));
      return known;
    }
    const number = this.#highestNumber + 1;
    const createdAt = this.#environment.clock.now();
    const begin = this.#beginOf(name, markDelete);
    const subscription = { number, name, createdAt, state: new AckState(begin) };
    await this.#durable((done) => {
      this.#highestNumber = number;
      this.#creating.add(number);
      this.#add(subscription);
      const record = { type: 'created', subscription: number, name, markDelete: begin, createdAt, moves: 0 } as const;
      this.#submit(record, RECORD_BYTES + 4 * name.length, done, number);
    });
    return subscription;
  }

  #beginOf(name: string, wanted: MessageIndex): MessageIndex {
    const oldest = this.#options.oldestIndex();
    if (this.missingBelow <= oldest || wanted <= oldest) return wanted;
    const text = `subscription "${name}" is new, or was lost by damage: it begins at the oldest message that is kept`;
    this.#environment.logger.warn(text, { subscription: name, index: oldest });
    return oldest;
  }

  async delete(subscription: AckSubscription): Promise<void> {
    const { number, name } = subscription;
    await this.#durable((done) => {
      this.#require(subscription);
      this.subscriptions.delete(name);
      this.#byNumber.delete(number);
      this.#submit({ type: 'deleted', subscription: number }, RECORD_BYTES, done, number);
    });
  }

  async reset(subscription: AckSubscription, markDelete: MessageIndex): Promise<void> {
    const { number, state } = subscription;
    await this.#durable((done) => {
      this.#require(subscription);
      state.reset(markDelete);
      this.#submit({ type: 'reset', subscription: number, markDelete }, RECORD_BYTES, done, number);
    });
  }

  acknowledge(subscription: AckSubscription, below: MessageIndex, ranges: readonly number[], done: AckDone): void {
    try {
      this.#admit();
      this.#require(subscription);
      const delta = subscription.state.acknowledge(below, ranges);
      if (delta === undefined) {
        this.#afterAll(done);
        return;
      }
      this.#queue.pushDelta(subscription.number, delta, done);
      this.#schedule();
    } catch (error) {
      this.#later(done, toMagnetarError(error));
    }
  }

  requestSnapshot(): void {
    if (this.failure !== undefined || this.#closing) return;
    this.#snapshotWanted = true;
    this.#schedule();
  }

  async close(): Promise<void> {
    this.#closed ??= this.#close();
    await this.#closed;
  }

  async #close(): Promise<void> {
    this.#closing = true;
    if (this.failure === undefined) {
      const drained = new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
      this.#schedule();
      await drained;
    }
    await this.#making;
    await this.#makingNext;
    const writers = [this.#writer, this.#upcoming].filter((writer) => writer !== undefined);
    await this.#ledgers.close(writers);
  }

  /** @throws when nothing more is taken in. */
  #admit(): void {
    if (this.failure !== undefined) throw this.failure;
    if (this.#closing) throw new MagnetarError('ALREADY_CLOSED', 'the ack log is closed');
    const { items, bytes } = this.#queue;
    const { waitingItems, waitingBytes } = this.#limits;
    if (items < waitingItems && bytes < waitingBytes) return;
    const allowed = `allowed are ${waitingItems} of ${waitingBytes} bytes`;
    throw new MagnetarError('QUEUE_FULL', `${items} requests of ${bytes} bytes wait for the ack log; ${allowed}`);
  }

  #require(subscription: AckSubscription): void {
    if (this.#byNumber.get(subscription.number) === subscription) return;
    throw new MagnetarError('SUBSCRIPTION_NOT_FOUND', `subscription "${subscription.name}" is deleted`);
  }

  #durable(request: (done: AckDone) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#admit();
      request((error) => (error === undefined ? resolve() : reject(error)));
    });
  }

  #submit(record: AckLogRecord, bytes: number, done: AckDone, barrier: number): void {
    this.#queue.push(record, bytes, done, barrier);
    this.#schedule();
  }

  /** Calls `done` when everything that was submitted so far is durable. */
  #afterAll(done: AckDone): void {
    if (this.#queue.attach(done)) return;
    const last = this.#unconfirmed ?? this.#inFlight;
    if (last === undefined) this.#later(done, undefined);
    else last.done.push(done);
  }

  #later(done: AckDone, error: MagnetarError | undefined): void {
    if (this.#answers.push({ done, error }) === 1) this.#environment.clock.nextTurn(() => this.#answer());
  }

  #answer(): void {
    for (const { done, error } of this.#answers.splice(0)) done(error);
  }

  /** What is submitted in one turn of the event loop goes out together. */
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#environment.clock.nextTurn(() => {
      this.#scheduled = false;
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#inFlight !== undefined || this.#making !== undefined || this.failure !== undefined) return;
    if (this.#upcoming !== undefined) this.#roll(this.#upcoming);
    const idle = this.#queue.empty && this.#unconfirmed === undefined;
    if (this.#writer === undefined) {
      if (!idle || (this.#snapshotWanted && !this.#closing)) this.#making = this.#startLedger(undefined);
      else this.#drained?.();
      return;
    }
    if (!this.#closing) this.#feedSnapshot();
    const batch = this.#unconfirmed ?? this.#queue.shift();
    this.#unconfirmed = undefined;
    if (batch === undefined) this.#drained?.();
    else this.#append(this.#writer, batch);
  }

  #append(writer: LedgerWriter, batch: AckBatch): void {
    this.#inFlight = batch;
    const payload = ackLogEntry.encode({ records: batch.records, structure: batch.structure });
    writer.append([payload], (error) => {
      if (this.failure !== undefined) return;
      if (error === undefined) this.#confirmed(batch, payload.length);
      else if (hasCode(error, 'NOT_ENOUGH_BOOKIES', 'DISK_FULL')) this.#resubmit(writer, batch, error);
      else this.#fail(error);
    });
  }

  #confirmed(batch: AckBatch, bytes: number): void {
    this.#inFlight = undefined;
    this.#failedInRow = 0;
    this.#written.bytes += bytes;
    this.#written.entries++;
    for (const record of batch.records) if (record.type === 'created') this.#creating.delete(record.subscription);
    this.#answer();
    for (const done of batch.done) done();
    this.#rollWhenFull();
    this.#pump();
  }

  /**
   * The ledger failed before it confirmed the batch: the batch is to be the first one of the next ledger (LP-6 does
   * not apply).
   */
  #resubmit(writer: LedgerWriter, batch: AckBatch, error: MagnetarError): void {
    this.#inFlight = undefined;
    this.#unconfirmed = batch;
    this.#writer = undefined;
    if (hasCode(error, 'DISK_FULL')) {
      this.#noRoom(error);
      this.#making = this.#startLedger(writer);
      return;
    }
    const now = this.#environment.clock.monotonic();
    if (this.#failedInRow++ === 0) this.#failingSince = now;
    if (now - this.#failingSince > this.#limits.ledgerDeadlineMs) this.#fail(error);
    else this.#making = this.#startLedger(writer);
  }

  /** Those who wait are told. What they have asked for is not dropped: it counts already, and goes out when there is room. */
  #noRoom(error: MagnetarError): void {
    const waiting = [...(this.#unconfirmed?.done.splice(0) ?? []), ...this.#queue.takeDone()];
    this.#answer();
    for (const done of waiting) done(error);
  }

  /** Makes a first ledger, or one in the place of a failed one, which is closed before. */
  async #startLedger(failed: LedgerWriter | undefined): Promise<void> {
    try {
      const writer = await this.#next(failed);
      this.#upcoming = undefined;
      this.#use(writer);
      this.#making = undefined;
      this.#pump();
    } catch (error) {
      this.#making = undefined;
      this.#fail(toMagnetarError(error));
    }
  }

  /** For want of room it tries again until it is closed. */
  async #next(failed: LedgerWriter | undefined): Promise<LedgerWriter> {
    for (let attempt = 0; ; attempt++) {
      try {
        if (failed !== undefined) await this.#ledgers.seal(failed);
        if (this.#failedInRow > 1 && attempt === 0) await this.#ledgers.pause(this.#failedInRow);
        await this.#makingNext;
        return this.#upcoming ?? (await this.#ledgers.make());
      } catch (error) {
        if (!hasCode(error, 'DISK_FULL') || this.#closing) throw error;
        this.#noRoom(error);
        await this.#ledgers.pause(attempt);
      }
    }
  }

  #use(writer: LedgerWriter): void {
    this.#writer = writer;
    this.#written = { bytes: 0, entries: 0 };
    this.#allowed = { bytes: this.#limits.rollBytes, entries: this.#limits.rollEntries };
    this.#ledgerHasSnapshot = false;
    // With a snapshot of its own this ledger lets go of those before it.
    if (this.#ledgers.hasOlderThan(writer.ledgerId)) this.#snapshotWanted = true;
  }

  #roll(writer: LedgerWriter): void {
    this.#upcoming = undefined;
    if (this.#writer !== undefined) this.#ledgers.retire(this.#writer);
    this.#use(writer);
  }

  /** Not while a snapshot is under way: one that is larger than a ledger is meant to be would never end. */
  #rollWhenFull(): void {
    const full = this.#written.bytes >= this.#allowed.bytes || this.#written.entries >= this.#allowed.entries;
    if (!full || this.#closing || this.#snapshot !== undefined) return;
    if (this.#upcoming === undefined && this.#makingNext === undefined) this.#makingNext = this.#makeNext();
  }

  async #makeNext(): Promise<void> {
    try {
      this.#upcoming = await this.#ledgers.make();
    } catch (error) {
      // The current ledger goes on; after its next entry this is tried again.
      if (hasCode(error, 'UNAVAILABLE', 'DISK_FULL'))
        this.#environment.logger.warn('the ack log cannot roll', { error });
      else this.#fail(toMagnetarError(error));
    }
    this.#makingNext = undefined;
    this.#schedule();
  }

  #feedSnapshot(): void {
    if (this.#partQueued) return;
    if (this.#snapshot === undefined) {
      if (!this.#snapshotWanted) return;
      this.#snapshotWanted = false;
      this.#snapshot = new AckSnapshot({
        number: ++this.#highestSnapshot,
        highestSubscription: this.#highestNumber,
        live: this.#byNumber,
        dedup: this.#options.dedupSnapshot(),
        missingBelow: this.missingBelow,
        partBytes: this.#limits.partBytes,
      });
      this.#snapshotLedger = undefined;
    }
    const snapshot = this.#snapshot;
    const part = snapshot.next();
    const ends = part.at(-1)?.record.type === 'snapshotEnd';
    this.#partQueued = true;
    for (const [i, { record, bytes, subscription }] of part.entries()) {
      let done: AckDone | undefined;
      if (record.type === 'snapshotBegin') done = (error) => this.#snapshotBegun(error);
      else if (i === part.length - 1) done = (error) => this.#partDone(snapshot, ends, error);
      this.#queue.push(record, bytes, done, subscription);
    }
  }

  #snapshotBegun(error: MagnetarError | undefined): void {
    if (error === undefined) this.#snapshotLedger = this.#writer?.ledgerId;
    else this.#abandonSnapshot();
  }

  /** Parts of it went out, and nobody learns what became of them: another one is made. */
  #abandonSnapshot(): void {
    this.#snapshot = undefined;
    this.#partQueued = false;
    this.#snapshotWanted = true;
  }

  #partDone(snapshot: AckSnapshot, ends: boolean, error: MagnetarError | undefined): void {
    if (error !== undefined) this.#abandonSnapshot();
    if (snapshot !== this.#snapshot) return;
    this.#partQueued = false;
    if (!ends) return;
    this.#snapshot = undefined;
    this.coveredIndex = snapshot.coveredIndex;
    if (!this.#ledgerHasSnapshot) {
      // What follows the snapshot may be as much as the snapshot itself, so that large ones are not taken all the time.
      this.#ledgerHasSnapshot = true;
      const { bytes, entries } = this.#written;
      const { rollBytes, rollEntries } = this.#limits;
      this.#allowed = { bytes: bytes + Math.max(bytes, rollBytes), entries: entries + Math.max(entries, rollEntries) };
    }
    if (this.#snapshotLedger !== undefined) void this.#dropBefore(this.#snapshotLedger);
  }

  async #dropBefore(ledger: LedgerId): Promise<void> {
    try {
      await this.#ledgers.dropBefore(ledger);
    } catch (error) {
      this.#fail(toMagnetarError(error));
    }
  }

  #fail(error: MagnetarError): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    const failed = [this.#inFlight, this.#unconfirmed];
    for (let batch = this.#queue.shift(); batch !== undefined; batch = this.#queue.shift()) failed.push(batch);
    this.#inFlight = undefined;
    this.#unconfirmed = undefined;
    this.#answer();
    for (const batch of failed) for (const done of batch?.done ?? []) done(error);
    this.#drained?.();
    this.#options.onFailure(error);
  }
}

/** What an ack log is opened with. */
export interface AckLogDependencies {
  readonly environment: Environment;
  readonly ledgers: Ledgers;
  readonly record: TopicRecordHandle;
  readonly topic: string;
  readonly options: AckLogOptions;
}

/**
 * Recovers the ack log of a topic: afterwards no other broker can write to the ledgers that the record lists. A ledger
 * is made at the first write; the ones found go when it holds a snapshot. Lost entries are passed over, and said in the
 * process's log.
 *
 * @throws what Ledgers.recover and reading throw: UNAVAILABLE, …; DATA_LOSS for a log that contradicts itself
 */
export async function openAckLog(dependencies: AckLogDependencies): Promise<AckLog> {
  const { environment, ledgers, record, topic, options } = dependencies;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const acks = await recoverAcks(ledgers, record.record.ackLedgers);
  reportLosses(environment.logger, topic, acks);
  const { ledgerDeadlineMs: deadlineMs, retryFirstMs, retryHighestMs } = limits;
  const own = new AckLedgers({ environment, ledgers, record, deadlineMs, retryFirstMs, retryHighestMs });
  return new Log(environment, own, acks, options);
}
