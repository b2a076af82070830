/** What the SDK promises of servers and apps that die, hang, and come back; and of how it uses its connection. */
import type { ChildProcess } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Client, type Consumer, type Logger, type Reader } from '../services/client/index.ts';
import { H2Proxy } from './support/h2-proxy.ts';
import { type ServerProcess, spawnCommand, startStandalone } from './support/process.ts';
import { codeOf, refusalOf } from './support/refusal.ts';
import { suspend, suspendProcess } from './support/suspend.ts';

/** Keepalive notices after 15 s that nobody is there. */
const HOLDER_MS = 25_000;

let server: ServerProcess;
let topics = 0;
beforeAll(async () => {
  server = await startStandalone();
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
});

/** Takes messages as an app does, until told to stop. */
class App {
  readonly seen: number[] = [];
  readonly #abort = new AbortController();
  readonly #loop: Promise<void>;
  #until = Number.POSITIVE_INFINITY;
  #reached: () => void = () => {};

  constructor(source: Consumer | Reader) {
    this.#loop = this.#run(source);
    this.#loop.catch(() => {}); // `stop` reports it
  }

  async #run(source: Consumer | Reader): Promise<void> {
    const acks: Promise<void>[] = [];
    try {
      for await (const message of source.messages({ signal: this.#abort.signal })) {
        this.seen.push(message.index);
        if ('acknowledge' in source) acks.push(source.acknowledge(message));
        if (this.seen.length >= this.#until) this.#reached();
      }
    } catch (error) {
      if (!this.#abort.signal.aborted) throw error;
    }
    await Promise.all(acks);
  }

  /** Resolves when it has been given so many messages more. */
  async more(count: number): Promise<void> {
    await this.got(this.seen.length + count);
  }

  /** Resolves when it has been given so many messages; rejects when it fails. */
  async got(count: number): Promise<void> {
    const reached = new Promise<void>((resolve) => {
      this.#reached = resolve;
      this.#until = count;
      if (this.seen.length >= count) resolve();
    });
    await Promise.race([reached, this.#loop]);
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#loop;
  }
}

/** Emits 'warn' for a connection that is lost, as the SDK logs it. */
function loggerTo(events: EventEmitter): Logger {
  const logger: Logger = {
    debug() {},
    info() {},
    warn: (message) => void events.emit('warn', message),
    error() {},
    child: () => logger,
  };
  return logger;
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

/** How many milliseconds it takes until an exclusive subscription can be had whose holder's process has met its end. */
async function freeAfter(end: (holder: ChildProcess) => unknown): Promise<number> {
  topics += 1;
  const topic = `held-${topics}`;
  await using client = new Client({ serviceUrl: server.serviceUrl });
  await using producer = await client.createProducer({ topic });
  await producer.send({ data: 'a' });
  const holder = spawnCommand(['consume', topic, '-s', 's', '--from', 'earliest', '--service-url', server.serviceUrl]);
  try {
    await once(holder.stdout ?? holder, 'data'); // "a": it is connected
    expect(await codeOf(client.subscribe({ topic, subscription: 's' }))).toBe('CONSUMER_BUSY');
    await end(holder);
    const from = performance.now();
    const attempt = async (): Promise<string> => {
      const consumer = client.subscribe({ topic, subscription: 's' });
      return await consumer.then(
        () => 'free',
        () => 'held',
      );
    };
    await expect.poll(attempt, { timeout: HOLDER_MS, interval: 50 }).toBe('free');
    return performance.now() - from;
  } finally {
    holder.kill('SIGKILL');
  }
}

// What waits until a connection is given up waits beside the others.
test.concurrent('an exclusive subscription is free again when the process that holds it is hanging', async () => {
  expect(await freeAfter(async ({ pid = 0 }) => await suspendProcess(pid))).toBeLessThan(HOLDER_MS);
});

describe.concurrent('a server that goes and comes back is no error in the app', () => {
  test('kill -9 and orderly restarts: every message once, in order, on the same objects', async () => {
    await using own = await startStandalone();
    await using client = new Client({ serviceUrl: own.serviceUrl });
    const producer = await client.createProducer({ topic: 't', sendTimeoutMs: 0, maxPendingMessages: 500 });
    const options = { topic: 't', startPosition: 'earliest' } as const;
    const apps = [
      new App(await client.subscribe({ ...options, subscription: 's' })),
      new App(await client.createReader(options)),
    ];
    const sent: Promise<number | undefined>[] = [];
    const end = new AbortController();
    const load = (async () => {
      while (!end.signal.aborted) {
        for (let n = 0; n < 20; n++) sent.push(producer.send({ data: `${sent.length}` }).then(({ index }) => index));
        await sent[Math.max(0, sent.length - 400)];
      }
    })();
    for (const how of ['kill', 'stop', 'kill', 'stop', 'kill'] as const) {
      await Promise.all(apps.map(async (app) => await app.more(2_000)));
      await own[how]();
      await own.start();
    }
    end.abort();
    await load;
    expect(await Promise.all(sent)).toEqual(upTo(sent.length));
    await Promise.all(apps.map(async (app) => await app.got(sent.length)));
    for (const app of apps) {
      await app.stop();
      expect(app.seen).toEqual(upTo(sent.length));
    }
  });

  test('one that hangs until its connection is given up: nothing is lost, doubled or reordered', async () => {
    await using own = await startStandalone();
    const losses = new EventEmitter();
    const noticed = once(losses, 'warn');
    await using client = new Client({ serviceUrl: own.serviceUrl, logger: loggerTo(losses) });
    const producer = await client.createProducer({ topic: 't', sendTimeoutMs: 0, batchingMaxMessages: 10 });
    const app = new App(await client.subscribe({ topic: 't', subscription: 's', startPosition: 'earliest' }));
    const send = (count: number): Promise<unknown>[] => upTo(count).map((n) => producer.send({ data: `${n}` }));
    await Promise.all(send(100));
    await app.got(100);
    using pause = await suspend(own);
    const under = send(5_000);
    await noticed;
    under.push(...send(100));
    pause.resume();
    await Promise.all(under);
    await app.got(5_200);
    await app.stop();
    expect(app.seen).toEqual(upTo(5_200));
    await using reader = await client.createReader({ topic: 't', startPosition: 'earliest' });
    const sequence: bigint[] = [];
    for await (const { sequenceId } of reader.messages({ untilEnd: true })) sequence.push(sequenceId);
    expect(sequence).toEqual(upTo(5_200).map(BigInt));
  });

  test('one that is not there: opening says so in time, in one line with the address', async () => {
    await using own = await startStandalone();
    const { serviceUrl } = own;
    await own.kill();
    await using client = new Client({ serviceUrl, operationTimeoutMs: 300 });
    for (const opening of [
      client.createProducer({ topic: 't' }),
      client.subscribe({ topic: 't', subscription: 's' }),
      client.createReader({ topic: 't' }),
    ]) {
      const { code, message } = await refusalOf(opening);
      expect(code).toBe('UNAVAILABLE');
      expect(message).toContain(serviceUrl.slice('grpc://'.length));
    }
    await using patient = new Client({ serviceUrl });
    const opening = patient.createProducer({ topic: 't' });
    await own.start();
    expect((await (await opening).send({ data: 'x' })).index).toBe(0);
  });
});

describe('an exclusive subscription', () => {
  test('refuses a second consumer by name, and goes to it when the first closes', async () => {
    await using client = new Client({ serviceUrl: server.serviceUrl });
    await using other = new Client({ serviceUrl: server.serviceUrl });
    const options = { topic: 'exclusive', subscription: 's' };
    const first = await client.subscribe({ ...options, consumerName: 'first' });
    for (const each of [client, other]) {
      const { code, message } = await refusalOf(each.subscribe(options));
      expect(code).toBe('CONSUMER_BUSY');
      for (const part of ['"s"', 'exclusive', '"first"']) expect(message).toContain(part);
    }
    await using reader = await other.createReader({ topic: 'exclusive' });
    expect(reader.topic).toBe('exclusive');
    await first.close();
    await using second = await other.subscribe(options);
    expect(second.subscription).toBe('s');
  });

  test('is free again when the process that holds it is killed', async () => {
    expect(await freeAfter((holder) => void holder.kill('SIGKILL'))).toBeLessThan(2_000);
  });
});

describe('the connection of a client', () => {
  test('is one, with one publish and one consume stream, for 1,000 producers and 1,000 consumers', async () => {
    await using proxy = await H2Proxy.start(server.port);
    await using client = new Client({ serviceUrl: proxy.serviceUrl });
    const names = upTo(1_000).map((n) => `many-${n}`);
    const producers = await Promise.all(names.map(async (topic) => await client.createProducer({ topic })));
    const consumers = await Promise.all(
      names.map(async (topic) => await client.subscribe({ topic, subscription: 's', startPosition: 'earliest' })),
    );
    for (let round = 0; round < 3; round++) {
      await Promise.all(producers.map(async (producer) => await producer.send({ data: `${producer.topic} ${round}` })));
      const received = await Promise.all(consumers.map(async (consumer) => await consumer.receive()));
      expect(received.map(({ data }) => data.toString())).toEqual(names.map((name) => `${name} ${round}`));
      await Promise.all(consumers.map(async (consumer, n) => await consumer.acknowledge(received[n] ?? fail())));
    }
    expect(proxy.streams).toEqual([2]);
  });

  test('is made when it is needed, and again when it is cut', async () => {
    await using proxy = await H2Proxy.start(server.port);
    await using client = new Client({ serviceUrl: proxy.serviceUrl });
    expect(proxy.streams).toEqual([]);
    await using producer = await client.createProducer({ topic: 'cut' });
    await producer.send({ data: 'a' });
    expect(proxy.streams).toEqual([1]);
    proxy.cut();
    const ids = await Promise.all(upTo(100).map((n) => producer.send({ data: `${n}` })));
    expect(ids.map(({ index }) => index)).toEqual(upTo(100).map((n) => n + 1));
    expect(proxy.streams).toEqual([1, 1]);
  });
});

function fail(): never {
  throw new Error('nothing was received');
}
