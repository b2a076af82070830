import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { queryObjects } from 'node:v8';
import { describe, expect, test } from 'vitest';
import type { Epoch, MessageIndex } from '../lib/ids.ts';
import type { ClientOptions, ConsumerOptions, ProducerOptions, ReaderOptions } from './index.ts';
import { Client } from './index.ts';
import { FakeBroker } from './testing/fake-broker.ts';
import { ProducerSession } from './producer-session.ts';
import { Receiver } from './receiver.ts';
import { endOf, rejection } from './testing/steps.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A port at which nobody listens. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

test('require() works, and loads no server', async () => {
  const script = `
    const { Client, MessageId, MagnetarError } = require('magnetar');
    const loaded = Object.keys(require.cache).filter((file) => /node_modules.(level|classic-level|fastify|pino|commander|.grpc.proto-loader)[/\\\\]/.test(file));
    new Client({ serviceUrl: 'grpc://127.0.0.1' }).close().then(() => {
      console.log(JSON.stringify([typeof Client, String(MessageId.parse('1:2:3')), MagnetarError.name, loaded]));
    });`;
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', script], { cwd: root });
  expect(JSON.parse(stdout)).toEqual(['function', '1:2:3', 'MagnetarError', []]);
});

describe('options', () => {
  test.each([
    [{ serviceUrl: 'http://a' }, /serviceUrl is "http:\/\/a"; it must be grpc:\/\/HOST/],
    [{ serviceUrl: 'grpc://a:99999' }, /serviceUrl/],
    [{ serviceUrl: 'grpc://a', operationTimeoutMs: 0 }, /operationTimeoutMs is 0; it must be an integer from 1 to/],
    [{ serviceUrl: 'grpc://a', operationTimeout: 5 }, /has no field "operationTimeout"; it has .*operationTimeoutMs/],
    [undefined, /the options of a client is undefined/],
  ])('of a client: %j', (options, message) => {
    expect(() => new Client(options as unknown as ClientOptions)).toThrow(message);
  });

  test('of producers, consumers and readers', async () => {
    const client = new Client({ serviceUrl: 'grpc://127.0.0.1:1' });
    const topic = 't';
    const subscription = 's';
    const producers: [object, string][] = [
      [{}, 'topic'],
      [{ topic: 7 }, 'topic'],
      [{ topic, sendTimeoutMs: -1 }, 'sendTimeoutMs'],
      [{ topic, maxPendingMessages: 0 }, 'maxPendingMessages'],
      [{ topic, batchingEnabled: 'yes' }, 'batchingEnabled'],
      [{ topic, batchingMaxBytes: 1.5 }, 'batchingMaxBytes'],
      [{ topic, initialSequenceId: -1 }, 'initialSequenceId'],
    ];
    const consumers: [object, string][] = [
      [{ topic }, 'subscription'],
      [{ topic, subscription, subscriptionType: 'shared' }, 'subscriptionType'],
      [{ topic, subscription, startPosition: 'first' }, 'startPosition'],
      [{ topic, subscription, startPosition: { index: -1 } }, 'startPosition'],
      [{ topic, subscription, startPosition: new Date(Number.NaN) }, 'startPosition'],
      [{ topic, subscription, receiverQueueSize: 0 }, 'receiverQueueSize'],
    ];
    const attempts = [
      ...producers.map(([options, field]) => [client.createProducer(options as ProducerOptions), field] as const),
      ...consumers.map(([options, field]) => [client.subscribe(options as ConsumerOptions), field] as const),
      [client.createReader({ topic, subscription } as unknown as ReaderOptions), 'subscription'] as const,
    ];
    for (const [attempt, field] of attempts) {
      const error = await rejection(attempt);
      expect(error.code).toBe('INVALID_ARGUMENT');
      expect(error.message).toContain(field);
      expect(error.message).not.toContain('\n');
    }
    await client.close();
  });
});

describe('a broker that is not there', () => {
  test('is named, with the reason, when the time is up', async () => {
    const serviceUrl = `grpc://127.0.0.1:${await freePort()}`;
    await using client = new Client({ serviceUrl, operationTimeoutMs: 300 });
    const attempts = [
      client.createProducer({ topic: 't' }),
      client.subscribe({ topic: 't', subscription: 's' }),
      client.createReader({ topic: 't' }),
    ];
    for (const error of await Promise.all(attempts.map(rejection))) {
      expect(error.code).toBe('UNAVAILABLE');
      expect(error.retryable).toBe(true);
      expect(error.message).toContain(`cannot reach the broker at ${serviceUrl}: connection refused; is it running?`);
    }
  });

  test('is told from something that does not speak gRPC', async () => {
    const http = createHttpServer((_request, response) => response.end('hello'));
    await once(http.listen(0, '127.0.0.1'), 'listening');
    const { port } = http.address() as AddressInfo;
    await using client = new Client({ serviceUrl: `grpc://127.0.0.1:${port}`, operationTimeoutMs: 300 });
    expect((await rejection(client.createReader({ topic: 't' }))).message).toContain(
      `what answers there does not speak gRPC; name the port that is for apps`,
    );
    http.close();
  });

  test('is found when it comes in time', async () => {
    const broker = await new FakeBroker().listen();
    broker.crash();
    await using client = new Client({ serviceUrl: broker.url });
    const opening = client.createProducer({ topic: 't' });
    await broker.listen();
    await (await opening).send({ data: 'a' });
    expect(broker.topic('t').texts).toEqual(['a']);
    broker.crash();
  });

  test('the wait can be aborted, and ends with the client', async () => {
    const client = new Client({ serviceUrl: `grpc://127.0.0.1:${await freePort()}` });
    const abort = new AbortController();
    const aborted = client.createProducer({ topic: 't' }, { signal: abort.signal });
    const waiting = rejection(client.subscribe({ topic: 't', subscription: 's' }));
    abort.abort(new Error('enough'));
    await expect(aborted).rejects.toThrow('enough');
    await client.close();
    expect((await waiting).code).toBe('ALREADY_CLOSED');
    await client.close();
  });
});

