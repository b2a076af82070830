/** What the publish stream and the consume stream have in common: handshake, frames out, the end. */
import type { ServerDuplexStream } from '@grpc/grpc-js';

import { type ErrorCode, MagnetarError } from '../../lib/errors.ts';
import type { Clock, Timer } from '../../runtime/clock.ts';
import type { Logger } from '../../runtime/logger.ts';
import type { ClientHello, Credit, ServerHello } from '../../wire/frames.ts';
import { Outbox, SERVER_FRAME_BYTES } from '../../wire/outbox.ts';
import { MAX_FRAME_BYTES } from '../../wire/server.ts';
import { toStatus } from '../../wire/status.ts';
import type { BrokerOptions } from '../options.ts';
import type { ConnectedClient } from '../../wire/administration.ts';

/** With so many answers waiting that the client does not take, nothing more of it is read. */
const MOST_WAITING = 4_096;

/** The protocol version that this server speaks. */
const PROTOCOL_VERSION = 1;

/** The answer to a hello. */
export function serverHello(hello: ClientHello, options: BrokerOptions, credit: Credit): ServerHello {
  return {
    protocolVersion: Math.min(Math.max(1, hello.protocolVersion), PROTOCOL_VERSION),
    features: [],
    server: options.serverName,
    maxMessageBytes: options.maxMessageBytes,
    maxFrameBytes: MAX_FRAME_BYTES,
    credit,
  };
}

/** What a session does with its stream. An error that `hello` or `frame` throws ends the stream. */
export interface SessionHandlers<Item, Frame> {
  /** Makes a frame of items. */
  readonly toFrame: (items: readonly Item[]) => Frame;
  /** The first frame's hello has come; the answer to it. */
  readonly hello: (hello: ClientHello) => Frame;
  /** A frame has come. */
  readonly frame: (bytes: Buffer) => void;
  /** The client says nothing more; what is under way is to be answered before `end`. */
  readonly halfClosed: () => void;
  /** The stream is over, for whatever reason. Called once. */
  readonly gone: () => void;
  /** The client has taken what it was sent. */
  readonly drained?: () => void;
  /** The client has taken items of so many bytes. */
  readonly taken?: (bytes: number) => void;
}

export class SessionStream<Item, Frame> {
  readonly #call: ServerDuplexStream<Buffer, Frame>;
  readonly #handlers: SessionHandlers<Item, Frame>;
  readonly #outbox: Outbox<Item, Frame>;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #onFailed: (code: ErrorCode) => void;
  #handshake: Timer | undefined;
  #greeted = false;
  /** What the client says of itself. */
  #version = '';
  #over = false;
  /** Why nothing is read: the session wants it so; the client does not take its answers. */
  #paused = false;
  #behind = false;
  /** Answers that say no, since a frame came when nothing waited to be sent. */
  #refusals = 0;

