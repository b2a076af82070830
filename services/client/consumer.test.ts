import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { MessageIndex } from '../lib/ids.ts';
import { Client } from './client.ts';
import type { Consumer } from './consumer.ts';
import type { Message } from './message.ts';
import { MessageId } from './message-id.ts';
import type { ConsumerOptions, ReaderOptions } from './options.ts';
import type { Reader } from './reader.ts';
import type { ReceiveOptions } from './receiving.ts';
import { FakeBroker } from './testing/fake-broker.ts';
import { endOf, numbered, rejection } from './testing/steps.ts';

let broker: FakeBroker;
let client: Client;

beforeEach(async () => {
  broker = await new FakeBroker({ ackItems: 3 }).listen();
  client = new Client({ serviceUrl: broker.url, operationTimeoutMs: 5_000 });
});

afterEach(async () => await endOf(client, broker));

function subscribe(options: Partial<ConsumerOptions> = {}): Promise<Consumer> {
  return client.subscribe({ topic: 't', subscription: 's', startPosition: 'earliest', ...options });
}

function read(options: Partial<ReaderOptions> = {}): Promise<Reader> {
  return client.createReader({ topic: 't', startPosition: 'earliest', ...options });
}

/** Publishes texts, `perBatch` to an entry. */
async function publish(texts: readonly string[], perBatch: number): Promise<void> {
  await using producer = await client.createProducer({ topic: 't', batchingMaxMessages: perBatch });
  await Promise.all(texts.map((data) => producer.send({ data })));
}

function text(message: Message): string {
  return message.data.toString();
}

async function take(consumer: Consumer, count: number): Promise<string[]> {
  const texts: string[] = [];
  while (texts.length < count) texts.push(text(await consumer.receive({ timeoutMs: 5_000 })));
  return texts;
}

async function drain(from: AsyncIterable<Message>): Promise<string[]> {
  const texts: string[] = [];
  for await (const message of from) texts.push(text(message));
  return texts;
}

