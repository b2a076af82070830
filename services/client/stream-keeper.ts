import { MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { Timer } from '../runtime/clock.ts';
import { backoff } from '../runtime/random.ts';
import type { ClientHello, ServerHello } from '../wire/frames.ts';
import type { StreamMethod } from '../wire/services.ts';
import type { FailedStatus } from '../wire/status.ts';
import type { ClientEnvironment } from './environment.ts';
import type { Link, WireStream } from './link.ts';

const PROTOCOL_VERSION = 1;
const FIRST_BACKOFF_MS = 100;
/** As with Kafka's clients (reconnect.backoff.max.ms). */
const HIGHEST_BACKOFF_MS = 1_000;
/** What was open for as long was a good one: the next is tried at once. */
export const GOOD_AFTER_MS = 1_000;

/** What the logger is told of a stream: once when it is lost, at every try that fails, and once when there is another one. */
export const STREAM_LOST = 'stream lost';
const NO_STREAM = 'no stream';
export const STREAM_REGAINED = 'stream regained';

const HELLO: ClientHello = { protocolVersion: PROTOCOL_VERSION, features: [], client: 'magnetar-node' };

/** How long to wait before try number `attempt` (from 0): the first is made at once. */
export function reconnectDelay(environment: ClientEnvironment, attempt: number): number {
  return attempt === 0 ? 0 : backoff(environment.random, attempt - 1, FIRST_BACKOFF_MS, HIGHEST_BACKOFF_MS);
}

/** Who uses the stream. */
export interface StreamOwner<Request, Response> {
  /** True while a stream is needed: then a lost one is opened again. */
  readonly needed: boolean;
  /** A stream is there, and the server has said hello. */
  up(stream: WireStream<Request>, hello: ServerHello): void;
  /** A frame came, after `up`; the first one holds the hello. */
  received(response: Response): void;
  /** The stream is gone, or there was none to get. Another try follows while one is needed. */
  down(error: MagnetarError): void;
}

interface KeeperOptions<Request, Response> {
  readonly environment: ClientEnvironment;
  readonly link: Link;
  readonly method: StreamMethod<Request, Response>;
  readonly decode: (bytes: Buffer) => Response;
  /** How long the server may take to say hello. */
  readonly helloTimeoutMs: number;
  readonly owner: StreamOwner<Request, Response>;
}

/** Keeps one stream to the broker: opens it, shakes hands, and opens another one when it is lost. */
export class StreamKeeper<
  Request extends { readonly hello?: ClientHello },
  Response extends { readonly hello?: ServerHello },
> {
  readonly #options: KeeperOptions<Request, Response>;
  #stream: WireStream<Request> | undefined;
  #hello: ServerHello | undefined;
  #upSince = 0;
  #attempt = 0;
  /** There was a stream, and there is none since. */
  #missing = false;
  /** Until the next try, or until the hello is late. */
  #timer: Timer | undefined;
  #stopped = false;
  #ended: (() => void) | undefined;

  constructor(options: KeeperOptions<Request, Response>) {
    this.#options = options;
  }

  /** Sees to it that there is a stream, or will be. */
  start(): void {
    if (this.#stream === undefined && this.#timer === undefined && !this.#stopped) this.#open();
  }

  #open(): void {
    const { environment, link, method, helloTimeoutMs } = this.#options;
    const stream = link.openStream(method);
    this.#stream = stream;
    stream.on('data', (bytes: Buffer) => this.#receive(stream, bytes));
    stream.on('error', (error: FailedStatus) => this.#lost(stream, link.reason(error)));
    stream.on('end', () => this.#lost(stream, new MagnetarError('UNAVAILABLE', this.#text('ended the stream'))));
    stream.write({ hello: HELLO } as Request);
    this.#timer = environment.clock.after(helloTimeoutMs, () => {
      link.distrust(stream);
      this.#lost(stream, new MagnetarError('UNAVAILABLE', this.#text(`did not answer within ${helloTimeoutMs} ms`)));
    });
  }

  #text(what: string): string {
    return `the broker at ${this.#options.link.url.text} ${what}`;
  }

  #receive(stream: WireStream<Request>, bytes: Buffer): void {
    if (stream !== this.#stream) return;
    try {
      const response = this.#options.decode(bytes);
      if (this.#hello === undefined) this.#greeted(stream, response.hello);
      if (stream === this.#stream) this.#options.owner.received(response);
    } catch (error) {
      this.fail(toMagnetarError(error));
    }
  }

  #greeted(stream: WireStream<Request>, hello: ServerHello | undefined): void {
    if (hello === undefined) throw new MagnetarError('PROTOCOL_VIOLATION', this.#text('sent no hello first'));
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#hello = hello;
    const { clock, logger } = this.#options.environment;
    this.#upSince = clock.monotonic();
    if (this.#missing) logger.info(STREAM_REGAINED, { method: this.#options.method.path });
    this.#missing = false;
    this.#options.owner.up(stream, hello);
  }

  /** Gives the stream up because of something wrong with it. */
  fail(error: MagnetarError): void {
    if (this.#stream !== undefined) this.#lost(this.#stream, error);
  }

  #lost(stream: WireStream<Request>, error: MagnetarError): void {
    if (stream !== this.#stream) return;
    const { clock, logger } = this.#options.environment;
    this.#stream = undefined;
    this.#timer?.cancel();
    this.#timer = undefined;
    const wasUp = this.#hello !== undefined;
    if (wasUp && clock.monotonic() - this.#upSince >= GOOD_AFTER_MS) this.#attempt = 0;
    this.#hello = undefined;
    stream.cancel();
    if (!this.#stopped) {
      logger.warn(wasUp ? STREAM_LOST : NO_STREAM, { method: this.#options.method.path, error });
      if (wasUp) this.#missing = true;
    }
    this.#options.owner.down(error);
    this.#ended?.();
    if (this.#stopped || !this.#options.owner.needed || this.#timer !== undefined || this.#stream !== undefined) return;
    this.#timer = clock.after(reconnectDelay(this.#options.environment, this.#attempt++), () => {
      this.#timer = undefined;
      if (this.#options.owner.needed && !this.#stopped) this.#open();
    });
  }

  /** Gives the stream up for good: nothing is opened after it. */
  abandon(error: MagnetarError): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.fail(error);
  }

  /** Ends the stream: says so to the server and waits for its end, for at most `ms`. Nothing is opened after it. */
  async stop(ms: number): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    const stream = this.#stream;
    this.#timer?.cancel();
    this.#timer = undefined;
    if (stream === undefined) return;
    if (this.#hello === undefined) {
      this.fail(new MagnetarError('CANCELLED', 'the client is closed'));
      return;
    }
    await new Promise<void>((resolve) => {
      this.#ended = resolve;
      this.#timer = this.#options.environment.clock.after(ms, () => {
        this.fail(new MagnetarError('CANCELLED', 'the client is closed'));
      });
      stream.end();
    });
  }
}
