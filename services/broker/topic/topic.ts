/**
 * One open topic: its log, its deduplication state, its subscriptions, and whoever is connected to it.
 */
import { MagnetarError } from '../../lib/errors.ts';
import type { MessageIndex } from '../../lib/ids.ts';
import type { Ledgers } from '../../ledger/ledgers.ts';
import type { Compare, MetadataStore } from '../../metadata/store.ts';
import type { ByteShare } from '../../runtime/byte-budget.ts';
import { delay } from '../../runtime/clock.ts';
import type { Environment } from '../../runtime/environment.ts';
import type { BrokerStats } from '../metrics/broker-stats.ts';
import type { Traffic } from '../metrics/traffic.ts';
import type { BrokerOptions } from '../options.ts';
import type { Ownership } from '../ownership/ownership.ts';
import { DedupState } from '../protocol/dedup.ts';
import type { TopicName } from '../protocol/topic-name.ts';
import { type AckLog, type AckSubscription, openAckLog } from './ack-log.ts';
import type { TopicConsumer } from './consumer.ts';
import { type DedupWork, replayDedup } from './dedup-replay.ts';
import { Consumers } from './consumers.ts';
import type { EntryCache, TopicCache } from './entry-cache.ts';
import type { LogEntry } from './log-entry.ts';
import { LogIndex } from './log-index.ts';
import { LogReader } from './log-reader.ts';
import { recoverLog } from './log-recovery.ts';
import { asTopicError, ManagedLedger } from './managed-ledger.ts';
import { Publisher } from './publisher.ts';
import { SubscriptionControl } from './subscription-control.ts';
import { topicNotFound } from './topic-deletion.ts';
import { openTopicRecord, type TopicRecordHandle } from './topic-record.ts';

/** What every topic of a broker shares. */
export interface TopicDependencies {
  readonly environment: Environment;
  readonly store: MetadataStore;
  readonly ledgers: Ledgers;
  readonly ownership: Ownership;
  readonly cache: EntryCache;
  /** Memory for opening topics. */
  readonly recovery: ByteShare;
  readonly options: BrokerOptions;
  readonly stats: BrokerStats;
  /** A number that this broker has not given out before, for names that it makes. */
  readonly nextNumber: () => number;
}

/** Batches of which the places are remembered per producer, at least. */
const LEAST_REMEMBERED: number = 1_024;
/** At a clean close, so many entries to replay are worth a snapshot. */
const SNAPSHOT_AT_CLOSE_ENTRIES: number = 200;
const SNAPSHOT_AT_CLOSE_MS: number = 2_000;
const SNAPSHOT_POLL_MS: number = 5;
/** After so many bytes it is looked at what the cache need not hold any more. */
const CACHE_STEP_BYTES: number = 1_048_576;

export class Topic {
  readonly name: TopicName;
  readonly publisher: Publisher;
  readonly consumers: Consumers;
  readonly control: SubscriptionControl;
  readonly reader: LogReader;
  /** What has gone through it since it was opened. */
  readonly traffic: Traffic;
  readonly #record: TopicRecordHandle;
  readonly #log: ManagedLedger;
  readonly #ackLog: AckLog;
  readonly #cache: TopicCache;
  readonly #dedupWork: DedupWork;
  /** Bytes that went into the cache since it was looked at. */
  #uncheckedBytes = 0;
  readonly #options: BrokerOptions;
  readonly #environment: Environment;
  #failure: MagnetarError | undefined;
  #onGone: (() => void) | undefined;

