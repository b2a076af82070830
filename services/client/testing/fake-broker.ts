/**
 * A broker for tests: real gRPC, everything in memory. What it stores outlives `crash` and `listen`, as with the real
 * one; hooks let a test decide what becomes of a batch or an acknowledgment.
 */
import type { Server } from '@grpc/grpc-js';
import type { EntryId, LedgerId, MessageIndex, SequenceId } from '../../lib/ids.ts';
import type { IndexSet } from '../../lib/collections/index-set.ts';
import { decodeBlock, decodeMessages } from '../../wire/block.ts';
import type { OpenProducer, ProducerBlock, PublishBatch, Receipt, ServerHello, Subscribe } from '../../wire/frames.ts';
import { bindWithWideWindows, createServer } from '../../wire/server.ts';
import type { BrokerHandlers } from '../../wire/services.ts';
import { brokerService } from '../../wire/services.ts';
import { FakeConsumeStream } from './fake-consume-stream.ts';
import { FakePublishStream } from './fake-publish-stream.ts';

/** A stored entry. */
export interface FakeEntry {
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  readonly index: MessageIndex;
  readonly count: number;
  readonly block: Buffer;
  readonly crc32c: number;
  readonly producer: string;
  readonly lastSequenceId: SequenceId;
  /** It cannot be read any more. */
  lost: boolean;
}

/** A topic. */
export class FakeTopic {
  readonly entries: FakeEntry[] = [];
  readonly watermarks: Map<string, SequenceId> = new Map();
  /** Acknowledged indexes by subscription. */
  readonly subscriptions: Map<string, IndexSet> = new Map();
  /** How often a subscription was moved. */
  readonly moves: Map<string, number> = new Map();
  /** Instances of connected producers and consumers, by name. */
  readonly producers: Map<string, string> = new Map();
  readonly #appended = new Set<() => void>();

  get end(): MessageIndex {
    const last = this.entries.at(-1);
    return (last === undefined ? 0 : last.index + last.count) as MessageIndex;
  }

  /** Payloads of all messages, as text, in order. */
  get texts(): string[] {
    return this.entries.flatMap((entry) => decodeMessages(entry.block).messages.map((m) => m.payload.toString()));
  }

