import type { ServerDuplexStream } from '@grpc/grpc-js';
import { IndexSet } from '../../lib/collections/index-set.ts';
import type { MessageIndex } from '../../lib/ids.ts';
import { consumeRequest } from '../../wire/consume-codec.ts';
import type { Ack, ConsumeRequest, ConsumeResponse, Position, Seek, Subscribe } from '../../wire/frames.ts';
import type { FakeBroker, FakeEntry, FakeTopic } from './fake-broker.ts';

/** Its topics and subscriptions are always the same ones. */
const IDENTITIES = { topicIdentity: 't', subscriptionIdentity: 's' };

interface Receiver {
  readonly number: number;
  readonly topic: FakeTopic;
  readonly subscription: string;
  acked: IndexSet;
  /** The next entry to look at. */
  next: number;
  messages: number;
  bytes: number;
  caughtUp: boolean;
  readonly stop: () => void;
}

/** A consume stream of the fake broker. */
export class FakeConsumeStream {
  /** Every Ack that came, in order. */
  readonly acks: Ack[] = [];
  readonly subscribes: Subscribe[] = [];
  readonly #broker: FakeBroker;
  readonly #call: ServerDuplexStream<Buffer, ConsumeResponse>;
  readonly #receivers = new Map<number, Receiver>();
  #ackItems: number;

