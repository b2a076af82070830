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
import { Outbox } from '../wire/outbox.ts';
import { publishResponse } from '../wire/publish-codec.ts';
import { brokerService } from '../wire/services.ts';
import type { Batch } from './batch.ts';
import type { ClientEnvironment } from './environment.ts';
import type { Link, WireStream } from './link.ts';
import { Credits } from './protocol/credits.ts';
import type { StreamOwner } from './stream-keeper.ts';
import { StreamKeeper } from './stream-keeper.ts';

/** A producer, as the channel sees it. */
export interface PublishMember {
  /** Its number on the stream. */
  readonly number: number;
  /** The stream is there; nothing is open on it yet. */
  streamUp(): void;
  streamDown(error: MagnetarError): void;
  opened(answer: ProducerOpened): void;
  receipt(receipt: Receipt): void;
  closed(answer: ProducerClosed): void;
  /** The end of a turn of the event loop, asked for by `atTurn`. */
  turn(): void;
  /** The batch to send next, if the member may send; `batchSent` follows when it was sent. */
  readonly nextBatch: Batch | undefined;
  batchSent(): void;
}

/** What the broker takes. */
export interface PublishLimits {
  readonly maxMessageBytes: number;
  readonly maxFrameBytes: number;
  /** The most bytes of blocks that it lets be under way. */
  readonly windowBytes: number;
}

type Item =
  | { readonly kind: 'open'; readonly open: OpenProducer }
  | { readonly kind: 'batch'; readonly batch: PublishBatch }
  | { readonly kind: 'close'; readonly close: CloseProducer };

const SMALL_BYTES = 64;

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
export class PublishChannel implements StreamOwner<PublishRequest, PublishResponse> {
  readonly environment: ClientEnvironment;
  readonly operationTimeoutMs: number;
  readonly #keeper: StreamKeeper<PublishRequest, PublishResponse>;
  readonly #members = new Set<PublishMember>();
  readonly #byNumber = new Map<number, PublishMember>();
  readonly #credits = new Credits();
  /** Members with batches to send, in turn. */
  readonly #ready = new Set<PublishMember>();
  #turns: PublishMember[] = [];
  #turnSet = false;
  #outbox: Outbox<Item, PublishRequest> | undefined;
  #lastNumber = 0;
  #limits: PublishLimits | undefined;
  #lastError: MagnetarError | undefined;

  constructor(options: { environment: ClientEnvironment; link: Link; operationTimeoutMs: number }) {
    this.environment = options.environment;
    this.operationTimeoutMs = options.operationTimeoutMs;
    this.#keeper = new StreamKeeper({
      environment: options.environment,
      link: options.link,
      method: brokerService.Publish,
      decode: publishResponse.decode,
      helloTimeoutMs: options.operationTimeoutMs,
      owner: this,
    });
  }

  get needed(): boolean {
    return this.#members.size > 0;
  }

  /** What the broker said last that it takes; there once a stream was up. */
  get limits(): PublishLimits | undefined {
    return this.#limits;
  }

  /** Why there is no stream; absent while there is one. */
  get lastError(): MagnetarError | undefined {
    return this.#lastError;
  }

  /** Takes a producer in: `streamUp` is called when there is a stream, at once if there is one already. */
  attach(member: PublishMember): void {
    this.#members.add(member);
    if (this.#outbox === undefined) this.#keeper.start();
    else member.streamUp();
  }

  detach(member: PublishMember): void {
    this.#members.delete(member);
    this.#ready.delete(member);
  }

  /** Asks for a producer to be opened; returns its number on this stream. */
  open(member: PublishMember, fields: Omit<OpenProducer, 'producer'>): number {
    const producer = ++this.#lastNumber;
    this.#byNumber.set(producer, member);
    this.#outbox?.flush(); // a close of the same producer has to be in an earlier frame
    this.#outbox?.push({ kind: 'open', open: { producer, ...fields } }, SMALL_BYTES + fields.topic.length);
    return producer;
  }

  /** Asks for a producer to be closed. Unless `answer` is wanted, nothing is heard of it any more. */
  close(producer: number, answer: boolean): void {
    if (!answer) this.#byNumber.delete(producer);
    this.#outbox?.push({ kind: 'close', close: { producer } }, SMALL_BYTES);
  }

  /** Calls the member's `turn` at the end of this turn of the event loop. */
  atTurn(member: PublishMember): void {
    this.#turns.push(member);
    this.#setTurn();
  }

  /** The member has batches to send. */
  offer(member: PublishMember): void {
    this.#ready.add(member);
    this.#pump();
  }

  /** The broker broke the protocol: the stream is given up, and everything goes on with the next one. */
  violated(error: MagnetarError): void {
    this.#keeper.fail(error);
  }

  #setTurn(): void {
    if (this.#turnSet) return;
    this.#turnSet = true;
    this.environment.clock.nextTurn(() => {
      this.#turnSet = false;
      const members = this.#turns;
      this.#turns = [];
      for (const member of members) member.turn();
      this.#outbox?.flush();
    });
  }

  /** Sends what members have, one batch each in turn, as far as the credits go. */
  #pump(): void {
    const outbox = this.#outbox;
    if (outbox === undefined) return;
    for (const member of this.#ready) {
      const batch = member.nextBatch;
      if (batch === undefined) {
        this.#ready.delete(member);
        continue;
      }
      if (!this.#credits.take(1, batch.block.length)) return;
      const { crc32c, block } = batch;
      outbox.push({ kind: 'batch', batch: { producer: member.number, crc32c, block } }, block.length);
      member.batchSent();
      this.#ready.delete(member); // and again at the end: the iteration comes back to it
      this.#ready.add(member);
    }
  }

  up(stream: WireStream<PublishRequest>, hello: ServerHello): void {
    const { maxMessageBytes, maxFrameBytes, credit } = hello;
    this.#limits = { maxMessageBytes, maxFrameBytes, windowBytes: credit?.bytes ?? 0 };
    this.#lastError = undefined;
    this.#credits.reset();
    this.#credits.grant(credit?.items ?? 0, credit?.bytes ?? 0);
    this.#outbox = new Outbox({ clock: this.environment.clock, stream, frame: toFrame });
    for (const member of [...this.#members]) member.streamUp();
  }

  received(response: PublishResponse): void {
    for (const answer of response.opened ?? []) this.#member(answer.producer)?.opened(answer);
    for (const receipt of response.receipts ?? []) this.#member(receipt.producer)?.receipt(receipt);
    for (const answer of response.closed ?? []) {
      const member = this.#member(answer.producer);
      this.#byNumber.delete(answer.producer);
      member?.closed(answer);
    }
    if (response.credit === undefined) return;
    this.#credits.grant(response.credit.items, response.credit.bytes);
    this.#pump();
  }

  /** Numbers that are not known any more are of producers that were closed, or opened anew, meanwhile. */
  #member(producer: number): PublishMember | undefined {
    if (producer > this.#lastNumber) {
      throw new MagnetarError('PROTOCOL_VIOLATION', `the broker names producer ${producer}, which was never opened`);
    }
    return this.#byNumber.get(producer);
  }

  down(error: MagnetarError): void {
    this.#lastError = error;
    this.#outbox?.discard();
    this.#outbox = undefined;
    this.#byNumber.clear();
    this.#ready.clear();
    this.#credits.reset();
    for (const member of [...this.#members]) member.streamDown(error);
  }

  /** Ends the stream, within `ms`. */
  async stop(ms: number): Promise<void> {
    this.#outbox?.flush();
    await this.#keeper.stop(ms);
  }
}