test('something that is no broker of ours is told from one that is not there', async () => {
  const other = createServer((socket) => socket.end('SSH-2.0-nothing\r\n'));
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  const { port } = other.address() as AddressInfo;
  await using client = new Client({ serviceUrl: `grpc://127.0.0.1:${port}`, operationTimeoutMs: 300 });
  const error = await rejection(client.createProducer({ topic: 't' }));
  expect(error.message).toContain(`grpc://127.0.0.1:${port}`);
  expect(error.message).not.toContain('\n');
  other.close();
});

test('one connection carries many producers and consumers', async () => {
  const broker = await new FakeBroker().listen();
  await using client = new Client({ serviceUrl: broker.url });
  const topics = Array.from({ length: 50 }, (_, i) => `t${i}`);
  const producers = await Promise.all(topics.map((topic) => client.createProducer({ topic })));
  const consumers = await Promise.all(
    topics.map((topic) => client.subscribe({ topic, subscription: 's', startPosition: 'earliest' })),
  );
  await Promise.all(producers.map((producer, i) => producer.send({ data: `m${i}` })));
  const texts = await Promise.all(consumers.map(async (consumer) => (await consumer.receive()).data.toString()));
  expect(texts).toEqual(topics.map((_, i) => `m${i}`));
  expect(broker.streamsOpened).toBe(2);
  await client.close();
  broker.crash();
});

test('who is closed for good in the frame that opens it is not opened', async () => {
  const broker = await new FakeBroker().listen();
  const client = new Client({ serviceUrl: broker.url });
  const error = { code: 'TOPIC_NOT_FOUND', message: 'deleted', retryable: false, details: {} };
  broker.hooks.open = ({ producer }) => {
    const opened = [{ producer, name: 'p', epoch: 0 as Epoch }];
    for (const stream of broker.publishStreams) stream.send({ opened, closed: [{ producer, error }] });
    return error; // of no consequence
  };
  broker.hooks.subscribe = ({ consumer }) => {
    const at = { nextIndex: 0 as MessageIndex, endIndex: 0 as MessageIndex, moves: 0 };
    const subscribed = [{ consumer, name: 'c', ...at, topicIdentity: 't', subscriptionIdentity: 's' }];
    for (const stream of broker.consumeStreams) stream.send({ subscribed, closed: [{ consumer, error }] });
    return error;
  };
  const openings = [
    client.createProducer({ topic: 't' }),
    client.subscribe({ topic: 't', subscription: 's' }),
    client.createReader({ topic: 't' }),
  ];
  for (const { code, message } of await Promise.all(openings.map(rejection))) {
    expect([code, message]).toEqual(['TOPIC_NOT_FOUND', 'deleted']);
  }
  await endOf(client, broker);
});

/** How many objects of a class are alive. Node 20 has it; its types do not. */
const alive = (of: abstract new (...args: never[]) => object): number =>
  (queryObjects as (of: unknown, options: { format: 'count' }) => number)(of, { format: 'count' });

test('who was refused leaves nothing behind, while the connection goes on', async () => {
  const broker = await new FakeBroker().listen();
  const client = new Client({ serviceUrl: broker.url });
  await client.createProducer({ topic: 't' });
  await client.subscribe({ topic: 't', subscription: 's' });
  broker.hooks.open = () => ({ code: 'PRODUCER_BUSY', retryable: true });
  broker.hooks.subscribe = () => ({ code: 'CONSUMER_BUSY', retryable: true });
  const before = alive(Receiver) + alive(ProducerSession);
  for (let i = 0; i < 100; i++) {
    const refused = [client.createProducer({ topic: 't' }), client.subscribe({ topic: 't', subscription: 's' })];
    const errors = await Promise.all(refused.map(rejection));
    expect(errors.map(({ code }) => code)).toEqual(['PRODUCER_BUSY', 'CONSUMER_BUSY']);
  }
  expect(alive(Receiver) + alive(ProducerSession) - before).toBeLessThan(20);
  await endOf(client, broker);
});