  constructor(broker: FakeBroker, call: ServerDuplexStream<Buffer, ConsumeResponse>) {
    this.#broker = broker;
    this.#call = call;
    this.#ackItems = broker.limits.ackItems;
    call.on('data', (bytes: Buffer) => this.#frame(consumeRequest.decode(bytes)));
    call.on('end', () => call.end());
    call.on('error', () => {});
    call.on('close', () => this.#gone());
    call.on('cancelled', () => this.#gone());
  }

  #gone(): void {
    for (const receiver of this.#receivers.values()) receiver.stop();
    this.#receivers.clear();
  }

  /** Sends a frame of the test's making. */
  send(frame: ConsumeResponse): void {
    this.#call.write(frame);
  }

  /** Closes every consumer of the stream. */
  closeConsumers(code: string, retryable: boolean): void {
    const error = { code, message: 'closed by the test', retryable, details: {} };
    const closed = [...this.#receivers.keys()].map((consumer) => ({ consumer, error }));
    this.#gone();
    this.send({ closed });
  }

  #frame(frame: ConsumeRequest): void {
    if (frame.hello !== undefined && this.#broker.hooks.greet()) {
      this.send({ hello: this.#broker.hello(this.#ackItems, 0) });
    }
    for (const subscribe of frame.subscribes ?? []) this.#subscribe(subscribe);
    for (const flow of frame.flows ?? []) {
      const receiver = this.#receivers.get(flow.consumer);
      if (receiver === undefined) continue;
      receiver.messages += flow.messages;
      receiver.bytes += flow.bytes;
      this.#dispatch(receiver);
    }
    for (const ack of frame.acks ?? []) this.#ack(ack);
    for (const seek of frame.seeks ?? []) this.#seek(seek);
    for (const { consumer, unsubscribe } of frame.closes ?? []) {
      const receiver = this.#receivers.get(consumer);
      if (receiver === undefined) continue;
      if (unsubscribe) receiver.topic.subscriptions.delete(receiver.subscription);
      receiver.stop();
      this.#receivers.delete(consumer);
      this.send({ closed: [{ consumer }] });
    }
  }

  #subscribe(subscribe: Subscribe): void {
    this.subscribes.push(subscribe);
    const { consumer: number, subscription, start } = subscribe;
    const refusal = this.#broker.hooks.subscribe(subscribe);
    if (refusal !== undefined) {
      const error = { message: 'refused', details: {}, ...refusal };
      const nowhere = { name: '', nextIndex: 0 as MessageIndex, endIndex: 0 as MessageIndex, moves: 0 };
      this.send({ subscribed: [{ consumer: number, error, ...nowhere, ...IDENTITIES }] });
      return;
    }
    const topic = this.#broker.topic(subscribe.topic);
    let acked = subscription === '' ? undefined : topic.subscriptions.get(subscription);
    if (acked === undefined) {
      acked = before(topic, start ?? { at: 'latest' });
      if (subscription !== '') topic.subscriptions.set(subscription, acked);
    }
    const stop = topic.onAppended(() => this.#dispatch(receiver));
    const receiver: Receiver = {
      number,
      topic,
      subscription,
      acked,
      next: 0,
      messages: 0,
      bytes: 0,
      caughtUp: false,
      stop,
    };
    this.#receivers.set(number, receiver);
    const name = subscribe.name === '' ? this.#broker.makeName() : subscribe.name;
    const nextIndex = Math.min(acked.nextUnset(0), topic.end) as MessageIndex;
    const moves = topic.moves.get(subscription) ?? 0;
    this.send({ subscribed: [{ consumer: number, name, nextIndex, endIndex: topic.end, moves, ...IDENTITIES }] });
  }

  #dispatch(receiver: Receiver): void {
    const { topic } = receiver;
    while (receiver.next < topic.entries.length) {
      const entry = topic.entries[receiver.next] as FakeEntry;
      const acked = receiver.acked.countIn(entry.index, entry.index + entry.count);
      if (acked < entry.count) {
        if (receiver.messages <= 0 || receiver.bytes <= 0) return;
        if (entry.lost) {
          const { ledgerId, entryId, index, count } = entry;
          const lastIndex = (index + count - 1) as MessageIndex;
          const details = { firstIndex: String(index), lastIndex: String(lastIndex) };
          const error = { code: 'DATA_LOSS', message: `entry ${entryId} is lost`, retryable: false, details };
          const place = { ledgerId, firstEntryId: entryId, lastEntryId: entryId };
          this.send({ losses: [{ consumer: receiver.number, firstIndex: index, lastIndex, ...place, error }] });
          receiver.next++;
          continue;
        }
        receiver.messages -= entry.count - acked;
        receiver.bytes -= entry.block.length;
        this.#deliver(receiver, entry);
      }
      receiver.next++;
      receiver.caughtUp = false;
    }
    if (receiver.caughtUp) return;
    receiver.caughtUp = true;
    this.send({ caughtUp: [{ consumer: receiver.number, index: topic.end }] });
  }

  #deliver({ number, acked }: Receiver, entry: FakeEntry): void {
    const { ledgerId, entryId, index, count, crc32c, block } = entry;
    const skip = Buffer.alloc(acked.countIn(index, index + count) === 0 ? 0 : Math.ceil(count / 8));
    for (let i = 0; i < count; i++) {
      if (acked.has(index + i)) skip[i >>> 3] = (skip[i >>> 3] ?? 0) | (1 << (i & 7));
    }
    const place = { ledgerId, entryId, index, appendTime: 1_000, redeliveries: 0 };
    this.send({ deliveries: [{ consumer: number, ...place, crc32c, skip, block }] });
  }

  #ack(ack: Ack): void {
    this.acks.push(ack);
    if (--this.#ackItems < 0) this.#broker.violated('credit for acks overdrawn');
    const receiver = this.#receivers.get(ack.consumer);
    if (receiver === undefined) {
      this.#broker.violated(`an ack for consumer ${ack.consumer}, which is not open`);
      return;
    }
    const fate = this.#broker.hooks.ack();
    const credit = { items: 1, bytes: 0 };
    if (typeof fate === 'object') {
      const error = { code: fate.refuse, message: 'refused by the test', retryable: fate.retryable, details: {} };
      this.#ackItems++;
      this.send({ ackReceipts: [{ consumer: ack.consumer, ackId: ack.ackId, error }], credit });
      return;
    }
    receiver.acked.add(0, ack.below);
    for (let i = 0; i < ack.ranges.length; i += 2) {
      const from = ack.ranges[i] as number;
      receiver.acked.add(from, from + (ack.ranges[i + 1] as number));
    }
    if (fate === 'confirmSilently') return;
    this.#ackItems++;
    this.send({ ackReceipts: [{ consumer: ack.consumer, ackId: ack.ackId }], credit });
  }

  #seek({ consumer, seekId, to }: Seek): void {
    const receiver = this.#receivers.get(consumer);
    if (receiver === undefined) return;
    if (to.at === 'messageId' && to.id.ledgerId !== 7) {
      if (!this.#broker.hooks.answerSeek()) return;
      const error = { code: 'POSITION_NOT_FOUND', message: 'no such ledger', retryable: false, details: {} };
      this.send({ seeksDone: [{ consumer, seekId, error, nextIndex: 0 as MessageIndex, moves: 0 }] });
      return;
    }
    receiver.acked = before(receiver.topic, to);
    const moves = receiver.subscription === '' ? 0 : (receiver.topic.moves.get(receiver.subscription) ?? 0) + 1;
    if (receiver.subscription !== '') {
      receiver.topic.subscriptions.set(receiver.subscription, receiver.acked);
      receiver.topic.moves.set(receiver.subscription, moves);
    }
    receiver.next = 0;
    receiver.messages = 0;
    receiver.bytes = 0;
    receiver.caughtUp = false;
    if (!this.#broker.hooks.answerSeek()) return;
    this.send({ seeksDone: [{ consumer, seekId, nextIndex: receiver.acked.nextUnset(0) as MessageIndex, moves }] });
  }
}

/** The indexes before a position. */
function before(topic: FakeTopic, at: Position): IndexSet {
  const set = new IndexSet();
  switch (at.at) {
    case 'latest':
      set.add(0, topic.end);
      break;
    case 'index':
      set.add(0, at.index);
      break;
    case 'messageId': {
      const { index, entryId, batchIndex } = at.id;
      set.add(0, index ?? (topic.entries[entryId]?.index ?? 0) + batchIndex);
      break;
    }
    case 'earliest':
    case 'time':
      break;
  }
  return set;
}