  constructor(parts: TopicParts) {
    const { dependencies, name, record, index, ackLog, dedup, dedupWork } = parts;
    const { environment, ownership, options } = dependencies;
    const { clock, random } = environment;
    const topic = name.full;
    this.name = name;
    this.#record = record;
    this.reader = parts.reader;
    const traffic = dependencies.stats.topic(name);
    this.traffic = traffic;
    this.#cache = parts.cache;
    this.#ackLog = ackLog;
    this.#dedupWork = dedupWork;
    this.#options = options;
    this.#environment = environment;
    this.#log = new ManagedLedger({
      clock,
      random,
      logger: environment.logger,
      topic,
      epoch: ownership.epoch,
      record,
      index,
      cache: parts.cache,
      lastAppendTime: parts.lastAppendTime,
      limits: options.ledger,
      onConfirmed: (entry, latencyMs, now) => this.#onConfirmed(entry, latencyMs, now),
      onFailed: (error) => this.fail(error),
    });
    const made = (what: string) => (): string => {
      return `${options.brokerId}-${ownership.epoch}-${what}${dependencies.nextNumber()}`;
    };
    const { maxMessageBytes, maxMessagesPerBatch } = options;
    const sizes = { maxMessageBytes, maxMessagesPerBatch };
    const { reader } = parts;
    const log = this.#log;
    const shared = { topic, ownership, clock };
    this.publisher = new Publisher({ ...shared, dedup, log, traffic, ...sizes, makeName: made('') });
    this.consumers = new Consumers({ ...shared, random, reader, ackLog }, traffic, made('c'));
    this.control = new SubscriptionControl({ topic, reader, ackLog, consumers: this.consumers });
  }

  /** Why it can no longer be used: it has to be opened again. */
  get failure(): MagnetarError | undefined {
    return this.#failure;
  }

  /** How far its subscriptions have come. */
  *subscriptions(): Generator<SubscriptionFigures> {
    const { oldestIndex, endIndex } = this.reader;
    for (const subscription of this.#ackLog.subscriptions.values()) {
      const { name, state } = subscription;
      const backlog = Math.max(0, endIndex - Math.max(state.markDelete, oldestIndex) - state.ackedAbove);
      yield { name, subscription, backlog, ...this.consumers.figures(subscription) };
    }
  }

  /** What the metadata says of it. */
  get record(): TopicRecordHandle['record'] {
    return this.#record.record;
  }

  /** Tells it from other topics that have, or had, its name: also from those of another data folder. */
  get identity(): string {
    const { incarnation, createdAt } = this.record;
    return `${incarnation}-${createdAt}`;
  }

  /** Entries that are not confirmed yet. */
  get pendingEntries(): number {
    return this.#log.pendingEntries;
  }

  /** Nobody is connected, and nothing is under way. */
  get idle(): boolean {
    return this.publisher.size === 0 && this.consumers.size === 0 && this.#log.pendingEntries === 0;
  }

  /** Somebody is connected. */
  get inUse(): boolean {
    return this.publisher.size > 0 || this.consumers.size > 0;
  }

  /** Sets who is told, once, when the topic has failed. */
  onGone(callback: () => void): void {
    this.#onGone = callback;
    if (this.#failure !== undefined) callback();
  }

  /** Ends it at once: whoever is connected is told an error after which opening it again makes sense. Idempotent. */
  fail(cause: MagnetarError): void {
    if (this.#failure !== undefined) return;
    const error = asTopicError(cause, this.name.full);
    this.#failure = error;
    this.#log.fail(error);
    this.publisher.closeAll(error);
    this.consumers.closeAll(error);
    this.#cache.clear();
    this.#onGone?.();
  }

  /**
   * Deletes it. Whoever is connected is told TOPIC_NOT_FOUND once that is committed.
   * @throws what TopicRecordHandle.delete does; nobody is told anything then
   */
  async delete(): Promise<void> {
    await this.#record.delete();
    this.fail(topicNotFound(this.name, 'was deleted'));
  }

  /**
   * Closes it so that the next opening is quick. Whoever is connected is told to open it again. What takes longer than the
   * options allow is left to the recovery of the next opening. Never rejects.
   */
  async close(within: (work: Promise<void>) => Promise<void>): Promise<void> {
    const moved = new MagnetarError('NOT_OWNER', `topic ${this.name.full} is being closed here; open it again`);
    if (this.#failure === undefined) {
      try {
        await within(this.#closeInOrder(moved));
      } catch {
        // What was confirmed is safe; the next opening recovers the rest.
      }
    }
    this.fail(moved);
    await within(this.#ackLog.close()).catch(() => undefined);
  }

  async #closeInOrder(reason: MagnetarError): Promise<void> {
    const closing = this.#log.close(); // refuses batches from now on
    this.publisher.closeAll(reason);
    this.consumers.closeAll(reason);
    await closing;
    if (this.#dedupWork.entries >= SNAPSHOT_AT_CLOSE_ENTRIES) await this.#snapshot();
  }

  /** Writes the deduplication state down, for a quick opening; gives up soon, since it is of no other use. */
  async #snapshot(): Promise<void> {
    const { clock } = this.#environment;
    const deadline = clock.monotonic() + SNAPSHOT_AT_CLOSE_MS;
    this.#ackLog.requestSnapshot();
    while (this.#ackLog.coveredIndex < this.reader.endIndex && this.#ackLog.failure === undefined) {
      if (clock.monotonic() > deadline) return;
      await delay(clock, SNAPSHOT_POLL_MS);
    }
  }

  /** What everybody who keeps up has read is not kept: memory that is used again soon is the fastest. */
  #trimCache({ block }: LogEntry): void {
    this.#uncheckedBytes += block.length;
    if (this.#uncheckedBytes < CACHE_STEP_BYTES) return;
    this.#uncheckedBytes = 0;
    const from = this.#cache.oldestIndex;
    if (from !== undefined) this.#cache.passed(this.consumers.slowest(from));
  }

  #onConfirmed(entry: LogEntry, latencyMs: number, now: number): void {
    this.traffic.stored(entry.count, entry.block.length, latencyMs, now);
    const { dedupSnapshotEntries, dedupSnapshotBytes } = this.#options.ledger;
    const work = this.#dedupWork;
    work.entries++;
    work.bytes += entry.block.length;
    if (work.entries >= dedupSnapshotEntries || work.bytes >= dedupSnapshotBytes) {
      work.entries = 0;
      work.bytes = 0;
      this.#ackLog.requestSnapshot();
    }
    this.#trimCache(entry);
    this.consumers.wake();
  }
}

/** Numbers of messages. */
export interface SubscriptionFigures {
  readonly name: string;
  readonly subscription: AckSubscription;
  readonly consumer: TopicConsumer | undefined;
  /** Stored, and not acknowledged. */
  readonly backlog: number;
  /** Of these, how many its consumer has been sent. */
  readonly unacked: number;
  /** Since this owner has it. */
  readonly traffic: Traffic;
}

interface TopicParts {
  readonly dependencies: TopicDependencies;
  readonly name: TopicName;
  readonly record: TopicRecordHandle;
  readonly index: LogIndex;
  readonly cache: TopicCache;
  readonly reader: LogReader;
  readonly lastAppendTime: Awaited<ReturnType<typeof recoverLog>>['lastAppendTime'];
  readonly ackLog: AckLog;
  readonly dedup: DedupState;
  readonly dedupWork: DedupWork;
}

/**
 * Opens a topic; makes it where there is none. Its data and its ack log are recovered side by side; the record names this
 * owner before anything is served. `namespace`: what has to hold for making it.
 *
 * @throws NOT_OWNER; UNAVAILABLE, DATA_LOSS, … as the metadata store and the ledgers do.
 */
export async function openTopic(dependencies: TopicDependencies, name: TopicName, namespace: Compare): Promise<Topic> {
  const { environment, store, ledgers, ownership, options } = dependencies;
  const record = await openTopicRecord({
    store,
    ledgers,
    ownership,
    name,
    clock: environment.clock,
    maxListedLedgers: options.ledger.maxListedLedgers,
    namespace,
  });
  // What a producer sends again after a crash is at most what one stream may have under way.
  const dedup = new DedupState({ batchesPerProducer: Math.max(LEAST_REMEMBERED, options.publishWindowItems) });
  const opened: { topic?: Topic; index?: LogIndex; failure?: MagnetarError } = {};
  const openingAcks = openAckLog({
    environment,
    ledgers,
    record,
    topic: name.full,
    options: {
      dedupSnapshot: () => ({
        coveredIndex: opened.index?.endIndex ?? (0 as MessageIndex),
        producers: dedup.snapshot(),
      }),
      oldestIndex: () => opened.index?.oldestIndex ?? (0 as MessageIndex),
      onFailure: (error) => {
        opened.failure = error;
        opened.topic?.fail(error);
      },
      limits: options.ackLog,
    },
  });
  const heardOf = async (): Promise<MessageIndex> => (await openingAcks).recovered.heardOf;
  const [log, acks] = await Promise.allSettled([
    recoverLog({ ledgers, record, logger: environment.logger, topic: name.full, heardOf }),
    openingAcks,
  ]);
  if (acks.status === 'rejected') throw acks.reason;
  const ackLog = acks.value;
  try {
    if (log.status === 'rejected') throw log.reason;
    const found = log.value;
    if (found.amended || record.record.ownerEpoch !== ownership.epoch) {
      await record.change(found.amend, ledgers.deletion(found.dropped));
    }
    const index = new LogIndex(found.ledgers, found.floor);
    const cache = dependencies.cache.topic();
    const reader = new LogReader({ ledgers, index, cache, topic: name.full });
    const dedupWork = await replayDedup({ reader, dedup, ackLog, logger: environment.logger, topic: name.full });
    opened.index = index;
    if (ackLog.recovered.subscriptionsMissing) ackLog.missingBelow = index.endIndex;
    const { lastAppendTime } = found;
    const parts = { dependencies, name, record, index, cache, reader, lastAppendTime, ackLog, dedup, dedupWork };
    const topic = new Topic(parts);
    opened.topic = topic;
    if (opened.failure !== undefined) throw opened.failure;
    return topic;
  } catch (error) {
    await ackLog.close();
    throw error;
  }
}
