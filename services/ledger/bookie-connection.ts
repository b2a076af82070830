/**
 * One connection to a bookie: one append and one read stream, each opened by a handshake (`proto/magnetar/v1/bookie.proto`).
 * It is used until it is lost for the first time; `grpc-bookie.ts` then makes another one.
 */
import { Client, type ClientDuplexStream, credentials } from '@grpc/grpc-js';
import { MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { Clock, Timer } from '../runtime/clock.ts';
import { appendResponse, readResponse } from '../wire/bookie-codec.ts';
import type {
  AppendRequest,
  AppendResponse,
  AppendResult,
  ClientHello,
  Credit,
  EntriesResult,
  ReadRequest,
  ReadResponse,
  ServerHello,
  WireAppendEntry,
  WireLacResult,
  WireReadEntries,
  WireReadLac,
} from '../wire/frames.ts';
import { Outbox } from '../wire/outbox.ts';
import { clientOptions, openStream } from '../wire/server.ts';
import { bookieService, type StreamMethod } from '../wire/services.ts';
import { fromStatus, fromWireError } from '../wire/status.ts';
import { RequestTable } from './request-table.ts';

const PROTOCOL_VERSION = 1;
const HELLO: ClientHello = { protocolVersion: PROTOCOL_VERSION, features: [], client: 'magnetar ledger client' };
/** Address resolution, connect and handshake together. */
const OPEN_DEADLINE_MS = 5_000;

/** A read of one kind or the other. */
export type ReadItem =
  | { readonly kind: 'entries'; readonly read: WireReadEntries }
  | { readonly kind: 'lac'; readonly read: WireReadLac };

interface ConnectionOptions {
  readonly clock: Clock;
  readonly address: string;
  /** Looks whether this is the bookie that it should be, by its instance id; rejects when it is not. */
  readonly verify: ((instance: Buffer | undefined) => Promise<void>) | undefined;
  /** Both handshakes are done, and the bookie is verified. */
  readonly opened: () => void;
  /** Called once, after every open request has failed. */
  readonly lost: (error: MagnetarError) => void;
}

export class BookieConnection {
  readonly appends: RequestTable<WireAppendEntry, AppendResult>;
  readonly reads: RequestTable<ReadItem, EntriesResult | WireLacResult>;
  readonly #options: ConnectionOptions;
  readonly #client: Client;
  /** Why the bookie takes no entries. */
  full: MagnetarError | undefined;
  readonly #ends: (() => void)[] = [];
  readonly #deadline: Timer;
  #handshakes = 0;
  #verified = false;
  #over = false;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#client = new Client(options.address, credentials.createInsecure(), clientOptions);
    this.#deadline = options.clock.after(OPEN_DEADLINE_MS, () => {
      this.lose(
        new MagnetarError('UNAVAILABLE', `bookie ${options.address} did not answer within ${OPEN_DEADLINE_MS} ms`),
      );
    });
    this.#ends.push(() => this.#deadline.cancel());
    const opened = (hello: ServerHello): void => {
      if (hello.protocolVersion !== PROTOCOL_VERSION) {
        throw new MagnetarError(
          'PROTOCOL_VIOLATION',
          `version ${hello.protocolVersion} of the protocol; this side speaks 1`,
        );
      }
      this.#handshakes++;
      if (this.#handshakes === 2) void this.#verify(hello.instance);
    };
    this.appends = this.#openAppends(opened);
    this.reads = this.#openReads(opened);
  }

  /** True while requests can be sent. */
  get ready(): boolean {
    return this.#verified && !this.#over;
  }

  async #verify(instance: Buffer | undefined): Promise<void> {
    try {
      await this.#options.verify?.(instance);
    } catch (error) {
      this.#lostBy(toMagnetarError(error));
    }
    if (this.#over) return;
    this.#verified = true;
    this.#deadline.cancel();
    this.#options.opened();
  }

  #openAppends(opened: (hello: ServerHello) => void): RequestTable<WireAppendEntry, AppendResult> {
    const stream = this.#stream(bookieService.Append, (bytes) =>
      this.#onAppendResponse(appendResponse.decode(bytes), opened),
    );
    const outbox = new Outbox({ clock: this.#options.clock, stream, frame: appendFrame });
    this.#ends.push(() => outbox.discard());
    stream.write({ hello: HELLO });
    return new RequestTable((entry, bytes) => outbox.push(entry, bytes));
  }

  #openReads(opened: (hello: ServerHello) => void): RequestTable<ReadItem, EntriesResult | WireLacResult> {
    const stream = this.#stream(bookieService.Read, (bytes) =>
      this.#onReadResponse(readResponse.decode(bytes), opened),
    );
    const outbox = new Outbox({ clock: this.#options.clock, stream, frame: readFrame });
    this.#ends.push(() => outbox.discard());
    stream.write({ hello: HELLO });
    return new RequestTable((item, bytes) => outbox.push(item, bytes));
  }

  #stream<Request, Response>(
    method: StreamMethod<Request, Response>,
    onFrame: (bytes: Buffer) => void,
  ): ClientDuplexStream<Request, Buffer> {
    const stream = openStream(this.#client, method);
    stream.on('data', (bytes: Buffer) => {
      if (this.#over) return;
      try {
        onFrame(bytes);
      } catch (error) {
        this.#lostBy(toMagnetarError(error));
      }
    });
    stream.on('error', (error) => this.#lostBy(fromStatus(error)));
    stream.on('end', () => this.#lostBy(new MagnetarError('UNAVAILABLE', 'the bookie ended the stream')));
    this.#ends.push(() => stream.cancel());
    return stream;
  }

  #onAppendResponse(response: AppendResponse, opened: (hello: ServerHello) => void): void {
    if (response.full !== undefined) this.full = response.full.code === '' ? undefined : fromWireError(response.full);
    for (const result of response.results ?? []) this.appends.take(result.request).answer(result);
    this.#credits(this.appends, response, opened);
  }

  #onReadResponse(response: ReadResponse, opened: (hello: ServerHello) => void): void {
    for (const result of response.entries ?? []) this.reads.take(result.request).answer(result);
    for (const result of response.lacs ?? []) this.reads.take(result.request).answer(result);
    this.#credits(this.reads, response, opened);
  }

  #credits(
    table: { grant(credit: Credit): void },
    response: { readonly hello?: ServerHello; readonly credit?: Credit },
    opened: (hello: ServerHello) => void,
  ): void {
    if (response.hello?.credit !== undefined) table.grant(response.hello.credit);
    if (response.credit !== undefined) table.grant(response.credit);
    if (response.hello !== undefined) opened(response.hello);
  }

  /** Whatever the cause: for those who wait it is a bookie out of reach, and what became of their requests is unknown. */
  #lostBy(cause: MagnetarError): void {
    const message = `connection to bookie ${this.#options.address} lost: ${cause.message}`;
    this.lose(new MagnetarError('UNAVAILABLE', message, { cause }));
  }

  /** Ends it: every open request fails with this error. Idempotent. */
  lose(error: MagnetarError): void {
    if (this.#over) return;
    this.#over = true;
    for (const end of this.#ends) end();
    this.#client.close();
    this.appends.fail(error);
    this.reads.fail(error);
    this.#options.lost(error);
  }
}

function appendFrame(entries: readonly WireAppendEntry[]): AppendRequest {
  return { entries };
}

function readFrame(items: readonly ReadItem[]): ReadRequest {
  const reads: WireReadEntries[] = [];
  const lacs: WireReadLac[] = [];
  for (const item of items) {
    if (item.kind === 'entries') reads.push(item.read);
    else lacs.push(item.read);
  }
  return { reads, lacs };
}