  constructor(
    call: ServerDuplexStream<Buffer, Frame>,
    options: {
      readonly clock: Clock;
      readonly logger: Logger;
      readonly handshakeMs: number;
      /** The stream is ended with an error. */
      readonly onFailed: (code: ErrorCode) => void;
    },
    handlers: SessionHandlers<Item, Frame>,
  ) {
    this.#call = call;
    this.#handlers = handlers;
    this.#logger = options.logger;
    this.#clock = options.clock;
    this.#onFailed = options.onFailed;
    this.#outbox = new Outbox({
      clock: options.clock,
      stream: call,
      frameBytes: SERVER_FRAME_BYTES,
      frame: handlers.toFrame,
      onDrained: () => this.#drained(),
      ...(handlers.taken === undefined ? {} : { onTaken: handlers.taken }),
    });
    const late = `no ClientHello came within ${options.handshakeMs} ms`;
    this.#handshake = options.clock.after(
      options.handshakeMs,
      () => this.fail(new MagnetarError('DEADLINE_EXCEEDED', late)),
      { unref: true },
    );
    call.on('data', (bytes: Buffer) => this.#onData(bytes));
    call.on('end', () => {
      if (!this.#over) this.#handlers.halfClosed();
    });
    call.on('cancelled', () => this.#finish());
    call.on('close', () => this.#finish());
  }

  /** True when the stream can be spoken to. */
  get open(): boolean {
    return !this.#over;
  }

  /** Who is at the other end, for something that it opens now. */
  get client(): ConnectedClient {
    const address = this.#call.getPeer().replace(/^ipv[46]:/, '');
    return { address, version: this.#version, since: this.#clock.now() };
  }

  /** True while the client has not taken what it was sent. */
  get blocked(): boolean {
    return this.#outbox.blocked;
  }

  /** Says something, in this turn's frame. `bytes`: about how many. */
  push(item: Item, bytes = 0): void {
    if (!this.#over) this.#outbox.push(item, bytes);
  }

  /** Says that something was not opened. */
  refuse(item: Item): void {
    this.#refusals++;
    this.push(item);
  }

  /**
   * To be called before something is opened: no credit bounds what a client asks for, and what it is refused has to be said. One
   * that takes its refusals gets them, however often it comes again.
   *
   * @throws CREDIT_EXCEEDED when as many refusals wait as a stream may have of what is asked for
   */
  checkRefusals(most: number, what: string): void {
    if (this.#refusals < most) return;
    const text = `a stream may have ${most} ${what}, and as many refusals that it has not taken; open another stream`;
    throw new MagnetarError('CREDIT_EXCEEDED', text);
  }

  /** The frame's hello, if it is the first frame; answers it. @throws PROTOCOL_VIOLATION when it is missing, or not wanted */
  greet(hello: ClientHello | undefined): void {
    if (this.#greeted) {
      if (hello === undefined) return;
      throw new MagnetarError('PROTOCOL_VIOLATION', 'a second ClientHello came; it belongs into the first frame alone');
    }
    if (hello === undefined) throw new MagnetarError('PROTOCOL_VIOLATION', 'the first frame has no ClientHello');
    this.#greeted = true;
    this.#version = hello.client;
    this.#handshake?.cancel();
    this.#handshake = undefined; // with what it holds on to
    this.#call.write(this.#handlers.hello(hello));
  }

  /** Reads on, or no more. */
  read(on: boolean): void {
    this.#paused = !on;
    if (!on) this.#call.pause();
    else if (!this.#over && !this.#behind) this.#call.resume();
  }

  #drained(): void {
    if (this.#behind) {
      this.#behind = false;
      if (!this.#paused) this.#call.resume();
    }
    this.#handlers.drained?.();
  }

  /** Sends what is queued, and ends the stream without an error. */
  end(): void {
    if (this.#over) return;
    this.#outbox.close();
    this.#finish();
    this.#call.end();
  }

  /** Sends what is queued, and ends the stream with this error as its status. */
  fail(error: MagnetarError): void {
    if (this.#over) return;
    this.#logger.debug('stream ended with an error', { peer: this.#call.getPeer(), error });
    this.#onFailed(error.code);
    this.#outbox.close();
    this.#finish();
    this.#call.emit('error', Object.assign(new Error(error.message), toStatus(error)));
  }

  #onData(bytes: Buffer): void {
    if (this.#over) return;
    if (this.#outbox.queuedItems === 0) this.#refusals = 0;
    this.attempt(() => this.#handlers.frame(bytes));
    if (this.#behind || this.#outbox.queuedItems <= MOST_WAITING) return;
    this.#behind = true;
    this.#call.pause();
  }

  /** Runs a handler; an error that it throws ends the stream. */
  attempt(handler: () => void): void {
    try {
      handler();
    } catch (error) {
      if (!(error instanceof MagnetarError)) this.#logger.error('a frame could not be handled', { error });
      this.fail(
        error instanceof MagnetarError
          ? error
          : new MagnetarError('INTERNAL', 'the server could not handle a frame; its log says why', { cause: error }),
      );
    }
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#handshake?.cancel();
    this.#outbox.discard();
    this.#handlers.gone();
  }
}
