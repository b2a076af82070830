import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Client, type MessageId, type Producer } from '../client/index.ts';
import { Gate } from '../ledger/testing/gate.ts';
import { MagnetarError } from '../lib/errors.ts';
import type { LedgerId } from '../lib/ids.ts';
import { BrokerWorld, type RunningTestBroker } from './testing/broker-world.ts';

const TOPIC = 'orders';
const NAME = 'p';

let world: BrokerWorld;
const clients: Client[] = [];

beforeEach(() => {
  world = new BrokerWorld();
});

afterEach(async () => {
  await world.close();
  for (const client of clients.splice(0)) await client.close();
});

/** A producer whose messages are batches of their own. */
async function connect(broker: RunningTestBroker): Promise<Producer> {
  const client = new Client({ serviceUrl: `grpc://127.0.0.1:${broker.port}`, operationTimeoutMs: 5_000 });
  clients.push(client);
  return client.createProducer({ topic: TOPIC, producerName: NAME, batchingEnabled: false });
}

async function readAll(broker: RunningTestBroker): Promise<string[]> {
  const client = new Client({ serviceUrl: `grpc://127.0.0.1:${broker.port}` });
  clients.push(client);
  const reader = await client.createReader({ topic: TOPIC, startPosition: 'earliest' });
  const texts: string[] = [];
  for await (const message of reader.messages({ untilEnd: true })) texts.push(message.data.toString());
  return texts;
}

function numbered(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `m${i}`);
}

/** Sends with sequence ids of its own, from 0 on. */
async function sendAll(producer: Producer, texts: readonly string[]): Promise<MessageId[]> {
  return Promise.all(texts.map((data, i) => producer.send({ data, sequenceId: i })));
}

describe('what an app sends again gets its original ids', () => {
  test.each([
    ['a window as usual', 900, {}],
    ['a wider window', 2_500, { publishWindowItems: 3_000 }],
  ])('a broker that is killed with hundreds of small batches under way: %s', async (_, count, options) => {
    const broker = await world.start(options);
    const producer = await connect(broker);
    const first = await producer.send({ data: 'm0' });
    const [bookie] = world.cluster.bookies;
    if (bookie === undefined) throw new Error('there is a bookie');
    // The bookie stores what comes; its answers stay away, so that there are no receipts.
    const answer = new Gate();
    bookie.after = async () => answer.passed;
    const texts = numbered(count);
    const sends = texts.slice(1).map((data) => producer.send({ data }));
    const { ledgerId } = first;
    while (bookie.entries(ledgerId as LedgerId).size < count) await new Promise((resolve) => setImmediate(resolve));
    bookie.after = undefined;
    broker.kill();
    const next = await world.start(options, { port: broker.port });
    const ids = [first, ...(await Promise.all(sends))];
    expect(ids.map(String)).toEqual(texts.map((__, i) => `${ledgerId}:${i}:0`));
    expect(ids.map((id) => id.index)).toEqual(texts.map((__, i) => i));
    expect(await readAll(next)).toEqual(texts);
    answer.open();
  });

  test('also when the places come out of a snapshot and what was stored after it', async () => {
    const options = { ledger: { dedupSnapshotEntries: 400, rollEntries: 250 } };
    const broker = await world.start(options);
    const texts = numbered(900);
    const before = await sendAll(await connect(broker), texts);
    broker.kill();
    const again = await sendAll(await connect(await world.start(options)), texts);
    expect(again.map(String)).toEqual(before.map(String));
    expect(again.map((id) => id.index)).toEqual(texts.map((_, i) => i));
  });

  test('what is older than a window of batches has an id that says so, and is not stored twice', async () => {
    const broker = await world.start({ ledger: { dedupSnapshotEntries: 400 } });
    const texts = numbered(2_500);
    const before = await sendAll(await connect(broker), texts);
    broker.kill();
    const next = await world.start();
    const again = await sendAll(await connect(next), texts);
    expect(String(again[0])).toBe('unknown');
    expect(again.slice(-1_024).map(String)).toEqual(before.slice(-1_024).map(String));
    expect(await readAll(next)).toEqual(texts);
  });
});

test('an acknowledgment under way when the ack log fails is made again once the topic is open again', async () => {
  const [bookie] = world.cluster.bookies;
  if (bookie === undefined) throw new Error('there is a bookie');
  const broker = await world.start();
  await sendAll(await connect(broker), numbered(2));
  const client = new Client({ serviceUrl: `grpc://127.0.0.1:${broker.port}`, operationTimeoutMs: 5_000 });
  clients.push(client);
  const consumer = await client.subscribe({ topic: TOPIC, subscription: 's', startPosition: 'earliest' });
  await consumer.acknowledge(await consumer.receive());
  const second = await consumer.receive();
  let refusals = 0;
  bookie.before = ({ type }) => {
    // No error of this acknowledgment: to an app it would say nothing, and it could do nothing.
    if (type === 'append' && refusals++ === 0) throw new MagnetarError('LEDGER_FENCED', 'fenced by the test');
  };
  await consumer.acknowledge(second);
  expect(refusals).toBeGreaterThan(1);
});
