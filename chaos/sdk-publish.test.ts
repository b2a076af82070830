/** What the SDK promises of publishing, over a real server: batches, limits, sequence ids, order. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Client, type Message, type MessageId, type Producer } from '../services/client/index.ts';
import { type ServerProcess, startStandalone } from './support/process.ts';
import { codeOf, refusalOf } from './support/refusal.ts';
import { suspend } from './support/suspend.ts';

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
  return `publish-${topics}`;
}

function numbers(from: number, to: number): string[] {
  return Array.from({ length: to - from }, (_, i) => `${from + i}`);
}

/** Sends texts without waiting in between. */
function sendAll(producer: Producer, texts: readonly string[]): Promise<MessageId>[] {
  return texts.map((data) => producer.send({ data }));
}

async function readAll(topic: string): Promise<Message[]> {
  await using reader = await client.createReader({ topic, startPosition: 'earliest' });
  const messages: Message[] = [];
  for await (const message of reader.messages({ untilEnd: true })) messages.push(message);
  return messages;
}

async function textsOf(topic: string): Promise<string[]> {
  return (await readAll(topic)).map(({ data }) => data.toString());
}

function entriesOf(ids: readonly MessageId[]): Map<string, number> {
  const entries = new Map<string, number>();
  for (const { ledgerId, entryId } of ids) {
    const entry = `${ledgerId}:${entryId}`;
    entries.set(entry, (entries.get(entry) ?? 0) + 1);
  }
  return entries;
}

describe('batches', () => {
  test('1,000 sends of one turn become one entry, in order', async () => {
    const topic = newTopic();
    await using producer = await client.createProducer({ topic });
    const ids = await Promise.all(sendAll(producer, numbers(0, 1_000)));
    expect([...entriesOf(ids).values()]).toEqual([1_000]);
    expect(ids.map(({ batchIndex }) => batchIndex)).toEqual(ids.map((_, i) => i));
    expect(ids.map(({ index }) => index)).toEqual(ids.map((_, i) => i));
    const messages = await readAll(topic);
    expect(messages.map(({ messageId }) => messageId.toString())).toEqual(ids.map((id) => id.toString()));
    expect(messages.map(({ data }) => data.toString())).toEqual(numbers(0, 1_000));
  });

  test('are full with batchingMaxMessages, or batchingMaxBytes', async () => {
    await using byCount = await client.createProducer({ topic: newTopic(), batchingMaxMessages: 300 });
    const counts = entriesOf(await Promise.all(sendAll(byCount, numbers(0, 1_000))));
    expect([...counts.values()]).toEqual([300, 300, 300, 100]);
    await using byBytes = await client.createProducer({ topic: newTopic(), batchingMaxBytes: 16_384 });
    const sizes = entriesOf(await Promise.all(numbers(0, 100).map((n) => byBytes.send({ data: n.padEnd(1_000) }))));
    for (const count of sizes.values()) expect(count).toBeLessThanOrEqual(16);
    expect(sizes.size).toBeLessThanOrEqual(8);
  });

  test('without batching every message is an entry', async () => {
    await using producer = await client.createProducer({ topic: newTopic(), batchingEnabled: false });
    const ids = await Promise.all(sendAll(producer, numbers(0, 200)));
    expect(entriesOf(ids).size).toBe(200);
    expect(new Set(ids.map(({ batchIndex }) => batchIndex))).toEqual(new Set([0]));
  });
});

describe('the queue of pending messages', () => {
  test('without blockIfQueueFull a send too many is refused at once, and nothing of it is stored', async () => {
    const topic = newTopic();
    await using producer = await client.createProducer({ topic, maxPendingMessages: 10, blockIfQueueFull: false });
    using pause = await suspend(server);
    const sent = sendAll(producer, numbers(0, 10));
    const error = await refusalOf(producer.send({ data: 'too many' }));
    expect(error.code).toBe('QUEUE_FULL');
    expect(error.message).toMatch(/10 messages of \d+ bytes are pending, at most 10/);
    pause.resume();
    await Promise.all(sent);
    await producer.send({ data: 'room again' });
    expect(await textsOf(topic)).toEqual([...numbers(0, 10), 'room again']);
  });

  test('with it as many sends may wait, in order; more are refused', async () => {
    const topic = newTopic();
    await using producer = await client.createProducer({ topic, maxPendingMessages: 100 });
    using pause = await suspend(server);
    const sent = sendAll(producer, numbers(0, 199));
    const abort = new AbortController();
    const given = producer.send({ data: 'given up' }, { signal: abort.signal });
    expect(await codeOf(producer.send({ data: 'too many' }))).toBe('QUEUE_FULL');
    const reason = new Error('the app has something better to do');
    abort.abort(reason);
    await expect(given).rejects.toBe(reason);
    await expect(producer.send({ data: 'too late' }, { signal: abort.signal })).rejects.toBe(reason);
    sent.push(producer.send({ data: '199' }));
    pause.resume();
    const ids = await Promise.all(sent);
    expect(ids.map(({ index }) => index)).toEqual(ids.map((_, i) => i));
    expect(await textsOf(topic)).toEqual(numbers(0, 200));
  });

  test('an app that awaits what it sends never sees a full queue', async () => {
    const topic = newTopic();
    await using producer = await client.createProducer({ topic, maxPendingMessages: 10 });
    const apps = numbers(0, 20).map(async () => {
      for (let n = 0; n < 50; n++) await producer.send({ data: 'x' });
    });
    await Promise.all(apps);
    expect(await textsOf(topic)).toHaveLength(1_000);
  });

  test('the limit holds for bytes, too; a larger message goes alone', async () => {
    const topic = newTopic();
    await using producer = await client.createProducer({ topic, maxPendingBytes: 1_000, blockIfQueueFull: false });
    const large = producer.send({ data: 'x'.repeat(5_000) });
    expect(await codeOf(producer.send({ data: 'y' }))).toBe('QUEUE_FULL');
    await large;
    await producer.send({ data: 'z' });
    expect(await textsOf(topic)).toEqual(['x'.repeat(5_000), 'z']);
  });
});