describe('receiving', () => {
  test('gives what was sent, with all that belongs to it', async () => {
    const producer = await client.createProducer({ topic: 't', producerName: 'p' });
    const at = Date.now();
    const properties: [string, string][] = [
      ['a', '1'],
      ['b', '2'],
      ['a', '3'],
    ];
    await Promise.all([
      producer.send({ data: 'first' }),
      producer.send({
        data: Buffer.from([1, 2]),
        key: 'k',
        orderingKey: 'o',
        properties,
        eventTimestamp: 17,
        sequenceId: 9,
      }),
    ]);
    const consumer = await subscribe();
    expect(text(await consumer.receive())).toBe('first');
    const message = await consumer.receive();
    expect([...message.data]).toEqual([1, 2]);
    expect(message.data).toBe(message.data);
    expect([message.key, message.orderingKey?.toString(), message.eventTimestamp]).toEqual(['k', 'o', 17]);
    expect(message.properties).toEqual({ a: '3', b: '2' });
    expect(message.propertyList).toEqual(properties);
    expect([message.index, message.sequenceId, message.producerName]).toEqual([1, 9n, 'p']);
    expect(message.messageId).toEqual(new MessageId(7, 0, 1, 1));
    expect([message.appendTime, message.redeliveryCount, message.topic]).toEqual([1_000, 0, 't']);
    expect(Math.abs(message.publishTime - at)).toBeLessThan(5_000);
  });

  test('waits for what comes later, in the order of the calls', async () => {
    const consumer = await subscribe();
    const waiting = [consumer.receive(), consumer.receive(), consumer.receive()];
    await publish(['a', 'b', 'c'], 2);
    expect((await Promise.all(waiting)).map(text)).toEqual(['a', 'b', 'c']);
  });

  test('waits for no longer than told, or until aborted; nothing is lost by that', async () => {
    const consumer = await subscribe();
    const error = await rejection(consumer.receive({ timeoutMs: 20 }));
    expect(error.code).toBe('DEADLINE_EXCEEDED');
    const abort = new AbortController();
    const aborted = consumer.receive({ signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(aborted).rejects.toThrow('enough');
    await expect(consumer.receive({ signal: abort.signal })).rejects.toThrow('enough');
    await publish(['a'], 1);
    expect(await take(consumer, 1)).toEqual(['a']);
  });

  test('never asks for more than its queue holds, and never stalls', async () => {
    const texts = numbered(1_000);
    await publish(texts, 7);
    const consumer = await subscribe({ receiverQueueSize: 10, receiverQueueBytes: 300 });
    expect(await take(consumer, 1_000)).toEqual(texts);
  });

  test('the subscription goes on where it was; messages acknowledged inside an entry are left out', async () => {
    await publish(numbered(10), 10);
    const first = await subscribe();
    const acked: Promise<void>[] = [];
    for await (const message of first) {
      if (message.index % 3 === 0) acked.push(first.acknowledge(message));
      if (message.index === 9) break;
    }
    await Promise.all(acked);
    await first.close();
    const second = await subscribe();
    expect(await take(second, 6)).toEqual(['m1', 'm2', 'm4', 'm5', 'm7', 'm8']);
  });

  test('iterates until it is closed', async () => {
    await publish(numbered(20), 5);
    const consumer = await subscribe();
    const seen: string[] = [];
    for await (const message of consumer) {
      seen.push(text(message));
      if (seen.length === 20) setImmediate(() => void consumer.close());
    }
    expect(seen).toEqual(numbered(20));
    expect((await rejection(consumer.receive())).code).toBe('ALREADY_CLOSED');
  });

  test('iterates until the end of what was there when it began', async () => {
    await publish(numbered(20), 5);
    const consumer = await subscribe();
    const iteration = consumer.messages({ untilEnd: true });
    const seen = [text((await iteration.next()).value as Message)];
    await publish(numbered(20, 20), 5);
    seen.push(...(await drain(iteration)));
    expect(seen).toEqual(numbered(20));
    expect(await drain(consumer.messages({ untilEnd: true }))).toEqual(numbered(20, 20));
    expect(await drain(consumer.messages({ untilEnd: true }))).toEqual([]);
  });

  test('the end is found, too, when the last messages need no delivery', async () => {
    await publish(numbered(10), 5);
    const first = await subscribe();
    for (let i = 0; i < 10; i++) {
      const message = await first.receive();
      if (i > 3) void first.acknowledge(message);
    }
    await first.close();
    const second = await subscribe();
    expect(await drain(second.messages({ untilEnd: true }))).toEqual(['m0', 'm1', 'm2', 'm3']);
  });

  test('what is no option is named', async () => {
    const consumer = await subscribe();
    for (const [options, said] of [
      [100, 'options is 100; it must be an object with signal, timeoutMs'],
      [{ timeout: 5 }, 'options has no field "timeout"; it has signal, timeoutMs'],
      [{ timeoutMs: '5' }, 'timeoutMs is "5"; it must be an integer from 0 to 86400000'],
    ] as const) {
      expect(await rejection(consumer.receive(options as ReceiveOptions))).toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: said,
      });
    }
    const iterate = (options: object) => () => consumer.messages(options);
    expect(iterate({ untilend: true })).toThrow('options has no field "untilend"; it has signal, untilEnd');
    expect(iterate({ untilEnd: 1 })).toThrow('untilEnd is 1; it must be true or false');
  });

  test('a message is printed with what it says', async () => {
    await publish(['hello'], 1);
    const printed = inspect(await (await subscribe()).receive());
    expect(printed).toMatch(/messageId: '\d+:0:0'/);
    expect(printed).toContain('data: <Buffer 68 65 6c 6c 6f>');
  });

  test('an iteration ends when its signal aborts', async () => {
    const consumer = await subscribe();
    const abort = new AbortController();
    const drained = drain(consumer.messages({ signal: abort.signal }));
    abort.abort(new Error('enough'));
    await expect(drained).rejects.toThrow('enough');
  });

  test('also while it gives the event loop a turn; no message is lost by that', async () => {
    await publish(numbered(4_096), 1_000);
    const consumer = await subscribe({ receiverQueueSize: 5_000 });
    const abort = new AbortController();
    const iteration = consumer.messages({ signal: abort.signal });
    for (let i = 0; i < 4_096; i++) await iteration.next();
    const step = iteration.next().catch(({ message }: Error) => message);
    abort.abort(new Error('enough'));
    await publish(['next'], 1);
    expect(await step).toBe('enough');
    expect(await take(consumer, 1)).toEqual(['next']);
  });

  test('an entry that comes damaged is fetched again; when it stays damaged, the consumer fails', async () => {
    await publish(['a', 'b'], 1);
    const [entry] = broker.topic('t').entries;
    if (entry === undefined) throw new Error('nothing was stored');
    entry.block.writeUInt8(entry.block.readUInt8(3) ^ 1, 3);
    const consumer = await subscribe();
    expect((await rejection(consumer.receive())).code).toBe('CHECKSUM_MISMATCH');
    expect([...broker.consumeStreams].flatMap((stream) => stream.subscribes).length).toBe(2);
    expect((await rejection(consumer.receive())).code).toBe('CHECKSUM_MISMATCH');
  });
});

