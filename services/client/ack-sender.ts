import { MagnetarError } from '../lib/errors.ts';
import type { Timer } from '../runtime/clock.ts';
import type { AckReceipt } from '../wire/frames.ts';
import { fromWireError } from '../wire/status.ts';
import type { Deferred } from './abort.ts';
import { codeOfTimeout, deferred } from './abort.ts';
import type { ClientEnvironment } from './environment.ts';
import type { SealedAck } from './protocol/ack-window.ts';
import { AckWindow } from './protocol/ack-window.ts';
import { reconnectDelay } from './stream-keeper.ts';

interface AckWaiter extends Deferred<void> {
  /** On the monotonic clock. */
  readonly deadline: number;
}

/** What an AckSender is made of. */
export interface AckSenderOptions {
  readonly environment: ClientEnvironment;
  /** How long an acknowledgment may wait for being durable. */
  readonly timeoutMs: number;
  readonly subscription: string;
  /** Called when there may be something to send. */
  readonly ready: () => void;
}

/** The acknowledgments of a consumer on their way: their promises, deadlines and refusals. */
export class AckSender {
  readonly #options: AckSenderOptions;
  readonly #window: AckWindow<AckWaiter>;
  #sweep: Timer | undefined;
  /** Until it fires, nothing is sent: the broker had refused for the time being. */
  #pause: Timer | undefined;
  #attempt = 0;
  /** What the broker refused with since something was confirmed. */
  #refusal: MagnetarError | undefined;

  constructor(options: AckSenderOptions) {
    this.#options = options;
    this.#window = new AckWindow(() => this.#newWaiter());
  }

  #newWaiter(): AckWaiter {
    const { environment, timeoutMs } = this.#options;
    this.#sweep ??= environment.clock.after(timeoutMs, () => this.#sweepNow(), { unref: true });
    return { ...deferred<void>(), deadline: environment.clock.monotonic() + timeoutMs };
  }

  /** True when there is something to send, and it may be sent. */
  get ready(): boolean {
    return this.#window.ready && this.#pause === undefined;
  }

  /** Acknowledges a message. Whoever does so within one turn gets the same promise. */
  add(index: number): Promise<void> {
    return this.#window.add(index).promise;
  }

  /** Acknowledges messages from `from` to below `to`. */
  addRange(from: number, to: number): Promise<void> {
    return this.#window.addRange(from, to).promise;
  }

  /** Acknowledges all messages below an index. */
  addBelow(index: number): Promise<void> {
    return this.#window.addBelow(index).promise;
  }

  next(): SealedAck<unknown> | undefined {
    return this.#window.next();
  }

  receipt(receipt: AckReceipt): void {
    if (receipt.error === undefined) {
      this.#attempt = 0;
      this.#refusal = undefined;
      for (const ack of this.#window.confirmed(receipt.ackId)) ack.waiter.resolve();
      return;
    }
    const ack = this.#window.refused(receipt.ackId);
    if (ack === undefined) return;
    if (!receipt.error.retryable) {
      ack.waiter.reject(fromWireError(receipt.error));
      return;
    }
    this.#refusal = fromWireError(receipt.error);
    this.#window.again(ack);
    const { environment, ready } = this.#options;
    const resume = (): void => {
      this.#pause = undefined;
      ready();
    };
    this.#pause ??= environment.clock.after(reconnectDelay(environment, ++this.#attempt), resume, { unref: true });
  }

  /** The stream is gone: what is not confirmed is sent again. */
  restart(): void {
    this.#window.restart();
  }

  /** Resolves when every acknowledgment made so far is settled. */
  async idle(): Promise<void> {
    while (!this.#window.idle) {
      this.#options.ready();
      try {
        await this.#window.newest?.promise;
      } catch {
        // Whoever acknowledged is told.
      }
    }
  }

  #sweepNow(): void {
    this.#sweep = undefined;
    const { environment, timeoutMs, subscription } = this.#options;
    const now = environment.clock.monotonic();
    const why = this.#refusal === undefined ? '' : ` (${this.#refusal.message})`;
    const text = `acknowledging on subscription ${subscription} was not confirmed within operationTimeoutMs, ${timeoutMs} ms${why}`;
    const error = new MagnetarError(codeOfTimeout(this.#refusal), text);
    for (const waiter of this.#window.giveUp(({ deadline }) => deadline <= now)) waiter.reject(error);
    const deadline = this.#window.oldest?.deadline;
    if (deadline === undefined) return;
    this.#sweep = environment.clock.after(Math.max(deadline - now, 1), () => this.#sweepNow(), { unref: true });
  }

  /** Gives everything up. */
  abandon(error: MagnetarError): void {
    this.#sweep?.cancel();
    this.#pause?.cancel();
    this.#sweep = undefined;
    this.#pause = undefined;
    for (const waiter of this.#window.giveUp(() => true)) waiter.reject(error);
  }
}
