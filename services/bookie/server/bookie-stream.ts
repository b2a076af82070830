/** What the append and the read stream have in common: handshake, credit, answers gathered into frames, the end. */
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { hasCode, MagnetarError } from '../../lib/errors.ts';
import type { ByteShare } from '../../runtime/byte-budget.ts';
import type { Timer } from '../../runtime/clock.ts';
import type { Environment } from '../../runtime/environment.ts';
import type { StallGuard } from '../../runtime/stall-guard.ts';
import type { ClientHello, Credit, ServerHello } from '../../wire/frames.ts';
import { Outbox, SERVER_FRAME_BYTES } from '../../wire/outbox.ts';
import { MAX_FRAME_BYTES } from '../../wire/server.ts';
import { toStatus } from '../../wire/status.ts';
import { MAX_ENTRY_BYTES } from '../bookie.ts';

const PROTOCOL_VERSION = 1;
const HANDSHAKE_MS = 10_000;

/** Room for an item in a frame beside its payload. */
export const ITEM_BYTES = 32;

/** An answer, and the credit that comes back with it. */
export interface Answer<Item> {
  readonly item: Item;
  readonly credit: Credit;
}

/** What of the process's memory streams use. */
interface StreamMemory {
  /** Entries that came to be stored and are not answered. */
  readonly write: ByteShare;
  /** Entries that were read for clients, which have not taken them. */
  readonly read: StallGuard;
}

/** What every stream of a service is made with. */
export interface StreamOptions {
  readonly environment: Environment;
  readonly memory: StreamMemory;
  readonly serverName: string;
  /** The bookie's. */
  readonly instance: Buffer | undefined;
  /** What a client may have under way. */
  readonly credit: Credit;
  /** Called once, when the stream is over. */
  readonly gone: () => void;
}

/** An error for a stream's 'error' event: grpc-js ends the stream with its status. */
export function statusError(error: MagnetarError): Error {
  return Object.assign(new Error(error.message), toStatus(error));
}

/** What differs between the streams. */
export interface StreamKind<Item, Frame> {
  readonly hello: (hello: ServerHello) => Frame;
  readonly answers: (items: readonly Item[], credit: Credit) => Frame;
  /** A frame behind the first one's hello. @throws MagnetarError: ends the stream with it. */
  readonly frame: (bytes: Buffer) => void;
  /** The client has read what it was sent. */
  readonly drained?: () => void;
  /** The client has taken answers of so many bytes. */
  readonly taken?: (bytes: number) => void;
  /** Frames have come that are not handled yet. */
  readonly waiting?: () => boolean;
  /** The stream is over. */
  readonly gone: () => void;
}

export class BookieStream<Item, Frame> {
  readonly #call: ServerDuplexStream<Buffer, Frame>;
  readonly #kind: StreamKind<Item, Frame>;
  readonly #options: StreamOptions;
  readonly #outbox: Outbox<Answer<Item>, Frame>;
  readonly #handshake: Timer;
  #creditItems: number;
  #creditBytes: number;
  #greeted = false;
  #halfClosed = false;
  #over = false;
  /** Requests without an answer. */
  #open = 0;

