import { crc32c } from '../lib/crc32c.ts';
import { MagnetarError, toMagnetarError } from '../lib/errors.ts';
import { messageIndex } from '../lib/ids.ts';
import type { Timer } from '../runtime/clock.ts';
import { withDeadline } from '../runtime/deadline.ts';
import type {
  AckReceipt,
  CaughtUp,
  ConsumerClosed,
  Delivery,
  Loss,
  Position,
  SeekDone,
  Subscribed,
  WireError,
} from '../wire/frames.ts';
import { fromWireError } from '../wire/status.ts';
import type { Deferred } from './abort.ts';
import { deferred } from './abort.ts';
import { AckSender } from './ack-sender.ts';
import type { ConsumeChannel, ConsumeMember } from './consume-channel.ts';
import type { Message } from './message.ts';
import type { ReceiverConfig } from './options.ts';
import type { SealedAck } from './protocol/ack-window.ts';
import { ReceiverQueue } from './receiver-queue.ts';
import { GOOD_AFTER_MS, reconnectDelay } from './stream-keeper.ts';
import { type Taker, Takers } from './takers.ts';

const INSTANCE_BYTES = 16;

/**
 * down: there is no stream. waiting: until the next try. opening: asked, not answered. open: messages come.
 * closing: asked to close, not answered. ended: closed or failed, for good.
 */
type State = 'down' | 'waiting' | 'opening' | 'open' | 'closing' | 'ended';

interface PendingSeek {
  readonly seekId: number;
  readonly to: Position;
  readonly done: Deferred<void>;
}

/**
 * What consumers and readers have in common: one receiver on the consume stream. Opens it, keeps messages coming,
 * and opens it anew, under the same instance, after a lost stream; the app sees no message twice because of that.
 */
export class Receiver implements ConsumeMember {
  readonly config: ReceiverConfig;
  readonly channel: ConsumeChannel;
  readonly queue: ReceiverQueue;
  readonly acks: AckSender;
  readonly #opened: Deferred<string> = deferred();
  readonly #closed: Deferred<void> = deferred();
  readonly #instance: Buffer;
  readonly #takers: Takers;
  #state: State = 'down';
  #number = 0;
  #attempt = 0;
  #openSince = 0;
  #timer: Timer | undefined;
  #granted = false;
  #name: string;
  #lastError: MagnetarError | undefined;
  /** Why nothing comes any more. */
  #refusal: MagnetarError | undefined;
  /** Why it could not go on. */
  #failure: MagnetarError | undefined;
  #onFailed: () => void = () => {};
  #deleteSubscription = false;
  #turnAsked = false;
  // Handed out, and not yet given back to the broker as permits.
  #freeMessages = 0;
  #freeBytes = 0;
  #seek: PendingSeek | undefined;
  #seeks: Promise<void> = Promise.resolve();
  #lastSeekId = 0;
  /** Seeks that were sent on this stream and are not answered. */
  #seeksUnderWay = 0;
  /** The answer to a seek was lost: what the app has been given may be wanted once more. */
  #mayHaveMoved = false;
  /** How often the subscription was moved, as the broker has said last. With another number, somebody else has moved it. */
  #moves = 0;
  /** Tell the topic, and the subscription, from others that have their names by now. */
  #topicIdentity = '';
  #subscriptionIdentity = '';
  /** The entry that came damaged: it is fetched once again. */
  #damaged = '';

