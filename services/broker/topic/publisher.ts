/**
 * The publishing side of a topic: who may publish under which name, and what becomes of a batch.
 */
import { hasCode, MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import type { EntryId, LedgerId, MessageIndex, SequenceId } from '../../lib/ids.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { PublishBatch } from '../../wire/frames.ts';
import { Traffic } from '../metrics/traffic.ts';
import type { Ownership } from '../ownership/ownership.ts';
import type { DedupBatch, DedupPlace, DedupState } from '../protocol/dedup.ts';
import { checkName } from '../protocol/topic-name.ts';
import { type CheckedBlock, checkBlock } from './block-check.ts';
import type { ConnectedClient } from '../../wire/administration.ts';
import type { LogEntry } from './log-entry.ts';
import type { ManagedLedger } from './managed-ledger.ts';

/** Epochs come with producers that fence one another. */
export const PRODUCER_EPOCH: number = 0;

/** What became of a batch: a Receipt, less the producer's number. */
export interface PublishResult {
  readonly lastSequenceId: SequenceId;
  readonly error?: MagnetarError;
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  readonly index: MessageIndex;
  readonly count: number;
  readonly duplicate: boolean;
}

/** Who wants to publish. */
export interface ProducerRequest {
  /** Empty: the server makes one. */
  readonly name: string;
  /** Stays the same while one producer reconnects. Empty: never the same. */
  readonly instance: string;
  readonly client?: ConnectedClient;
  /** The topic, or another connection of the same producer, has ended it. Called once at most, never after `detach`. */
  readonly onClosed: (error: MagnetarError) => void;
}

/** Errors of one batch alone: those that follow it may still be stored. */
export function isOfBatchAlone(error: MagnetarError): boolean {
  return hasCode(error, 'INVALID_ARGUMENT', 'MESSAGE_TOO_LARGE');
}

const NOWHERE: DedupPlace = { ledgerId: 0 as LedgerId, entryId: 0 as EntryId, index: 0 as MessageIndex, count: 0 };

/** The result of a batch that was not stored. */
export function refused(lastSequenceId: SequenceId, error: MagnetarError): PublishResult {
  return { lastSequenceId, error, ...NOWHERE, duplicate: false };
}

function stored(lastSequenceId: SequenceId, place: DedupPlace, duplicate: boolean): PublishResult {
  const { ledgerId, entryId, index, count } = place;
  return { lastSequenceId, ledgerId, entryId, index, count, duplicate };
}

/** A producer that is connected. */
export class TopicProducer {
  readonly name: string;
  readonly instance: string;
  readonly client: ConnectedClient | undefined;
  /** What was stored of it since it is connected. */
  readonly traffic: Traffic;
  readonly #publisher: Publisher;
  #onClosed: ((error: MagnetarError) => void) | undefined;

  constructor(publisher: Publisher, name: string, request: ProducerRequest) {
    this.#publisher = publisher;
    this.name = name;
    this.instance = request.instance;
    this.client = request.client;
    this.traffic = new Traffic(publisher.now);
    this.#onClosed = request.onClosed;
  }

  /**
   * Resolves when nothing is under way any more that was published under its name before. Until then nobody can say what is stored,
   * and a producer that began after less would have its first messages taken for those that are under way.
   */
  async settled(): Promise<void> {
    const token = this.#publisher.dedup.newestInFlight(this.name);
    if (token !== undefined) await new Promise<void>((resolve) => token.attach(() => resolve()));
  }

  /** The highest sequence id that is stored under its name; undefined: none. */
  get lastSequenceId(): SequenceId | undefined {
    return this.#publisher.dedup.watermark(this.name);
  }

  /**
   * Stores a batch. `settle` is called once, at once or later; not necessarily in the order of the batches. False: it is
   * refused, and those behind it must not be handed in: what of it is not stored would become a duplicate.
   * @throws PROTOCOL_VIOLATION for a block that cannot be read; `settle` is not called then.
   */
  publish(batch: PublishBatch, settle: (result: PublishResult) => void): boolean {
    return this.#publisher.publish(this, batch, settle);
  }

  /** It is gone; its name is free. Batches under way are still stored. Idempotent. */
  detach(): void {
    this.#onClosed = undefined;
    this.#publisher.remove(this);
  }

  /** Ends it from the topic's side. */
  end(error: MagnetarError): void {
    const onClosed = this.#onClosed;
    this.detach();
    onClosed?.(error);
  }
}

export interface PublisherOptions {
  readonly topic: string;
  readonly ownership: Ownership;
  readonly dedup: DedupState;
  readonly log: ManagedLedger;
  readonly traffic: Traffic;
  readonly clock: Clock;
  readonly maxMessageBytes: number;
  readonly maxMessagesPerBatch: number;
  /** A name that no producer of this topic has had. */
  readonly makeName: () => string;
}

export class Publisher {
  readonly dedup: DedupState;
  readonly #options: PublisherOptions;
  readonly #producers: Map<string, TopicProducer> = new Map();
  /** Why nobody is let in any more. */
  #closed: MagnetarError | undefined;

  constructor(options: PublisherOptions) {
    this.#options = options;
    this.dedup = options.dedup;
  }

  /** Producers that are connected. */
  get size(): number {
    return this.#producers.size;
  }

  /** Those producers. */
  get producers(): Iterable<TopicProducer> {
    return this.#producers.values();
  }

  /** Monotonic time. */
  get now(): number {
    return this.#options.clock.monotonic();
  }

  /**
   * @throws PRODUCER_BUSY when another producer of that name is connected; INVALID_ARGUMENT for the name; after `closeAll`, its
   * reason.
   */
  attach(request: ProducerRequest): TopicProducer {
    if (this.#closed !== undefined) throw this.#closed;
    const name = request.name === '' ? this.#options.makeName() : request.name;
    checkName('producer', name);
    const present = this.#producers.get(name);
    if (present !== undefined) {
      const where = `producer "${name}" of topic ${this.#options.topic}`;
      if (request.instance === '' || request.instance !== present.instance) {
        throw new MagnetarError('PRODUCER_BUSY', `${where} is connected already; close it, or use another name`);
      }
      present.end(new MagnetarError('PRODUCER_FENCED', `${where} has connected again elsewhere`));
    }
    const producer = new TopicProducer(this, name, request);
    this.#producers.set(name, producer);
    return producer;
  }

  remove(producer: TopicProducer): void {
    if (this.#producers.get(producer.name) === producer) this.#producers.delete(producer.name);
  }

  /** Ends every producer, and lets no more in. */
  closeAll(error: MagnetarError): void {
    this.#closed ??= error;
    for (const producer of this.#producers.values()) producer.end(error);
  }

  publish(producer: TopicProducer, batch: PublishBatch, settle: (result: PublishResult) => void): boolean {
    const { maxMessageBytes, maxMessagesPerBatch: maxMessages, ownership, topic } = this.#options;
    const rules = { producerName: producer.name, producerEpoch: PRODUCER_EPOCH, maxMessageBytes, maxMessages };
    const checked = checkBlock(batch, rules);
    if (checked.error !== undefined) {
      settle(refused(checked.lastSequenceId, checked.error));
      return isOfBatchAlone(checked.error);
    }
    if (!ownership.held) {
      const text = `topic ${topic} cannot be served here: the broker's lease is not provably held`;
      settle(refused(checked.lastSequenceId, new MagnetarError('NOT_OWNER', text)));
      return false;
    }
    const { firstSequenceId, lastSequenceId } = checked;
    const verdict = this.dedup.check(producer.name, firstSequenceId, lastSequenceId);
    if (verdict.kind === 'overlap') {
      const { watermark, pending } = verdict;
      const overlap = refused(lastSequenceId, this.#overlap(producer.name, checked, watermark));
      if (pending === undefined) settle(overlap);
      else pending.attach((_, error) => settle(error === undefined ? overlap : refused(lastSequenceId, error)));
      return false;
    }
    if (verdict.kind === 'new') {
      this.#append(producer, batch.block, checked, settle);
      return true;
    }
    this.#options.traffic.duplicate();
    if (verdict.kind === 'stored') settle(stored(lastSequenceId, verdict.batch ?? NOWHERE, true));
    else {
      verdict.token.attach((original, error) => {
        if (error !== undefined) settle(refused(lastSequenceId, error));
        else settle(stored(lastSequenceId, isSame(original, checked) ? original : NOWHERE, true));
      });
    }
    return true;
  }

  #append(
    { name, traffic }: TopicProducer,
    block: Buffer,
    checked: CheckedBlock,
    settle: (result: PublishResult) => void,
  ): void {
    const { lastSequenceId, count, crc32c } = checked;
    const token = this.dedup.begin(name, checked.firstSequenceId, lastSequenceId);
    const done = (error: MagnetarError | undefined, entry: LogEntry | undefined, now = 0): void => {
      if (entry === undefined) {
        const why = error ?? new MagnetarError('INTERNAL', `a batch for topic ${this.#options.topic} was lost`);
        this.dedup.abort(token, why);
        settle(refused(lastSequenceId, why));
        return;
      }
      const place = { ledgerId: entry.ledgerId, entryId: entry.entryId, index: entry.index, count: entry.count };
      this.dedup.confirm(token, place, entry.appendTime);
      traffic.stored(count, block.length, 0, now);
      settle(stored(lastSequenceId, place, false));
    };
    try {
      this.#options.log.append({ block, count, crc32c }, done);
    } catch (error) {
      done(toMagnetarError(error), undefined);
    }
  }

  #overlap(name: string, checked: CheckedBlock, watermark: SequenceId): MagnetarError {
    const ids = `sequence ids ${checked.firstSequenceId} to ${checked.lastSequenceId}`;
    const text = `batch of producer "${name}" with ${ids} is stored up to ${watermark}; send what comes after that alone`;
    return new MagnetarError('SEQUENCE_OVERLAP', text, { details: { watermark: String(watermark) } });
  }
}

function isSame(batch: DedupBatch | undefined, checked: CheckedBlock): batch is DedupBatch {
  return batch?.firstSequenceId === checked.firstSequenceId && batch.lastSequenceId === checked.lastSequenceId;
}
