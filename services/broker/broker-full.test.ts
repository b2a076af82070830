import { afterEach, describe, expect, test } from 'vitest';
import { Client, type Consumer, type Message, type Producer } from '../client/index.ts';
import type { Ledgers } from '../ledger/ledgers.ts';
import type { MemoryBookie } from '../ledger/testing/memory-bookie.ts';
import { THREE } from '../ledger/testing/memory-cluster.ts';
import { hasCode, MagnetarError } from '../lib/errors.ts';
import { keys } from '../metadata/keys.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { silentLogger } from '../runtime/logger.ts';
import { BrokerWorld, type RunningTestBroker } from './testing/broker-world.ts';

const TOPIC = 'orders';
const FULL = new MagnetarError('DISK_FULL', 'bookie x takes no entries because its disk is full: /x has 5 bytes free');

let world: BrokerWorld;
let client: Client;
/** What the SDK warned of. */
let warnings: string[];

afterEach(async () => {
  await client.close();
  await world.close();
});

async function start(
  options: ConstructorParameters<typeof BrokerWorld>[0] = {},
  ...more: Parameters<BrokerWorld['start']>
): Promise<RunningTestBroker> {
  world = new BrokerWorld(options);
  const broker = await world.start(...more);
  warnings = [];
  const warn = (message: string): void => void warnings.push(message);
  const serviceUrl = `grpc://127.0.0.1:${broker.port}`;
  client = new Client({ serviceUrl, operationTimeoutMs: 10_000, logger: { ...silentLogger, warn } });
  return broker;
}

function fill(on: boolean, bookies: readonly MemoryBookie[] = world.cluster.bookies): void {
  for (const bookie of bookies) bookie.full = on ? FULL : undefined;
}

async function ledgersMade(store: MetadataStore): Promise<number> {
  const [live, gone] = await Promise.all([
    store.range({ prefix: keys.ledgers }),
    store.range({ prefix: keys.deletedLedgers }),
  ]);
  return live.items.length + gone.items.length;
}

async function connect(options: { sendTimeoutMs?: number } = {}): Promise<Producer> {
  return await client.createProducer({ topic: TOPIC, producerName: 'p', batchingMaxMessages: 5, ...options });
}

async function sendAll(producer: Producer, from: number, count: number): Promise<number[]> {
  const numbers = Array.from({ length: count }, (_, n) => from + n);
  const ids = await Promise.all(numbers.map(async (n) => await producer.send({ data: `m${n}`, sequenceId: n })));
  return ids.map(({ index }) => index ?? -1);
}

async function take(consumer: Consumer, count: number): Promise<Message[]> {
  return await Promise.all(Array.from({ length: count }, async () => await consumer.receive({ timeoutMs: 5_000 })));
}

async function readAll(): Promise<string[]> {
  const reader = await client.createReader({ topic: TOPIC, startPosition: 'earliest' });
  const texts: string[] = [];
  for await (const message of reader.messages({ untilEnd: true })) texts.push(message.data.toString());
  return texts;
}

function unlessBusy(error: unknown): undefined {
  if (!hasCode(error, 'CONSUMER_BUSY')) throw error;
}

function numbered(count: number): string[] {
  return Array.from({ length: count }, (_, n) => `m${n}`);
}

async function codeOf(work: Promise<unknown>): Promise<{ code: string; message: string }> {
  try {
    await work;
    return { code: 'none', message: '' };
  } catch (error) {
    return hasCode(error) ? { code: error.code, message: error.message } : { code: 'other', message: String(error) };
  }
}