  constructor(channel: ConsumeChannel, config: ReceiverConfig) {
    this.channel = channel;
    this.config = config;
    this.#name = config.name;
    this.#instance = channel.environment.random.bytes(INSTANCE_BYTES);
    const limits = { messages: config.queueMessages, bytes: config.queueBytes };
    this.queue = new ReceiverQueue(config.topic, limits, (messages, bytes) => this.#consumed(messages, bytes));
    this.#takers = new Takers(this.queue, (error) => this.fail(error));
    this.acks = new AckSender({
      environment: channel.environment,
      timeoutMs: channel.operationTimeoutMs,
      subscription: config.subscription,
      ready: () => this.askTurn(),
      standing: () => this.#standing(),
    });
    this.#opened.promise.catch(() => {});
  }

  /** The name, once it is open; rejects when the broker refuses. */
  get opened(): Promise<string> {
    return this.#opened.promise;
  }

  get lastError(): MagnetarError | undefined {
    return this.#lastError ?? this.channel.lastError;
  }

  /** Why nothing comes any more; absent while something may. */
  get refusal(): MagnetarError | undefined {
    return this.#refusal;
  }

  get number(): number {
    return this.#number;
  }

  /** Begins; `onFailed` is called if it fails later. */
  start(onFailed: () => void): void {
    this.#onFailed = onFailed;
    this.channel.attach(this);
  }

  streamUp(): void {
    if (this.#state === 'down') this.#open();
  }

  streamDown(error: MagnetarError): void {
    if (this.#state === 'ended') return;
    if (this.#state === 'closing' && !this.#deleteSubscription) {
      this.#end();
      return;
    }
    this.#forget();
    this.#state = 'down';
    this.#attempt = 0;
    this.#lastError = undefined;
    if (!this.#granted && !error.retryable) this.fail(error);
  }

  /** What belonged to the number on the stream is void. */
  #forget(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#number = 0;
    this.#freeMessages = 0;
    this.#freeBytes = 0;
    if (this.#seeksUnderWay > 0) this.#mayHaveMoved = true;
    this.#seeksUnderWay = 0;
    this.queue.drop();
    this.acks.restart();
  }

  #open(): void {
    const { environment, operationTimeoutMs } = this.channel;
    const { topic, subscription, start } = this.config;
    this.#state = 'opening';
    const at: Position = this.#granted ? { at: 'index', index: messageIndex(this.queue.nextIndex) } : start;
    const fields = {
      topic,
      subscription,
      type: 'exclusive',
      start: at,
      name: this.#name,
      instance: this.#instance,
      topicIdentity: this.#topicIdentity,
    } as const;
    this.#number = this.channel.subscribe(this, fields);
    this.#timer = environment.clock.after(operationTimeoutMs, () => {
      this.#reopen(
        new MagnetarError('DEADLINE_EXCEEDED', this.#text(`was not opened within ${operationTimeoutMs} ms`)),
      );
    });
  }

  #text(what: string): string {
    const { topic, subscription } = this.config;
    return subscription === ''
      ? `the reader of ${topic} ${what}`
      : `the consumer of ${topic}, ${subscription}, ${what}`;
  }

  /** How it stands with the connection, for an error. */
  #standing(): string {
    if (this.#state !== 'open') return `the consumer is not open: ${this.lastError?.message ?? this.#state}`;
    return `the consumer was opened ${Math.round(this.channel.environment.clock.monotonic() - this.#openSince)} ms ago`;
  }

