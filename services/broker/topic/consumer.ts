/**
 * One consumer of a subscription, or one reader: carries out what the dispatcher decides.
 */
import { MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import type { MessageIndex } from '../../lib/ids.ts';
import type { Clock, Timer } from '../../runtime/clock.ts';
import { backoff, type Random } from '../../runtime/random.ts';
import type { Position } from '../../wire/frames.ts';
import { Traffic } from '../metrics/traffic.ts';
import type { Ownership } from '../ownership/ownership.ts';
import { AckState } from '../protocol/ack-state.ts';
import { type DispatchEffect, Dispatcher, type DispatchEvent } from '../protocol/dispatcher.ts';
import type { AckLog, AckSubscription } from './ack-log.ts';
import type { ConnectedClient } from '../../wire/administration.ts';
import type { ReadLimits } from './entry-cache.ts';
import { lossError, type LogEntry, type LogItem, type LogLoss } from './log-entry.ts';
import { type LogReader, newCursor } from './log-reader.ts';
import { asTopicError } from './managed-ledger.ts';
import { resolvePosition } from './positions.ts';

/** A read that waits for room for what it will deliver. */
export interface PendingRead {
  /** Bytes that are asked for, and that one entry takes as far as that is known. */
  readonly wantedBytes: number;
  readonly leastBytes: number;
  /** Reads so many bytes, or one entry. A promise that it returns resolves when what it reads is delivered. */
  readonly run: (maxBytes: number) => Promise<void> | undefined;
}

/** Where a consumer's deliveries go. */
export interface ConsumerSink {
  /**
   * Runs a read when there is room for what it will deliver: at once, or later, when the client has taken what it was sent.
   * Not at all once the consumer is closed.
   */
  whenRoom(read: PendingRead): void;
  /** `skip`: bit i of the little-endian bit string: message i is not wanted. */
  deliver(entry: LogEntry, skip: Buffer | undefined, redeliveries: number): void;
  /** Messages are lost, from index `from` on: `loss` says where they were, `error` everything. */
  lost(loss: LogLoss, from: MessageIndex, error: MagnetarError): void;
  caughtUp(index: MessageIndex): void;
  /** The topic, or another connection of the same consumer, has ended it. Called once at most, never after `detach`. */
  closed(error: MagnetarError): void;
}

export interface ConsumerDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly topic: string;
  readonly ownership: Ownership;
  readonly reader: LogReader;
  readonly ackLog: AckLog;
}

/** Entries of one read at most. */
const READ_ENTRIES: number = 1_000;
/** How much is read at once. Nothing is read ahead of the permits: it would wait in memory for who may never ask for it. */
const READ_BYTES: number = 1_048_576;
const RETRY_FIRST_MS: number = 50;
const RETRY_HIGHEST_MS: number = 2_000;
/** So many reads may fail one after another before the consumer is closed. */
const READ_ATTEMPTS: number = 12;

/** What is known of a subscription besides its acknowledgments. */
export interface SubscriptionMemory {
  /** Everything below has been delivered to some consumer, by this owner. */
  deliveredTo: MessageIndex;
  /** What it was sent and has acknowledged; of a reader, the topic's. */
  readonly traffic: Traffic;
}

export class TopicConsumer {
  readonly name: string;
  readonly instance: string;
  readonly client: ConnectedClient | undefined;
  /** What it was sent and has acknowledged. */
  readonly traffic: Traffic;
  /** When it was last sent something, has acknowledged, and has given permits: monotonic times. */
  deliveredAt: number | undefined;
  ackedAt: number | undefined;
  flowAt: number | undefined;
  readonly #dependencies: ConsumerDependencies;
  readonly #sink: ConsumerSink;
  readonly #subscription: AckSubscription | undefined;
  readonly #state: AckState;
  readonly #memory: SubscriptionMemory;
  /** What had been delivered before this consumer came. */
  #deliveredBefore: MessageIndex;
  readonly #dispatcher: Dispatcher<LogItem>;
  readonly #cursor: ReturnType<typeof newCursor> = newCursor();
  readonly #onGone: (consumer: TopicConsumer) => void;
  readonly #onIdle: (consumer: TopicConsumer) => void;
  readonly #events: DispatchEvent<LogItem>[] = [];
  #running = false;
  #closed = false;
  #seeking = 0;
  /** Permits that came while a seek is under way: void once it is done, as good as any when it fails. */
  #heldMessages = 0;
  #heldBytes = 0;
  #lastSeek: Promise<unknown> = Promise.resolve();
  /** Set by a seek to where everything was delivered; told when the client has asked for more. */
  #heldCaughtUp: MessageIndex | undefined;
  #holdCaughtUp = false;
  #failedReads = 0;
  #retry: Timer | undefined;