describe('acknowledging', () => {
  test('what is acknowledged in one turn shares one promise, and travels as merged ranges', async () => {
    await publish(numbered(20), 20);
    const consumer = await subscribe();
    const messages: Message[] = [];
    for (let i = 0; i < 20; i++) messages.push(await consumer.receive());
    const acked = [3, 1, 2, 9, 7, 8, 15].map((i) => consumer.acknowledge(messages[i] as Message));
    expect(new Set(acked).size).toBe(1);
    await Promise.all(acked);
    const [stream] = broker.consumeStreams;
    expect(stream?.acks.map((ack) => ack.ranges)).toEqual([[1, 3, 7, 3, 15, 1]]);
    const id = (messages[11] as Message).messageId;
    await Promise.all([consumer.acknowledgeCumulative(id), consumer.acknowledge(messages[12] as Message)]);
    expect(stream?.acks.at(-1)).toMatchObject({ below: 12, ranges: [12, 1] });
  });

  test('credits for acks are never overdrawn, while none gets lost', async () => {
    broker.hooks.ack = () => 'confirmSilently';
    await publish(numbered(30), 30);
    const consumer = await subscribe();
    const acked: Promise<void>[] = [];
    for (let i = 0; i < 30; i++) {
      acked.push(consumer.acknowledge(await consumer.receive()));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect([...broker.consumeStreams][0]?.acks.length).toBe(3);
    broker.hooks.ack = () => 'confirm';
    await broker.restart();
    await Promise.all(acked);
    expect(broker.topic('t').subscriptions.get('s')?.size).toBe(30);
  });

  test('what cannot be acknowledged is told', async () => {
    await publish(['a'], 1);
    const consumer = await subscribe();
    const reader = await client.createReader({ topic: 'other', startPosition: 'earliest' });
    await using producer = await client.createProducer({ topic: 'other' });
    await producer.send({ data: 'x' });
    const foreign = await rejection(consumer.acknowledge(await reader.readNext()));
    expect(foreign.message).toMatch(/"other".* message of t/);
    const parsed = await rejection(consumer.acknowledge(MessageId.parse('7:0:0')));
    expect(parsed).toMatchObject({ code: 'INVALID_ARGUMENT' });
    const message = await consumer.receive();
    await consumer.close();
    expect((await rejection(consumer.acknowledge(message))).code).toBe('ALREADY_CLOSED');
  });

  test('an ack that is refused for the time being is sent again; one that is refused for good rejects', async () => {
    await publish(numbered(4), 4);
    const consumer = await subscribe();
    const messages = [await consumer.receive(), await consumer.receive()] as const;
    let refusals = 2;
    broker.hooks.ack = () => (refusals-- > 0 ? { refuse: 'NOT_ENOUGH_BOOKIES', retryable: true } : 'confirm');
    await consumer.acknowledge(messages[0]);
    expect([...broker.consumeStreams][0]?.acks.map((ack) => ack.ackId)).toEqual([1, 2, 3]);
    broker.hooks.ack = () => ({ refuse: 'INVALID_ARGUMENT', retryable: false });
    expect((await rejection(consumer.acknowledge(messages[1]))).code).toBe('INVALID_ARGUMENT');
    expect(broker.topic('t').subscriptions.get('s')?.size).toBe(1);
  });

  test('an ack that is not confirmed in time rejects', async () => {
    broker.hooks.ack = () => 'confirmSilently';
    await publish(['a'], 1);
    await using impatient = new Client({ serviceUrl: broker.url, operationTimeoutMs: 500 });
    const consumer = await impatient.subscribe({ topic: 't', subscription: 's', startPosition: 'earliest' });
    const error = await rejection(consumer.acknowledge(await consumer.receive()));
    expect(error.code).toBe('DEADLINE_EXCEEDED');
  });

  test('close waits until what was acknowledged is durable', async () => {
    await publish(numbered(5), 5);
    const consumer = await subscribe();
    for (let i = 0; i < 5; i++) void consumer.acknowledge(await consumer.receive());
    await consumer.close();
    expect(broker.topic('t').subscriptions.get('s')?.size).toBe(5);
  });
});

describe('a lost connection', () => {
  test('the app sees no message twice and misses none, wherever it is lost', async () => {
    await publish(numbered(40), 8);
    for (const at of [0, 1, 8, 13, 39]) {
      await using own = new Client({ serviceUrl: broker.url });
      const options = { topic: 't', subscription: `s${at}`, startPosition: 'earliest', receiverQueueSize: 10 } as const;
      const consumer = await own.subscribe(options);
      const seen = await take(consumer, at);
      await broker.restart();
      seen.push(...(await take(consumer, 40 - at)));
      expect(seen).toEqual(numbered(40));
      await publish(['next'], 1);
      expect(await take(consumer, 1)).toEqual(['next']);
      broker.topic('t').entries.pop();
    }
  });

  test('acks that were not confirmed are sent again; what is not acknowledged is left to the next consumer', async () => {
    broker.hooks.ack = () => 'confirmSilently';
    await publish(numbered(10), 3);
    const consumer = await subscribe();
    const messages: Message[] = [];
    for (let i = 0; i < 10; i++) messages.push(await consumer.receive());
    const acked = Promise.all([2, 3, 4].map((i) => consumer.acknowledge(messages[i] as Message)));
    await new Promise((resolve) => setImmediate(resolve));
    broker.crash();
    broker.topic('t').subscriptions.get('s')?.clear(); // it had not become durable
    broker.hooks.ack = () => 'confirm';
    await broker.listen();
    await acked;
    await publish(['next'], 1);
    expect(await take(consumer, 1)).toEqual(['next']);
    await consumer.close();
    const second = await subscribe();
    expect(await drain(second.messages({ untilEnd: true }))).toEqual('m0 m1 m5 m6 m7 m8 m9 next'.split(' '));
  });

  test('it re-subscribes as the same instance', async () => {
    const consumer = await subscribe();
    const before = [...broker.consumeStreams].flatMap((stream) => stream.subscribes);
    await broker.restart();
    await publish(['a'], 1);
    expect(await take(consumer, 1)).toEqual(['a']);
    const after = [...broker.consumeStreams].flatMap((stream) => stream.subscribes);
    expect(after.map((s) => [s.name, s.instance.toString('hex')])).toEqual(
      before.map((s) => [consumer.consumerName, s.instance.toString('hex')]),
    );
    expect(before[0]?.instance.length).toBe(16);
  });

  test('a consumer that the broker closes comes back, or fails with the reason', async () => {
    await publish(numbered(4), 2);
    const consumer = await subscribe();
    expect(await take(consumer, 1)).toEqual(['m0']);
    for (const stream of broker.consumeStreams) stream.closeConsumers('NOT_OWNER', true);
    expect(await take(consumer, 3)).toEqual(['m1', 'm2', 'm3']);
    const [stream] = broker.consumeStreams;
    while (stream?.subscribes.length !== 2) await new Promise((resolve) => setImmediate(resolve));
    const waiting = rejection(consumer.receive());
    const iterating = rejection(drain(consumer));
    stream.closeConsumers('SUBSCRIPTION_NOT_FOUND', false);
    expect((await waiting).code).toBe('SUBSCRIPTION_NOT_FOUND');
    expect((await iterating).code).toBe('SUBSCRIPTION_NOT_FOUND');
    await consumer.close();
  });

  test('a reader goes on behind what it has handed out', async () => {
    await publish(numbered(30), 4);
    const reader = await read({ receiverQueueSize: 5 });
    const seen: string[] = [];
    for await (const message of reader.messages({ untilEnd: true })) {
      seen.push(text(message));
      if (seen.length === 11) await broker.restart();
    }
    expect(seen).toEqual(numbered(30));
  });

  test('sabotage: messages that come again under other indexes are seen twice', async () => {
    await publish(numbered(4), 2);
    const consumer = await subscribe({ receiverQueueSize: 1 });
    expect(await take(consumer, 2)).toEqual(['m0', 'm1']);
    broker.crash();
    const { entries } = broker.topic('t');
    for (const [i, entry] of entries.entries()) entries[i] = { ...entry, index: (entry.index + 100) as MessageIndex };
    await broker.listen();
    expect((await take(consumer, 4)).slice(-2)).toEqual(['m2', 'm3']);
  });
});

describe('seeking, leaving', () => {
  test('after a seek comes what is at the new position', async () => {
    await publish(numbered(10), 5);
    const consumer = await subscribe();
    await take(consumer, 10);
    await consumer.seek({ index: 7 });
    expect(await take(consumer, 3)).toEqual(['m7', 'm8', 'm9']);
    await consumer.seek(MessageId.parse('7:1:1'));
    expect(await take(consumer, 2)).toEqual(['m6', 'm7']);
    await consumer.seek('earliest');
    expect(await take(consumer, 1)).toEqual(['m0']);
    await consumer.seek('latest');
    await publish(['new'], 1);
    expect(await take(consumer, 1)).toEqual(['new']);
  });

  test('a seek that is refused leaves all as it was', async () => {
    await publish(numbered(4), 2);
    const consumer = await subscribe();
    expect(await take(consumer, 1)).toEqual(['m0']);
    expect((await rejection(consumer.seek(MessageId.parse('8:0:0')))).code).toBe('POSITION_NOT_FOUND');
    expect(await take(consumer, 3)).toEqual(['m1', 'm2', 'm3']);
    expect((await rejection(consumer.seek('nowhere' as 'latest'))).message).toContain("'earliest', 'latest'");
  });

  test('a seek whose answer is lost is made again', async () => {
    await publish(numbered(6), 2);
    const consumer = await subscribe();
    await take(consumer, 6);
    broker.hooks.answerSeek = () => {
      broker.hooks.answerSeek = () => true;
      setImmediate(() => void broker.restart());
      return false;
    };
    await consumer.seek({ index: 3 });
    expect(await take(consumer, 3)).toEqual(['m3', 'm4', 'm5']);
    expect(broker.hooks.answerSeek()).toBe(true);
  });

  test('a reader tells whether there is more, and seeks', async () => {
    const reader = await read();
    expect(await reader.hasNext()).toBe(false);
    await publish(numbered(3), 2);
    expect(await reader.hasNext()).toBe(true);
    expect(await drain(reader.messages({ untilEnd: true }))).toEqual(numbered(3));
    expect(await reader.hasNext()).toBe(false);
    await reader.seek({ index: 2 });
    expect(await reader.hasNext()).toBe(true);
    expect(text(await reader.readNext())).toBe('m2');
    expect(broker.topic('t').subscriptions.size).toBe(0);
    await reader.close();
    expect((await rejection(reader.hasNext())).code).toBe('ALREADY_CLOSED');
  });

  test('unsubscribe deletes the subscription', async () => {
    const consumer = await subscribe();
    expect(broker.topic('t').subscriptions.has('s')).toBe(true);
    await consumer.unsubscribe();
    expect(broker.topic('t').subscriptions.has('s')).toBe(false);
    expect((await rejection(consumer.unsubscribe())).code).toBe('ALREADY_CLOSED');
    await consumer.close();
  });

  test('unsubscribe holds although the connection is lost', async () => {
    const consumer = await subscribe();
    broker.crash();
    const unsubscribed = consumer.unsubscribe();
    await broker.listen();
    await unsubscribed;
    expect(broker.topic('t').subscriptions.has('s')).toBe(false);
  });
});