  subscribed(answer: Subscribed): void {
    if (this.#state !== 'opening') return;
    this.#timer?.cancel();
    this.#timer = undefined;
    if (answer.error !== undefined) {
      this.#number = 0;
      this.#refused(answer.error);
      return;
    }
    this.#name = answer.name;
    this.#state = 'open';
    this.#lastError = undefined;
    this.#openSince = this.channel.environment.clock.monotonic();
    const { moves, topicIdentity, subscriptionIdentity } = answer;
    const isAnother = subscriptionIdentity !== this.#subscriptionIdentity;
    if (isAnother || this.#mayHaveMoved || moves !== this.#moves || !this.#granted)
      this.queue.beginAt(answer.nextIndex);
    this.#topicIdentity = topicIdentity;
    this.#subscriptionIdentity = subscriptionIdentity;
    this.#moves = moves;
    this.#mayHaveMoved = false;
    this.#granted = true;
    this.#opened.resolve(answer.name);
    if (this.#deleteSubscription) {
      this.#sendClose();
      return;
    }
    this.channel.offerAcks(this);
    this.#flow(this.config.queueMessages, this.config.queueBytes);
    this.#sendSeek();
  }

  #refused(wire: WireError): void {
    const error = fromWireError(wire);
    const busy = !this.#granted && error.code === 'CONSUMER_BUSY';
    if (busy || !wire.retryable) this.fail(error);
    else this.#reopen(error);
  }

  /** Opens the receiver anew: what is not acknowledged is delivered again. */
  #reopen(error: MagnetarError): void {
    if (this.#number !== 0) this.channel.close({ consumer: this.#number, unsubscribe: false }, false);
    this.#forget();
    const { environment } = this.channel;
    const { topic, subscription } = this.config;
    const { clock } = environment;
    if (this.#state === 'open' && clock.monotonic() - this.#openSince >= GOOD_AFTER_MS) this.#attempt = 0;
    this.#state = 'waiting';
    this.#lastError = error;
    environment.logger.warn('consumer is opened anew', { topic, subscription, error });
    this.#timer = clock.after(reconnectDelay(environment, this.#attempt++), () => this.#open());
  }

  #flow(messages: number, bytes: number): void {
    this.channel.flow({ consumer: this.#number, messages, bytes });
  }

  #consumed(messages: number, bytes: number): void {
    this.#freeMessages += messages;
    this.#freeBytes += bytes;
    this.#giveBack();
  }

  /**
   * Permits go back when half of the queue is free. Not while a seek is under way, be it given up: nobody knows whether
   * it is done before they come, and they are void.
   */
  #giveBack(): void {
    const { queueMessages, queueBytes } = this.config;
    if (this.#state !== 'open' || this.#seeksUnderWay > 0) return;
    if (this.#freeMessages * 2 < queueMessages && this.#freeBytes * 2 < queueBytes) return;
    this.#flow(this.#freeMessages, this.#freeBytes);
    this.#freeMessages = 0;
    this.#freeBytes = 0;
  }

  delivery(delivery: Delivery): void {
    if (!this.#handsOut) return;
    const { ledgerId, entryId, block } = delivery;
    if (crc32c(block) !== delivery.crc32c) {
      this.#arrivedDamaged(`${ledgerId}:${entryId}`);
      return;
    }
    try {
      this.queue.add(delivery);
    } catch (error) {
      const { code, message } = toMagnetarError(error);
      this.fail(new MagnetarError(code, this.#text(`was given entry ${ledgerId}:${entryId}: ${message}`)));
      return;
    }
    this.#takers.serve();
  }

  #arrivedDamaged(place: string): void {
    const text = this.#text(`was given entry ${place} with a checksum that does not match`);
    const error = new MagnetarError('CHECKSUM_MISMATCH', text);
    if (this.#damaged === place) {
      this.fail(error);
      return;
    }
    this.#damaged = place;
    this.#reopen(error);
  }

  /** While it closes, the last acknowledgments keep it open: what comes then is nobody's. */
  get #handsOut(): boolean {
    return this.#state === 'open' && this.#refusal === undefined;
  }

  loss({ firstIndex, lastIndex, error }: Loss): void {
    if (!this.#handsOut) return;
    this.queue.addLost(firstIndex, lastIndex + 1, fromWireError(error));
    this.#takers.serve();
  }

  caughtUp({ index }: CaughtUp): void {
    if (this.#state !== 'open') return;
    this.queue.caughtUp(index);
    this.#takers.serve();
  }

  /** The next message, if it is there, is below `end`, and nobody waits for it. @throws MagnetarError as Takers.take */
  take(end: number): Message | undefined {
    return this.#takers.take(end);
  }

  /** Has somebody wait for a message. */
  wait(taker: Taker): void {
    if (this.#refusal !== undefined) {
      taker.fail(this.#refusal);
      return;
    }
    this.#takers.wait(taker);
  }

  /** Somebody no longer waits. */
  leave(taker: Taker): void {
    this.#takers.leave(taker);
  }

  /** Has what is acknowledged sent at the end of this turn of the event loop. */
  askTurn(): void {
    if (this.#turnAsked) return;
    this.#turnAsked = true;
    this.channel.atTurn(this);
  }

  turn(): void {
    this.#turnAsked = false;
    if (this.#state === 'open') this.channel.offerAcks(this);
  }

  get acksReady(): boolean {
    return this.#state === 'open' && this.acks.ready;
  }

  nextAck(): SealedAck<unknown> | undefined {
    return this.acks.next();
  }

  ackReceipt(receipt: AckReceipt): void {
    this.acks.receipt(receipt);
  }

  /** Moves to a position. One seek at a time; what was acknowledged before is durable before. */
  async seek(to: Position): Promise<void> {
    const before = this.#seeks;
    const done = this.#seekAfter(before, to);
    this.#seeks = done.catch(() => {});
    await done;
  }

  async #seekAfter(before: Promise<void>, to: Position): Promise<void> {
    await before;
    const { environment, operationTimeoutMs } = this.channel;
    const { clock } = environment;
    const deadline = clock.monotonic() + operationTimeoutMs;
    const late = (): MagnetarError => {
      return new MagnetarError('DEADLINE_EXCEEDED', this.#text(`was not moved within ${operationTimeoutMs} ms`));
    };
    await withDeadline(clock, operationTimeoutMs, this.acks.settled(), late);
    if (this.#refusal !== undefined) throw this.#refusal;
    const seek: PendingSeek = { seekId: ++this.#lastSeekId, to, done: deferred() };
    this.#seek = seek;
    this.#sendSeek();
    try {
      await withDeadline(clock, deadline - clock.monotonic(), seek.done.promise, late);
    } finally {
      if (this.#seek === seek) this.#seek = undefined;
    }
  }

  #sendSeek(): void {
    if (this.#state !== 'open' || this.#seek === undefined) return;
    const { seekId, to } = this.#seek;
    this.#seeksUnderWay++;
    this.channel.seek({ consumer: this.#number, seekId, to });
  }

  seekDone(answer: SeekDone): void {
    if (this.#state !== 'open') return;
    this.#seeksUnderWay--;
    if (answer.error === undefined) {
      // Also when nobody waits for it any more: the position has moved, and the broker has no permits left.
      this.queue.beginAt(answer.nextIndex);
      this.#moves = answer.moves;
      this.#freeMessages = this.config.queueMessages;
      this.#freeBytes = this.config.queueBytes;
    }
    this.#giveBack();
    const seek = this.#seek;
    if (seek?.seekId !== answer.seekId) return;
    this.#seek = undefined;
    if (answer.error === undefined) seek.done.resolve();
    else seek.done.reject(fromWireError(answer.error));
  }

  closed(answer: ConsumerClosed): void {
    if (this.#state === 'ended') return;
    if (this.#state === 'closing') {
      if (answer.error !== undefined) this.#closed.reject(fromWireError(answer.error));
      this.#end();
      return;
    }
    this.#number = 0;
    if (answer.error === undefined)
      this.#reopen(new MagnetarError('UNAVAILABLE', this.#text('was closed by the broker')));
    else if (answer.error.retryable) this.#reopen(fromWireError(answer.error));
    else this.fail(fromWireError(answer.error));
  }

  /**
   * Closes the receiver, after what was acknowledged is durable; with `unsubscribe`, deletes the subscription. Resolves
   * when the broker has answered. @throws MagnetarError, when deleting, DEADLINE_EXCEEDED or the broker's refusal
   */
  async close(unsubscribe = false): Promise<void> {
    if (this.#refusal === undefined) this.#refuse(new MagnetarError('ALREADY_CLOSED', this.#text('is closed')));
    await this.acks.settled();
    if (this.#state === 'ended') {
      if (unsubscribe && this.#failure !== undefined) throw this.#failure;
      return;
    }
    this.#deleteSubscription = unsubscribe;
    if (this.#state === 'open') this.#sendClose();
    else if (!unsubscribe) this.#depart();
    const { environment, operationTimeoutMs } = this.channel;
    const late = (): MagnetarError => {
      return new MagnetarError('DEADLINE_EXCEEDED', this.#text(`was not closed within ${operationTimeoutMs} ms`));
    };
    try {
      await withDeadline(environment.clock, operationTimeoutMs, this.#closed.promise, late);
    } catch (error) {
      if (unsubscribe) throw error;
    } finally {
      this.#depart();
    }
  }

  #sendClose(): void {
    this.#state = 'closing';
    this.channel.close({ consumer: this.#number, unsubscribe: this.#deleteSubscription }, true);
  }

  #depart(): void {
    if (this.#state === 'ended') return;
    if (this.#number !== 0 && this.#state !== 'closing') {
      this.channel.close({ consumer: this.#number, unsubscribe: false }, false);
    }
    this.#end();
  }

  #end(): void {
    this.#forget();
    this.#state = 'ended';
    this.channel.detach(this);
    const reason = this.#failure ?? this.#refusal ?? new MagnetarError('ALREADY_CLOSED', this.#text('is closed'));
    this.acks.abandon(reason);
    this.#opened.reject(reason);
    this.#closed.resolve();
  }

  /** From now on nothing is handed out any more. */
  #refuse(error: MagnetarError): void {
    this.#refusal = error;
    this.queue.drop();
    this.#takers.fail(error);
    this.#seek?.done.reject(error);
    this.#seek = undefined;
  }

  /** It cannot go on: everybody who waits is told. */
  fail(error: MagnetarError): void {
    if (this.#state === 'ended') return;
    this.#failure = error;
    this.#opened.reject(error);
    if (this.#deleteSubscription) this.#closed.reject(error); // whoever unsubscribes waits for it
    this.#depart();
    if (this.#refusal === undefined) {
      this.#refuse(error);
      this.#onFailed();
    }
  }
}
