/** The consume stream of one connection. */
import type { ServerDuplexStream } from '@grpc/grpc-js';

import { Deque } from '../../lib/collections/deque.ts';
import { MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import type { MessageIndex } from '../../lib/ids.ts';
import { consumeRequest } from '../../wire/consume-codec.ts';
import type {
  Ack,
  CloseConsumer,
  ConsumeRequest,
  ConsumeResponse,
  Delivery,
  Flow,
  Loss,
  Seek,
  Subscribe,
} from '../../wire/frames.ts';
import { FrameGate } from '../../wire/frame-gate.ts';
import { SendWindow } from '../../wire/send-window.ts';
import { toWireError } from '../../wire/status.ts';
import { parseTopicName } from '../protocol/topic-name.ts';
import type { PendingRead } from '../topic/consumer.ts';
import { endOf, type LogEntry, type LogLoss } from '../topic/log-entry.ts';
import type { Topic } from '../topic/topic.ts';
import { topicNotFound } from '../topic/topic-deletion.ts';
import { EndedNumbers } from './ended-numbers.ts';
import { type ConsumeItem, toConsumeResponse } from './consume-frame.ts';
import { ConsumerSession } from './consumer-session.ts';
import type { SessionDependencies } from './publish-session.ts';
import { serverHello, SessionStream } from './session-stream.ts';

const NO_SKIP: Buffer = Buffer.alloc(0);
/** What a delivery takes besides its block, about. */
const DELIVERY_BYTES: number = 64;
/** What an acknowledgment takes, about, and each number of its ranges. */
const ACK_BYTES: number = 128;
const ACK_NUMBER_BYTES: number = 16;
/** What a loss takes, about. */
const LOSS_BYTES: number = 1_024;

export class ConsumeSession {
  readonly #dependencies: SessionDependencies;
  readonly #stream: SessionStream<ConsumeItem, ConsumeResponse>;
  readonly #consumers: Map<number, ConsumerSession> = new Map();
  /** Consumers that have ended: what was sent to them before the client knew of it is passed over. */
  readonly #ended: EndedNumbers;
  readonly #gate: FrameGate<ConsumeRequest>;
  /** What was read for this stream and its client has not taken. */
  readonly #window: SendWindow;
  /** Reads that wait for room in the window. */
  readonly #reads: Deque<PendingRead> = new Deque();
  #runScheduled = false;
  /** Memory of acknowledgments that are not answered. */
  #ackBytes = 0;
  #ackCredit: number;
  #acksBack = 0;
  #creditQueued = false;
  /** Set when nothing more is taken in: how the stream ends once everything is answered. */
  #ending: { readonly error: MagnetarError | undefined } | undefined;
  readonly #onGone: (session: ConsumeSession) => void;

  constructor(
    call: ServerDuplexStream<Buffer, ConsumeResponse>,
    dependencies: SessionDependencies,
    onGone: (session: ConsumeSession) => void,
  ) {
    const { options, clock, logger, memory, stats } = dependencies;
    this.#dependencies = dependencies;
    this.#ackCredit = options.ackWindowItems;
    this.#ended = new EndedNumbers(options.maxPerStream);
    this.#onGone = onGone;
    this.#stream = new SessionStream(
      call,
      { clock, logger, handshakeMs: options.handshakeMs, onFailed: (code) => stats.errors.add('consume_stream', code) },
      {
        toFrame: (items) => toConsumeResponse(items, this.#takeCredit()),
        hello: (hello) => ({ hello: serverHello(hello, options, { items: options.ackWindowItems, bytes: 0 }) }),
        frame: (bytes) => this.#gate.enter(bytes),
        halfClosed: () => {
          this.#ending ??= { error: undefined };
          this.#endWhenDone();
        },
        gone: () => this.#gone(),
        drained: () => this.#runReads(),
        taken: (bytes) => this.#window.taken(bytes),
      },
    );
    this.#gate = new FrameGate({
      share: memory.ack,
      decode: consumeRequest.decode,
      cost: (frame) => this.#cost(frame),
      run: (frame) => this.#run(frame),
      attempt: (work) => this.#stream.attempt(work),
      fail: (error) => this.#stream.fail(toMagnetarError(error)),
      read: (on) => {
        if (!on || this.#ending === undefined) this.#stream.read(on);
        if (on) this.#endWhenDone();
      },
    });
    this.#window = new SendWindow({
      guard: memory.read,
      firstGuard: memory.firstRead,
      mostBytes: options.deliveryWindowBytes,
      onRoom: () => this.#runReads(),
      end: (error) => this.#stream.fail(error),
    });
  }

  /** Acks, seeks and openings that are not answered. */
  get underWay(): number {
    let count = this.#gate.waiting;
    for (const consumer of this.#consumers.values()) count += consumer.underWay;
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

  /** What the acknowledgments of a frame cost. @throws PROTOCOL_VIOLATION, CREDIT_EXCEEDED */
  #cost(frame: ConsumeRequest): number {
    this.#stream.greet(frame.hello);
    let bytes = 0;
    for (const ack of frame.acks ?? []) {
      this.#ackCredit--;
      bytes += ackBytes(ack);
    }
    if (this.#ackCredit >= 0) return bytes;
    const { ackWindowItems } = this.#dependencies.options;
    const text = `an Ack came without credit; at most ${ackWindowItems} may be under way`;
    throw new MagnetarError('CREDIT_EXCEEDED', text);
  }

  /** The fields of a frame in the order of their numbers. */
  #run(frame: ConsumeRequest): void {
    for (const ack of frame.acks ?? []) this.#ackBytes += ackBytes(ack);
    for (const subscribe of frame.subscribes ?? []) this.#subscribe(subscribe);
    for (const flow of frame.flows ?? []) this.#flow(flow);
    for (const ack of frame.acks ?? []) this.#ack(ack);
    for (const seek of frame.seeks ?? []) this.#seek(seek);
    for (const close of frame.closes ?? []) this.#close(close);
  }

  #subscribe(subscribe: Subscribe): void {
    const number = subscribe.consumer;
    if (this.#consumers.has(number)) throw violation(`Subscribe names consumer ${number}, which is in use`);
    const { maxPerStream } = this.#dependencies.options;
    this.#stream.checkRefusals(maxPerStream, 'consumers');
    if (this.#consumers.size >= maxPerStream) {
      const text = `a stream may have ${maxPerStream} consumers; open another stream`;
      this.#refuse(number, new MagnetarError('QUEUE_FULL', text));
      return;
    }
    this.#ended.delete(number);
    const session = new ConsumerSession(this.#dependencies.clock, {
      ackReceipt: (ackId, error) => {
        if (error !== undefined) this.#dependencies.stats.errors.add('acknowledge', error.code);
        const receipt = { consumer: number, ackId };
        this.#stream.push({
          kind: 'ackReceipt',
          receipt: error === undefined ? receipt : { ...receipt, error: toWireError(error) },
        });
      },
      ackDone: (ack) => this.#ackDone(ack),
      seekDone: (seekId, result, moves) => this.#seekDone(number, { seekId, result, moves }),
      closed: (error) => this.#closed(number, error),
    });
    this.#consumers.set(number, session);
    void this.#attach(session, subscribe);
  }

  async #attach(session: ConsumerSession, subscribe: Subscribe): Promise<void> {
    const { consumer: number, subscription, type, start, name } = subscribe;
    try {
      const topic = await this.#topicOf(subscribe);
      if (session.gone) return;
      const instance = subscribe.instance.toString('latin1'); // the smallest that keeps it: it is there as long as the consumer
      const { client } = this.#stream;
      const sink = {
        whenRoom: (read: PendingRead) => this.#whenRoom(read),
        deliver: (entry: LogEntry, skip: Buffer | undefined, times: number) =>
          this.#deliver(number, entry, skip, times),
        lost: (loss: LogLoss, from: MessageIndex, error: MagnetarError) => this.#lost(number, loss, from, error),
        caughtUp: (index: MessageIndex) =>
          this.#stream.push({ kind: 'caughtUp', caughtUp: { consumer: number, index } }),
        closed: (error: MagnetarError) => session.end(error),
      };
      const { withdrawn } = session;
      const request = { subscription, type, start, name, instance, client, withdrawn, sink };
      const consumer = await topic.consumers.attach(request);
      if (withdrawn.aborted) session.end(undefined);
      if (session.gone) {
        consumer.detach();
        return;
      }
      this.#stream.push({
        kind: 'subscribed',
        subscribed: {
          consumer: number,
          name: consumer.name,
          nextIndex: consumer.nextIndex,
          endIndex: topic.reader.endIndex,
          moves: consumer.moves,
          topicIdentity: topic.identity,
          subscriptionIdentity: consumer.subscriptionIdentity,
        },
      });
      session.opened(consumer);
    } catch (error) {
      if (session.withdrawn.aborted) session.end(undefined);
      if (session.gone) return;
      session.drop();
      this.#consumers.delete(number);
      this.#refuse(number, toMagnetarError(error));
    }
    this.#endWhenDone();
  }

  /** To whoever was in a topic before, another one of its name is none. @throws TOPIC_NOT_FOUND; what opening throws */
  async #topicOf({ topic, topicIdentity }: Subscribe): Promise<Topic> {
    const [name, topics] = [parseTopicName(topic), this.#dependencies.topics()];
    if (topicIdentity === '') return topics.open(name);
    const found = await topics.openExisting(name);
    if (found.identity === topicIdentity) return found;
    throw topicNotFound(name, 'was deleted; there is another one of its name');
  }

  #refuse(number: number, error: MagnetarError): void {
    this.#dependencies.stats.errors.add('subscribe', error.code);
    this.#ended.add(number);
    const nowhere = { name: '', nextIndex: 0 as MessageIndex, endIndex: 0 as MessageIndex, moves: 0 };
    const ofNothing = { ...nowhere, topicIdentity: '', subscriptionIdentity: '' };
    this.#stream.refuse({
      kind: 'subscribed',
      subscribed: { consumer: number, error: toWireError(error), ...ofNothing },
    });
  }

  #flow(flow: Flow): void {
    this.#session(flow.consumer, 'Flow')?.flow(flow.messages, flow.bytes);
  }

  #ack(ack: Ack): void {
    const session = this.#session(ack.consumer, 'Ack');
    if (session === undefined) this.#ackDone(ack);
    else session.ack(ack);
  }

  #seek(seek: Seek): void {
    this.#session(seek.consumer, 'Seek')?.seek(seek.seekId, seek.to);
  }

  #close(close: CloseConsumer): void {
    this.#session(close.consumer, 'CloseConsumer')?.close(close.unsubscribe);
  }

  /** The consumer of a number; undefined when it has just ended from this side. @throws PROTOCOL_VIOLATION */
  #session(number: number, what: string): ConsumerSession | undefined {
    const session = this.#consumers.get(number);
    if (session === undefined && !this.#ended.has(number)) {
      throw violation(`${what} names consumer ${number}, which is not open`);
    }
    return session;
  }

  #deliver(number: number, entry: LogEntry, skip: Buffer | undefined, redeliveries: number): void {
    const delivery: Delivery = {
      consumer: number,
      ledgerId: entry.ledgerId,
      entryId: entry.entryId,
      index: entry.index,
      appendTime: entry.appendTime,
      crc32c: entry.blockCrc32c,
      skip: skip ?? NO_SKIP,
      block: entry.block,
      redeliveries,
    };
    const bytes = entry.block.length + DELIVERY_BYTES;
    this.#window.add(bytes);
    this.#stream.push({ kind: 'delivery', delivery }, bytes);
  }

  #lost(number: number, lost: LogLoss, from: MessageIndex, error: MagnetarError): void {
    const { ledgerId, entryId, lastEntryId } = lost;
    const lastIndex = (endOf(lost) - 1) as MessageIndex;
    const place = { ledgerId, firstEntryId: entryId, ...(lastEntryId === undefined ? {} : { lastEntryId }) };
    const loss: Loss = { consumer: number, firstIndex: from, lastIndex, ...place, error: toWireError(error) };
    this.#window.add(LOSS_BYTES);
    this.#stream.push({ kind: 'loss', loss }, LOSS_BYTES);
  }

  #whenRoom(read: PendingRead): void {
    if (this.#reads.length > 0 || !this.#tryRead(read)) this.#reads.push(read);
  }

  /** Reads when there is room for it. */
  #tryRead({ wantedBytes, leastBytes, run }: PendingRead): boolean {
    if (this.#stream.blocked) return false;
    const room = this.#window.reserve(wantedBytes + DELIVERY_BYTES, leastBytes + DELIVERY_BYTES);
    if (room === 0) return false;
    const delivered = run(room);
    // What was delivered is charged by itself.
    if (delivered === undefined) this.#window.cancel(room);
    else {
      const done = (): void => {
        this.#window.cancel(room);
        this.#runReads();
      };
      void delivered.then(done, done);
    }
    return true;
  }

  #runReads(): void {
    // A read that is done at once delivers at once, and may ask for the next, which then waits behind the others.
    for (let left = this.#reads.length; left > 0; left--) {
      const read = this.#reads.peek();
      if (read === undefined || !this.#tryRead(read)) return;
      this.#reads.shift();
    }
    if (this.#reads.length === 0 || this.#runScheduled) return;
    this.#runScheduled = true;
    this.#dependencies.clock.nextTurn(() => {
      this.#runScheduled = false;
      this.#runReads();
    });
  }

  #ackDone(ack: Ack): void {
    if (!this.#stream.open) return;
    const bytes = ackBytes(ack);
    this.#ackBytes -= bytes;
    this.#dependencies.memory.ack.give(bytes);
    this.#acksBack++;
    if (!this.#creditQueued) {
      this.#creditQueued = true;
      this.#stream.push({ kind: 'credit' });
    }
    if (this.#ending !== undefined) this.#dependencies.clock.nextTurn(() => this.#endWhenDone());
  }

  #takeCredit(): number {
    const back = this.#acksBack;
    this.#creditQueued = false;
    this.#acksBack = 0;
    this.#ackCredit += back;
    return back;
  }

  #seekDone(
    number: number,
    { seekId, result, moves }: { seekId: number; result: MessageIndex | MagnetarError; moves: number },
  ): void {
    const base = { consumer: number, seekId, moves };
    if (result instanceof MagnetarError) this.#dependencies.stats.errors.add('seek', result.code);
    this.#stream.push({
      kind: 'seekDone',
      seekDone:
        result instanceof MagnetarError
          ? { ...base, error: toWireError(result), nextIndex: 0 as MessageIndex }
          : { ...base, nextIndex: result },
    });
    this.#endWhenDone();
  }

  #closed(number: number, error: MagnetarError | undefined): void {
    this.#consumers.delete(number);
    this.#ended.add(number);
    if (error !== undefined) this.#dependencies.stats.errors.add('consumer', error.code);
    const closed = error === undefined ? { consumer: number } : { consumer: number, error: toWireError(error) };
    this.#stream.push({ kind: 'closed', closed });
    this.#endWhenDone();
  }

  #endWhenDone(): void {
    if (this.#ending === undefined || !this.#stream.open || this.underWay > 0) return;
    if (this.#ending.error === undefined) this.#stream.end();
    else this.#stream.fail(this.#ending.error);
  }

  #gone(): void {
    this.#gate.close();
    this.#window.close();
    this.#dependencies.memory.ack.give(this.#ackBytes);
    this.#reads.clear();
    for (const consumer of this.#consumers.values()) consumer.drop();
    this.#consumers.clear();
    this.#onGone(this);
  }
}

function ackBytes(ack: Ack): number {
  return ACK_BYTES + ack.ranges.length * ACK_NUMBER_BYTES;
}

function violation(text: string): MagnetarError {
  return new MagnetarError('PROTOCOL_VIOLATION', text);
}
