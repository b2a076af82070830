import type { MagnetarError } from '../lib/errors.ts';
import type { MessageIndex } from '../lib/ids.ts';
import { unpinned } from '../lib/views.ts';
import { consumeResponse } from '../wire/consume-codec.ts';
import type {
  Ack,
  AckReceipt,
  CaughtUp,
  CloseConsumer,
  ConsumeRequest,
  ConsumeResponse,
  ConsumerClosed,
  Delivery,
  Flow,
  Loss,
  Seek,
  SeekDone,
  Subscribe,
  Subscribed,
} from '../wire/frames.ts';
import { brokerService } from '../wire/services.ts';
import type { ChannelMember, ChannelOptions } from './channel.ts';
import { Channel } from './channel.ts';
import type { SealedAck } from './protocol/ack-window.ts';

/** A consumer or a reader, as the channel sees it. */
export interface ConsumeMember extends ChannelMember {
  /** Its number on the stream. */
  readonly number: number;
  subscribed(answer: Subscribed): void;
  delivery(delivery: Delivery): void;
  loss(loss: Loss): void;
  caughtUp(caughtUp: CaughtUp): void;
  ackReceipt(receipt: AckReceipt): void;
  seekDone(answer: SeekDone): void;
  closed(answer: ConsumerClosed): void;
  /** True when it has acknowledgments to send, and may. */
  readonly acksReady: boolean;
  /** The next one: it is sent. */
  nextAck(): SealedAck<unknown> | undefined;
}

type Item =
  | { readonly kind: 'subscribe'; readonly subscribe: Subscribe }
  | { readonly kind: 'flow'; readonly flow: Flow }
  | { readonly kind: 'ack'; readonly ack: Ack }
  | { readonly kind: 'seek'; readonly seek: Seek }
  | { readonly kind: 'close'; readonly close: CloseConsumer };

const SMALL_BYTES = 64;
const RANGE_BYTES = 12;

function toFrame(items: readonly Item[]): ConsumeRequest {
  const subscribes: Subscribe[] = [];
  const flows: Flow[] = [];
  const acks: Ack[] = [];
  const seeks: Seek[] = [];
  const closes: CloseConsumer[] = [];
  for (const item of items) {
    if (item.kind === 'ack') acks.push(item.ack);
    else if (item.kind === 'flow') flows.push(item.flow);
    else if (item.kind === 'subscribe') subscribes.push(item.subscribe);
    else if (item.kind === 'seek') seeks.push(item.seek);
    else closes.push(item.close);
  }
  return { subscribes, flows, acks, seeks, closes };
}

function indexOf(item: Delivery | Loss): number {
  return 'firstIndex' in item ? item.firstIndex : item.index;
}

/** Losses between the deliveries, where their indexes are. */
function inOrder(deliveries: readonly Delivery[], losses: readonly Loss[]): (Delivery | Loss)[] {
  return [...deliveries, ...losses].toSorted((a, b) => a.consumer - b.consumer || indexOf(a) - indexOf(b));
}

/** The consume stream of a client, which all its consumers and readers share. */
export class ConsumeChannel extends Channel<ConsumeMember, Item, ConsumeRequest, ConsumeResponse> {
  /** Members with acknowledgments to send, in turn. */
  readonly #ready = new Set<ConsumeMember>();

  constructor(options: ChannelOptions) {
    super(options, { method: brokerService.Consume, decode: consumeResponse.decode, frame: toFrame });
  }

  override detach(member: ConsumeMember): void {
    super.detach(member);
    this.#ready.delete(member);
  }

  /** Asks for a consumer to be opened; returns its number on this stream. */
  subscribe(member: ConsumeMember, fields: Omit<Subscribe, 'consumer'>): number {
    const consumer = this.number(member);
    this.flush(); // a close of the same consumer has to be in an earlier frame
    this.push({ kind: 'subscribe', subscribe: { consumer, ...fields } }, SMALL_BYTES + fields.topic.length);
    return consumer;
  }

  flow(flow: Flow): void {
    this.push({ kind: 'flow', flow }, SMALL_BYTES);
  }

  seek(seek: Seek): void {
    this.push({ kind: 'seek', seek }, SMALL_BYTES);
  }

  /** Asks for a consumer to be closed. Unless `answer` is wanted, nothing is heard of it any more. */
  close(close: CloseConsumer, answer: boolean): void {
    if (!answer) this.forget(close.consumer);
    this.push({ kind: 'close', close }, SMALL_BYTES);
  }

  /** The member has acknowledgments to send. */
  offerAcks(member: ConsumeMember): void {
    this.#ready.add(member);
    this.#pump();
  }

  /** Sends what members have, one Ack each in turn, as far as the credits go. */
  #pump(): void {
    if (!this.connected) return;
    for (const member of this.#ready) {
      if (!member.acksReady) {
        this.#ready.delete(member);
        continue;
      }
      if (!this.credits.take(1, 0)) return;
      const ack = member.nextAck();
      if (ack !== undefined) this.#send(member.number, ack);
      this.#ready.delete(member); // and again at the end: the iteration comes back to it
      this.#ready.add(member);
    }
  }

  #send(consumer: number, { ackId, below, ranges }: SealedAck<unknown>): void {
    const ack: Ack = { consumer, ackId, below: below as MessageIndex, ranges };
    this.push({ kind: 'ack', ack }, SMALL_BYTES + RANGE_BYTES * ranges.length);
  }

  protected override greeted(): void {
    // Nothing of the hello concerns consumers beside the credits.
  }

  override received(response: ConsumeResponse): void {
    for (const answer of response.subscribed ?? []) {
      const member = this.member(answer.consumer);
      if (answer.error !== undefined) this.forget(answer.consumer);
      member?.subscribed(answer);
    }
    this.#deliver(response.deliveries ?? [], response.losses ?? []);
    for (const caughtUp of response.caughtUp ?? []) this.member(caughtUp.consumer)?.caughtUp(caughtUp);
    for (const receipt of response.ackReceipts ?? []) this.member(receipt.consumer)?.ackReceipt(receipt);
    for (const answer of response.seeksDone ?? []) this.member(answer.consumer)?.seekDone(answer);
    for (const answer of response.closed ?? []) {
      const member = this.member(answer.consumer);
      this.forget(answer.consumer);
      member?.closed(answer);
    }
    if (response.credit === undefined) return;
    this.credits.grant(response.credit.items, response.credit.bytes);
    this.#pump();
  }

  /** Entries of several consumers in one frame: one that is slow must not keep the frames of the others in memory. */
  #deliver(deliveries: readonly Delivery[], losses: readonly Loss[]): void {
    const isShared = deliveries.some(({ consumer }) => consumer !== deliveries[0]?.consumer);
    for (const delivery of losses.length === 0 ? deliveries : inOrder(deliveries, losses)) {
      const member = this.member(delivery.consumer);
      if ('firstIndex' in delivery) {
        member?.loss(delivery);
        continue;
      }
      if (isShared) member?.delivery({ ...delivery, block: unpinned(delivery.block), skip: unpinned(delivery.skip) });
      else member?.delivery(delivery);
    }
  }

  override down(error: MagnetarError): void {
    this.#ready.clear();
    super.down(error);
  }
}
