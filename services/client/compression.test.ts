import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ProtoWriter } from '../lib/bytes.ts';
import { crc32c } from '../lib/crc32c.ts';
import type { EntryId, Epoch, LedgerId, MessageIndex, Millis, SequenceId } from '../lib/ids.ts';
import { BlockBuilder, decodeBlock, decodeMessages } from '../wire/block.ts';
import { compressions, type CompressionType } from '../wire/compression.ts';
import { Client } from './client.ts';
import type { Consumer } from './consumer.ts';
import type { Message } from './message.ts';
import type { ConsumerOptions, ProducerOptions } from './options.ts';
import type { Producer } from './producer.ts';
import { ReceiverQueue } from './receiver-queue.ts';
import { FakeBroker } from './testing/fake-broker.ts';
import { endOf, rejection } from './testing/steps.ts';

const TYPES = ['lz4', 'zstd', 'snappy', 'zlib'] as const satisfies readonly CompressionType[];
const LONG = ' and so on'.repeat(30);

let broker: FakeBroker;
let client: Client;

beforeEach(async () => {
  broker = await new FakeBroker().listen();
  client = new Client({ serviceUrl: broker.url, operationTimeoutMs: 5_000 });
});

afterEach(async () => await endOf(client, broker));

function producer(options: Partial<ProducerOptions> = {}): Promise<Producer> {
  return client.createProducer({ topic: 't', compression: 'lz4', ...options });
}

function subscribe(options: Partial<ConsumerOptions> = {}): Promise<Consumer> {
  return client.subscribe({ topic: 't', subscription: 's', startPosition: 'earliest', ...options });
}

/** Publishes texts, each as a compressed entry of its own. */
async function publish(...texts: readonly string[]): Promise<void> {
  await using p = await producer({ batchingEnabled: false });
  await Promise.all(texts.map((text) => p.send({ data: text + LONG })));
}

function compressionOf(entry: number): number {
  return decodeBlock(broker.topic('t').entries[entry]?.block ?? Buffer.alloc(0)).compression;
}

function textOf(message: Message): string {
  return message.data.toString().replace(LONG, '');
}

async function take(consumer: Consumer, count: number): Promise<string[]> {
  const texts: string[] = [];
  while (texts.length < count) texts.push(textOf(await consumer.receive({ timeoutMs: 2_000 })));
  return texts;
}

describe('publishing', () => {
  test.each(TYPES)('%s: consumers and readers get what was sent', async (compression) => {
    const p = await producer({ compression });
    const texts = Array.from({ length: 50 }, (_, i) => `message ${i}`);
    await Promise.all(texts.map((data) => p.send({ data, key: `k${data}`, properties: { data } })));
    expect(compressionOf(0)).toBe(TYPES.indexOf(compression) + 1);
    const reader = await client.createReader({ topic: 't', startPosition: 'earliest' });
    for (const source of [await subscribe(), reader]) {
      const got: unknown[] = [];
      for await (const message of source.messages({ untilEnd: true })) {
        got.push([message.data.toString(), message.key, message.properties, message.sequenceId]);
      }
      expect(got).toEqual(texts.map((data, i) => [data, `k${data}`, { data }, BigInt(i)]));
    }
  });

  test('what does not shrink goes out as it is', async () => {
    const p = await producer();
    await p.send({ data: 'short' });
    await p.send({ data: `long${LONG}` });
    expect([compressionOf(0), compressionOf(1)]).toEqual([0, 1]);
    expect(await take(await subscribe(), 2)).toEqual(['short', 'long']);
  });

  test('a batch that is cut in two stays compressed', async () => {
    const p = await producer({ producerName: 'name' });
    await publishAs('name', 'a', 'b');
    await Promise.all(['a', 'b', 'c', 'd'].map((text, sequenceId) => p.send({ data: text + LONG, sequenceId })));
    expect(await take(await subscribe(), 4)).toEqual(['a', 'b', 'c', 'd']);
    const { entries } = broker.topic('t');
    expect(entries.map(({ count }, at) => [count, compressionOf(at)])).toEqual([
      [2, 1],
      [2, 1],
    ]);
  });

  test('a compression that there is not', async () => {
    const error = await rejection(producer({ compression: 'gzip' as never }));
    expect(error.message).toBe('compression is "gzip"; it must be one of none, lz4, zstd, snappy, zlib');
  });
});

/** Stores a batch of a producer that is connected to nobody. */
async function publishAs(producerName: string, ...texts: readonly string[]): Promise<void> {
  const compression = compressions.named('lz4');
  const builder = new BlockBuilder({ producerName, epoch: 0 as Epoch, capacityBytes: 1_000, compression });
  for (const [at, text] of texts.entries()) {
    builder.append({ payload: Buffer.from(text + LONG) }, BigInt(at) as SequenceId);
  }
  const { block, crc32c: checksum } = builder.finish(1 as Millis);
  broker.topic('t').append({ producer: 1, crc32c: checksum, block }, decodeBlock(block));
  await Promise.resolve();
}

/** Stores an entry of messages that cannot be decompressed. */
function storeBad(count = 3, compression = 1): void {
  const writer = new ProtoWriter();
  writer.string(1, 'stranger');
  writer.varint(5, count);
  writer.varint(7, compression);
  writer.varint(8, 1_000);
  writer.bytes(15, Buffer.from('this was never compressed'));
  const block = writer.finish();
  broker.topic('t').append({ producer: 1, crc32c: crc32c(block), block }, decodeBlock(block));
}

const BAD =
  /^entry 7:1 of t, with the messages 1 to 3, cannot be read: payload area of 25 bytes in lz4, 1000 before compression, cannot/;