  constructor(
    dependencies: ConsumerDependencies,
    options: {
      readonly name: string;
      readonly instance: string;
      readonly client?: ConnectedClient | undefined;
      readonly sink: ConsumerSink;
      /** Absent for a reader. */
      readonly subscription: AckSubscription | undefined;
      /** Where a reader begins. */
      readonly start: MessageIndex;
      readonly memory: SubscriptionMemory;
      readonly onGone: (consumer: TopicConsumer) => void;
      /** There is nothing for it to do until the topic's end has moved: it wants to be woken then, once. */
      readonly onIdle: (consumer: TopicConsumer) => void;
    },
  ) {
    this.name = options.name;
    this.instance = options.instance;
    this.client = options.client;
    this.traffic = new Traffic(dependencies.clock.monotonic(), options.memory.traffic);
    this.#dependencies = dependencies;
    this.#sink = options.sink;
    this.#subscription = options.subscription;
    this.#state = options.subscription?.state ?? new AckState(options.start);
    this.#memory = options.memory;
    this.#deliveredBefore = options.memory.deliveredTo;
    this.#onGone = options.onGone;
    this.#onIdle = options.onIdle;
    this.#dispatcher = new Dispatcher(this.#state, dependencies.reader.endIndex, READ_BYTES);
  }

  /** The index of the first message that is not acknowledged. */
  get nextIndex(): MessageIndex {
    return this.#dispatcher.nextIndex;
  }

  /** Messages that it was sent and has not acknowledged. */
  get unacked(): number {
    const mark = this.#state.markDelete;
    const sent = this.#dispatcher.nextIndex - mark;
    return sent <= 0 ? 0 : sent - this.#state.countAcked(mark, sent);
  }

