import { MagnetarError } from '../lib/errors.ts';
import type {
  CloseProducer,
  OpenProducer,
  ProducerClosed,
  ProducerOpened,
  PublishBatch,
  PublishRequest,
  PublishResponse,
  Receipt,
  ServerHello,
} from '../wire/frames.ts';
import { publishResponse } from '../wire/publish-codec.ts';
import { brokerService } from '../wire/services.ts';
import type { Batch } from './batch.ts';
import type { ChannelMember, ChannelOptions } from './channel.ts';
import { Channel } from './channel.ts';

/** A producer, as the channel sees it. */
export interface PublishMember extends ChannelMember {
  /** Its number on the stream. */
  readonly number: number;
  opened(answer: ProducerOpened): void;
  receipt(receipt: Receipt): void;
  closed(answer: ProducerClosed): void;
  /** The batch to send next, if the member may send; `batchSent` follows when it was sent. */
  readonly nextBatch: Batch | undefined;
  batchSent(): void;
  /** The broker takes no batch as large as the next one: it is lost. */
  batchTooLarge(error: MagnetarError): void;
}

/** What the broker takes. */
export interface PublishLimits {
  readonly maxMessageBytes: number;
  readonly maxFrameBytes: number;
  /** The largest block: it fits into a frame, and into the credit of a stream on which nothing is under way. */
  readonly maxBlockBytes: number;
  /** The most batches that may be under way; Infinity when the broker does not say at once. */
  readonly windowItems: number;
}

type Item =
  | { readonly kind: 'open'; readonly open: OpenProducer }
  | { readonly kind: 'batch'; readonly batch: PublishBatch }
  | { readonly kind: 'close'; readonly close: CloseProducer };

const SMALL_BYTES = 64;
/** What a frame has beside a block. */
const FRAME_BYTES = 64;

function toFrame(items: readonly Item[]): PublishRequest {
  const opens: OpenProducer[] = [];
  const batches: PublishBatch[] = [];
  const closes: CloseProducer[] = [];
  for (const item of items) {
    if (item.kind === 'batch') batches.push(item.batch);
    else if (item.kind === 'open') opens.push(item.open);
    else closes.push(item.close);
  }
  return { opens, batches, closes };
}

/** The publish stream of a client, which all its producers share. */
export class PublishChannel extends Channel<PublishMember, Item, PublishRequest, PublishResponse> {
  /** Members with batches to send, in turn. */
  readonly #ready = new Set<PublishMember>();
  #limits: PublishLimits | undefined;
  /** The stream may owe receipts that nobody waits for. */
  #owesGivenUp = false;

  constructor(options: ChannelOptions) {
    super(options, { method: brokerService.Publish, decode: publishResponse.decode, frame: toFrame });
  }

  /** What the broker said last that it takes; there once a stream was up. */
  get limits(): PublishLimits | undefined {
    return this.#limits;
  }

  /** Batches that were given to the stream have been given up. */
  gaveUp(): void {
    this.#owesGivenUp = true;
  }

  /** Every producer is closed by now. The broker would end the stream behind its last receipt. */
  override async stop(ms: number): Promise<void> {
    await super.stop(this.#owesGivenUp ? 0 : ms);
  }

  override detach(member: PublishMember): void {
    super.detach(member);
    this.#ready.delete(member);
  }

  /** Asks for a producer to be opened; returns its number on this stream. */
  open(member: PublishMember, fields: Omit<OpenProducer, 'producer'>): number {
    const producer = this.number(member);
    this.flush(); // a close of the same producer has to be in an earlier frame
    this.push({ kind: 'open', open: { producer, ...fields } }, SMALL_BYTES + fields.topic.length);
    return producer;
  }

  /** Asks for a producer to be closed. Unless `answer` is wanted, nothing is heard of it any more. */
  close(producer: number, answer: boolean): void {
    if (!answer) this.forget(producer);
    this.push({ kind: 'close', close: { producer } }, SMALL_BYTES);
  }

  /** The member has batches to send. */
  offer(member: PublishMember): void {
    this.#ready.add(member);
    this.#pump();
  }

  /** Sends what members have, one batch each in turn, as far as the credits go. */
  #pump(): void {
    if (!this.connected) return;
    for (const member of this.#ready) {
      const batch = member.nextBatch;
      if (batch === undefined) {
        this.#ready.delete(member);
        continue;
      }
      const most = this.#limits?.maxBlockBytes ?? 0;
      if (batch.block.length > most) {
        // An earlier broker took more.
        const what = batch.attempted ? 'batch, which may have been stored before,' : 'batch';
        member.batchTooLarge(tooLarge(what, batch.block.length, most));
      } else {
        if (!this.credits.take(1, batch.block.length)) return;
        const { crc32c, block } = batch;
        this.push({ kind: 'batch', batch: { producer: member.number, crc32c, block } }, block.length);
        member.batchSent();
      }
      this.#ready.delete(member); // and again at the end: the iteration comes back to it
      this.#ready.add(member);
    }
  }

  protected override greeted(hello: ServerHello): void {
    const { maxMessageBytes, maxFrameBytes, credit } = hello;
    const { items = 0, bytes = 0 } = credit ?? {};
    const maxBlockBytes = Math.min(maxFrameBytes - FRAME_BYTES, bytes === 0 ? Number.POSITIVE_INFINITY : bytes);
    const windowItems = items === 0 ? Number.POSITIVE_INFINITY : items;
    this.#limits = { maxMessageBytes, maxFrameBytes, maxBlockBytes, windowItems };
  }

  override received(response: PublishResponse): void {
    for (const answer of response.opened ?? []) {
      const member = this.member(answer.producer);
      if (answer.error !== undefined) this.forget(answer.producer);
      member?.opened(answer);
    }
    for (const receipt of response.receipts ?? []) this.member(receipt.producer)?.receipt(receipt);
    for (const answer of response.closed ?? []) {
      const member = this.member(answer.producer);
      this.forget(answer.producer);
      member?.closed(answer);
    }
    if (response.credit === undefined) return;
    this.credits.grant(response.credit.items, response.credit.bytes);
    this.#pump();
  }

  override down(error: MagnetarError): void {
    this.#ready.clear();
    this.#owesGivenUp = false;
    super.down(error);
  }
}

/** The error for something that the broker does not take because of its size. */
export function tooLarge(what: string, bytes: number, limit: number): MagnetarError {
  const text = `the ${what} has ${bytes} bytes; the broker takes at most ${limit}`;
  return new MagnetarError('MESSAGE_TOO_LARGE', text, { details: { bytes: String(bytes), limit: String(limit) } });
}
