/**
 * One consumer of a consume stream: what comes for it while it is being opened waits, receipts of its acks are
 * cumulative, seeks and the close are answered in order.
 */
import { MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import type { MessageIndex } from '../../lib/ids.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Ack, Position } from '../../wire/frames.ts';
import type { TopicConsumer } from '../topic/consumer.ts';

/** What a consumer tells its stream. */
export interface ConsumerEvents {
  /** Without an error: every Ack up to this id is durable, those refused before excepted. */
  ackReceipt(ackId: number, error: MagnetarError | undefined): void;
  /** An Ack is over: its credit is free again. */
  ackDone(ack: Ack): void;
  /** `moves`: how often the subscription was moved so far. */
  seekDone(seekId: number, result: MessageIndex | MagnetarError, moves: number): void;
  /** It is closed as the client asked, or because of an error. Nothing comes after this. */
  closed(error: MagnetarError | undefined): void;
}

/** Seeks that may be under way. */
const SEEKS: number = 100;
/** Ranges that may come in acks before the consumer is open. Who has been delivered nothing has little to acknowledge. */
const EARLY_RANGES: number = 65_536;

export class ConsumerSession {
  readonly #clock: Clock;
  readonly #events: ConsumerEvents;
  #consumer: TopicConsumer | undefined;
  /** What came before the consumer was open; bounded by the credit for acks, by SEEKS, and by EARLY_RANGES. */
  #waiting: ((consumer: TopicConsumer) => void)[] = [];
  readonly #earlyAcks: Ack[] = [];
  #earlyMessages = 0;
  #earlyBytes = 0;
  #earlyRanges = 0;
  #acksUnderWay = 0;
  #seeksUnderWay = 0;
  /** The highest ack id that is durable, and the highest that the client was told. */
  #durableAckId = 0;
  #toldAckId = 0;
  #receiptScheduled = false;
  #close: { readonly unsubscribe: boolean } | undefined;
  #closing = false;
  #gone = false;
  readonly #withdrawal = new AbortController();

  constructor(clock: Clock, events: ConsumerEvents) {
    this.#clock = clock;
    this.#events = events;
  }

  /** What is not answered: the opening, acks, seeks, the close. */
  get underWay(): number {
    const open = this.#consumer === undefined ? 1 : 0;
    const receipts = this.#durableAckId > this.#toldAckId ? 1 : 0;
    return open + receipts + this.#acksUnderWay + this.#seeksUnderWay + (this.#close === undefined ? 0 : 1);
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** Aborts when the client closes it before it is open, and waits for no answer: it must not hold its subscription. */
  get withdrawn(): AbortSignal {
    return this.#withdrawal.signal;
  }

  /** The topic has let it in. */
  opened(consumer: TopicConsumer): void {
    this.#consumer = consumer;
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#earlyAcks.length = 0;
    consumer.start();
    if (this.#earlyMessages + this.#earlyBytes > 0) consumer.flow(this.#earlyMessages, this.#earlyBytes);
    for (const action of waiting) action(consumer);
    this.#closeWhenDone();
  }

  flow(messages: number, bytes: number): void {
    if (this.#consumer !== undefined) this.#consumer.flow(messages, bytes);
    this.#earlyMessages += messages;
    this.#earlyBytes += bytes;
  }

  ack(ack: Ack): void {
    if (this.#consumer === undefined) {
      this.#earlyRanges += ack.ranges.length / 2;
      if (this.#earlyRanges > EARLY_RANGES) {
        const text = `acks with ${this.#earlyRanges} ranges wait for the consumer to be open, where ${EARLY_RANGES} may`;
        if (ack.ackId > 0) this.#events.ackReceipt(ack.ackId, new MagnetarError('QUEUE_FULL', text));
        this.#events.ackDone(ack);
        return;
      }
    }
    this.#acksUnderWay++;
    if (this.#consumer === undefined) this.#earlyAcks.push(ack);
    this.#do((consumer) => {
      consumer.acknowledge(ack.below, ack.ranges, (error) => {
        this.#acksUnderWay--;
        if (!this.#gone && ack.ackId > 0) this.#settled(ack.ackId, error);
        this.#events.ackDone(ack);
        this.#closeWhenDone();
      });
    });
  }

  seek(seekId: number, to: Position): void {
    if (this.#seeksUnderWay >= SEEKS) {
      const error = new MagnetarError(
        'QUEUE_FULL',
        `${SEEKS} seeks of one consumer are under way, which is the most that may`,
      );
      this.#events.seekDone(seekId, error, 0);
      return;
    }
    this.#seeksUnderWay++;
    this.#do((consumer) => {
      const answer = (result: MessageIndex | MagnetarError): void => {
        this.#seeksUnderWay--;
        if (!this.#gone) this.#events.seekDone(seekId, result, consumer.moves);
        this.#closeWhenDone();
      };
      consumer.seek(to).then(answer, (error: unknown) => answer(toMagnetarError(error)));
    });
  }

  /** The client closes it: once everything is answered. @throws PROTOCOL_VIOLATION when it comes twice */
  close(unsubscribe: boolean): void {
    if (this.#close !== undefined) throw new MagnetarError('PROTOCOL_VIOLATION', 'a consumer is closed twice');
    this.#close = { unsubscribe };
    const owed = this.#acksUnderWay + this.#seeksUnderWay;
    if (this.#consumer === undefined && owed === 0 && !unsubscribe) {
      this.#withdrawal.abort(new MagnetarError('CANCELLED', 'the consumer was closed while it was being opened'));
    }
    this.#closeWhenDone();
  }

  /** It ends now. */
  end(error: MagnetarError | undefined): void {
    if (this.#gone) return;
    this.#tellReceipt();
    this.drop();
    this.#events.closed(error);
  }

  /** It ends now, and the stream is not told. */
  drop(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#waiting = [];
    if (this.#consumer === undefined) for (const ack of this.#earlyAcks) this.#events.ackDone(ack);
    else this.#consumer.detach();
  }

  #do(action: (consumer: TopicConsumer) => void): void {
    if (this.#consumer === undefined) this.#waiting.push(action);
    else action(this.#consumer);
  }

  #settled(ackId: number, error: MagnetarError | undefined): void {
    if (error !== undefined) {
      this.#events.ackReceipt(ackId, error);
      return;
    }
    this.#durableAckId = Math.max(this.#durableAckId, ackId);
    if (this.#receiptScheduled) return;
    this.#receiptScheduled = true;
    this.#clock.nextTurn(() => {
      this.#receiptScheduled = false;
      this.#tellReceipt();
      this.#closeWhenDone();
    });
  }

  #tellReceipt(): void {
    if (this.#gone || this.#durableAckId <= this.#toldAckId) return;
    this.#toldAckId = this.#durableAckId;
    this.#events.ackReceipt(this.#durableAckId, undefined);
  }

  #closeWhenDone(): void {
    const close = this.#close;
    if (close === undefined || this.#closing || this.#gone || this.underWay > 1) return;
    this.#closing = true;
    const consumer = this.#consumer;
    if (consumer === undefined || !close.unsubscribe) {
      this.end(undefined);
      return;
    }
    consumer.detach();
    consumer.unsubscribe().then(
      () => this.end(undefined),
      (error: unknown) => this.end(toMagnetarError(error)),
    );
  }
}
