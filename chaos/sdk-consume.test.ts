/** What the SDK promises of consuming, over a real server: where it begins, what is acknowledged, how waits end. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  Client,
  type Consumer,
  type MagnetarError,
  type Message,
  MessageId,
  type Reader,
  type StartPosition,
} from '../services/client/index.ts';
import { type ServerProcess, startStandalone } from './support/process.ts';
import { codeOf, refusalOf } from './support/refusal.ts';

let server: ServerProcess;
let client: Client;
let topics = 0;

beforeAll(async () => {
  server = await startStandalone();
  client = new Client({ serviceUrl: server.serviceUrl });
});
afterAll(async () => {
  await client?.close();
  await server?.[Symbol.asyncDispose]();
});

function newTopic(): string {
  topics += 1;
  return `consume-${topics}`;
}

function indexes(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}

/** Publishes "0", "1", … so that text and index agree. Batches of ten. */
async function publish(topic: string, from: number, to: number): Promise<MessageId[]> {
  await using producer = await client.createProducer({ topic, batchingMaxMessages: 10 });
  return await Promise.all(indexes(from, to).map((n) => producer.send({ data: `${n}` })));
}

/** The indexes of what is there now, as the consumer is given them. */
async function drain(receiver: Consumer | Reader): Promise<number[]> {
  const seen: number[] = [];
  for await (const message of receiver.messages({ untilEnd: true })) {
    expect(message.data.toString()).toBe(`${message.index}`);
    seen.push(message.index);
  }
  return seen;
}

/** What a consumer of the subscription is given now. */
async function leftFor(topic: string, subscription: string): Promise<number[]> {
  await using consumer = await client.subscribe({ topic, subscription });
  return await drain(consumer);
}

