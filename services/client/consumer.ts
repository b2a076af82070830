import { MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { WaitOptions } from './abort.ts';
import { unlessAborted } from './abort.ts';
import { invalid } from './check.ts';
import type { IterationOptions } from './iteration.ts';
import { lostMessages } from './lost-messages.ts';
import { Message } from './message.ts';
import { MessageId } from './message-id.ts';
import type { StartPosition } from './position.ts';
import { toPosition } from './position.ts';
import type { Receiver } from './receiver.ts';
import type { ReceiveOptions } from './receiving.ts';
import { iterate, receiveFrom } from './receiving.ts';

/**
 * Receives the messages of a subscription and acknowledges them. Lost connections are made good unseen: what is not
 * acknowledged comes again, but nothing that this consumer has already handed out.
 */
export class Consumer implements AsyncIterable<Message>, AsyncDisposable {
  readonly topic: string;
  readonly subscription: string;
  readonly consumerName: string;
  readonly #receiver: Receiver;
  readonly #onClosed: () => void;
  #closing: Promise<void> | undefined;

  /** Made by `Client.subscribe`. */
  constructor(receiver: Receiver, name: string, onClosed: () => void) {
    this.topic = receiver.config.topic;
    this.subscription = receiver.config.subscription;
    this.consumerName = name;
    this.#receiver = receiver;
    this.#onClosed = onClosed;
  }

  /**
   * The next message. @throws MagnetarError DEADLINE_EXCEEDED after `timeoutMs`; DATA_LOSS, once, when the next messages
   * are lost: its details say which, and what follows is received as usual (see `acknowledgeLost`); ALREADY_CLOSED; why
   * the consumer failed
   */
  receive(options?: ReceiveOptions): Promise<Message> {
    return receiveFrom(this.#receiver, options);
  }

  /**
   * All messages, until the consumer is closed. A step rejects as `receive` does, with DATA_LOSS where messages are lost; that ends a
   * `for await`, and the next iteration goes on behind them.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message, undefined> {
    return iterate(this.#receiver);
  }

  /** The same; with `untilEnd`, those that are there when the iteration begins. */
  messages(options?: IterationOptions): AsyncIterableIterator<Message, undefined> {
    return iterate(this.#receiver, options);
  }

  /**
   * Acknowledges a message; resolves when that is durable: then the message is never delivered to the subscription
   * again. Needs no waiting for one by one: what is acknowledged within one turn of the event loop travels together.
   *
   * @throws MagnetarError INVALID_ARGUMENT, ALREADY_CLOSED, DEADLINE_EXCEEDED after `operationTimeoutMs`, or the
   *   broker's refusal
   */
  acknowledge(message: Message | MessageId, options?: WaitOptions): Promise<void> {
    return this.#acknowledge(message, false, options);
  }

  /** Acknowledges a message and all before it in the topic, as `acknowledge` does. */
  acknowledgeCumulative(message: Message | MessageId, options?: WaitOptions): Promise<void> {
    return this.#acknowledge(message, true, options);
  }

  #acknowledge(message: Message | MessageId, cumulative: boolean, options: WaitOptions | undefined): Promise<void> {
    if (this.#receiver.refusal !== undefined) return Promise.reject(this.#receiver.refusal);
    let index: number;
    try {
      index = this.#indexOf(message);
    } catch (error) {
      return Promise.reject(toMagnetarError(error));
    }
    const { acks } = this.#receiver;
    const durable = cumulative ? acks.addBelow(index + 1) : acks.add(index);
    this.#receiver.askTurn();
    return options?.signal === undefined ? durable : unlessAborted(durable, options.signal);
  }

  #indexOf(message: Message | MessageId): number {
    if (message instanceof Message) {
      if (message.topic === this.topic) return message.index;
      throw invalid('message', message.topic, `a message of ${this.topic}, of which this is a consumer`);
    }
    if (!(message instanceof MessageId)) throw invalid('message', message, 'a Message or a MessageId');
    if (message.index !== undefined) return message.index;
    const text = `message id ${message.toString()} has no index; acknowledge a Message, or an id that came with one`;
    throw new MagnetarError('INVALID_ARGUMENT', text);
  }

  /**
   * Acknowledges the messages that a DATA_LOSS of `receive` or of an iteration is about; resolves when that is durable. Until
   * then, every consumer that connects to the subscription is told of them. An acknowledgment of all before a later
   * message has the same effect.
   *
   * @throws MagnetarError INVALID_ARGUMENT for another error; what `acknowledge` throws
   */
  acknowledgeLost(error: unknown, options?: WaitOptions): Promise<void> {
    if (this.#receiver.refusal !== undefined) return Promise.reject(this.#receiver.refusal);
    const lost = lostMessages(error);
    if (lost === undefined) return Promise.reject(invalid('error', error, 'a DATA_LOSS that a consumer was given'));
    const durable = this.#receiver.acks.addRange(lost.firstIndex, lost.lastIndex + 1);
    this.#receiver.askTurn();
    return options?.signal === undefined ? durable : unlessAborted(durable, options.signal);
  }

  /**
   * Moves the subscription: what lies at or after the position counts as not acknowledged, what lies before it as
   * acknowledged. What is received afterwards is from there. What was acknowledged before the call is durable before
   * that, or refused. @throws MagnetarError POSITION_NOT_FOUND; DEADLINE_EXCEEDED after `operationTimeoutMs`: it may be
   * done yet; …
   */
  seek(position: StartPosition, options?: WaitOptions): Promise<void> {
    return seekTo(this.#receiver, position, options);
  }

  /** Closes the consumer and deletes the subscription. @throws MagnetarError DEADLINE_EXCEEDED, ALREADY_CLOSED, … */
  unsubscribe(options?: WaitOptions): Promise<void> {
    if (this.#receiver.refusal !== undefined) return Promise.reject(this.#receiver.refusal);
    const done = this.#receiver.close(true).finally(this.#onClosed);
    this.#closing = done.catch(() => {});
    return unlessAborted(done, options?.signal);
  }

  /**
   * Closes the consumer, after what was acknowledged is durable (for at most `operationTimeoutMs`). What waits for
   * messages ends: `receive` with ALREADY_CLOSED, iterations as at an end. Idempotent.
   */
  close(options?: WaitOptions): Promise<void> {
    this.#closing ??= this.#receiver.close().finally(this.#onClosed);
    return unlessAborted(this.#closing, options?.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Moves a receiver. @throws MagnetarError */
export async function seekTo(receiver: Receiver, position: StartPosition, options?: WaitOptions): Promise<void> {
  const to = toPosition('position', position);
  if (receiver.refusal !== undefined) throw receiver.refusal;
  await unlessAborted(receiver.seek(to), options?.signal);
}