  append(batch: PublishBatch, fields: ProducerBlock): FakeEntry {
    const entry: FakeEntry = {
      ledgerId: 7 as LedgerId,
      entryId: this.entries.length as EntryId,
      index: this.end,
      count: fields.count,
      block: Buffer.from(batch.block),
      crc32c: batch.crc32c ?? 0,
      producer: fields.producerName,
      lastSequenceId: fields.lastSequenceId,
      lost: false,
    };
    this.entries.push(entry);
    this.watermarks.set(fields.producerName, fields.lastSequenceId);
    for (const listener of this.#appended) listener();
    return entry;
  }

  /** The receipt for a batch: stores it unless it was stored before. */
  store(batch: PublishBatch): Receipt {
    const fields = decodeBlock(batch.block);
    const { producerName, firstSequenceId, lastSequenceId } = fields;
    const watermark = this.watermarks.get(producerName) ?? (-1n as SequenceId);
    const base = { producer: batch.producer, lastSequenceId };
    const nowhere = { ledgerId: 0 as LedgerId, entryId: 0 as EntryId, index: 0 as MessageIndex, count: 0 };
    if (lastSequenceId <= watermark) {
      const known = this.entries.find((e) => e.producer === producerName && e.lastSequenceId === lastSequenceId);
      const { ledgerId, entryId, index, count } = known ?? nowhere;
      return { ...base, ledgerId, entryId, index, count, duplicate: true };
    }
    if (firstSequenceId <= watermark) {
      const details = { watermark: String(watermark) };
      const error = { code: 'SEQUENCE_OVERLAP', message: 'partly stored', retryable: false, details };
      return { ...base, ...nowhere, error, duplicate: false };
    }
    const { ledgerId, entryId, index, count } = this.append(batch, fields);
    return { ...base, ledgerId, entryId, index, count, duplicate: false };
  }

  onAppended(listener: () => void): () => void {
    this.#appended.add(listener);
    return () => this.#appended.delete(listener);
  }
}

/** What becomes of a batch: it is stored and answered; stored, but the answer is lost; ignored; refused. */
export type BatchFate = 'store' | 'storeSilently' | 'ignore' | { readonly refuse: string; readonly retryable: boolean };

/** What becomes of an Ack: it is done and answered; done, but the answer is lost; refused. */
type AckFate = 'confirm' | 'confirmSilently' | { readonly refuse: string; readonly retryable: boolean };

/** What a test decides. */
export interface FakeHooks {
  batch: (batch: PublishBatch, topic: FakeTopic) => BatchFate;
  /** Why a producer is refused. */
  open: (open: OpenProducer) => { code: string; retryable: boolean } | undefined;
  ack: () => AckFate;
  /** Why a consumer is refused. */
  subscribe: (subscribe: Subscribe) => { code: string; retryable: boolean } | undefined;
  /** False: a seek is done, or refused, but the answer is lost. */
  answerSeek: () => boolean;
  /** False: a consume stream is taken in, and nothing is said on it. */
  greet: () => boolean;
}

/** What the broker grants. */
export interface FakeLimits {
  readonly maxMessageBytes: number;
  readonly maxFrameBytes: number;
  readonly publishItems: number;
  readonly publishBytes: number;
  readonly ackItems: number;
}

const LIMITS: FakeLimits = {
  maxMessageBytes: 1_048_576,
  maxFrameBytes: 16_777_216,
  publishItems: 1_000,
  publishBytes: 8_388_608,
  ackItems: 100,
};

export class FakeBroker {
  readonly topics: Map<string, FakeTopic> = new Map();
  /** Of streams that are opened from now on. */
  limits: FakeLimits;
  readonly hooks: FakeHooks = {
    batch: () => 'store',
    open: () => undefined,
    ack: () => 'confirm',
    subscribe: () => undefined,
    answerSeek: () => true,
    greet: () => true,
  };
  readonly #violations: string[] = [];
  readonly publishStreams: Set<FakePublishStream> = new Set();
  readonly consumeStreams: Set<FakeConsumeStream> = new Set();
  /** How many streams there were. */
  streamsOpened = 0;
  #server: Server | undefined;
  #port = 0;
  #names = 0;

  constructor(limits: Partial<FakeLimits> = {}) {
    this.limits = { ...LIMITS, ...limits };
  }

  get url(): string {
    return `grpc://127.0.0.1:${this.#port}`;
  }

  topic(name: string): FakeTopic {
    const topic = this.topics.get(name) ?? new FakeTopic();
    this.topics.set(name, topic);
    return topic;
  }

  hello(items: number, bytes: number): ServerHello {
    const { maxMessageBytes, maxFrameBytes } = this.limits;
    return {
      protocolVersion: 1,
      features: [],
      server: 'fake',
      maxMessageBytes,
      maxFrameBytes,
      credit: { items, bytes },
    };
  }

  makeName(): string {
    return `made-${++this.#names}`;
  }

  /** Listens, at the same port as before. */
  async listen(): Promise<this> {
    const handlers: BrokerHandlers = {
      Publish: (call) => {
        this.streamsOpened++;
        this.publishStreams.add(new FakePublishStream(this, call));
      },
      Consume: (call) => {
        this.streamsOpened++;
        this.consumeStreams.add(new FakeConsumeStream(this, call));
      },
    };
    this.#server = createServer();
    this.#server.addService(brokerService, handlers);
    this.#port = await bindWithWideWindows(this.#server, `127.0.0.1:${this.#port}`);
    return this;
  }

  /** Ends all connections at once. What was stored stays. */
  crash(): void {
    for (const topic of this.topics.values()) topic.producers.clear();
    this.publishStreams.clear();
    this.consumeStreams.clear();
    this.#server?.forceShutdown();
    this.#server = undefined;
  }

  /** Ends all connections, and listens again. */
  async restart(): Promise<void> {
    this.crash();
    await this.listen();
  }

  /** Notes what a client did that it must not. */
  violated(text: string): void {
    this.#violations.push(text);
  }

  /** @throws Error when a client did what it must not */
  checkClean(): void {
    if (this.#violations.length > 0) throw new Error(this.#violations.join('; '));
  }
}