  constructor(call: ServerDuplexStream<Buffer, Frame>, options: StreamOptions, kind: StreamKind<Item, Frame>) {
    this.#call = call;
    this.#kind = kind;
    this.#options = options;
    this.#creditItems = options.credit.items;
    this.#creditBytes = options.credit.bytes;
    const { clock } = options.environment;
    this.#outbox = new Outbox({
      clock,
      stream: call,
      frameBytes: SERVER_FRAME_BYTES,
      frame: (answers) => this.#frame(answers),
      onDrained: () => kind.drained?.(),
      ...(kind.taken === undefined ? {} : { onTaken: kind.taken }),
    });
    const late = new MagnetarError('DEADLINE_EXCEEDED', `no ClientHello came within ${HANDSHAKE_MS} ms`);
    this.#handshake = clock.after(HANDSHAKE_MS, () => this.fail(late), { unref: true });
    call.on('data', (bytes: Buffer) => this.#onData(bytes));
    call.on('end', () => {
      this.#halfClosed = true;
      this.#endWhenAnswered();
    });
    call.on('cancelled', () => this.#finish());
    call.on('close', () => this.#finish());
  }

  /** True while the client has not taken what it was sent. */
  get blocked(): boolean {
    return this.#outbox.blocked;
  }

  /** False when nobody is there to be answered any more. */
  get live(): boolean {
    return !this.#over;
  }

  #onData(bytes: Buffer): void {
    this.attempt(() => this.#kind.frame(bytes));
  }

  /** Reads on, or no more. */
  read(on: boolean): void {
    if (on) this.#call.resume();
    else this.#call.pause();
    if (on) this.#endWhenAnswered();
  }

  /** Runs what may throw: an error ends the stream. */
  attempt(work: () => void): void {
    if (this.#over) return;
    try {
      work();
    } catch (error) {
      if (!hasCode(error)) this.#options.environment.logger.error('a frame could not be handled', { error });
      this.fail(
        hasCode(error) ? error : new MagnetarError('INTERNAL', 'the server could not handle a frame; its log says why'),
      );
    }
  }

  /** Answers the first frame's hello. @throws PROTOCOL_VIOLATION when it is missing, or comes again */
  greet(hello: ClientHello | undefined): void {
    if ((hello === undefined) === this.#greeted) {
      if (hello === undefined) return;
      this.#greeted = true;
      this.#handshake.cancel();
      const { serverName: server, instance, credit } = this.#options;
      this.#call.write(
        this.#kind.hello({
          protocolVersion: PROTOCOL_VERSION,
          features: [],
          server,
          maxMessageBytes: MAX_ENTRY_BYTES,
          maxFrameBytes: MAX_FRAME_BYTES,
          credit,
          ...(instance === undefined ? {} : { instance }),
        }),
      );
      return;
    }
    const what = this.#greeted ? 'a second ClientHello came' : 'no ClientHello came';
    throw new MagnetarError('PROTOCOL_VIOLATION', `${what}; it belongs into the first frame, and there alone`);
  }

  /** Says something that answers nothing. Before the hello, that says it. */
  tell(frame: Frame): void {
    if (this.#greeted && !this.#over) this.#call.write(frame);
  }

  /** A request has come. @throws CREDIT_EXCEEDED */
  take(items: number, bytes: number): void {
    this.#creditItems -= items;
    this.#creditBytes -= bytes;
    if (this.#creditItems < 0 || this.#creditBytes < 0) {
      const { items: allowed, bytes: allowedBytes } = this.#options.credit;
      const text = `a client may have ${allowed} requests of ${allowedBytes} bytes under way on this stream; it sent more`;
      throw new MagnetarError('CREDIT_EXCEEDED', text);
    }
    this.#open++;
  }

  /** Answers a request, of about `bytes` bytes; its credit goes back when the answer is written. */
  answer(item: Item, credit: Credit, bytes: number): void {
    this.#open--;
    if (this.#over) return;
    this.#outbox.push({ item, credit }, bytes);
    this.#endWhenAnswered();
  }

  #frame(answers: readonly Answer<Item>[]): Frame {
    let [items, bytes] = [0, 0];
    for (const { credit } of answers) {
      items += credit.items;
      bytes += credit.bytes;
    }
    this.#creditItems += items;
    this.#creditBytes += bytes;
    return this.#kind.answers(
      answers.map(({ item }) => item),
      { items, bytes },
    );
  }

  #endWhenAnswered(): void {
    if (!this.#halfClosed || this.#open > 0 || this.#over || this.#kind.waiting?.() === true) return;
    this.#outbox.close();
    this.#call.end();
    this.#finish();
  }

  /** Ends the stream with an error. */
  fail(error: MagnetarError): void {
    if (this.#over) return;
    this.#finish();
    this.#call.emit('error', statusError(error));
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#handshake.cancel();
    this.#outbox.discard();
    this.#kind.gone();
    this.#options.gone();
  }
}