describe('an entry that cannot be read', () => {
  test('rejects one receive, which names it; the next ones go on behind it', async () => {
    await publish('a');
    storeBad();
    await publish('b');
    const consumer = await subscribe();
    const waiting = ['a', 'bad', 'b'].map(() => consumer.receive({ timeoutMs: 2_000 }));
    const [a, bad, b] = await Promise.allSettled(waiting);
    expect([a, b]).toMatchObject([{ value: { index: 0 } }, { value: { index: 4 } }]);
    expect(bad).toMatchObject({ reason: { code: 'DATA_LOSS', message: expect.stringMatching(BAD) as string } });
    const place = { ledgerId: '7', firstEntryId: '1', lastEntryId: '1' };
    const details = { topic: 't', firstIndex: '1', lastIndex: '3', ...place };
    expect(bad).toMatchObject({ reason: { details } });
  });

  test('ends an iteration; a new one goes on', async () => {
    await publish('a');
    storeBad();
    await publish('b', 'c');
    const consumer = await subscribe();
    const got: string[] = [];
    const drain = async (): Promise<void> => {
      for await (const message of consumer.messages({ untilEnd: true })) got.push(textOf(message));
    };
    expect((await rejection(drain())).message).toMatch(BAD);
    expect(got).toEqual(['a']);
    await drain();
    expect(got).toEqual(['a', 'b', 'c']);
  });

  test('at the end of a topic: an iteration up to there rejects, and the next one is through', async () => {
    await publish('a');
    storeBad();
    const reader = await client.createReader({ topic: 't', startPosition: 'earliest' });
    const drain = async (): Promise<number> => {
      let messages = 0;
      for await (const { index } of reader.messages({ untilEnd: true })) messages += 1 + index;
      return messages;
    };
    expect((await rejection(drain())).code).toBe('DATA_LOSS');
    expect(await drain()).toBe(0);
    expect(await reader.hasNext()).toBe(false);
  });

  test('is told once, also over a lost connection; it stays unacknowledged, and can be acknowledged', async () => {
    await publish('a');
    storeBad();
    await publish('b');
    const first = await subscribe();
    expect(await take(first, 1)).toEqual(['a']);
    expect((await rejection(first.receive())).code).toBe('DATA_LOSS');
    await broker.restart();
    const b = await first.receive({ timeoutMs: 2_000 });
    expect(textOf(b)).toBe('b');
    await first.close();
    const second = await subscribe();
    expect(await take(second, 1)).toEqual(['a']);
    expect((await rejection(second.receive())).code).toBe('DATA_LOSS');
    await second.acknowledgeCumulative(b);
    await second.close();
    await publish('c');
    expect(await take(await subscribe(), 1)).toEqual(['c']);
  });

  test('gives its permits back', async () => {
    for (let i = 0; i < 50; i++) storeBad(10);
    await publish('a');
    const consumer = await subscribe({ receiverQueueSize: 20, receiverQueueBytes: 200 });
    for (let i = 0; i < 50; i++)
      expect((await rejection(consumer.receive({ timeoutMs: 2_000 }))).code).toBe('DATA_LOSS');
    expect(await take(consumer, 1)).toEqual(['a']);
  });

  test('of a compression that only others can read: the consumer ends there, and says why', async () => {
    await publish('a');
    storeBad(3, 9);
    await publish('b');
    const consumer = await subscribe();
    expect(await take(consumer, 1)).toEqual(['a']);
    const text =
      'entry 7:1 of t, with the messages 1 to 3, cannot be read: block has compression 9; this version knows 0 (none), 1 (lz4), 2 (zstd), 3 (snappy), 4 (zlib)';
    for (let i = 0; i < 2; i++) {
      expect(await rejection(consumer.receive())).toMatchObject({ code: 'UNSUPPORTED', message: text });
    }
  });
});

describe('memory', () => {
  const size = 5_000_000;
  const blocks = 40;

  /** A queue of blocks of 5 MB each, hardly anything once compressed. */
  function fullQueue(): { queue: ReceiverQueue; block: Buffer } {
    const compression = compressions.named('zlib');
    const builder = new BlockBuilder({ producerName: 'p', epoch: 0 as Epoch, capacityBytes: size, compression });
    builder.append({ payload: Buffer.alloc(size - 1_000) }, 0n as SequenceId);
    builder.append({ payload: Buffer.from('second') });
    const built = builder.finish(1 as Millis);
    const rest = { consumer: 1, appendTime: 1 as Millis, skip: Buffer.alloc(0), redeliveries: 0, ...built };
    const queue = new ReceiverQueue('t', { messages: 1_000_000, bytes: 1_000_000_000 }, () => {});
    for (let i = 0; i < blocks; i++) {
      queue.add({ ledgerId: 7 as LedgerId, entryId: i as EntryId, index: (2 * i) as MessageIndex, ...rest });
    }
    return { queue, block: built.block };
  }

  test('blocks wait compressed; one is decompressed, once, when its first message is taken', () => {
    const before = process.memoryUsage().arrayBuffers;
    const { queue } = fullQueue();
    const [first, second] = [queue.take(), queue.take()];
    expect([first?.data.length, second?.data.toString()]).toEqual([size - 1_000, 'second']);
    expect(second?.data.buffer).toBe(first?.data.buffer);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan((blocks * size) / 2);
  });

  test('that measure shows blocks that are decompressed as they come', () => {
    const { block } = fullQueue();
    const eager = Array.from({ length: blocks }, () => decodeMessages(block));
    expect(process.memoryUsage().arrayBuffers).toBeGreaterThan(blocks * size);
    expect(eager.length).toBe(blocks);
  });
});