describe('while no bookie has room', () => {
  test('a publish is refused after its time with the reason; it makes no ledgers; the rest is stored when there is room', async () => {
    const { store } = await start();
    const [producer, impatient] = [
      await connect(),
      await client.createProducer({ topic: TOPIC, producerName: 'q', sendTimeoutMs: 700 }),
    ];
    expect(await sendAll(producer, 0, 20)).toEqual(numbered(20).map((_, n) => n));
    fill(true);
    const before = await ledgersMade(store);
    const waiting = sendAll(producer, 20, 100);
    const refused = await codeOf(impatient.send({ data: 'x' }));
    expect(refused.code).toBe('DISK_FULL');
    expect(refused.message).toMatch(/within sendTimeoutMs, 700 ms.*bookie x takes no entries because its disk is full/);
    expect(await ledgersMade(store)).toBeLessThanOrEqual(before + 1);
    fill(false);
    expect(await waiting).toEqual(Array.from({ length: 100 }, (_, n) => 20 + n));
    expect(await readAll()).toEqual(numbered(120));
  });

  test('consumers and readers go on, also new ones, and notice nothing', async () => {
    await start({}, { cacheBytes: 0 });
    const producer = await connect();
    await sendAll(producer, 0, 60);
    const consumer = await client.subscribe({ topic: TOPIC, subscription: 's', startPosition: 'earliest' });
    const first = await take(consumer, 20);
    await Promise.all(first.map(async (message) => await consumer.acknowledge(message)));
    fill(true);
    warnings = [];
    const second = await take(consumer, 20);
    expect(second.map(({ index }) => index)).toEqual(Array.from({ length: 20 }, (_, n) => 20 + n));
    const acks = Promise.all(second.map(async (message) => await consumer.acknowledge(message)));
    acks.catch(() => {}); // awaited below
    expect(await readAll()).toEqual(numbered(60));
    const third = await take(consumer, 20);
    expect(third.map(({ index }) => index)).toEqual(Array.from({ length: 20 }, (_, n) => 40 + n));
    expect(warnings).toEqual([]);
    fill(false);
    await acks;
    await consumer.close();
    fill(true);
    const again = await client.subscribe({ topic: TOPIC, subscription: 's' });
    expect((await take(again, 20)).map(({ index }) => index)).toEqual(Array.from({ length: 20 }, (_, n) => 40 + n));
  });

  test('acknowledgments wait for room, and say so after their time; none is forgotten, none is confirmed too early', async () => {
    const broker = await start({}, { cacheBytes: 0 });
    const producer = await connect();
    await sendAll(producer, 0, 30);
    const serviceUrl = `grpc://127.0.0.1:${broker.port}`;
    await using impatient = new Client({ serviceUrl, operationTimeoutMs: 600, logger: silentLogger });
    const consumer = await impatient.subscribe({ topic: TOPIC, subscription: 's', startPosition: 'earliest' });
    const messages = await take(consumer, 30);
    for (const message of messages.slice(0, 5)) await consumer.acknowledge(message);
    fill(true);
    const late = await codeOf(consumer.acknowledge(messages[5] as Message));
    expect(late.code).toBe('DISK_FULL');
    expect(late.message).toMatch(/within operationTimeoutMs, 600 ms .*its disk is full/);
    // It counts already, but is not confirmed.
    expect((await codeOf(consumer.acknowledge(messages[5] as Message))).code).toBe('DISK_FULL');
    fill(false);
    for (;;) {
      const { code } = await codeOf(consumer.acknowledge(messages[6] as Message));
      if (code === 'none') break;
      expect(code).toBe('DISK_FULL');
    }
    broker.kill();
    const next = await world.start({ cacheBytes: 0 });
    await using other = new Client({ serviceUrl: `grpc://127.0.0.1:${next.port}` });
    const again = await other.subscribe({ topic: TOPIC, subscription: 's' });
    expect((await again.receive()).index).toBe(7);
  });

  test('a new subscription is refused with the reason, and is there when there is room', async () => {
    const broker = await start();
    await sendAll(await connect(), 0, 10);
    fill(true);
    const serviceUrl = `grpc://127.0.0.1:${broker.port}`;
    await using impatient = new Client({ serviceUrl, operationTimeoutMs: 500, logger: silentLogger });
    const options = { topic: TOPIC, subscription: 'new', startPosition: 'earliest' } as const;
    const refused = await codeOf(impatient.subscribe(options));
    expect([refused.code, refused.message]).toEqual(['DISK_FULL', expect.stringContaining('its disk is full')]);
    await impatient.close(); // its last try may still be with the broker
    fill(false);
    let consumer: Consumer | undefined;
    while (consumer === undefined) consumer = await client.subscribe(options).catch(unlessBusy);
    expect((await take(consumer, 10)).map(({ index }) => index)).toEqual(numbered(10).map((_, n) => n));
  });

  test('a topic is opened by another broker and read; it is published to when there is room', async () => {
    const broker = await start({}, { cacheBytes: 0 });
    await sendAll(await connect(), 0, 30);
    fill(true);
    broker.kill();
    await client.close();
    const next = await world.start({ cacheBytes: 0 });
    client = new Client({ serviceUrl: `grpc://127.0.0.1:${next.port}` });
    expect(await readAll()).toEqual(numbered(30));
    const sent = sendAll(await connect(), 30, 10);
    fill(false);
    await sent;
    expect(await readAll()).toEqual(numbered(40));
  });
});

describe('while the metadata has no room', () => {
  test('an open ledger goes on; a roll is refused with the reason until there is room', async () => {
    let full = false;
    const makes = (ledgers: Ledgers): Ledgers => ({
      copies: ledgers.copies,
      unwritable: ledgers.unwritable,
      create: async (linkedAs) => {
        if (full) throw new MagnetarError('DISK_FULL', 'the metadata store cannot write because its disk is full: /m');
        return await ledgers.create(linkedAs);
      },
      recover: async (id) => await ledgers.recover(id),
      reader: async (id, upTo) => await ledgers.reader(id, upTo),
      deletion: (ids) => ledgers.deletion(ids),
      close: async () => await ledgers.close(),
    });
    const broker = await start({}, { ledger: { rollEntries: 2 } }, { ledgers: makes });
    const producer = await connect({ sendTimeoutMs: 0 });
    await sendAll(producer, 0, 20);
    full = true;
    const waiting = sendAll(producer, 20, 100);
    const impatient = await client.createProducer({ topic: TOPIC, producerName: 'q', sendTimeoutMs: 700 });
    const refused = await codeOf(impatient.send({ data: 'x' }));
    expect([refused.code, refused.message]).toEqual(['DISK_FULL', expect.stringContaining('/m')]);
    expect(broker.broker.ready).toBe(true);
    full = false;
    await waiting;
    expect((await readAll()).filter((text) => text !== 'x')).toEqual(numbered(120));
  });
});

test('with one bookie of three that has no room, nobody notices', async () => {
  await start({ bookies: 3, quorum: THREE });
  const producer = await connect();
  await sendAll(producer, 0, 20);
  warnings = [];
  fill(true, world.cluster.bookies.slice(0, 1));
  expect(await sendAll(producer, 20, 50)).toEqual(Array.from({ length: 50 }, (_, n) => 20 + n));
  expect(warnings).toEqual([]);
  fill(true, world.cluster.bookies.slice(0, 2));
  const waiting = sendAll(producer, 70, 10);
  const impatient = await client.createProducer({ topic: TOPIC, producerName: 'q', sendTimeoutMs: 500 });
  expect((await codeOf(impatient.send({ data: 'x' }))).code).toBe('DISK_FULL');
  fill(false);
  await waiting;
  expect(await readAll()).toEqual(numbered(80));
});
