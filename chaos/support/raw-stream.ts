/** A bare client of one gRPC stream: sends whatever bytes it is given, and sees every frame and the status. */
import { Client, type ClientDuplexStream, credentials, type StatusObject, status } from '@grpc/grpc-js';
import { appendRequest, appendResponse, readRequest, readResponse } from '../../services/wire/bookie-codec.ts';
import type { Codec } from '../../services/wire/codec.ts';
import { consumeRequest, consumeResponse } from '../../services/wire/consume-codec.ts';
import { decodeBlock } from '../../services/wire/block.ts';
import type {
  AppendRequest,
  AppendResponse,
  ConsumeRequest,
  ConsumeResponse,
  ProducerBlock,
  PublishRequest,
  PublishResponse,
  ReadRequest,
  ReadResponse,
} from '../../services/wire/frames.ts';
import { publishRequest, publishResponse } from '../../services/wire/publish-codec.ts';
import { fromStatus } from '../../services/wire/status.ts';

/** How a stream ended. */
export interface Ended {
  /** gRPC's name of the status, such as INVALID_ARGUMENT. */
  readonly status: string;
  /** `google.rpc.ErrorInfo.reason`; undefined when there is none. */
  readonly reason: string | undefined;
  readonly message: string;
}

export const HELLO = { protocolVersion: 1, features: [], client: 'bare' } as const;

const WAIT_MS = 30_000;
const DETAILS = 'grpc-status-details-bin';

function identity(bytes: Buffer): Buffer {
  return bytes;
}

class RawStream<Request, Response> implements AsyncDisposable {
  readonly frames: Response[] = [];
  readonly #request: Codec<Request>;
  readonly #client: Client;
  readonly #call: ClientDuplexStream<Buffer, Buffer>;
  #ended: Ended | undefined;
  #waiters: (() => void)[] = [];

  constructor(port: number, path: string, request: Codec<Request>, response: Codec<Response>) {
    this.#request = request;
    this.#client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
      'grpc.enable_retries': 0,
    });
    this.#call = this.#client.makeBidiStreamRequest(path, identity, identity);
    this.#call.on('data', (bytes: Buffer) => {
      this.frames.push(response.decode(bytes));
      this.#changed();
    });
    this.#call.on('error', () => {}); // the status says it
    this.#call.on('status', (found: StatusObject) => {
      const known = found.metadata.get(DETAILS).length > 0;
      this.#ended = {
        status: status[found.code],
        reason: known ? fromStatus(found).code : undefined,
        message: found.details,
      };
      this.#changed();
    });
  }

  send(frame: Request): void {
    this.sendBytes(this.#request.encode(frame));
  }

  sendBytes(bytes: Uint8Array): void {
    this.#call.write(Buffer.from(bytes));
  }

  halfClose(): void {
    this.#call.end();
  }

  /** Reads nothing any more. */
  pause(): void {
    this.#call.pause();
  }

  /** What `find` makes of the frames that have come, as soon as that is something. */
  async until<T>(find: (frames: readonly Response[]) => T | undefined): Promise<T> {
    const found = await this.#wait(() => find(this.frames) ?? this.#ended);
    const again = find(this.frames);
    if (again === undefined) throw new Error(`the stream ended: ${JSON.stringify(found)}`);
    return again;
  }

  /** The first frame in which `find` finds something. */
  async answer<T>(find: (frame: Response) => T | undefined): Promise<T> {
    return await this.until((frames) => {
      for (const frame of frames) {
        const found = find(frame);
        if (found !== undefined) return found;
      }
      return undefined;
    });
  }

  /** How the stream ends. */
  async ended(): Promise<Ended> {
    return await this.#wait(() => this.#ended);
  }

  #changed(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }

  async #wait<T>(find: () => T | undefined): Promise<T> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#changed();
    }, WAIT_MS);
    try {
      for (;;) {
        const found = find();
        if (found !== undefined) return found;
        if (late) throw new Error(`nothing came within ${WAIT_MS} ms`);
        await new Promise<void>((resolve) => this.#waiters.push(resolve));
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#call.cancel();
    this.#client.close();
    await this.ended();
  }
}

export type PublishStream = RawStream<PublishRequest, PublishResponse>;
export type ConsumeStream = RawStream<ConsumeRequest, ConsumeResponse>;
export type AppendStream = RawStream<AppendRequest, AppendResponse>;
export type ReadStream = RawStream<ReadRequest, ReadResponse>;

export function publishStream(port: number): PublishStream {
  return new RawStream(port, '/magnetar.v1.Broker/Publish', publishRequest, publishResponse);
}

export function consumeStream(port: number): ConsumeStream {
  return new RawStream(port, '/magnetar.v1.Broker/Consume', consumeRequest, consumeResponse);
}

export function appendStream(port: number): AppendStream {
  return new RawStream(port, '/magnetar.v1.Bookie/Append', appendRequest, appendResponse);
}

export function readStream(port: number): ReadStream {
  return new RawStream(port, '/magnetar.v1.Bookie/Read', readRequest, readResponse);
}

/** A block as it is stored, and when that was: milliseconds since 1970-01-01 UTC, by the broker's clock. */
interface StoredBlock extends ProducerBlock {
  readonly appendTime: number;
}

/** The blocks of a topic. */
export async function storedBlocks(port: number, topic: string): Promise<StoredBlock[]> {
  await using stream = consumeStream(port);
  const start = { at: 'earliest' } as const;
  const name = { subscription: '', name: '', instance: Buffer.alloc(0), topicIdentity: '' };
  stream.send({ hello: HELLO, subscribes: [{ consumer: 1, topic, type: 'exclusive', start, ...name }] });
  stream.send({ flows: [{ consumer: 1, messages: 1_000_000, bytes: 100_000_000 }] });
  await stream.answer(({ caughtUp }) => caughtUp?.[0]);
  const deliveries = stream.frames.flatMap((frame) => frame.deliveries ?? []);
  return deliveries.map(({ block, appendTime }) => ({ ...decodeBlock(block), appendTime }));
}
