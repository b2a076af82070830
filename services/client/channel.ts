import { MagnetarError } from '../lib/errors.ts';
import type { ClientHello, ServerHello } from '../wire/frames.ts';
import { Outbox, OUTBOX_FRAME_BYTES } from '../wire/outbox.ts';
import type { StreamMethod } from '../wire/services.ts';
import type { ClientEnvironment } from './environment.ts';
import type { Link, WireStream } from './link.ts';
import { Credits } from './protocol/credits.ts';
import type { StreamOwner } from './stream-keeper.ts';
import { StreamKeeper } from './stream-keeper.ts';

/** Who shares a stream: a producer, a consumer, a reader. */
export interface ChannelMember {
  /** The stream is there; nothing is open on it yet. */
  streamUp(): void;
  streamDown(error: MagnetarError): void;
  /** It cannot go on, now or later. */
  fail(error: MagnetarError): void;
  /** The end of a turn of the event loop, asked for by `atTurn`. */
  turn(): void;
}

/** What a channel is made of. */
export interface ChannelOptions {
  readonly environment: ClientEnvironment;
  readonly link: Link;
  readonly operationTimeoutMs: number;
}

interface Frames<Item, Request, Response> {
  readonly method: StreamMethod<Request, Response>;
  readonly decode: (bytes: Buffer) => Response;
  readonly frame: (items: readonly Item[]) => Request;
}

/** A server that says no hello for so long is given up, so that those who wait still have time for another try. */
const HELLO_MS = 10_000;

interface AnyRequest {
  readonly hello?: ClientHello;
}

interface AnyResponse {
  readonly hello?: ServerHello;
}

/**
 * One of a client's two streams, shared by its members, which it numbers. Numbers are never used again, not even on
 * a later stream, so that answers to what was given up find nobody.
 */
export abstract class Channel<
  Member extends ChannelMember,
  Item,
  Request extends AnyRequest,
  Response extends AnyResponse,
> implements StreamOwner<Request, Response>
{
  readonly environment: ClientEnvironment;
  readonly operationTimeoutMs: number;
  protected readonly credits: Credits = new Credits();
  readonly #keeper: StreamKeeper<Request, Response>;
  readonly #frame: (items: readonly Item[]) => Request;
  readonly #members = new Set<Member>();
  readonly #byNumber = new Map<number, Member>();
  #outbox: Outbox<Item, Request> | undefined;
  #turns: Member[] = [];
  #turnSet = false;
  #lastNumber = 0;
  #lastError: MagnetarError | undefined;

  constructor(options: ChannelOptions, frames: Frames<Item, Request, Response>) {
    this.environment = options.environment;
    this.operationTimeoutMs = options.operationTimeoutMs;
    this.#frame = frames.frame;
    this.#keeper = new StreamKeeper({
      environment: options.environment,
      link: options.link,
      method: frames.method,
      decode: frames.decode,
      helloTimeoutMs: Math.min(HELLO_MS, options.operationTimeoutMs),
      owner: this,
    });
  }

  get needed(): boolean {
    return this.#members.size > 0;
  }

  /** Why there is no stream; absent while there is one, and before the first try. */
  get lastError(): MagnetarError | undefined {
    return this.#lastError;
  }

  /** True while there is a stream. */
  protected get connected(): boolean {
    return this.#outbox !== undefined;
  }

  /** Takes a member in: `streamUp` is called when there is a stream, at once if there is one already. */
  attach(member: Member): void {
    this.#members.add(member);
    if (this.#outbox === undefined) this.#keeper.start();
    else member.streamUp();
  }

  detach(member: Member): void {
    this.#members.delete(member);
  }

  /** A number for a member, under which answers find it. */
  protected number(member: Member): number {
    this.#byNumber.set(++this.#lastNumber, member);
    return this.#lastNumber;
  }

  /** Nothing is heard of this number any more. */
  protected forget(number: number): void {
    this.#byNumber.delete(number);
  }

  /** Whose number it is; nobody's when the member was closed, or opened anew, meanwhile. */
  protected member(number: number): Member | undefined {
    if (number === 0 || number > this.#lastNumber) {
      throw new MagnetarError('PROTOCOL_VIOLATION', `the broker answers number ${number}, which was never in use`);
    }
    return this.#byNumber.get(number);
  }

  protected push(item: Item, bytes: number): void {
    this.#outbox?.push(item, bytes);
  }

  /** Writes what was pushed: what follows is in a later frame. */
  protected flush(): void {
    this.#outbox?.flush();
  }

  /** Calls the member's `turn` at the end of this turn of the event loop. */
  atTurn(member: Member): void {
    this.#turns.push(member);
    if (this.#turnSet) return;
    this.#turnSet = true;
    this.environment.clock.nextTurn(() => this.#turn());
  }

  #turn(): void {
    this.#turnSet = false;
    const members = this.#turns;
    this.#turns = [];
    for (const member of members) member.turn();
    this.flush();
  }

  up(stream: WireStream<Request>, hello: ServerHello): void {
    this.#lastError = undefined;
    this.credits.grant(hello.credit?.items ?? 0, hello.credit?.bytes ?? 0);
    const frameBytes = Math.min(OUTBOX_FRAME_BYTES, hello.maxFrameBytes / 2); // beside the items there is their packing
    this.#outbox = new Outbox({ clock: this.environment.clock, stream, frame: this.#frame, frameBytes });
    this.greeted(hello);
    for (const member of this.#snapshot()) member.streamUp();
  }

  /** The members of now: they come and go while they are told. */
  #snapshot(): Member[] {
    return [...this.#members];
  }

  /** A new stream is there, and the server has said hello. */
  protected abstract greeted(hello: ServerHello): void;

  abstract received(response: Response): void;

  down(error: MagnetarError): void {
    this.#lastError = error;
    this.#outbox?.discard();
    this.#outbox = undefined;
    this.#byNumber.clear();
    this.credits.reset();
    for (const member of this.#snapshot()) member.streamDown(error);
  }

  /** Fails every member, and opens no stream any more. */
  abandon(error: MagnetarError): void {
    for (const member of this.#snapshot()) member.fail(error);
    this.#keeper.abandon(error);
  }

  /** Ends the stream, within `ms`. */
  async stop(ms: number): Promise<void> {
    this.flush();
    await this.#keeper.stop(ms);
  }
}