  /** Messages that it may still be sent. */
  get permits(): number {
    return Math.max(0, this.#dispatcher.permits.messages);
  }

  /** How often its subscription was moved; a reader has none. */
  get moves(): number {
    return this.#subscription?.state.moves ?? 0;
  }

  /** Tells its subscription from others that have, or had, the name in the topic; '' for a reader. */
  get subscriptionIdentity(): string {
    return this.#subscription === undefined ? '' : `${this.#subscription.number}-${this.#subscription.createdAt}`;
  }

  /** Lets it begin: what it has to say from now on follows the answer to its Subscribe. */
  start(): void {
    this.#step({ type: 'acked' });
  }

  flow(messages: number, bytes: number): void {
    this.flowAt = this.#dependencies.clock.monotonic();
    if (this.#seeking > 0) {
      this.#heldMessages += messages;
      this.#heldBytes += bytes;
      return;
    }
    this.#holdCaughtUp = false;
    const held = this.#heldCaughtUp;
    this.#heldCaughtUp = undefined;
    if (held !== undefined) this.#sink.caughtUp(held);
    this.#step({ type: 'flow', messages, bytes });
  }

  /** Somebody else has acknowledged messages of its subscription. */
  acknowledgedElsewhere(): void {
    this.#step({ type: 'acked' });
  }

  /** The topic's end has moved. */
  wake(): void {
    this.#step({ type: 'appended', end: this.#dependencies.reader.endIndex });
  }

  /**
   * Acknowledges. `done` is called once, later, in the order of the calls: without an error when it is durable.
   * Errors of this Ack alone: INVALID_ARGUMENT; and what the ack log says.
   */
  acknowledge(below: MessageIndex, ranges: readonly number[], done: (error?: MagnetarError) => void): void {
    const subscription = this.#subscription;
    const error = subscription === undefined ? this.#readerCannotAck() : this.#beyondEnd(below, ranges);
    if (error !== undefined || subscription === undefined) {
      this.#dependencies.clock.nextTurn(() => done(error));
      return;
    }
    const before = this.#state.acked;
    const { ackLog, topic } = this.#dependencies;
    ackLog.acknowledge(subscription, below, ranges, (failed) => {
      // What the whole log has failed with is no word on this Ack: the topic is opened again, and it may come again.
      done(failed !== undefined && failed === ackLog.failure ? asTopicError(failed, topic) : failed);
    });
    this.ackedAt = this.#dependencies.clock.monotonic();
    this.traffic.acknowledged(this.#state.acked - before, this.ackedAt);
    this.#step({ type: 'acked' });
  }

  /**
   * Moves the subscription, or the reader; resolves with the index of the message that comes next, when that is durable.
   * @throws POSITION_NOT_FOUND, and what reading and the ack log throw.
   */
  async seek(to: Position): Promise<MessageIndex> {
    this.#seeking++;
    const run = this.#lastSeek.then(async () => this.#seek(to));
    this.#lastSeek = run.catch(() => undefined);
    try {
      const index = await run;
      this.#takeHeld();
      return index;
    } finally {
      this.#seeking--;
      const { messages, bytes } = this.#seeking === 0 ? this.#takeHeld() : { messages: 0, bytes: 0 };
      if (messages + bytes > 0) this.flow(messages, bytes);
    }
  }

  #takeHeld(): { messages: number; bytes: number } {
    const held = { messages: this.#heldMessages, bytes: this.#heldBytes };
    this.#heldMessages = 0;
    this.#heldBytes = 0;
    return held;
  }

  /** Deletes the subscription; it is closed by then. A reader has none. */
  async unsubscribe(): Promise<void> {
    if (this.#subscription !== undefined) await this.#dependencies.ackLog.delete(this.#subscription);
  }

  /** It is gone. Idempotent. */
  detach(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#retry?.cancel();
    this.#step({ type: 'close' });
    this.#onGone(this);
  }

  /** Ends it from the topic's side. */
  end(error: MagnetarError): void {
    if (this.#closed) return;
    this.detach();
    this.#sink.closed(error);
  }

  async #seek(to: Position): Promise<MessageIndex> {
    const index = await resolvePosition(this.#dependencies.reader, to);
    // Another consumer may have acknowledged meanwhile: a late seek would take that back.
    if (this.#closed) throw new MagnetarError('ALREADY_CLOSED', `consumer "${this.name}" is closed; nothing was moved`);
    const subscription = this.#subscription;
    const before = this.#state.markDelete;
    if (subscription === undefined) this.#state.reset(index);
    const durable = subscription === undefined ? undefined : this.#dependencies.ackLog.reset(subscription, index);
    const isReset = before !== index && this.#state.markDelete === index;
    if (isReset) this.#moved(index);
    await durable;
    if (!isReset) this.#moved(index); // it was there before: only now it is known that the ack log has taken it
    return index;
  }

  /** What is delivered from now on begins at `index`. */
  #moved(index: MessageIndex): void {
    this.#memory.deliveredTo = 0 as MessageIndex;
    this.#deliveredBefore = 0 as MessageIndex;
    this.#heldCaughtUp = undefined;
    this.#holdCaughtUp = true;
    this.#step({ type: 'seek', to: index });
  }

  /** Takes an event in and carries out what follows, one after another, also when that leads to further events. */
  #step(event: DispatchEvent<LogItem>): void {
    this.#events.push(event);
    if (this.#running) return;
    this.#running = true;
    const { reader } = this.#dependencies;
    const dispatcher = this.#dispatcher;
    for (let next = this.#events.shift(); next !== undefined; next = this.#events.shift()) {
      const end = reader.endIndex;
      if (end > dispatcher.end) for (const effect of dispatcher.step({ type: 'appended', end })) this.#run(effect);
      for (const effect of dispatcher.step(next)) this.#run(effect);
    }
    this.#running = false;
    if (dispatcher.idle) this.#onIdle(this);
  }

  #run(effect: DispatchEffect<LogItem>): void {
    if (effect.type === 'read') {
      const { from, maxBytes, maxMessages, generation } = effect;
      this.#sink.whenRoom({
        wantedBytes: maxBytes,
        leastBytes: this.#dependencies.reader.entryBytesAt(from),
        run: (room) => {
          const limits = { maxBytes: Math.min(maxBytes, room), maxEntries: READ_ENTRIES, maxMessages };
          return this.#read(from, limits, generation);
        },
      });
    } else if (effect.type === 'deliver') {
      if (effect.entry.lost !== true) this.#deliver(effect.entry, effect.skip);
    } else if (effect.type === 'lost') {
      if (effect.entry.lost === true) this.#tellLoss(effect.entry, effect.from);
    } else if (this.#holdCaughtUp) this.#heldCaughtUp = effect.index;
    else this.#sink.caughtUp(effect.index);
  }

  #deliver(entry: LogEntry, skip: Buffer | undefined): void {
    this.#heldCaughtUp = undefined;
    const redeliveries = entry.index < this.#deliveredBefore ? 1 : 0;
    const end = (entry.index + entry.count) as MessageIndex;
    if (end > this.#memory.deliveredTo) this.#memory.deliveredTo = end;
    const wanted = skip === undefined ? entry.count : entry.count - this.#state.countAcked(entry.index, entry.count);
    this.deliveredAt = this.#dependencies.clock.monotonic();
    this.traffic.delivered(wanted, entry.block.length, redeliveries > 0, this.deliveredAt);
    this.#sink.deliver(entry, skip, redeliveries);
  }

  #tellLoss(loss: LogLoss, from: MessageIndex): void {
    this.#heldCaughtUp = undefined;
    this.#sink.lost(loss, from, lossError(this.#dependencies.topic, loss, from));
  }

  #read(from: MessageIndex, limits: ReadLimits, generation: number): Promise<void> | undefined {
    if (this.#closed) return undefined;
    const { reader, ownership, topic } = this.#dependencies;
    if (!ownership.held) {
      const error = new MagnetarError('NOT_OWNER', `the lease for topic ${topic} is not provably held`);
      this.#readFailed(error, generation);
      return undefined;
    }
    const entries = reader.read(from, limits, this.#cursor);
    if (!(entries instanceof Promise)) {
      this.#step({ type: 'entries', generation, entries });
      return undefined;
    }
    return entries.then(
      (read) => {
        this.#failedReads = 0;
        this.#step({ type: 'entries', generation, entries: read });
      },
      (error: unknown) => this.#readFailed(toMagnetarError(error), generation),
    );
  }

  #readFailed(error: MagnetarError, generation: number): void {
    if (this.#closed || generation !== this.#dispatcher.generation) return; // it was for where the consumer was before
    this.#step({ type: 'readFailed', generation });
    if (!error.retryable || this.#failedReads >= READ_ATTEMPTS) {
      const text = `topic ${this.#dependencies.topic} cannot be read: ${error.message}`;
      this.end(new MagnetarError(error.code, text, { cause: error }));
      return;
    }
    const { clock, random } = this.#dependencies;
    const wait = backoff(random, this.#failedReads++, RETRY_FIRST_MS, RETRY_HIGHEST_MS);
    this.#retry?.cancel();
    this.#retry = clock.after(wait, () => this.#step({ type: 'retry' }));
  }

  #readerCannotAck(): MagnetarError {
    const text = `reader "${this.name}" of topic ${this.#dependencies.topic} has no subscription and cannot acknowledge`;
    return new MagnetarError('INVALID_ARGUMENT', text);
  }

  #beyondEnd(below: MessageIndex, ranges: readonly number[]): MagnetarError | undefined {
    const end = this.#dependencies.reader.endIndex;
    let highest: number = below;
    for (let i = 0; i + 1 < ranges.length; i += 2) {
      highest = Math.max(highest, (ranges[i] as number) + (ranges[i + 1] as number));
    }
    if (highest <= end) return undefined;
    const text = `ack reaches index ${highest - 1}, but the next message of topic ${this.#dependencies.topic} gets ${end}`;
    return new MagnetarError('INVALID_ARGUMENT', text, { details: { endIndex: String(end) } });
  }
}
