/**
 * One producer of a publish stream: batches wait while it is being opened, receipts go out in the order of the batches,
 * and after a batch that failed the later ones are refused until it is opened again.
 */
import { assert } from '../../lib/assert.ts';
import { Deque } from '../../lib/collections/deque.ts';
import { MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import { decodeBlock } from '../../wire/block.ts';
import type { PublishBatch } from '../../wire/frames.ts';
import { isOfBatchAlone, type PublishResult, refused, type TopicProducer } from '../topic/publisher.ts';

/** What a producer tells its stream. */
export interface ProducerEvents {
  /** A batch is answered, which was received at a monotonic time; in order. */
  receipt(result: PublishResult, receivedAt: number): void;
  /** A batch has left: its bytes and its credit are free again. After its receipt, if there is one. */
  released(bytes: number): void;
  /** It is closed as the client asked, or because of an error. Nothing comes after this. */
  closed(error: MagnetarError | undefined): void;
  /** A block cannot be read. */
  violation(error: MagnetarError): void;
}

/** A batch that came before its producer was open. */
interface Arrival {
  readonly batch: PublishBatch;
  readonly receivedAt: number;
}

/** A batch that was not answered yet. */
interface Ticket {
  readonly bytes: number;
  readonly receivedAt: number;
  result: PublishResult | undefined;
}

export class ProducerSession {
  readonly #events: ProducerEvents;
  #producer: TopicProducer | undefined;
  /** The client has been told that it is open. */
  #open = false;
  /** Batches that came before the producer was open. */
  readonly #waiting: Deque<Arrival> = new Deque();
  readonly #tickets: Deque<Ticket> = new Deque();
  #aborted = false;
  #closeAsked = false;
  #gone = false;

  constructor(events: ProducerEvents) {
    this.#events = events;
  }

  /** Batches, and the opening itself, that are not answered. */
  get underWay(): number {
    return this.#waiting.length + this.#tickets.length + (this.#open ? 0 : 1);
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** The client has closed it before it was open, and sent nothing that is to be stored first: it must not hold its name. */
  get withdrawn(): boolean {
    return this.#closeAsked && !this.#open && this.#waiting.length === 0;
  }

  /** The topic has granted it the name; batches go on waiting. */
  granted(producer: TopicProducer): void {
    this.#producer = producer;
  }

  /** It is granted, and the client has been told. */
  opened(): void {
    const producer = this.#producer;
    assert(producer !== undefined, 'a producer is granted before it is open');
    this.#open = true;
    for (let next = this.#waiting.shift(); next !== undefined && !this.#gone; next = this.#waiting.shift()) {
      this.#submit(producer, next.batch, next.receivedAt);
    }
    this.#closeWhenDone();
  }

  /** @throws PROTOCOL_VIOLATION after CloseProducer */
  publish(batch: PublishBatch, receivedAt: number): void {
    if (this.#closeAsked) throw new MagnetarError('PROTOCOL_VIOLATION', 'a batch came for a producer after its close');
    if (this.#producer === undefined || !this.#open) this.#waiting.push({ batch, receivedAt });
    else this.#submit(this.#producer, batch, receivedAt);
  }

  /** The client closes it: once everything is answered. */
  close(): void {
    this.#closeAsked = true;
    if (this.withdrawn && this.#producer !== undefined) this.end(undefined);
    else this.#closeWhenDone();
  }

  /** It ends now. Batches that are not answered stay so; they may be stored. */
  end(error: MagnetarError | undefined): void {
    if (this.#gone) return;
    this.drop();
    this.#events.closed(error);
  }

  /** It ends now, and the stream is not told. */
  drop(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#producer?.detach();
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      this.#events.released(next.batch.block.length);
    }
  }

  #submit(producer: TopicProducer, batch: PublishBatch, receivedAt: number): void {
    const ticket: Ticket = { bytes: batch.block.length, receivedAt, result: undefined };
    this.#tickets.push(ticket);
    try {
      if (this.#aborted) this.#settle(ticket, abortedResult(producer, batch));
      else if (!producer.publish(batch, (result) => this.#settle(ticket, result))) this.#aborted = true;
    } catch (error) {
      this.#events.released(ticket.bytes); // nobody will settle it
      this.#events.violation(toMagnetarError(error));
    }
  }

  #settle(ticket: Ticket, result: PublishResult): void {
    ticket.result = result;
    if (result.error !== undefined && !isOfBatchAlone(result.error)) this.#aborted = true;
    for (let first = this.#tickets.peek(); first?.result !== undefined; first = this.#tickets.peek()) {
      this.#tickets.shift();
      if (!this.#gone) this.#events.receipt(first.result, first.receivedAt);
      this.#events.released(first.bytes);
    }
    this.#closeWhenDone();
  }

  #closeWhenDone(): void {
    if (this.#closeAsked && !this.#gone && this.underWay === 0) this.end(undefined);
  }
}

function abortedResult(producer: TopicProducer, batch: PublishBatch): PublishResult {
  const text = `a batch before this one of producer "${producer.name}" was not stored; open the producer again`;
  return refused(decodeBlock(batch.block).lastSequenceId, new MagnetarError('BATCH_ABORTED', text));
}
