import { MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { SequenceId } from '../lib/ids.ts';
import type { Timer } from '../runtime/clock.ts';
import type { OutgoingMessage } from '../wire/block.ts';
import type { Receipt } from '../wire/frames.ts';
import type { Deferred, WaitOptions } from './abort.ts';
import { abortReason, deferred, onAbort, unlessAborted, withDeadline } from './abort.ts';
import type { Batch, Settle } from './batch.ts';
import { rejectAll } from './batch.ts';
import { Batcher } from './batcher.ts';
import type { ProducerMessage } from './message.ts';
import type { MessageId } from './message-id.ts';
import type { ProducerConfig } from './options.ts';
import { checkSequenceId } from './options.ts';
import { overheadBytes, toOutgoing } from './outgoing.ts';
import type { Granted, ProducerSession } from './producer-session.ts';
import type { PublishChannel, PublishLimits } from './publish-channel.ts';

/** Room in a frame beside the blocks. */
const FRAME_MARGIN_BYTES = 65_536;

/** A message for which there is no room yet. */
interface WaitingMessage {
  readonly kind: 'message';
  readonly message: OutgoingMessage;
  readonly sequenceId: bigint | undefined;
  readonly deadline: number;
  readonly settle: Settle;
  /** Ends the watch on its signal. */
  readonly stop: () => void;
}

/** Somebody who waits for everything that was sent before. */
interface Flush {
  readonly kind: 'flush';
  /** How many messages have to be settled; Infinity while some of them wait for room. */
  target: number;
  readonly done: Deferred<void>;
  error: MagnetarError | undefined;
}

/** What a producer is made of. */
export interface ProducerParts {
  readonly channel: PublishChannel;
  readonly session: ProducerSession;
  readonly config: ProducerConfig;
  readonly granted: Granted;
  readonly onClosed: () => void;
}

/**
 * Publishes messages to a topic, in the order of the calls of `send`. Lost connections are made good unseen: what is
 * not confirmed is sent again, and the broker stores nothing twice.
 */
export class Producer implements AsyncDisposable {
  readonly topic: string;
  readonly producerName: string;
  readonly #channel: PublishChannel;
  readonly #session: ProducerSession;
  readonly #config: ProducerConfig;
  readonly #onClosed: () => void;
  readonly #batcher: Batcher;
  /** In the order in which they came. */
  readonly #waiting = new Set<WaitingMessage | Flush>();
  #flushes: Flush[] = [];
  #nextSequenceId: bigint;
  #lastSequenceId: bigint;
  #pendingMessages = 0;
  #pendingBytes = 0;
  /** The highest sequence id of batches that are finished, or stored before. */
  #highest: bigint;
  /** The batch in hand holds sequence ids that were used before. */
  #replays = false;
  /** The batch in hand holds new sequence ids alone, none of them of the app's choice. */
  #plain = false;
  // Messages that got room, in order: how many there were, and how many of them are settled.
  #taken = 0;
  #settled = 0;
  #turnAsked = false;
  #delay: Timer | undefined;
  #sweep: Timer | undefined;
  /** Why nothing can be sent any more. */
  #refusal: MagnetarError | undefined;
  #closing: Promise<void> | undefined;

  /** Made by `Client.createProducer`. */
  constructor(parts: ProducerParts) {
    const { channel, session, config, granted } = parts;
    this.topic = config.topic;
    this.producerName = granted.name;
    this.#channel = channel;
    this.#session = session;
    this.#config = config;
    this.#onClosed = parts.onClosed;
    const { name, epoch, lastSequenceId } = granted;
    this.#batcher = new Batcher({ producerName: name, epoch, capacityBytes: config.batchBytes });
    this.#lastSequenceId = lastSequenceId ?? -1n;
    this.#highest = this.#lastSequenceId;
    this.#nextSequenceId = (config.initialSequenceId ?? this.#lastSequenceId) + 1n;
    session.tell({
      stored: (batch, receipt) => this.#stored(batch, receipt),
      refused: (batch, error) => this.#refused(batch, error),
      ready: () => this.#ready(),
      failed: (error) => this.#failed(error),
    });
  }

  /** The highest sequence id that is known to be stored under this producer's name; -1n: none. */
  get lastSequenceId(): bigint {
    return this.#lastSequenceId;
  }

  /**
   * Sends a message; resolves when it is stored.
   *
   * `data` is copied before `send` returns, unless the queue of pending messages is full: then it is borrowed until
   * there is room. After `sendTimeoutMs` the message is given up together with all behind it (DEADLINE_EXCEEDED), so
   * that none of them is stored out of order; what had been sent may have been stored. Aborting ends the wait; a
   * message that already had room is stored nevertheless.
   *
   * @throws MagnetarError INVALID_ARGUMENT, MESSAGE_TOO_LARGE, QUEUE_FULL, DEADLINE_EXCEEDED, ALREADY_CLOSED, or why
   *   the
   *   broker refuses
   */
  send(message: ProducerMessage, options?: WaitOptions): Promise<MessageId> {
    if (this.#refusal !== undefined) return Promise.reject(this.#refusal);
    const signal = options?.signal;
    if (signal?.aborted === true) return Promise.reject(abortReason(signal));
    try {
      const outgoing = toOutgoing(message);
      this.#checkSize(outgoing);
      const { sequenceId } = message;
      const own = sequenceId === undefined ? undefined : checkSequenceId('sequenceId', sequenceId);
      if (this.#waiting.size > 0 || !this.#hasRoom(outgoing)) return this.#wait(outgoing, own, signal);
      const sequence = this.#makeReady(outgoing, own);
      const before = this.#batcher.bytes;
      const deadline = this.#batcher.count === 0 ? this.#deadline() : 0;
      const stored = this.#batcher.append(outgoing, sequence, deadline);
      this.#appended(before);
      return signal === undefined ? stored : unlessAborted(stored, signal);
    } catch (error) {
      return Promise.reject(toMagnetarError(error));
    }
  }

  #limits(): PublishLimits {
    return this.#channel.limits ?? { maxMessageBytes: 0, maxFrameBytes: 0, windowBytes: 0 };
  }

  #checkSize(message: OutgoingMessage): void {
    const bytes = message.payload.length;
    const { maxMessageBytes, maxFrameBytes } = this.#limits();
    if (bytes > maxMessageBytes) throw tooLarge('message', bytes, maxMessageBytes);
    if (message.key === undefined && message.properties === undefined && message.orderingKey === undefined) return;
    const whole = bytes + overheadBytes(message);
    const limit = maxFrameBytes - FRAME_MARGIN_BYTES;
    if (whole > limit) throw tooLarge('message with its keys and properties', whole, limit);
  }

  #hasRoom(message: OutgoingMessage): boolean {
    const { maxPendingMessages, maxPendingBytes } = this.#config;
    if (this.#pendingMessages === 0) return true;
    return this.#pendingMessages < maxPendingMessages && this.#pendingBytes + message.payload.length <= maxPendingBytes;
  }

  #deadline(): number {
    const { sendTimeoutMs } = this.#config;
    if (sendTimeoutMs === 0) return Number.POSITIVE_INFINITY;
    return this.#channel.environment.clock.monotonic() + sendTimeoutMs;
  }

  #wait(message: OutgoingMessage, sequenceId: bigint | undefined, signal: AbortSignal | undefined): Promise<MessageId> {
    if (!this.#config.blockIfQueueFull) {
      const { maxPendingMessages, maxPendingBytes } = this.#config;
      const text = `the queue of ${this.topic} is full: ${this.#pendingMessages} messages of ${this.#pendingBytes} bytes are pending, at most ${maxPendingMessages} of ${maxPendingBytes} bytes may be`;
      throw new MagnetarError('QUEUE_FULL', text);
    }
    return new Promise((resolve, reject) => {
      const stop = onAbort(signal, (reason) => {
        this.#waiting.delete(waiting);
        reject(reason);
      });
      const deadline = this.#deadline();
      const waiting: WaitingMessage = { kind: 'message', message, sequenceId, deadline, settle: resolve, stop };
      this.#waiting.add(waiting);
    });
  }

  /** Gives room to those that wait, in order. */
  #admit(): void {
    for (const waiting of this.#waiting) {
      if (waiting.kind === 'message' && !this.#hasRoom(waiting.message)) return;
      this.#waiting.delete(waiting);
      if (waiting.kind === 'flush') waiting.target = this.#taken;
      else this.#admitOne(waiting);
    }
  }

  #admitOne({ message, sequenceId, deadline, settle, stop }: WaitingMessage): void {
    stop();
    const sequence = this.#makeReady(message, sequenceId);
    const before = this.#batcher.bytes;
    this.#batcher.appendFor(settle, message, sequence, deadline);
    this.#appended(before);
  }

  /**
   * Finishes the batch in hand if it cannot take the message; tells the message's sequence id, undefined when it is
   * simply the one after the last message's.
   */
  #makeReady(message: OutgoingMessage, own: bigint | undefined): SequenceId | undefined {
    const batcher = this.#batcher;
    if (batcher.count > 0) {
      if (batcher.bytes + message.payload.length > this.#batchBytes()) this.#cut();
      else if (own === undefined && this.#plain) return undefined;
    }
    return this.#sequenceId(own as SequenceId | undefined);
  }

  /**
   * Sequence ids rise within a batch, and no batch has both ids that were used before and new ones: the broker
   * takes, or knows, a batch as a whole.
   */
  #sequenceId(own: SequenceId | undefined): SequenceId {
    const batcher = this.#batcher;
    this.#countPlain();
    const sequence = own ?? (this.#nextSequenceId as SequenceId);
    if (batcher.count > 0) {
      const falls = sequence <= batcher.lastSequenceId;
      if (falls || (this.#replays && sequence > this.#highest)) this.#cut();
    }
    if (batcher.count === 0) {
      this.#replays = sequence <= this.#highest;
      this.#plain = own === undefined && !this.#replays;
    }
    if (sequence >= this.#nextSequenceId) this.#nextSequenceId = sequence + 1n;
    return sequence;
  }

  /** Makes up for the sequence ids of a plain batch, which are not counted one by one. */
  #countPlain(): void {
    if (this.#plain && this.#batcher.count > 0) this.#nextSequenceId = this.#batcher.lastSequenceId + 1n;
    this.#plain = false;
  }

  #batchBytes(): number {
    const { maxFrameBytes, windowBytes } = this.#limits();
    // A clear table may double a batch.
    return Math.min(this.#config.batchBytes, Math.floor(maxFrameBytes / 2) - FRAME_MARGIN_BYTES, windowBytes);
  }

  #appended(bytesBefore: number): void {
    const batcher = this.#batcher;
    this.#taken++;
    this.#pendingMessages++;
    this.#pendingBytes += batcher.bytes - bytesBefore;
    if (batcher.count === 1) this.#begun();
    if (batcher.count >= this.#config.batchMessages || batcher.bytes >= this.#batchBytes()) this.#cut();
  }

  /** A batch was begun: it leaves at the end of this turn, or, while others are under way, a little later. */
  #begun(): void {
    const { clock } = this.#channel.environment;
    const { publishDelayMs, sendTimeoutMs } = this.#config;
    if (sendTimeoutMs > 0 && this.#sweep === undefined) {
      const left = Math.max(this.#batcher.deadline - clock.monotonic(), 0);
      this.#sweep = clock.after(left, () => this.#sweepNow(), { unref: true });
    }
    if (publishDelayMs === 0 || !this.#session.window.awaitsReceipts) this.#askTurn();
    else this.#delay ??= clock.after(publishDelayMs, () => this.#ready());
  }

  #askTurn(): void {
    if (this.#turnAsked) return;
    this.#turnAsked = true;
    this.#session.atTurn();
  }

  /** What is in hand is to leave. While the producer is not open it may as well go on growing. */
  #ready(): void {
    this.#turnAsked = false;
    if (this.#session.open) this.#cut();
  }

  /** Finishes the batch in hand and sends it off. */
  #cut(): void {
    this.#delay?.cancel();
    this.#delay = undefined;
    if (this.#batcher.count === 0) return;
    this.#countPlain();
    const batch = this.#batcher.cut(this.#channel.environment.clock.now());
    if (batch.lastSequenceId > this.#highest) this.#highest = batch.lastSequenceId;
    this.#session.push(batch);
  }

  #stored(batch: Batch, receipt: Receipt): void {
    if (batch.lastSequenceId > this.#lastSequenceId) this.#lastSequenceId = batch.lastSequenceId;
    batch.resolve(receipt);
    this.#settle(batch);
  }

  #refused(batch: Batch, error: MagnetarError): void {
    batch.reject(error);
    for (const flush of this.#flushes) flush.error ??= error;
    this.#settle(batch);
  }

  #settle(batch: Batch): void {
    this.#settled += batch.count;
    this.#pendingMessages -= batch.count;
    this.#pendingBytes -= batch.bytes;
    if (this.#waiting.size > 0) this.#admit();
    if (this.#flushes.length > 0) this.#endFlushes();
    if (this.#batcher.count > 0 && !this.#session.window.awaitsReceipts) this.#askTurn();
  }

  #endFlushes(): void {
    const done = this.#flushes.filter((flush) => flush.target <= this.#settled);
    this.#flushes = this.#flushes.filter((flush) => flush.target > this.#settled);
    for (const flush of done) {
      if (flush.error === undefined) flush.done.resolve();
      else flush.done.reject(flush.error);
    }
  }

  /** One timer for all: looks at the oldest message, as deadlines rise. */
  #sweepNow(): void {
    this.#sweep = undefined;
    const { clock } = this.#channel.environment;
    const batching = this.#batcher.count > 0 ? this.#batcher.deadline : undefined;
    const deadline = this.#session.window.oldest?.deadline ?? batching;
    if (deadline === undefined) return;
    const left = deadline - clock.monotonic();
    if (left > 0) {
      this.#sweep = clock.after(left, () => this.#sweepNow(), { unref: true });
      return;
    }
    const { sendTimeoutMs } = this.#config;
    const reason = this.#session.lastError;
    const why = reason === undefined ? '' : ` (${reason.message})`;
    this.#giveUp((attempted) => {
      const fate = attempted ? 'it may have been stored' : 'it was not sent';
      const text = `not stored on ${this.topic} within sendTimeoutMs, ${sendTimeoutMs} ms, or behind such a message; ${fate}${why}`;
      return new MagnetarError('DEADLINE_EXCEEDED', text);
    });
  }

  /** Rejects whatever is not settled, in order: nothing of it is sent (again). */
  #giveUp(error: (attempted: boolean) => MagnetarError): void {
    for (const batch of this.#session.window.abandon()) batch.reject(error(batch.attempted));
    const unsent = error(false);
    this.#batcher.reject(this.#channel.environment.clock.now(), unsent);
    const settles: Settle[] = [];
    for (const waiting of this.#waiting) {
      if (waiting.kind === 'flush') continue;
      waiting.stop();
      settles.push(waiting.settle);
    }
    this.#waiting.clear();
    rejectAll(settles, unsent);
    this.#delay?.cancel();
    this.#delay = undefined;
    this.#pendingMessages = 0;
    this.#pendingBytes = 0;
    this.#settled = this.#taken;
    const flushes = this.#flushes;
    this.#flushes = [];
    for (const flush of flushes) flush.done.reject(flush.error ?? unsent);
  }

  #failed(error: MagnetarError): void {
    if (this.#refusal === undefined) this.#onClosed();
    this.#refusal ??= error;
    this.#sweep?.cancel();
    this.#giveUp(() => error);
  }

  /** Sends off what is in hand; resolves when all that was sent before is stored, rejects when some of it is not. */
  flush(options?: WaitOptions): Promise<void> {
    if (this.#refusal !== undefined) return Promise.reject(this.#refusal);
    return unlessAborted(this.#flush(), options?.signal);
  }

  #flush(): Promise<void> {
    this.#cut();
    if (this.#waiting.size === 0 && this.#settled === this.#taken) return Promise.resolve();
    const waits = this.#waiting.size > 0;
    const target = waits ? Number.POSITIVE_INFINITY : this.#taken;
    const flush: Flush = { kind: 'flush', target, done: deferred(), error: undefined };
    this.#flushes.push(flush);
    if (waits) this.#waiting.add(flush);
    return flush.done.promise;
  }

  /**
   * Lets what was sent be stored, for at most `operationTimeoutMs`, and closes the producer. What is not stored by then
   * rejects with ALREADY_CLOSED. Idempotent.
   */
  close(options?: WaitOptions): Promise<void> {
    this.#closing ??= this.#close();
    return unlessAborted(this.#closing, options?.signal);
  }

  async #close(): Promise<void> {
    if (this.#refusal !== undefined) return; // it has failed
    const closed = new MagnetarError('ALREADY_CLOSED', `the producer on ${this.topic} is closed`);
    this.#refusal = closed;
    const { environment, operationTimeoutMs } = this.#channel;
    try {
      await withDeadline(environment.clock, operationTimeoutMs, this.#flush(), () => closed);
    } catch {
      // Each message that is not stored says so itself.
    }
    this.#giveUp(() => closed);
    this.#sweep?.cancel();
    await this.#session.close();
    this.#onClosed();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function tooLarge(what: string, bytes: number, limit: number): MagnetarError {
  const text = `the ${what} has ${bytes} bytes; the broker takes at most ${limit}`;
  return new MagnetarError('MESSAGE_TOO_LARGE', text, { details: { bytes: String(bytes), limit: String(limit) } });
}
