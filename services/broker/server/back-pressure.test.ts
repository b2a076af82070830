import { EventEmitter } from 'node:events';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type MemoryBudget, memoryBudget } from '../../runtime/memory.ts';
import { until } from '../../runtime/testing/until.ts';
import { MemoryCluster } from '../../ledger/testing/memory-cluster.ts';
import { ensureDefaults } from '../../metadata/namespaces.ts';
import { millis } from '../../lib/ids.ts';
import { consumeRequest } from '../../wire/consume-codec.ts';
import type { ConsumeResponse, Flow, Subscribe } from '../../wire/frames.ts';
import { type BrokerOptions, defaultBrokerOptions } from '../options.ts';
import { acquireOwnership } from '../ownership/ownership.ts';
import { BrokerStats } from '../metrics/broker-stats.ts';
import { parseTopicName } from '../protocol/topic-name.ts';
import { StallGuard } from '../../runtime/stall-guard.ts';
import { batch, HELLO, subscribe } from '../testing/broker-world.ts';
import { EntryCache } from '../topic/entry-cache.ts';
import { Topics } from '../topic/topics.ts';
import { ConsumeSession } from './consume-session.ts';

const OPTIONS: BrokerOptions = { ...defaultBrokerOptions, deliveryWindowBytes: 500_000 };
const BATCH_BYTES = 100_000;
const BATCHES = 100;

let cluster: MemoryCluster;
let topics: Topics;
let memory: MemoryBudget;

beforeEach(async () => {
  memory = memoryBudget();
  cluster = new MemoryCluster({ bookies: 1, quorum: { ensembleSize: 1, writeQuorum: 1, ackQuorum: 1 } });
});

afterEach(async () => {
  await topics.close();
  await cluster.close();
});

/** The server's end of a stream whose client takes nothing until it is told to. */
class StalledCall extends EventEmitter {
  readonly frames: ConsumeResponse[] = [];
  taking = false;
  paused = false;

  readonly #untaken: (() => void)[] = [];

  write(frame: ConsumeResponse, taken?: () => void): boolean {
    this.frames.push(frame);
    if (taken !== undefined) this.#untaken.push(taken);
    if (this.taking) this.take();
    return this.taking;
  }