describe('sendTimeoutMs', () => {
  test('against a server that hangs: told in time, and nothing is stored out of order', async () => {
    const topic = newTopic();
    const options = { topic, sendTimeoutMs: 2_000, batchingMaxMessages: 10 };
    await using producer = await client.createProducer(options);
    using pause = await suspend(server);
    const from = performance.now();
    // More than the broker gives credit for: some batches were sent, others were not.
    const sent = sendAll(producer, numbers(0, 20_000));
    const outcomes = await Promise.allSettled(sent);
    expect(performance.now() - from).toBeGreaterThan(1_990);
    const reasons = outcomes.map((outcome) => String(outcome.status === 'rejected' ? outcome.reason : 'stored'));
    expect(new Set(reasons.map((reason) => /(it was not sent|it may have been stored)/.exec(reason)?.[0]))).toEqual(
      new Set(['it may have been stored', 'it was not sent']),
    );
    expect(await codeOf(sent[0] as Promise<MessageId>)).toBe('DEADLINE_EXCEEDED');
    const sentCount = reasons.filter((reason) => reason.includes('may have been')).length;
    expect(reasons.findIndex((reason) => reason.includes('not sent'))).toBe(sentCount);
    const later = sendAll(producer, numbers(20_000, 20_010));
    pause.resume();
    await Promise.all(later);
    const stored = await textsOf(topic);
    const early = stored.slice(0, -10);
    expect(early).toEqual(numbers(0, early.length));
    expect(early.length).toBeLessThanOrEqual(sentCount);
    expect(stored.slice(-10)).toEqual(numbers(20_000, 20_010));
  });

  test('against a server that is gone: none of it turns up later', async () => {
    await using own = await startStandalone();
    await using alone = new Client({ serviceUrl: own.serviceUrl });
    await using producer = await alone.createProducer({ topic: 't', sendTimeoutMs: 200 });
    await producer.send({ data: 'before' });
    await own.kill();
    const lost = await Promise.all(sendAll(producer, numbers(0, 100)).map(refusalOf));
    expect(new Set(lost.map(({ code }) => code))).toEqual(new Set(['DEADLINE_EXCEEDED']));
    await own.start();
    // The next try of the connection may be later than 200 ms from now.
    await expect
      .poll(async () => await producer.send({ data: 'after' }).then(() => 'stored', String), { timeout: 20_000 })
      .toBe('stored');
    await using reader = await alone.createReader({ topic: 't', startPosition: 'earliest' });
    const texts: string[] = [];
    for await (const { data } of reader.messages({ untilEnd: true })) texts.push(data.toString());
    expect(new Set(texts)).toEqual(new Set(['before', 'after']));
  });
});

