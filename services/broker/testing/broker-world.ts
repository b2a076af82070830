/** A broker over metadata and bookies in memory, behind a real gRPC server, and a bare client of its streams. For tests. */
import { Client, type ClientDuplexStream, credentials, type ServiceError } from '@grpc/grpc-js';

import type { MagnetarError } from '../../lib/errors.ts';
import type { Epoch, EntryId, LedgerId, MessageIndex, Millis, SequenceId } from '../../lib/ids.ts';
import type { Ledgers } from '../../ledger/ledgers.ts';
import { type ClusterOptions, MemoryCluster } from '../../ledger/testing/memory-cluster.ts';
import { ensureDefaults } from '../../metadata/namespaces.ts';
import type { MetadataStore } from '../../metadata/store.ts';
import { BlockBuilder, decodeMessages } from '../../wire/block.ts';
import type { Codec } from '../../wire/codec.ts';
import { consumeResponse } from '../../wire/consume-codec.ts';
import type {
  ClientHello,
  ConsumeRequest,
  ConsumeResponse,
  Delivery,
  OpenProducer,
  PublishBatch,
  PublishRequest,
  PublishResponse,
  Subscribe,
} from '../../wire/frames.ts';
import { publishResponse } from '../../wire/publish-codec.ts';
import { type MemoryBudget, memoryBudget } from '../../runtime/memory.ts';
import { nodeClock } from '../../runtime/node/clock.ts';
import { bindWithWideWindows, clientOptions, createServer } from '../../wire/server.ts';
import { brokerService } from '../../wire/services.ts';
import { fromStatus } from '../../wire/status.ts';
import { type Broker, type BrokerSettings, startBroker } from '../broker.ts';

export const HELLO: ClientHello = { protocolVersion: 1, features: [], client: 'test' };

const LOOK_MS = 50;

/** One end of a stream: everything that came, in order, and waiting for what comes. */
export class TestStream<Request, Response> {
  readonly frames: Response[] = [];
  /** Set when the stream has ended; `undefined` inside: without an error. */
  ended: { error: MagnetarError | undefined } | undefined;
  readonly #call: ClientDuplexStream<Request, Buffer>;
  #waiters: (() => void)[] = [];

  constructor(call: ClientDuplexStream<Request, Buffer>, codec: Codec<Response>) {
    this.#call = call;
    call.on('data', (bytes: Buffer) => {
      this.frames.push(codec.decode(bytes));
      this.#wake();
    });
    call.on('error', (error: ServiceError) => {
      this.ended = { error: fromStatus(error) };
      this.#wake();
    });
    call.on('end', () => {
      this.#wake();
    });
    call.on('status', ({ code }: { code: number }) => {
      if (code === 0) this.ended = { error: undefined };
      this.#wake();
    });
  }

  send(frame: Request): void {
    this.#call.write(frame);
  }

  halfClose(): void {
    this.#call.end();
  }

  cancel(): void {
    this.#call.cancel();
  }

  /** Does not read for a while. */
  pause(): void {
    this.#call.pause();
  }

  resume(): void {
    this.#call.resume();
  }

  /**
   * What `find` finds in the frames so far, as soon as it does. Looks for about `ms`, in steps: a process that stood still has the time
   * to read what has come meanwhile.
   */
  async until<T>(find: (frames: readonly Response[]) => T | undefined, ms = 5_000): Promise<T> {
    for (let left = ms; left > 0; ) {
      const found = find(this.frames);
      if (found !== undefined) return found;
      const something = await new Promise<boolean>((resolve) => {
        const timer = nodeClock.after(LOOK_MS, () => resolve(false));
        this.#waiters.push(() => {
          timer.cancel();
          resolve(true);
        });
      });
      if (!something) left -= LOOK_MS;
    }
    const end = this.ended === undefined ? 'open' : `ended: ${this.ended.error?.message ?? 'without an error'}`;
    throw new Error(`not seen within ${ms} ms; stream ${end}; frames: ${summary(this.frames)}`);
  }

  async untilEnded(): Promise<MagnetarError | undefined> {
    return (await this.until(() => this.ended)).error;
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }
}

function summary(frames: readonly unknown[]): string {
  const text = JSON.stringify(frames.slice(-5), (key, value: unknown) => {
    if (typeof value === 'bigint') return String(value);
    return key === 'block' ? '…' : value;
  });
  return text.slice(0, 2_000);
}

function identity(bytes: Buffer): Buffer {
  return bytes;
}

export type PublishStream = TestStream<PublishRequest, PublishResponse>;
export type ConsumeStream = TestStream<ConsumeRequest, ConsumeResponse>;

/** A broker that runs behind a port. */
export class RunningTestBroker {
  readonly broker: Broker;
  readonly port: number;
  readonly store: MetadataStore;
  readonly ledgers: Ledgers;
  readonly #shutdown: () => void;
  readonly #clients: Client[] = [];