describe('a reader', () => {
  test('begins at the earliest message, a message id, an index, or after the latest', async () => {
    const topic = newTopic();
    const ids = await publish(topic, 0, 35);
    const id = ids[17] as MessageId;
    const begin: [StartPosition, number][] = [
      ['earliest', 0],
      [id, 17], // inside a batch
      [MessageId.parse(id.toString()), 17],
      [MessageId.deserialize(id.serialize()), 17],
      [{ index: 0 }, 0],
      [{ index: 34 }, 34],
      [{ index: 35 }, 35],
      ['latest', 35],
    ];
    for (const [startPosition, first] of begin) {
      await using reader = await client.createReader({ topic, startPosition });
      expect(await reader.hasNext()).toBe(first < 35);
      expect(await drain(reader)).toEqual(indexes(first, 35));
      expect(await reader.hasNext()).toBe(false);
    }
  });

  test('begins at a time, by the time of appending', async () => {
    const topic = newTopic();
    const times: number[] = [];
    for (const n of indexes(0, 5)) {
      await publish(topic, n, n + 1);
      await using last = await client.createReader({ topic, startPosition: { index: n } });
      times.push((await last.readNext()).appendTime);
      // The next one is to be appended in a later millisecond.
      while (Date.now() <= (times[n] ?? 0) + 1) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    for (const [n, time] of times.entries()) {
      await using at = await client.createReader({ topic, startPosition: new Date(time) });
      expect(await drain(at)).toEqual(indexes(n, 5));
      await using after = await client.createReader({ topic, startPosition: new Date(time + 1) });
      expect(await drain(after)).toEqual(indexes(n + 1, 5));
    }
    await using long = await client.createReader({ topic, startPosition: new Date(0) });
    expect(await drain(long)).toEqual(indexes(0, 5));
    await using future = await client.createReader({ topic, startPosition: new Date(Date.now() + 3_600_000) });
    expect(await drain(future)).toEqual([]);
    await publish(topic, 5, 6);
    expect((await future.readNext()).index).toBe(5);
  });

  test('seeks to every kind of position, also back; what was fetched ahead is gone', async () => {
    const topic = newTopic();
    const ids = await publish(topic, 0, 30);
    await using reader = await client.createReader({ topic, startPosition: 'earliest' });
    const seeks: [StartPosition, number][] = [
      [ids[25] as MessageId, 25],
      ['earliest', 0],
      [{ index: 12 }, 12],
      ['latest', 30],
      [new Date(0), 0],
    ];
    for (const [position, first] of seeks) {
      await reader.seek(position);
      expect(await drain(reader)).toEqual(indexes(first, 30));
    }
  });

  test('is refused a position that does not exist, and keeps its own', async () => {
    const topic = newTopic();
    await publish(topic, 0, 10);
    await using reader = await client.createReader({ topic, startPosition: { index: 3 } });
    for (const position of [new MessageId(1_000_000, 0, 0), { index: 11 }]) {
      expect(await codeOf(reader.seek(position))).toBe('POSITION_NOT_FOUND');
    }
    expect(await drain(reader)).toEqual(indexes(3, 10));
  });
});

describe('a subscription', () => {
  test('begins where it was made, and goes on where it was', async () => {
    const topic = newTopic();
    await publish(topic, 0, 10);
    const latest = await client.subscribe({ topic, subscription: 'latest' });
    const earliest = await client.subscribe({ topic, subscription: 'earliest', startPosition: 'earliest' });
    await publish(topic, 10, 20);
    expect(await drain(latest)).toEqual(indexes(10, 20));
    expect(await drain(earliest)).toEqual(indexes(0, 20));
    await latest.close();
    await earliest.close();
    await using again = await client.subscribe({ topic, subscription: 'latest', startPosition: 'earliest' });
    expect(await drain(again)).toEqual(indexes(10, 20));
  });

  test('acknowledgments, single and cumulative, survive kill -9 of the server', async () => {
    await using own = await startStandalone();
    await using alone = new Client({ serviceUrl: own.serviceUrl });
    const topic = 't';
    const producer = await alone.createProducer({ topic, batchingMaxMessages: 7 });
    await Promise.all(indexes(0, 2_000).map((n) => producer.send({ data: `${n}` })));
    const options = { topic, subscription: 's', startPosition: 'earliest' } as const;
    const consumer = await alone.subscribe(options);
    const messages: Message[] = [];
    for await (const message of consumer.messages({ untilEnd: true })) messages.push(message);
    const odd = messages.filter(({ index }) => index % 2 === 1);
    await Promise.all(odd.map((message) => consumer.acknowledge(message)));
    await consumer.acknowledgeCumulative(messages[499] as Message);
    await consumer.acknowledge((messages[1_000] as Message).messageId);
    const expected = indexes(500, 2_000).filter((n) => n % 2 === 0 && n !== 1_000);
    for (const how of ['kill', 'kill', 'stop'] as const) {
      await own[how]();
      await own.start();
      await using other = new Client({ serviceUrl: own.serviceUrl });
      await consumer.close();
      await using next = await other.subscribe({ topic, subscription: 's' });
      expect(await drain(next)).toEqual(expected);
    }
  });

  test('acknowledging is idempotent, in any order, also of what was not delivered yet', async () => {
    const topic = newTopic();
    const ids = await publish(topic, 0, 100);
    await using consumer = await client.subscribe({ topic, subscription: 's', startPosition: { index: 0 } });
    for (let round = 0; round < 2; round++) {
      await Promise.all([99, 50, 50, 3, 98, 3].map(async (n) => await consumer.acknowledge(ids[n] as MessageId)));
      await consumer.acknowledgeCumulative(ids[9] as MessageId);
      await consumer.acknowledgeCumulative(ids[2] as MessageId);
    }
    await consumer.close();
    expect(await leftFor(topic, 's')).toEqual(indexes(10, 98).filter((n) => n !== 50));
  });

  test('a seek moves it for good, back and forth', async () => {
    const topic = newTopic();
    const ids = await publish(topic, 0, 40);
    await using consumer = await client.subscribe({ topic, subscription: 's', startPosition: 'earliest' });
    await consumer.acknowledgeCumulative(ids[39] as MessageId);
    const seeks: [StartPosition, number][] = [
      [{ index: 5 }, 5],
      ['latest', 40],
      ['earliest', 0],
      [ids[33] as MessageId, 33],
      [new Date(0), 0],
      [{ index: 20 }, 20],
    ];
    for (const [position, first] of seeks) {
      await consumer.seek(position);
      expect(await drain(consumer)).toEqual(indexes(first, 40));
    }
    await consumer.close();
    expect(await leftFor(topic, 's')).toEqual(indexes(20, 40));
  });

  test('unsubscribing deletes it: the name begins anew', async () => {
    const topic = newTopic();
    const ids = await publish(topic, 0, 10);
    const consumer = await client.subscribe({ topic, subscription: 's', startPosition: 'earliest' });
    await consumer.acknowledgeCumulative(ids[9] as MessageId);
    await consumer.unsubscribe();
    expect(await codeOf(consumer.receive())).toBe('ALREADY_CLOSED');
    expect(await codeOf(consumer.unsubscribe())).toBe('ALREADY_CLOSED');
    await using again = await client.subscribe({ topic, subscription: 's', startPosition: 'earliest' });
    expect(await drain(again)).toEqual(indexes(0, 10));
  });

  test('subscriptions of a topic know nothing of each other', async () => {
    const topic = newTopic();
    const ids = await publish(topic, 0, 10);
    const names = ['a', 'b', 'ü/ ☃'];
    for (const [at, subscription] of names.entries()) {
      await using consumer = await client.subscribe({ topic, subscription, startPosition: 'earliest' });
      await consumer.acknowledgeCumulative(ids[at] as MessageId);
    }
    for (const [at, subscription] of names.entries()) {
      expect(await leftFor(topic, subscription)).toEqual(indexes(at + 1, 10));
    }
  });
});

describe('waiting', () => {
  test('receive resolves with what comes, in order of the calls; a time limit ends it', async () => {
    const topic = newTopic();
    await using consumer = await client.subscribe({ topic, subscription: 's' });
    expect(await codeOf(consumer.receive({ timeoutMs: 1 }))).toBe('DEADLINE_EXCEEDED');
    const waits = indexes(0, 20).map(async () => (await consumer.receive()).index);
    await publish(topic, 0, 20);
    expect(await Promise.all(waits)).toEqual(indexes(0, 20));
  });

  test('a signal ends receive and iteration with its reason; no message is lost by it', async () => {
    const topic = newTopic();
    await using consumer = await client.subscribe({ topic, subscription: 's' });
    const [abort, reason] = [new AbortController(), new Error('enough')];
    const { signal } = abort;
    const waits = [
      consumer.receive({ signal }),
      consumer.messages({ signal }).next(),
      (async () => {
        for await (const message of consumer.messages({ signal })) throw new Error(`got ${message.index}`);
      })(),
    ];
    abort.abort(reason);
    for (const wait of waits) await expect(wait).rejects.toBe(reason);
    await expect(consumer.receive({ signal })).rejects.toBe(reason);
    await expect(client.createReader({ topic }, { signal })).rejects.toBe(reason);
    await publish(topic, 0, 10);
    expect(await drain(consumer)).toEqual(indexes(0, 10));
  });

  test('an iteration that is left goes on where it was', async () => {
    const topic = newTopic();
    await publish(topic, 0, 30);
    await using consumer = await client.subscribe({ topic, subscription: 's', startPosition: 'earliest' });
    for await (const { index } of consumer) if (index === 9) break;
    expect((await consumer.receive()).index).toBe(10);
    expect(await drain(consumer)).toEqual(indexes(11, 30));
    expect(await drain(consumer)).toEqual([]); // the end is where it was when the iteration began
  });
});

describe('closing', () => {
  test('`await using` closes, and closing waits for what is under way', async () => {
    const topic = newTopic();
    let sent: Promise<MessageId>;
    let acknowledged: Promise<void>;
    {
      await using own = new Client({ serviceUrl: server.serviceUrl });
      await using producer = await own.createProducer({ topic });
      sent = producer.send({ data: '0' });
    }
    expect((await sent).index).toBe(0);
    {
      await using own = new Client({ serviceUrl: server.serviceUrl });
      await using consumer = await own.subscribe({ topic, subscription: 's', startPosition: 'earliest' });
      acknowledged = consumer.acknowledge(await consumer.receive());
    }
    await acknowledged;
    expect(await leftFor(topic, 's')).toEqual([]);
  });

  test('whatever is used afterwards says ALREADY_CLOSED in one line, of what and which', async () => {
    const topic = newTopic();
    const own = new Client({ serviceUrl: server.serviceUrl });
    const producer = await own.createProducer({ topic });
    const id = await producer.send({ data: '0' });
    const consumer = await own.subscribe({ topic, subscription: 'sub' });
    const reader = await own.createReader({ topic });
    const refused: [Promise<MagnetarError>, string][] = [
      [refusalOf(consumer.receive()), 'sub'],
      [refusalOf(reader.readNext()), topic],
    ];
    const iteration = consumer.messages().next();
    for (const each of [producer, consumer, reader, own]) await Promise.all([each.close(), each.close()]);
    expect(await iteration).toEqual({ done: true, value: undefined });
    refused.push(
      [refusalOf(producer.send({ data: '1' })), topic],
      [refusalOf(producer.flush()), topic],
      [refusalOf(consumer.receive()), 'sub'],
      [refusalOf(consumer.acknowledge(id)), 'sub'],
      [refusalOf(consumer.seek('earliest')), 'sub'],
      [refusalOf(consumer.unsubscribe()), 'sub'],
      [refusalOf(reader.readNext()), topic],
      [refusalOf(reader.hasNext()), topic],
      [refusalOf(reader.seek('earliest')), topic],
      [refusalOf(own.createProducer({ topic })), server.serviceUrl],
      [refusalOf(own.subscribe({ topic, subscription: 's' })), server.serviceUrl],
      [refusalOf(own.createReader({ topic })), server.serviceUrl],
    );
    for (const [refusal, named] of refused) {
      const { code, message } = await refusal;
      expect([code, message]).toEqual(['ALREADY_CLOSED', expect.stringContaining(named)]);
    }
  });

  test('closing a client closes what it made; other clients go on', async () => {
    const topic = newTopic();
    const own = new Client({ serviceUrl: server.serviceUrl });
    const consumer = await own.subscribe({ topic, subscription: 's' });
    await own.createProducer({ topic, producerName: 'p' });
    await own.close();
    expect(await codeOf(consumer.receive())).toBe('ALREADY_CLOSED');
    await using producer = await client.createProducer({ topic, producerName: 'p' });
    await using next = await client.subscribe({ topic, subscription: 's' });
    await producer.send({ data: '0' });
    expect((await next.receive()).index).toBe(0);
  });
});
