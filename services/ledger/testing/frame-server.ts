/**
 * A bookie's gRPC side for tests of the client, frame by frame: it sees what arrives, and says what the test wants.
 */
import type { Server, ServerDuplexStream } from '@grpc/grpc-js';
import { MagnetarError } from '../../lib/errors.ts';
import { appendRequest, readRequest } from '../../wire/bookie-codec.ts';
import type { AppendRequest, AppendResponse, Credit, ReadRequest, ReadResponse } from '../../wire/frames.ts';
import { bindWithWideWindows, createServer } from '../../wire/server.ts';
import { type BookieHandlers, bookieService } from '../../wire/services.ts';
import { toStatus } from '../../wire/status.ts';

/** One open stream of the client, as the server sees it. */
export interface ServerStream<Request, Response> {
  readonly frames: Request[];
  write(frame: Response): void;
  /** Ends the call with an error. */
  fail(code: MagnetarError['code']): void;
}

export class FrameServer {
  readonly appends: ServerStream<AppendRequest, AppendResponse>[] = [];
  readonly reads: ServerStream<ReadRequest, ReadResponse>[] = [];
  /** What is granted in the hello of new streams; undefined: no hello is sent. */
  credit: Credit | undefined = { items: 1_000, bytes: 1_000_000 };
  protocolVersion = 1;
  instance: Buffer | undefined;
  port = 0;
  #server: Server | undefined;
  readonly #waiting: { holds: () => boolean; resolve: () => void }[] = [];

  async start(): Promise<void> {
    const server = createServer();
    const handlers: BookieHandlers = {
      Append: (call) => this.#open(call, this.appends, appendRequest.decode),
      Read: (call) => this.#open(call, this.reads, readRequest.decode),
    };
    server.addService(bookieService, handlers);
    this.port = await bindWithWideWindows(server, `127.0.0.1:${this.port}`);
    this.#server = server;
  }

  #open<Request, Response>(
    call: ServerDuplexStream<Buffer, Response>,
    streams: ServerStream<Request, Response>[],
    decode: (bytes: Buffer) => Request,
  ): void {
    const frames: Request[] = [];
    streams.push({
      frames,
      write: (frame) => void call.write(frame),
      fail: (code) => void call.emit('error', toStatus(new MagnetarError(code, 'as the test wants it'))),
    });
    call.on('data', (bytes: Buffer) => {
      const frame = decode(bytes);
      frames.push(frame);
      this.#look();
    });
    call.on('end', () => call.end());
    call.on('error', () => {});
    const { credit, protocolVersion, instance } = this;
    if (credit === undefined) return;
    const hello = { protocolVersion, features: [], server: 'test', maxMessageBytes: 1, maxFrameBytes: 1, credit };
    call.write({ hello: instance === undefined ? hello : { ...hello, instance } } as Response);
  }

  #look(): void {
    for (const waiting of this.#waiting) if (waiting.holds()) waiting.resolve();
  }

  /** Resolves when something holds; looked at whenever a frame arrives. */
  async until(holds: () => boolean): Promise<void> {
    if (holds()) return;
    await new Promise<void>((resolve) => this.#waiting.push({ holds, resolve }));
  }

  /** Breaks all connections. */
  stop(): void {
    this.#server?.forceShutdown();
    this.#server = undefined;
  }
}
