/** Passes TCP connections on to a server and counts what HTTP/2 opens on them, from outside of both ends. */
import { connect, createServer, type Server, type Socket } from 'node:net';

const PREFACE_BYTES = 24;
const FRAME_HEADER_BYTES = 9;
const HEADERS = 1;

/** Counts the HEADERS frames in what a client sends: one for each stream that it opens. */
class StreamCounter {
  streams = 0;
  #skip = PREFACE_BYTES;
  #header: Buffer = Buffer.alloc(0);

  take(chunk: Buffer): void {
    for (let at = 0; at < chunk.length; ) {
      const skipped = Math.min(this.#skip, chunk.length - at);
      this.#skip -= skipped;
      at += skipped;
      const part = chunk.subarray(at, at + FRAME_HEADER_BYTES - this.#header.length);
      this.#header = Buffer.concat([this.#header, part]);
      at += part.length;
      if (this.#header.length < FRAME_HEADER_BYTES) continue;
      if (this.#header[3] === HEADERS) this.streams += 1;
      this.#skip = this.#header.readUIntBE(0, 3);
      this.#header = Buffer.alloc(0);
    }
  }
}

export class H2Proxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #counters: StreamCounter[] = [];

  private constructor(target: number) {
    this.#server = createServer((near) => {
      const far = connect(target, '127.0.0.1');
      const counter = new StreamCounter();
      this.#counters.push(counter);
      near.on('data', (chunk: Buffer) => counter.take(chunk));
      this.#join(near, far);
      this.#join(far, near);
    });
  }

  #join(from: Socket, to: Socket): void {
    this.#sockets.add(from);
    from.pipe(to);
    from.on('error', () => to.destroy());
    from.on('close', () => {
      this.#sockets.delete(from);
      to.destroy();
    });
  }

  /** Listens on a free port for the server on `target`. */
  static async start(target: number): Promise<H2Proxy> {
    const proxy = new H2Proxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get serviceUrl(): string {
    const address = this.#server.address();
    return `grpc://127.0.0.1:${typeof address === 'object' ? address?.port : address}`;
  }

  /** Per connection, in the order in which they came: how many streams the client has opened. */
  get streams(): readonly number[] {
    return this.#counters.map((counter) => counter.streams);
  }

  /** Ends every connection, without a word. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