  constructor(parts: { broker: Broker; port: number; store: MetadataStore; ledgers: Ledgers; shutdown: () => void }) {
    this.broker = parts.broker;
    this.port = parts.port;
    this.store = parts.store;
    this.ledgers = parts.ledgers;
    this.#shutdown = parts.shutdown;
  }

  #client(): Client {
    const client = new Client(`127.0.0.1:${this.port}`, credentials.createInsecure(), clientOptions);
    this.#clients.push(client);
    return client;
  }

  /** A publish stream on a connection of its own. */
  publish(): PublishStream {
    const { path, requestSerialize, responseDeserialize } = brokerService.Publish;
    const call = this.#client().makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
    return new TestStream(call, publishResponse);
  }

  consume(): ConsumeStream {
    const { path, requestSerialize, responseDeserialize } = brokerService.Consume;
    const call = this.#client().makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
    return new TestStream(call, consumeResponse);
  }

  /** Bytes as they are, on one of the streams. */
  raw(method: 'Publish' | 'Consume'): TestStream<Buffer, Buffer> {
    const call = this.#client().makeBidiStreamRequest(brokerService[method].path, identity, identity);
    return new TestStream(call, { encode: identity, decode: identity });
  }

  /** Stops it as a process that is killed would stop: nothing is closed. */
  kill(): void {
    for (const client of this.#clients) client.close();
    this.#shutdown();
  }

  async stop(): Promise<void> {
    await this.broker.close();
    this.kill();
  }
}

/** Metadata and bookies that outlive brokers. */
export class BrokerWorld {
  readonly cluster: MemoryCluster;
  readonly #running: RunningTestBroker[] = [];

  constructor(options: ClusterOptions = {}) {
    this.cluster = new MemoryCluster({
      bookies: 1,
      quorum: { ensembleSize: 1, writeQuorum: 1, ackQuorum: 1 },
      ...options,
    });
  }

  /** Starts a broker; `wrap` may put something between it and what it works with, and name its port. */
  async start(
    options: BrokerSettings = {},
    wrap: {
      ledgers?: (ledgers: Ledgers) => Ledgers;
      store?: (store: MetadataStore) => MetadataStore;
      port?: number;
      memory?: MemoryBudget;
    } = {},
  ): Promise<RunningTestBroker> {
    const client = this.cluster.client();
    const { environment } = this.cluster;
    await ensureDefaults(client.store, environment.clock.now());
    const ledgers = wrap.ledgers?.(client.ledgers) ?? client.ledgers;
    const store = wrap.store?.(client.store) ?? client.store;
    const { memory = memoryBudget() } = wrap;
    const broker = await startBroker({ environment, store, ledgers, options, memory });
    const server = createServer();
    broker.addTo(server);
    const port = await bindWithWideWindows(server, `127.0.0.1:${wrap.port ?? 0}`);
    const shutdown = (): void => server.forceShutdown();
    const running = new RunningTestBroker({ broker, port, store, ledgers, shutdown });
    this.#running.push(running);
    return running;
  }

  async close(): Promise<void> {
    for (const running of this.#running) await running.stop();
    await this.cluster.close();
  }
}

export function openProducer(producer: number, topic: string, name = '', instance = ''): OpenProducer {
  return { producer, topic, name, instance: Buffer.from(instance) };
}

export function subscribe(consumer: number, topic: string, more: Partial<Subscribe> = {}): Subscribe {
  const usual = {
    subscription: 's',
    type: 'exclusive',
    name: '',
    instance: Buffer.alloc(0),
    topicIdentity: '',
  } as const;
  return { consumer, topic, ...usual, start: { at: 'earliest' }, ...more };
}

/** A batch of texts with consecutive sequence ids. */
export function batch(producer: number, name: string, first: number, lines: readonly string[]): PublishBatch {
  const builder = new BlockBuilder({ producerName: name, epoch: 0 as Epoch, capacityBytes: 131_072 });
  for (const [i, text] of lines.entries()) {
    builder.append({ payload: Buffer.from(text) }, BigInt(first + i) as SequenceId);
  }
  return { producer, ...builder.finish(1 as Millis) };
}

/** The texts of deliveries, those left out that are to be skipped. */
export function texts(deliveries: readonly Delivery[]): string[] {
  return deliveries.flatMap(({ block, skip }) =>
    decodeMessages(block)
      .messages.filter((_, i) => (((skip[i >>> 3] ?? 0) >>> (i & 7)) & 1) === 0)
      .map((message) => message.payload.toString()),
  );
}

export function index(value: number): MessageIndex {
  return value as MessageIndex;
}

export function place(ledger: number, entry: number): { ledgerId: LedgerId; entryId: EntryId } {
  return { ledgerId: ledger as LedgerId, entryId: entry as EntryId };
}
