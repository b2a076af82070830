import { type MagnetarError, toMagnetarError } from '../lib/errors.ts';
import { abortReason, onAbort, unlessAborted } from './abort.ts';
import type { Message } from './message.ts';
import type { Receiver } from './receiver.ts';
import type { Taker } from './takers.ts';

/** After so many messages that were there already, the event loop gets a turn: frames come and go then. */
const TURN_AFTER_MESSAGES = 4_096;

/** How `messages` iterates. */
export interface IterationOptions {
  /** Ends the iteration: a pending step rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** True: end after the last message that is there when the iteration begins. */
  readonly untilEnd?: boolean | undefined;
}

type Step = IteratorResult<Message, undefined>;

const DONE: Step = { done: true, value: undefined };

class StepTaker implements Taker {
  readonly end: number;
  readonly #resolve: (step: Step) => void;
  readonly #fail: (error: Error) => void;

  constructor(end: number, resolve: (step: Step) => void, fail: (error: Error) => void) {
    this.end = end;
    this.#resolve = resolve;
    this.#fail = fail;
  }

  give(message: Message): void {
    this.#resolve({ done: false, value: message });
  }

  ended(): void {
    this.#resolve(DONE);
  }

  fail(error: MagnetarError): void {
    // Closing ends the loop; whatever else happens is an error of the loop.
    if (error.code === 'ALREADY_CLOSED') this.#resolve(DONE);
    else this.#fail(error);
  }
}

/**
 * Messages one after another, for `for await`. Written by hand: an async generator costs several promises a message. When messages
 * are lost a step rejects with DATA_LOSS; the next step, or the next iteration, goes on behind them.
 */
export class Iteration implements AsyncIterableIterator<Message, undefined> {
  readonly #receiver: Receiver;
  readonly #signal: AbortSignal | undefined;
  readonly #findEnd: (() => Promise<number>) | undefined;
  #end = Number.POSITIVE_INFINITY;
  #began = false;
  #over = false;
  #untilTurn = TURN_AFTER_MESSAGES;

  /** `findEnd`: tells the index at which the iteration ends; absent: it goes on. */
  constructor(receiver: Receiver, signal?: AbortSignal, findEnd?: () => Promise<number>) {
    this.#receiver = receiver;
    this.#signal = signal;
    this.#findEnd = findEnd;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<Step> {
    if (this.#began && !this.#over && this.#signal?.aborted !== true && --this.#untilTurn > 0) {
      try {
        const message = this.#receiver.take(this.#end);
        if (message !== undefined) return Promise.resolve({ done: false, value: message });
      } catch (error) {
        return Promise.reject(toMagnetarError(error));
      }
    }
    return this.#slowNext();
  }

  async #slowNext(): Promise<Step> {
    if (this.#over) return DONE;
    this.#throwIfAborted();
    if (!this.#began) {
      if (this.#findEnd !== undefined) this.#end = await unlessAborted(this.#findEnd(), this.#signal);
      this.#began = true;
    }
    if (this.#untilTurn <= 0) {
      this.#untilTurn = TURN_AFTER_MESSAGES;
      await new Promise<void>((resolve) => this.#receiver.channel.environment.clock.nextTurn(resolve));
    }
    this.#throwIfAborted(); // meanwhile: nothing would tell #wait
    const step = await this.#wait();
    if (step.done === true) this.#over = true;
    return step;
  }

  #throwIfAborted(): void {
    if (this.#signal?.aborted === true) throw abortReason(this.#signal);
  }

  #wait(): Promise<Step> {
    return new Promise((resolve, reject) => {
      const taker = new StepTaker(
        this.#end,
        (step) => {
          stop();
          resolve(step);
        },
        (error) => {
          stop();
          reject(error);
        },
      );
      const stop = onAbort(this.#signal, (reason) => {
        this.#receiver.leave(taker);
        reject(reason);
      });
      this.#receiver.wait(taker);
    });
  }

  return(): Promise<Step> {
    this.#over = true;
    return Promise.resolve(DONE);
  }
}
