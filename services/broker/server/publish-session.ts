/** The publish stream of one connection. */
import type { ServerDuplexStream } from '@grpc/grpc-js';

import { MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import { unpinned } from '../../lib/views.ts';
import type { ByteShare } from '../../runtime/byte-budget.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Logger } from '../../runtime/logger.ts';
import type { StallGuard } from '../../runtime/stall-guard.ts';
import { FrameGate } from '../../wire/frame-gate.ts';
import type {
  OpenProducer,
  ProducerClosed,
  ProducerOpened,
  PublishBatch,
  PublishRequest,
  PublishResponse,
  Receipt,
} from '../../wire/frames.ts';
import { publishRequest } from '../../wire/publish-codec.ts';
import { toWireError } from '../../wire/status.ts';
import type { BrokerStats } from '../metrics/broker-stats.ts';
import type { BrokerOptions } from '../options.ts';
import { parseTopicName } from '../protocol/topic-name.ts';
import { PRODUCER_EPOCH, type PublishResult } from '../topic/publisher.ts';
import type { Topics } from '../topic/topics.ts';
import { EndedNumbers } from './ended-numbers.ts';
import { ProducerSession } from './producer-session.ts';
import { serverHello, SessionStream } from './session-stream.ts';

/** What of the process's memory sessions use. */
interface SessionMemory {
  /** Batches that were taken in and are not answered. */
  readonly write: ByteShare;
  /** Acknowledgments that are not answered. */
  readonly ack: ByteShare;
  /** Entries that were read for consumers, which have not taken them. */
  readonly read: StallGuard;
  /** The same, of those who have never taken much. */
  readonly firstRead: StallGuard;
}

/** What sessions share. */
export interface SessionDependencies {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly options: BrokerOptions;
  readonly stats: BrokerStats;
  readonly memory: SessionMemory;
  /** The topics as they are now: others after the lease was lost. */
  readonly topics: () => Topics;
}

/** Something to say; a credit alone has nothing in it. */
type Item =
  | { readonly kind: 'opened'; readonly opened: ProducerOpened }
  | { readonly kind: 'receipt'; readonly receipt: Receipt; readonly receivedAt: number }
  | { readonly kind: 'closed'; readonly closed: ProducerClosed }
  | { readonly kind: 'credit' };

export class PublishSession {
  readonly #dependencies: SessionDependencies;
  readonly #stream: SessionStream<Item, PublishResponse>;
  readonly #producers: Map<number, ProducerSession> = new Map();
  /** Producers that ended from this side: batches that were sent before the client knew of it are dropped. */
  readonly #ended: EndedNumbers;
  /** What the client may still send. */
  #itemCredit: number;
  #byteCredit: number;
  /** Credit to give back with the next frame. */
  #itemsBack = 0;
  #bytesBack = 0;
  #creditQueued = false;
  readonly #gate: FrameGate<PublishRequest>;
  /** Set when nothing more is taken in: how the stream ends once everything is answered. */
  #ending: { readonly error: MagnetarError | undefined } | undefined;
  readonly #onGone: (session: PublishSession) => void;

  constructor(
    call: ServerDuplexStream<Buffer, PublishResponse>,
    dependencies: SessionDependencies,
    onGone: (session: PublishSession) => void,
  ) {
    const { options, clock, logger, memory, stats } = dependencies;
    this.#dependencies = dependencies;
    this.#itemCredit = options.publishWindowItems;
    this.#ended = new EndedNumbers(options.maxPerStream);
    this.#byteCredit = options.publishWindowBytes;
    this.#onGone = onGone;
    this.#stream = new SessionStream(
      call,
      { clock, logger, handshakeMs: options.handshakeMs, onFailed: (code) => stats.errors.add('publish_stream', code) },
      {
        toFrame: (items) => this.#toFrame(items),
        hello: (hello) => ({
          hello: serverHello(hello, options, { items: options.publishWindowItems, bytes: options.publishWindowBytes }),
        }),
        frame: (bytes) => this.#gate.enter(bytes, clock.monotonic()),
        halfClosed: () => {
          this.#ending ??= { error: undefined };
          this.#endWhenDone();
        },
        gone: () => this.#gone(),
      },
    );
    this.#gate = new FrameGate({
      share: memory.write,
      decode: decodeFrame,
      cost: (frame) => this.#cost(frame),
      run: (frame, receivedAt) => this.#run(frame, receivedAt),
      attempt: (work) => this.#stream.attempt(work),
      fail: (error) => this.#stream.fail(toMagnetarError(error)),
      read: (on) => this.#readOn(on),
    });
  }

  /** Batches that are not answered. */
  get underWay(): number {
    let count = this.#gate.waiting;
    for (const producer of this.#producers.values()) count += producer.underWay;
    return count;
  }

  /** Takes nothing more in, answers what is under way, and ends the stream with this error. */
  stop(error: MagnetarError): void {
    this.#ending = { error };
    this.#stream.read(false);
    this.#endWhenDone();
  }

  /** Ends the stream with this error, now. */
  fail(error: MagnetarError): void {
    this.#stream.fail(error);
  }

  /** What a frame costs. @throws PROTOCOL_VIOLATION, CREDIT_EXCEEDED */
  #cost(frame: PublishRequest): number {
    this.#stream.greet(frame.hello);
    const batches = frame.batches ?? [];
    let bytes = 0;
    for (const batch of batches) bytes += batch.block.length;
    this.#charge(batches.length, bytes);
    return bytes;
  }

  /** After a wait for memory: unless nothing more is taken in. */
  #readOn(on: boolean): void {
    if (!on || this.#ending === undefined) this.#stream.read(on);
    if (on) this.#endWhenDone();
  }

  /** @throws CREDIT_EXCEEDED */
  #charge(items: number, bytes: number): void {
    this.#itemCredit -= items;
    this.#byteCredit -= bytes;
    if (this.#itemCredit >= 0 && this.#byteCredit >= 0) return;
    const had = `${this.#itemCredit + items} batches and ${this.#byteCredit + bytes} bytes`;
    throw new MagnetarError(
      'CREDIT_EXCEEDED',
      `${items} batches of ${bytes} bytes came where credit was left for ${had}`,
    );
  }

  /** The fields of a frame in the order of their numbers. Its batches are charged to the budget. */
  #run(frame: PublishRequest, receivedAt: number): void {
    const batches = frame.batches ?? [];
    let handedOn = 0;
    try {
      for (const open of frame.opens ?? []) this.#open(open);
      for (const batch of batches) {
        this.#publish(batch, receivedAt);
        handedOn++;
      }
    } catch (error) {
      // The batch at fault, and those behind it, were handed to nobody.
      for (const batch of batches.slice(handedOn)) this.#release(batch.block.length);
      throw error;
    }
    for (const { producer: number } of frame.closes ?? []) {
      const producer = this.#producers.get(number);
      if (producer !== undefined) producer.close();
      else if (!this.#ended.has(number)) throw violation(`CloseProducer names producer ${number}, which is not open`);
    }
  }

  #open(open: OpenProducer): void {
    const number = open.producer;
    if (this.#producers.has(number)) throw violation(`OpenProducer names producer ${number}, which is in use`);
    const { maxPerStream } = this.#dependencies.options;
    this.#stream.checkRefusals(maxPerStream, 'producers');
    if (this.#producers.size >= maxPerStream) {
      const error = new MagnetarError('QUEUE_FULL', `a stream may have ${maxPerStream} producers; open another stream`);
      this.#refuse(number, error);
      return;
    }
    this.#ended.delete(number);
    const session = new ProducerSession({
      receipt: (result, receivedAt) => this.#receipt(number, result, receivedAt),
      released: (bytes) => this.#release(bytes),
      closed: (error) => this.#closed(number, error),
      violation: (error) => this.#stream.fail(error),
    });
    this.#producers.set(number, session);
    void this.#attach(session, open);
  }

  async #attach(session: ProducerSession, open: OpenProducer): Promise<void> {
    const { producer: number, name, instance } = open;
    try {
      const topic = await this.#dependencies.topics().open(parseTopicName(open.topic));
      if (session.withdrawn) session.end(undefined); // not earlier: openings are bounded by the numbers in use
      if (session.gone) return;
      const producer = topic.publisher.attach({
        name,
        instance: instance.toString('latin1'), // the smallest that keeps it: it is there as long as the producer
        client: this.#stream.client,
        onClosed: (error) => session.end(error),
      });
      session.granted(producer);
      await producer.settled();
      if (session.gone) return;
      const lastSequenceId = producer.lastSequenceId;
      const opened = { producer: number, name: producer.name, epoch: PRODUCER_EPOCH };
      this.#stream.push({
        kind: 'opened',
        opened: lastSequenceId === undefined ? opened : { ...opened, lastSequenceId },
      });
      session.opened();
    } catch (error) {
      if (session.gone) return;
      this.#forget(number);
      session.drop();
      this.#refuse(number, toMagnetarError(error));
    }
    this.#endWhenDone();
  }

  #refuse(number: number, error: MagnetarError): void {
    this.#dependencies.stats.errors.add('open_producer', error.code);
    this.#ended.add(number);
    this.#stream.refuse({
      kind: 'opened',
      opened: { producer: number, error: toWireError(error), name: '', epoch: PRODUCER_EPOCH },
    });
  }

  #publish(batch: PublishBatch, receivedAt: number): void {
    const producer = this.#producers.get(batch.producer);
    if (producer !== undefined) producer.publish(batch, receivedAt);
    else if (this.#ended.has(batch.producer)) this.#release(batch.block.length);
    else throw violation(`a batch names producer ${batch.producer}, which is not open`);
  }

  #receipt(number: number, result: PublishResult, receivedAt: number): void {
    const { error, ...rest } = result;
    if (error !== undefined) this.#dependencies.stats.errors.add('publish', error.code);
    const receipt = { producer: number, ...rest };
    this.#stream.push({
      kind: 'receipt',
      receipt: error === undefined ? receipt : { ...receipt, error: toWireError(error) },
      receivedAt,
    });
  }

  /** A batch has left: its memory is free, and the client may send another. */
  #release(bytes: number): void {
    this.#dependencies.memory.write.give(bytes);
    this.#itemsBack++;
    this.#bytesBack += bytes;
    if (!this.#creditQueued) {
      this.#creditQueued = true;
      this.#stream.push({ kind: 'credit' });
    }
    if (this.#ending !== undefined) this.#dependencies.clock.nextTurn(() => this.#endWhenDone());
  }

  #closed(number: number, error: MagnetarError | undefined): void {
    this.#forget(number);
    if (error !== undefined) {
      this.#dependencies.stats.errors.add('producer', error.code);
      this.#ended.add(number);
    }
    const closed = error === undefined ? { producer: number } : { producer: number, error: toWireError(error) };
    this.#stream.push({ kind: 'closed', closed });
    this.#endWhenDone();
  }

  #forget(number: number): void {
    this.#producers.delete(number);
  }

  #toFrame(items: readonly Item[]): PublishResponse {
    const opened: ProducerOpened[] = [];
    const receipts: Receipt[] = [];
    const closed: ProducerClosed[] = [];
    const { clock, stats } = this.#dependencies;
    const now = clock.monotonic();
    for (const item of items) {
      if (item.kind === 'receipt') {
        receipts.push(item.receipt);
        stats.publishLatency.observe(now - item.receivedAt);
      } else if (item.kind === 'opened') opened.push(item.opened);
      else if (item.kind === 'closed') closed.push(item.closed);
    }
    this.#creditQueued = false;
    if (this.#itemsBack === 0) return { opened, receipts, closed };
    const credit = { items: this.#itemsBack, bytes: this.#bytesBack };
    this.#itemCredit += credit.items;
    this.#byteCredit += credit.bytes;
    this.#itemsBack = 0;
    this.#bytesBack = 0;
    return { opened, receipts, closed, credit };
  }

  #endWhenDone(): void {
    if (this.#ending === undefined || !this.#stream.open || this.underWay > 0) return;
    if (this.#ending.error === undefined) this.#stream.end();
    else this.#stream.fail(this.#ending.error);
  }

  #gone(): void {
    this.#gate.close();
    for (const producer of this.#producers.values()) producer.drop();
    this.#producers.clear();
    this.#onGone(this);
  }
}

/**
 * A frame of which no block pins much more than the budget is charged for: those that are small beside it have buffers of
 * their own, and all have when most of the frame is something else.
 */
function decodeFrame(whole: Buffer): PublishRequest {
  const frame = publishRequest.decode(whole);
  const { batches = [] } = frame;
  if (batches.length === 0) return frame;
  let bytes = 0;
  for (const batch of batches) bytes += batch.block.length;
  const share = bytes * 2 < whole.length ? 1 : undefined;
  const kept = batches.map((batch) => {
    const block = unpinned(batch.block, share);
    return block === batch.block ? batch : { ...batch, block };
  });
  return { ...frame, batches: kept };
}

function violation(text: string): MagnetarError {
  return new MagnetarError('PROTOCOL_VIOLATION', text);
}
