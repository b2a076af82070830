import { MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { SequenceId } from '../lib/ids.ts';
import type { Timer } from '../runtime/clock.ts';
import { withDeadline } from '../runtime/deadline.ts';
import type { OutgoingRest } from '../wire/block.ts';
import type { Compression } from '../wire/compression.ts';
import type { Receipt } from '../wire/frames.ts';
import type { WaitOptions } from './abort.ts';
import { abortReason, codeOfTimeout, deferred, onAbort, unlessAborted } from './abort.ts';
import type { Batch } from './batch.ts';
import { Batcher } from './batcher.ts';
import type { ProducerMessage } from './message.ts';
import type { MessageId } from './message-id.ts';
import type { ProducerConfig } from './options.ts';
import { SEQUENCE_ID_MAX } from './options.ts';
import type { Tally } from './outcome.ts';
import { MESSAGE_BYTES, payloadOf, restBytes, restOf, sequenceIdOf } from './outgoing.ts';
import type { Granted, ProducerSession } from './producer-session.ts';
import type { PublishChannel, PublishLimits } from './publish-channel.ts';
import { tooLarge } from './publish-channel.ts';
import type { Ends, Flush, WaitingMessage } from './waiting-line.ts';
import { WaitingLine } from './waiting-line.ts';

/** What a block has besides its messages, at most, without the producer's name. */
const HEADER_BYTES = 128;
/** No batch has as many messages. */
const HIGHEST_COUNT = 1n << 32n;

/** What options and broker together allow. */
interface BatchLimits {
  /** What the broker said. */
  readonly of: PublishLimits | undefined;
  readonly maxMessageBytes: number;
  /** Contents of a message. */
  readonly singleBytes: number;
  /** Of messages in a batch. */
  readonly batchBytes: number;
  /** Of the block of a batch of more than one. */
  readonly blockBytes: number;
}

/** What a producer is made of. */
export interface ProducerParts {
  readonly channel: PublishChannel;
  readonly session: ProducerSession;
  readonly config: ProducerConfig;
  readonly granted: Granted;
  readonly compression: Compression | undefined;
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
  readonly #waiting: WaitingLine;
  readonly #nameBytes: number;
  #limits: BatchLimits = { of: undefined, maxMessageBytes: 0, singleBytes: 0, batchBytes: 0, blockBytes: 0 };
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
    this.#waiting = new WaitingLine({ maxMessages: config.maxPendingMessages, maxBytes: config.maxPendingBytes });
    const { name, epoch, lastSequenceId } = granted;
    this.#nameBytes = Buffer.byteLength(name);
    const { batchBytes: capacityBytes } = config;
    this.#batcher = new Batcher({ producerName: name, epoch, capacityBytes, compression: parts.compression });
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
   * When the queue of pending messages is full, the message waits for room, unless `blockIfQueueFull` is false. As many
   * messages and bytes may wait as may be pending; beyond that `send` rejects with QUEUE_FULL. An app that awaits what
   * it sends, or bounds what it has not awaited, never sees that.
   *
   * `data` is copied before `send` returns, unless the message waits for room: then it is borrowed until there is some.
   * After `sendTimeoutMs` the message is given up together with all behind it (DEADLINE_EXCEEDED, or DISK_FULL when that is
   * why), so that none of them is stored out of order; what had been sent may have been stored. Aborting ends the wait; a message that already had
   * room is stored nevertheless.
   *
   * @throws MagnetarError INVALID_ARGUMENT, MESSAGE_TOO_LARGE, QUEUE_FULL, DEADLINE_EXCEEDED, DISK_FULL, ALREADY_CLOSED, or why
   *   the broker refuses
   */
  send(message: ProducerMessage, options?: WaitOptions): Promise<MessageId> {
    if (this.#refusal !== undefined) return Promise.reject(this.#refusal);
    const signal = options?.signal;
    if (signal?.aborted === true) return Promise.reject(abortReason(signal));
    try {
      const payload = payloadOf(message);
      const rest = restOf(message);
      const bytes = this.#checkedBytes(payload, rest);
      const own = sequenceIdOf(message);
      if (!this.#waiting.empty || !this.#hasRoom(payload)) {
        return this.#wait(
          { kind: 'message', payload, rest, bytes, sequenceId: own, deadline: this.#deadline() },
          signal,
        );
      }
      const sequence = this.#makeReady(payload, bytes, own);
      const before = this.#batcher.bytes;
      const deadline = this.#batcher.count === 0 ? this.#deadline() : 0;
      const stored = this.#batcher.append(payload, rest, sequence, deadline).promise();
      this.#appended(before);
      return signal === undefined ? stored : unlessAborted(stored, signal);
    } catch (error) {
      return Promise.reject(toMagnetarError(error));
    }
  }

  /**
   * Sends a message as `send` does, for less: there is no promise, `tally` is told how many of the posted messages were
   * stored, or were not, in the order in which they were posted. It must not throw.
   *
   * @throws MagnetarError as `send` rejects; QUEUE_FULL at once: post no more than may be pending. Nothing is told then.
   */
  post(message: ProducerMessage, tally: Tally): void {
    if (this.#refusal !== undefined) throw this.#refusal;
    const payload = payloadOf(message);
    const rest = restOf(message);
    const bytes = this.#checkedBytes(payload, rest);
    const own = sequenceIdOf(message);
    if (!this.#waiting.empty || !this.#hasRoom(payload)) throw this.#queueFull();
    const sequence = this.#makeReady(payload, bytes, own);
    const before = this.#batcher.bytes;
    const deadline = this.#batcher.count === 0 ? this.#deadline() : 0;
    this.#batcher.append(payload, rest, sequence, deadline).tally(tally);
    this.#appended(before);
  }

  /** Looks whether the broker has said something new. */
  #updateLimits(): BatchLimits {
    const of = this.#channel.limits;
    if (of !== this.#limits.of && of !== undefined) {
      const { maxMessageBytes, maxFrameBytes, maxBlockBytes } = of;
      const singleBytes = maxBlockBytes - HEADER_BYTES - this.#nameBytes - MESSAGE_BYTES;
      const batchBytes = Math.min(this.#config.batchBytes, Math.floor(maxFrameBytes / 2));
      const blockBytes = Math.min(maxBlockBytes, Math.floor(maxFrameBytes / 2));
      this.#limits = { of, maxMessageBytes, singleBytes, batchBytes, blockBytes };
    }
    return this.#limits;
  }

  /** Bytes of a message's contents. @throws MESSAGE_TOO_LARGE */
  #checkedBytes({ length }: Uint8Array, rest: OutgoingRest | undefined): number {
    const bytes = length + (rest === undefined ? 0 : restBytes(rest));
    const { maxMessageBytes, singleBytes } = this.#updateLimits();
    if (length > maxMessageBytes) throw tooLarge('message', length, maxMessageBytes);
    if (bytes > singleBytes) throw tooLarge('message with its keys and properties', bytes, singleBytes);
    return bytes;
  }

  #hasRoom({ length }: Uint8Array): boolean {
    const { maxPendingMessages, maxPendingBytes } = this.#config;
    if (this.#pendingMessages === 0) return true;
    return this.#pendingMessages < maxPendingMessages && this.#pendingBytes + length <= maxPendingBytes;
  }

  #deadline(): number {
    const { sendTimeoutMs } = this.#config;
    if (sendTimeoutMs === 0) return Number.POSITIVE_INFINITY;
    return this.#channel.environment.clock.monotonic() + sendTimeoutMs;
  }

  #wait(message: Omit<WaitingMessage, keyof Ends>, signal: AbortSignal | undefined): Promise<MessageId> {
    if (!this.#config.blockIfQueueFull || !this.#waiting.takes(message.bytes)) throw this.#queueFull();
    return new Promise((resolve, reject) => {
      const stop = onAbort(signal, (reason) => {
        this.#waiting.remove(waiting);
        reject(reason);
      });
      const waiting: WaitingMessage = { ...message, resolve, reject, stop };
      this.#waiting.push(waiting);
    });
  }

  #queueFull(): MagnetarError {
    const { maxPendingMessages, maxPendingBytes, blockIfQueueFull } = this.#config;
    const allowed = `at most ${maxPendingMessages} of ${maxPendingBytes} bytes may be`;
    let text = `the queue of ${this.topic} is full: ${this.#pendingMessages} messages of ${this.#pendingBytes} bytes are pending, ${allowed}`;
    if (blockIfQueueFull) {
      const { messages, bytes } = this.#waiting;
      text += `, and ${messages} messages of ${bytes} bytes wait for room, where as many may; await send() before sending more`;
    }
    return new MagnetarError('QUEUE_FULL', text);
  }

  /** Gives room to those that wait, in order. */
  #admit(): void {
    for (let first = this.#waiting.first(); first !== undefined; first = this.#waiting.first()) {
      if (first.kind === 'message' && !this.#hasRoom(first.payload)) return;
      this.#waiting.remove(first);
      if (first.kind === 'flush') first.target = this.#taken;
      else this.#admitOne(first);
    }
  }

  #admitOne({ payload, rest, bytes, sequenceId, deadline, resolve, reject, stop }: WaitingMessage): void {
    stop();
    try {
      const sequence = this.#makeReady(payload, bytes, sequenceId);
      const before = this.#batcher.bytes;
      this.#batcher.append(payload, rest, sequence, deadline).tell(resolve, reject);
      this.#appended(before);
    } catch (error) {
      reject(toMagnetarError(error));
    }
  }

  /**
   * Finishes the batch in hand if it cannot take the message; tells the message's sequence id, undefined when it is
   * simply the one after the last message's. `bytes`: of its contents.
   */
  #makeReady({ length }: Uint8Array, bytes: number, own: bigint | undefined): SequenceId | undefined {
    const batcher = this.#batcher;
    if (batcher.count > 0) {
      const { batchBytes, blockBytes } = this.#limits;
      const isFull = batcher.bytes + length > batchBytes;
      if (isFull || batcher.blockBytes + bytes + MESSAGE_BYTES > blockBytes) this.#cut();
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
    if (sequence > SEQUENCE_ID_MAX) {
      const text = `the sequence ids of producer ${this.producerName} on ${this.topic} are used up: ${SEQUENCE_ID_MAX} was the last`;
      throw new MagnetarError('INVALID_ARGUMENT', text);
    }
    if (batcher.count > 0) {
      const falls = sequence <= batcher.lastSequenceId;
      if (falls || (this.#replays && sequence > this.#highest)) this.#cut();
    }
    if (batcher.count === 0) {
      this.#replays = sequence <= this.#highest;
      this.#plain = own === undefined && !this.#replays && sequence < SEQUENCE_ID_MAX - HIGHEST_COUNT;
    }
    if (sequence >= this.#nextSequenceId) this.#nextSequenceId = sequence + 1n;
    return sequence;
  }

  /** Makes up for the sequence ids of a plain batch, which are not counted one by one. */
  #countPlain(): void {
    if (this.#plain && this.#batcher.count > 0) this.#nextSequenceId = this.#batcher.lastSequenceId + 1n;
    this.#plain = false;
  }

  #appended(bytesBefore: number): void {
    const batcher = this.#batcher;
    this.#taken++;
    this.#pendingMessages++;
    this.#pendingBytes += batcher.bytes - bytesBefore;
    if (batcher.count === 1) this.#begun();
    if (batcher.count >= this.#config.batchMessages || batcher.bytes >= this.#limits.batchBytes) this.#cut();
  }

  /** A batch was begun: it leaves at the end of this turn, or, while others are under way, a little later. */
  #begun(): void {
    const { clock } = this.#channel.environment;
    const { publishDelayMs, sendTimeoutMs } = this.#config;
    if (sendTimeoutMs > 0 && this.#sweep === undefined) {
      this.#sweepIn(Math.max(this.#batcher.deadline - clock.monotonic(), 0));
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
    if (!this.#waiting.empty) this.#admit();
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

  #sweepIn(ms: number): void {
    this.#sweep = this.#channel.environment.clock.after(ms, () => this.#sweepNow(), { unref: true });
  }

  /** One timer for all: looks at the oldest message, as deadlines rise. */
  #sweepNow(): void {
    this.#sweep = undefined;
    const { sendTimeoutMs } = this.#config;
    const batching = this.#batcher.count > 0 ? this.#batcher.deadline : undefined;
    const deadline = this.#session.window.oldest?.deadline ?? batching;
    if (deadline === undefined) return;
    const left = deadline - this.#channel.environment.clock.monotonic();
    if (left > 0) {
      this.#sweepIn(left);
      return;
    }
    const reason = this.#session.lastError;
    const why = reason === undefined ? '' : ` (${reason.message})`;
    this.#giveUp((attempted) => {
      const fate = attempted ? 'it may have been stored' : 'it was not sent';
      const text = `not stored on ${this.topic} within sendTimeoutMs, ${sendTimeoutMs} ms, or behind such a message; ${fate}${why}`;
      return new MagnetarError(codeOfTimeout(reason), text);
    });
  }

  /** Rejects whatever is not settled, in order: nothing of it is sent (again). */
  #giveUp(error: (attempted: boolean) => MagnetarError): void {
    for (const batch of this.#session.abandon()) batch.reject(error(batch.attempted));
    const unsent = error(false);
    this.#batcher.reject(this.#channel.environment.clock.now(), unsent);
    for (const { stop, reject } of this.#waiting.clear()) {
      stop();
      reject(unsent);
    }
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

  /**
   * Sends off what is in hand; resolves when all that was sent before is stored.
   *
   * @throws MagnetarError why some of it was not stored, as `send` rejects; ALREADY_CLOSED
   */
  flush(options?: WaitOptions): Promise<void> {
    if (this.#refusal !== undefined) return Promise.reject(this.#refusal);
    return unlessAborted(this.#flush(), options?.signal);
  }

  #flush(): Promise<void> {
    this.#cut();
    const waits = !this.#waiting.empty;
    if (!waits && this.#settled === this.#taken) return Promise.resolve();
    const target = waits ? Number.POSITIVE_INFINITY : this.#taken;
    const flush: Flush = { kind: 'flush', target, done: deferred(), error: undefined };
    this.#flushes.push(flush);
    if (waits) this.#waiting.push(flush);
    return flush.done.promise;
  }

  /**
   * Lets what was sent be stored, for at most `operationTimeoutMs`, and closes the producer. What is not stored by then
   * rejects with ALREADY_CLOSED. What was given up before is not waited for. Idempotent.
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
