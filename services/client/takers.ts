import { type MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { Message } from './message.ts';
import type { ReceiverQueue } from './receiver-queue.ts';

/** Somebody who waits for a message. */
export interface Taker {
  /** Wants messages below this index; Infinity: any. */
  readonly end: number;
  give(message: Message): void;
  /** None below `end` is left to come. */
  ended(): void;
  /** Messages that come next cannot be read (DATA_LOSS), or none comes any more. */
  fail(error: MagnetarError): void;
}

/** Those who wait for the messages of a queue. */
export class Takers {
  readonly #queue: ReceiverQueue;
  readonly #fail: (error: MagnetarError) => void;
  /** In the order in which they came. */
  readonly #waiting = new Set<Taker>();

  /** `fail`: told of an error behind which nothing can come. */
  constructor(queue: ReceiverQueue, fail: (error: MagnetarError) => void) {
    this.#queue = queue;
    this.#fail = fail;
  }

  /**
   * The next message, if it is there, is below `end`, and nobody waits for it.
   *
   * @throws MagnetarError DATA_LOSS where messages cannot be read: the next call goes on behind them. UNSUPPORTED: they
   *   can be read elsewhere; nothing comes any more.
   */
  take(end: number): Message | undefined {
    if (this.#waiting.size > 0 || this.#queue.peekIndex >= end) return undefined;
    try {
      return this.#queue.take();
    } catch (error) {
      throw this.#failed(error);
    }
  }

  #failed(thrown: unknown): MagnetarError {
    const error = toMagnetarError(thrown);
    if (error.code !== 'DATA_LOSS') this.#fail(error);
    return error;
  }

  /** Has somebody wait for a message. */
  wait(taker: Taker): void {
    this.#waiting.add(taker);
    this.serve();
  }

  /** Somebody no longer waits. */
  leave(taker: Taker): void {
    this.#waiting.delete(taker);
  }

  /** Gives what has come to those who wait. */
  serve(): void {
    for (const taker of this.#waiting) {
      const index = this.#queue.peekIndex;
      if (index < taker.end) {
        this.#waiting.delete(taker);
        this.#give(taker);
      } else if (index !== Number.POSITIVE_INFINITY || this.#queue.isThrough(taker.end)) {
        this.#waiting.delete(taker);
        taker.ended();
      } else {
        return;
      }
    }
  }

  #give(taker: Taker): void {
    let message: Message | undefined;
    try {
      message = this.#queue.take();
    } catch (error) {
      taker.fail(this.#failed(error));
      return;
    }
    if (message !== undefined) taker.give(message);
  }

  /** Nothing comes any more: everybody who waits is told. */
  fail(error: MagnetarError): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const taker of waiting) taker.fail(error);
  }
}