  /** What was written is taken, later. */
  take(): void {
    for (const taken of this.#untaken.splice(0)) setImmediate(taken);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  end(): void {}
  getPeer(): string {
    return 'test';
  }

  get deliveredBytes(): number {
    const deliveries = this.frames.flatMap((frame) => frame.deliveries ?? []);
    return deliveries.reduce((sum, delivery) => sum + delivery.block.length, 0);
  }
}

function zero(): number {
  return 0;
}

/** Opens the topic and fills it. */
async function fill(cacheBytes: number): Promise<void> {
  const { ledgers, store } = cluster.client();
  const { environment } = cluster;
  const { clock } = environment;
  await ensureDefaults(store, clock.now());
  const ownership = await acquireOwnership({ store, clock, brokerId: 'b', leaseTtl: millis(10_000) });
  const cache = new EntryCache(cacheBytes, memory.share('cache'), clock);
  const recovery = memory.share('recovery');
  const stats = new BrokerStats(clock);
  const shared = { environment, store, ledgers, ownership, cache, recovery, stats };
  topics = new Topics({ ...shared, options: OPTIONS, nextNumber: zero });
  const topic = await topics.open(parseTopicName('orders'));
  const producer = topic.publisher.attach({ name: 'p', instance: '', onClosed: () => undefined });
  const stored = Array.from({ length: BATCHES }, async (_, n) => {
    await new Promise<void>((resolve) => {
      producer.publish(batch(1, 'p', n, ['x'.repeat(BATCH_BYTES)]), () => resolve());
    });
  });
  await Promise.all(stored);
}

function connect(): { call: StalledCall; session: ConsumeSession } {
  const call = new StalledCall();
  const { clock, logger } = cluster.environment;
  const uses = {
    write: memory.share('write'),
    ack: memory.share('ack'),
    read: new StallGuard(clock, memory.share('read')),
    firstRead: new StallGuard(clock, memory.share('firstRead')),
  };
  const stats = new BrokerStats(clock);
  const shared = { clock, logger, options: OPTIONS, stats, memory: uses, topics: () => topics };
  const duplex = call as unknown as ServerDuplexStream<Buffer, ConsumeResponse>;
  return { call, session: new ConsumeSession(duplex, shared, () => undefined) };
}

async function pass(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

/** What was read and no client has taken. */
function owedBytes(): number {
  return memory.share('read').usedBytes + memory.share('firstRead').usedBytes;
}

/** A client of its own gets everything, and is gone. */
async function readEverything(subscribes: readonly Subscribe[], flows: readonly Flow[]): Promise<void> {
  const { call } = connect();
  call.taking = true;
  call.emit('data', consumeRequest.encode({ hello: HELLO, subscribes, flows }));
  await until(() => call.deliveredBytes >= subscribes.length * BATCHES * BATCH_BYTES);
  call.emit('cancelled');
}

test.each([
  ['from the cache', 1_000_000_000],
  ['from the ledgers', 0],
])('a client that takes nothing is owed few bytes, and gets everything once it does: %s', async (_, cacheBytes) => {
  await fill(cacheBytes);
  const { call, session } = connect();
  const permits = { messages: 1_000_000, bytes: 1_000_000_000 };
  const subscribes = [1, 2, 3].map((n) => subscribe(n, 'orders', { subscription: '' }));
  const flows = [1, 2, 3].map((n) => ({ consumer: n, ...permits }));
  call.emit('data', consumeRequest.encode({ hello: HELLO, subscribes, flows }));
  await until(() => call.deliveredBytes > 0);
  // Reads have stopped when as many as another client needs for everything have changed nothing.
  for (let before = 0; before !== owedBytes(); ) {
    before = owedBytes();
    await readEverything(subscribes, flows);
  }
  expect(owedBytes()).toBeGreaterThanOrEqual(call.deliveredBytes);
  // One read of half a MiB, and a little, for each of the three.
  expect(owedBytes()).toBeLessThan(3 * 800_000);
  call.taking = true;
  call.take();
  call.emit('drain');
  await until(() => call.deliveredBytes >= 3 * BATCHES * BATCH_BYTES);
  expect(session.underWay).toBe(0);
});

test('a client that asks on and on but takes no answers is not read any more, until it takes them', async () => {
  await fill(0);
  const { call } = connect();
  call.emit('data', consumeRequest.encode({ hello: HELLO, subscribes: [] }));
  call.write({}); // from here on it takes nothing
  let asked = 0;
  for (; !call.paused && asked < 100_000; asked += 1_000) {
    const subscribes = Array.from({ length: 1_000 }, (_, n) => subscribe(asked + n, '.', { subscription: 's' }));
    call.emit('data', consumeRequest.encode({ subscribes }));
    await pass(0);
  }
  expect(asked).toBeLessThan(30_000);
  call.taking = true;
  call.emit('drain');
  expect(call.paused).toBe(false);
  expect(call.frames.flatMap((frame) => frame.subscribed ?? []).length).toBe(asked);
});

test('of many consumers that read old entries a few read at once, and each of them comes to its turn', async () => {
  await fill(0);
  const { call } = connect();
  call.taking = true;
  let [reading, most] = [0, 0];
  const [bookie] = cluster.bookies;
  if (bookie !== undefined) {
    bookie.before = async ({ type }) => {
      if (type !== 'read') return;
      most = Math.max(most, ++reading);
      await pass(1);
      reading--;
    };
  }
  const numbers = Array.from({ length: 60 }, (_, n) => n + 1);
  const subscribes = numbers.map((n) => subscribe(n, 'orders', { subscription: '' }));
  const flows = numbers.map((consumer) => ({ consumer, messages: 1, bytes: 1 }));
  call.emit('data', consumeRequest.encode({ hello: HELLO, subscribes, flows }));
  const served = (): number => new Set(call.frames.flatMap((f) => f.deliveries ?? []).map((d) => d.consumer)).size;
  await until(() => served() === 60);
  expect(most).toBe(4); // a window of 500,000 bytes, entries of a little more than 100,000
});
