import { afterEach, describe, expect, test } from 'vitest';
import { decodeBlock } from '../wire/block.ts';
import { Client } from './client.ts';
import type { ProducerOptions } from './options.ts';
import type { Producer } from './producer.ts';
import type { FakeLimits } from './testing/fake-broker.ts';
import { FakeBroker } from './testing/fake-broker.ts';
import { endOf, numbered, rejection, turn } from './testing/steps.ts';

let broker: FakeBroker;
let client: Client;

async function start(limits: Partial<FakeLimits> = {}): Promise<void> {
  broker = await new FakeBroker(limits).listen();
  client = new Client({ serviceUrl: broker.url, operationTimeoutMs: 5_000 });
}

afterEach(async () => await endOf(client, broker));

function producer(options: Partial<ProducerOptions> = {}): Promise<Producer> {
  return client.createProducer({ topic: 't', ...options });
}

/** Stores what the broker had ignored, and whatever comes. */
async function recover(): Promise<void> {
  broker.hooks.batch = () => 'store';
  await broker.restart();
}

describe('the queue of pending messages', () => {
  test('at the limit send() waits, in order', async () => {
    await start();
    const p = await producer({ maxPendingMessages: 250, maxPendingBytes: 900 });
    const texts = numbered(250);
    await Promise.all(texts.map((data) => p.send({ data })));
    expect(broker.topic('t').texts).toEqual(texts);
  });

  test('at the limit send() rejects when told so', async () => {
    await start();
    broker.hooks.batch = () => 'ignore';
    const p = await producer({ maxPendingMessages: 2, blockIfQueueFull: false });
    const first = [p.send({ data: 'a' }), p.send({ data: 'b' })];
    expect((await rejection(p.send({ data: 'c' }))).code).toBe('QUEUE_FULL');
    await recover();
    await Promise.all(first);
    await p.send({ data: 'd' });
    expect(broker.topic('t').texts).toEqual(['a', 'b', 'd']);
  });

  test('no more messages wait for room than may be pending', async () => {
    await start();
    broker.hooks.batch = () => 'ignore';
    const p = await producer({ maxPendingMessages: 10 });
    const sends = numbered(20).map((data) => p.send({ data }));
    const error = await rejection(p.send({ data: 'one too many' }));
    expect(error.code).toBe('QUEUE_FULL');
    expect(error.message).toMatch(/^the queue of t is full: 10 messages .* 10 messages of \d+ bytes wait for room/);
    await recover();
    await Promise.all(sends);
    await p.send({ data: 'again' });
    expect(broker.topic('t').texts).toEqual([...numbered(20), 'again']);
  });

  test('no more bytes wait than may be pending, but for one message', async () => {
    await start();
    broker.hooks.batch = () => 'ignore';
    const p = await producer({ maxPendingBytes: 10_000 });
    const large = Buffer.alloc(20_000);
    const sends = [p.send({ data: large }), p.send({ data: large })];
    expect((await rejection(p.send({ data: 'x' }))).code).toBe('QUEUE_FULL');
    await recover();
    await Promise.all(sends);
    broker.hooks.batch = () => 'ignore';
    const properties = { long: 'x'.repeat(9_000) };
    sends.push(p.send({ data: large }), p.send({ data: 'y', properties }));
    expect((await rejection(p.send({ data: 'z', properties }))).code).toBe('QUEUE_FULL');
    await recover();
    await Promise.all(sends);
    expect(broker.topic('t').end).toBe(4);
  });

  test('a message that waits for room can be aborted: it is not sent then, and another may wait', async () => {
    await start();
    broker.hooks.batch = () => 'ignore';
    const p = await producer({ maxPendingMessages: 1 });
    const abort = new AbortController();
    const first = p.send({ data: 'a' });
    const second = p.send({ data: 'b' }, { signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(second).rejects.toThrow('enough');
    const third = p.send({ data: 'c' });
    await recover();
    await Promise.all([first, third]);
    expect(broker.topic('t').texts).toEqual(['a', 'c']);
    await expect(p.send({ data: 'd' }, { signal: abort.signal })).rejects.toThrow('enough');
  });

  test('an app that awaits what it sends never finds it full', async () => {
    await start();
    const p = await producer({ maxPendingMessages: 3 });
    const lanes = [0, 1, 2, 3, 4, 5].map(async () => {
      for (let i = 0; i < 20; i++) await p.send({ data: `${i}` });
    });
    await Promise.all(lanes);
    expect(broker.topic('t').end).toBe(120);
  });
});

describe('what the broker takes', () => {
  test('credits are never overdrawn, and everything arrives', async () => {
    await start({ publishItems: 2, publishBytes: 4_000 });
    const p = await producer({ batchingMaxMessages: 3 });
    const q = await producer({ topic: 'u', batchingMaxMessages: 3 });
    const texts = numbered(300);
    await Promise.all(texts.flatMap((data) => [p.send({ data }), q.send({ data })]));
    expect(broker.topic('t').texts).toEqual(texts);
    expect(broker.topic('u').texts).toEqual(texts);
  });

  test('no batch is larger than the credit of a stream, whatever is in it; a message that would be is refused', async () => {
    await start({ publishBytes: 4_000 });
    const p = await producer();
    const messages = numbered(200).map((data, i) => ({
      data: data.padEnd((i * 37) % 900, '.'),
      ...(i % 3 === 0 ? { key: 'k'.repeat((i * 11) % 400) } : {}),
      ...(i % 7 === 0 ? { properties: { p: 'v'.repeat((i * 13) % 500) } } : {}),
    }));
    await Promise.all(messages.map((message) => p.send(message)));
    expect(broker.topic('t').texts).toEqual(messages.map(({ data }) => data));
    for (const { block } of broker.topic('t').entries) expect(block.length).toBeLessThanOrEqual(4_000);
    await p.send({ data: Buffer.alloc(3_700) });
    for (const [data, key] of [
      [Buffer.alloc(3_990), 'k'],
      ['', 'é'.repeat(1_000)],
    ] as const) {
      const error = await rejection(p.send({ data, key }));
      expect(error.code).toBe('MESSAGE_TOO_LARGE');
      expect(error.message).toMatch(/^the message with its keys and properties has \d+ bytes; .* at most \d+$/);
    }
  });

  test('no frame is larger than the broker takes, also when a large message follows small ones', async () => {
    await start({ maxFrameBytes: 100_000 });
    const p = await producer();
    const sends = numbered(60).map((data) => p.send({ data: data.padEnd(800, '.') }));
    sends.push(p.send({ data: 'large', properties: { text: '漢'.repeat(32_000) } }));
    await Promise.all(sends);
    expect(broker.topic('t').end).toBe(61);
  });

  test('a batch that a later broker cannot take is lost, and holds up nobody', async () => {
    await start();
    broker.hooks.batch = () => 'ignore';
    const p = await producer({ batchingMaxMessages: 1 });
    const q = await producer({ topic: 'u' });
    const large = rejection(p.send({ data: Buffer.alloc(9_000) }));
    const others = [p.send({ data: 'a' }), q.send({ data: 'b' })];
    await turn();
    broker.limits = { ...broker.limits, publishBytes: 4_000 };
    await recover();
    await Promise.all(others);
    const error = await large;
    expect(error.code).toBe('MESSAGE_TOO_LARGE');
    expect(error.message).toMatch(/^the batch, which may have been stored before, has 9\d+ bytes; .* at most 4000$/);
    expect(broker.topic('t').texts).toEqual(['a']);
  });

  test('no producer has more batches without a receipt than the broker first gave credit for', async () => {
    await start({ publishItems: 5 });
    const arrived: bigint[] = [];
    broker.hooks.batch = ({ block }) => {
      arrived.push(decodeBlock(block).lastSequenceId);
      for (const stream of broker.publishStreams) stream.grant(1, block.length);
      return 'ignore';
    };
    const p = await producer({ batchingMaxMessages: 1 });
    const sends = numbered(12).map((data) => p.send({ data }));
    while (arrived.length < 5) await turn();
    for (let i = 0; i < 20; i++) await turn();
    expect(arrived).toEqual([0n, 1n, 2n, 3n, 4n]);
    await recover();
    await Promise.all(sends);
    expect(broker.topic('t').texts).toEqual(numbered(12));
  });

  test('receipts alone let it go on where the window was full', async () => {
    await start({ publishItems: 2 });
    broker.hooks.batch = (batch, topic) => {
      const receipt = topic.store(batch);
      for (const stream of broker.publishStreams) stream.grant(1, batch.block.length);
      setImmediate(() => {
        for (const stream of broker.publishStreams) stream.send({ receipts: [receipt] });
      });
      return 'ignore';
    };
    const p = await producer({ batchingMaxMessages: 1 });
    await Promise.all(numbered(20).map((data) => p.send({ data })));
    expect(broker.topic('t').texts).toEqual(numbered(20));
  });

  test('sequence ids end', async () => {
    await start();
    const p = await producer({ initialSequenceId: (1n << 64n) - 4n });
    const sends = await Promise.allSettled(numbered(5).map((data) => p.send({ data })));
    expect(sends.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'fulfilled', 'rejected', 'rejected']);
    expect(sends[3]).toMatchObject({ reason: { code: 'INVALID_ARGUMENT' } });
    expect(p.lastSequenceId).toBe((1n << 64n) - 1n);
    expect((await rejection(p.send({ data: 'x' }))).message).toMatch(/used up: 18446744073709551615 was the last/);
  });
});