describe('sequence ids of the app', () => {
  test('a second producer of the name gets the places of what the first one stored', async () => {
    const topic = newTopic();
    const options = { topic, producerName: 'p' };
    const send = (producer: Producer, from: number, to: number): Promise<MessageId>[] =>
      numbers(from, to).map((n) => producer.send({ data: n, sequenceId: Number(n) }));
    const first = await client.createProducer(options);
    const places = await Promise.all(send(first, 0, 100));
    expect(first.lastSequenceId).toBe(99n);
    await first.close();
    await using second = await client.createProducer(options);
    expect(second.lastSequenceId).toBe(99n);
    const again = await Promise.all(send(second, 0, 100));
    expect(again.map((id) => [id.toString(), id.index])).toEqual(places.map((id) => [id.toString(), id.index]));
    const more = await Promise.all(send(second, 50, 150));
    expect(more.slice(50).map(({ index }) => index)).toEqual(more.slice(50).map((_, i) => 100 + i));
    expect(await textsOf(topic)).toEqual(numbers(0, 150));
    expect((await second.send({ data: 'next' })).index).toBe(150);
    expect(second.lastSequenceId).toBe(150n);
  });

  test('batches that are cut in another way are stored once; ids may have gaps and reach up to 2^64-1', async () => {
    const topic = newTopic();
    const ids = [3n, 10n, 11n, 2n ** 53n, 2n ** 64n - 2n, 2n ** 64n - 1n];
    const first = await client.createProducer({ topic, producerName: 'p' });
    const places = await Promise.all(ids.map((sequenceId) => first.send({ data: `${sequenceId}`, sequenceId })));
    await first.close();
    await using second = await client.createProducer({ topic, producerName: 'p', batchingEnabled: false });
    const again = await Promise.all(ids.map((sequenceId) => second.send({ data: 'again', sequenceId })));
    // Their places, or that they were stored under another cut.
    const known = again.map((id, at) => (id.ledgerId < 0 ? 'long ago' : id.equals(places[at] as MessageId)));
    expect(known.filter((place) => place !== true && place !== 'long ago')).toEqual([]);
    const messages = await readAll(topic);
    expect(messages.map(({ data, sequenceId }) => [data.toString(), sequenceId])).toEqual(
      ids.map((id) => [`${id}`, id]),
    );
  });

  test('initialSequenceId continues the count of the app', async () => {
    const topic = newTopic();
    await using producer = await client.createProducer({ topic, producerName: 'p', initialSequenceId: 41 });
    await Promise.all(sendAll(producer, ['a', 'b']));
    expect((await readAll(topic)).map(({ sequenceId }) => sequenceId)).toEqual([42n, 43n]);
  });
});

describe('the name of a producer', () => {
  test('is given to one that is connected at a time', async () => {
    const topic = newTopic();
    const options = { topic, producerName: 'the one' };
    const first = await client.createProducer(options);
    await using elsewhere = new Client({ serviceUrl: server.serviceUrl });
    const busy = await refusalOf(elsewhere.createProducer(options));
    expect(busy.code).toBe('PRODUCER_BUSY');
    expect(busy.message).toContain('"the one"');
    expect(busy.message).toContain(topic);
    expect((await first.send({ data: 'a' })).index).toBe(0);
    await first.close();
    await using second = await elsewhere.createProducer(options);
    expect((await second.send({ data: 'b' })).index).toBe(1);
  });

  test('is made by the broker where none is given, and differs', async () => {
    const topic = newTopic();
    const producers = await Promise.all(numbers(0, 20).map(async () => await client.createProducer({ topic })));
    expect(new Set(producers.map(({ producerName }) => producerName)).size).toBe(20);
    await Promise.all(producers.map(async (producer) => await producer.send({ data: producer.producerName })));
    for (const { data, producerName } of await readAll(topic)) expect(data.toString()).toBe(producerName);
  });
});

describe('what a message carries', () => {
  test('arrives as it was sent', async () => {
    const topic = newTopic();
    await using producer = await client.createProducer({ topic });
    const data = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    const properties = [
      ['twice', 'a'],
      ['twice', 'b'],
      ['', 'ünï ☃ \0'],
    ] as const;
    const from = Date.now();
    await producer.send({ data, key: 'k', orderingKey: Buffer.from([0xff, 0]), properties, eventTimestamp: 7 });
    await producer.send({ data: '' });
    data.fill(0); // it was copied
    const [first, second] = await readAll(topic);
    expect([...(first?.data ?? [])]).toEqual(Array.from({ length: 256 }, (_, i) => i));
    expect(first?.propertyList).toEqual(properties);
    expect(first).toMatchObject({ key: 'k', orderingKey: Buffer.from([0xff, 0]), eventTimestamp: 7, topic });
    for (const time of [first?.publishTime, first?.appendTime]) {
      expect(time).toBeGreaterThanOrEqual(from);
      expect(time).toBeLessThanOrEqual(Date.now());
    }
    expect([second?.data.length, second?.key, second?.propertyList, second?.eventTimestamp]).toEqual([
      0,
      undefined,
      [],
      undefined,
    ]);
  });

  test('has a largest size, which is refused by name; the producer goes on', async () => {
    const topic = newTopic();
    await using producer = await client.createProducer({ topic });
    const limit = 5_242_880;
    const error = await refusalOf(producer.send({ data: Buffer.alloc(limit + 1) }));
    expect(error.code).toBe('MESSAGE_TOO_LARGE');
    expect(error.message).toContain(`${limit}`);
    await producer.send({ data: Buffer.alloc(limit, 'x') });
    expect((await readAll(topic)).map(({ data }) => data.length)).toEqual([limit]);
  });
});
