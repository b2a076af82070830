import type { WaitOptions } from './abort.ts';
import { unlessAborted } from './abort.ts';
import { seekTo } from './consumer.ts';
import { findEnd } from './end-probe.ts';
import type { IterationOptions } from './iteration.ts';
import type { Message } from './message.ts';
import type { StartPosition } from './position.ts';
import type { Receiver } from './receiver.ts';
import type { ReceiveOptions } from './receiving.ts';
import { iterate, receiveFrom } from './receiving.ts';

/** Reads a topic from a position on, without a subscription: the position is the app's to keep. */
export class Reader implements AsyncIterable<Message>, AsyncDisposable {
  readonly topic: string;
  readonly readerName: string;
  readonly #receiver: Receiver;
  readonly #onClosed: () => void;
  #closing: Promise<void> | undefined;

  /** Made by `Client.createReader`. */
  constructor(receiver: Receiver, name: string, onClosed: () => void) {
    this.topic = receiver.config.topic;
    this.readerName = name;
    this.#receiver = receiver;
    this.#onClosed = onClosed;
  }

  /**
   * The next message. @throws MagnetarError DEADLINE_EXCEEDED after `timeoutMs`; DATA_LOSS, once, when the next messages
   * are lost: its details say which, and what follows is read as usual; ALREADY_CLOSED; why the reader failed
   */
  readNext(options?: ReceiveOptions): Promise<Message> {
    return receiveFrom(this.#receiver, options);
  }

  /**
   * All messages, until the reader is closed. A step rejects as `readNext` does, with DATA_LOSS where messages are lost; that ends a
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
   * True when there is a message that was not read yet. @throws MagnetarError DEADLINE_EXCEEDED after `operationTimeoutMs`;
   * ALREADY_CLOSED; why the reader failed
   */
  async hasNext(options?: WaitOptions): Promise<boolean> {
    const { queue, refusal, channel } = this.#receiver;
    if (refusal !== undefined) throw refusal;
    if (queue.peekIndex !== Number.POSITIVE_INFINITY) return true;
    const end = await unlessAborted(findEnd(channel, this.topic), options?.signal);
    return !queue.isThrough(end);
  }

  /**
   * Moves the reader: what is read afterwards is from there. @throws MagnetarError POSITION_NOT_FOUND,
   * DEADLINE_EXCEEDED, …
   */
  seek(position: StartPosition, options?: WaitOptions): Promise<void> {
    return seekTo(this.#receiver, position, options);
  }

  /** Closes the reader. Whoever waits for messages is told, as with a consumer. Idempotent. */
  close(options?: WaitOptions): Promise<void> {
    this.#closing ??= this.#receiver.close().finally(this.#onClosed);
    return unlessAborted(this.#closing, options?.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
