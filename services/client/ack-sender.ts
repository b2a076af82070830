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
  readonly deadline: number;
}

/** How often it is looked, at the least, what is late. */
const SWEEP_MS = 1_000;
/** Acknowledgments that cannot be sent are gathered, and share a deadline, for this part of the timeout, and SWEEP_MS. */
const GATHERING_PART = 1 / 8;

/** What an AckSender is made of. */
export interface AckSenderOptions {
  readonly environment: ClientEnvironment;
  /** How long an acknowledgment may wait for being durable. */
  readonly timeoutMs: number;
  readonly subscription: string;
  /** Called when there may be something to send. */
  readonly ready: () => void;
  /** What is to be said of the connection when an acknowledgment is late. */
  readonly standing: () => string;
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
    const { timeoutMs, environment } = this.#options;
    if (this.#sweep === undefined) this.#sweepIn(timeoutMs);
    return { ...deferred<void>(), deadline: environment.clock.monotonic() + timeoutMs };
  }

  #sweepIn(ms: number): void {
    const wait = Math.min(Math.max(ms, 1), SWEEP_MS);
    this.#sweep = this.#options.environment.clock.after(wait, () => this.#sweepNow(), { unref: true });
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

  /** Resolves when every acknowledgment made so far is settled; those made meanwhile are not waited for. */
  async settled(): Promise<void> {
    const { waiters } = this.#window;
    if (waiters.length === 0) return;
    this.#options.ready();
    await Promise.allSettled(waiters.map(({ promise }) => promise)); // whoever acknowledged is told of failures
  }

  #sweepNow(): void {
    this.#sweep = undefined;
    const now = this.#options.environment.clock.monotonic();
    const { oldest, gathering } = this.#window;
    if (oldest !== undefined && oldest.deadline <= now) {
      const error = this.#late();
      for (const waiter of this.#window.giveUp(({ deadline }) => deadline <= now)) waiter.reject(error);
    }
    const freshUntil = now + this.#options.timeoutMs * (1 - GATHERING_PART);
    if (gathering !== undefined && gathering.deadline < freshUntil) this.#window.seal();
    const deadline = this.#window.oldest?.deadline;
    if (deadline !== undefined) this.#sweepIn(deadline - now);
  }

  #late(): MagnetarError {
    const { timeoutMs, subscription, standing } = this.#options;
    const { sent, size } = this.#window;
    const why = this.#refusal?.message ?? `${sent} of ${size} Acks are sent; ${standing()}`;
    const text = `acknowledging on subscription ${subscription} was not confirmed within operationTimeoutMs, ${timeoutMs} ms (${why})`;
    return new MagnetarError(codeOfTimeout(this.#refusal), text);
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
