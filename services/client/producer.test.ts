import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { hasCode } from '../lib/errors.ts';
import { decodeBlock, decodeMessages } from '../wire/block.ts';
import { silentLogger } from '../runtime/logger.ts';
import { seededRandom } from '../runtime/testing/seeded-random.ts';
import type { Receipt } from '../wire/frames.ts';
import { deferred } from './abort.ts';
import { Client } from './client.ts';
import type { MessageId } from './message-id.ts';
import type { ProducerOptions } from './options.ts';
import type { Producer } from './producer.ts';
import type { BatchFate } from './testing/fake-broker.ts';
import { FakeBroker } from './testing/fake-broker.ts';
import { clockWithTurns, endOf, numbered, rejection, turn } from './testing/steps.ts';

let broker: FakeBroker;
let client: Client;

beforeEach(async () => {
  broker = await new FakeBroker().listen();
  client = new Client({ serviceUrl: broker.url, operationTimeoutMs: 5_000 });
});

afterEach(async () => await endOf(client, broker));

function producer(options: Partial<ProducerOptions> = {}): Promise<Producer> {
  return client.createProducer({ topic: 't', ...options });
}

/** Sends texts, `perBatch` to a batch. */
async function sendAll(to: Producer, texts: readonly string[], perBatch: number): Promise<Promise<MessageId>[]> {
  const sends: Promise<MessageId>[] = [];
  for (let i = 0; i < texts.length; i += perBatch) {
    for (const text of texts.slice(i, i + perBatch)) sends.push(to.send({ data: text }));
    await new Promise((resolve) => setImmediate(resolve));
  }
  return sends;
}

/** Gives the batch with this number (from 0, over all streams) a fate, and then goes on with `then`. */
function atBatch(number: number, fate: BatchFate, then: () => void): void {
  let seen = 0;
  broker.hooks.batch = () => {
    if (seen++ !== number) return 'store';
    setImmediate(then);
    return fate;
  };
}

describe('sending', () => {
  test('resolves with the place of each message', async () => {
    const p = await producer();
    const ids = await Promise.all(numbered(5).map((data) => p.send({ data })));
    expect(ids.map(String)).toEqual(['7:0:0', '7:0:1', '7:0:2', '7:0:3', '7:0:4']);
    expect(ids.map((id) => id.index)).toEqual([0, 1, 2, 3, 4]);
    const next = await p.send({ data: 'more' });
    expect([String(next), next.index]).toEqual(['7:1:0', 5]);
    expect(p.lastSequenceId).toBe(5n);
    expect(p.producerName).toBe('made-1');
  });

  test('what one turn of the event loop sends is one entry', async () => {
    const p = await producer();
    await Promise.all(numbered(900).map((data) => p.send({ data })));
    expect(broker.topic('t').entries.map((entry) => entry.count)).toEqual([900]);
  });

  test('batches are cut by messages, by bytes, or not made at all', async () => {
    const byCount = await producer({ topic: 'count', batchingMaxMessages: 10 });
    await Promise.all(numbered(25).map((data) => byCount.send({ data })));
    expect(broker.topic('count').entries.map((entry) => entry.count)).toEqual([10, 10, 5]);
    const byBytes = await producer({ topic: 'bytes', batchingMaxBytes: 1_000 });
    await Promise.all(numbered(25).map(() => byBytes.send({ data: Buffer.alloc(300) })));
    for (const entry of broker.topic('bytes').entries) expect(entry.block.length).toBeLessThan(1_200);
    const single = await producer({ topic: 'single', batchingEnabled: false });
    await Promise.all(numbered(4).map((data) => single.send({ data })));
    expect(broker.topic('single').entries.map((entry) => entry.count)).toEqual([1, 1, 1, 1]);
  });

  test('goes on after the last sequence id stored under its name', async () => {
    const first = await producer({ producerName: 'name' });
    await first.send({ data: 'a' });
    await first.send({ data: 'b' });
    await first.close();
    const second = await producer({ producerName: 'name' });
    expect(second.lastSequenceId).toBe(1n);
    await second.send({ data: 'c' });
    expect(broker.topic('t').texts).toEqual(['a', 'b', 'c']);
  });

  test('a sequence id that was stored before is not stored again, however the batches are cut', async () => {
    const first = await producer({ producerName: 'name' });
    await Promise.all([5, 6, 7].map((id) => first.send({ data: `m${id}`, sequenceId: id })));
    await first.close();
    const again = await producer({ producerName: 'name' });
    const ids = await Promise.all([6, 7, 8, 9].map((id) => again.send({ data: `m${id}`, sequenceId: BigInt(id) })));
    expect(broker.topic('t').texts).toEqual(['m5', 'm6', 'm7', 'm8', 'm9']);
    expect(ids.map(String)).toEqual(['unknown', 'unknown', '7:1:0', '7:1:1']);
    expect(ids.map((id) => id.known)).toEqual([false, false, true, true]);
    await expect(rejection(Promise.resolve().then(() => ids[0]?.serialize()))).resolves.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });

  test('what an app gets wrong is told by name, at once', async () => {
    const p = await producer();
    const wrong: [string, Promise<unknown>][] = [
      ['data', p.send({ data: 7 as unknown as string })],
      ['key', p.send({ data: '', key: 7 as unknown as string })],
      ['partitionKey', p.send({ data: '', key: 'a', partitionKey: 'b' })],
      ['property "a"', p.send({ data: '', properties: { a: 1 as unknown as string } })],
      ['eventTimestamp', p.send({ data: '', eventTimestamp: -1 })],
      ['sequenceId', p.send({ data: '', sequenceId: -1n })],
    ];
    for (const [field, send] of wrong) {
      const error = await rejection(send);
      expect(error.code).toBe('INVALID_ARGUMENT');
      expect(error.message).toContain(field);
    }
    const large = await rejection(p.send({ data: Buffer.alloc(1_048_577) }));
    expect(large.code).toBe('MESSAGE_TOO_LARGE');
    expect(large.message).toMatch(/1048577 .* 1048576/);
    expect(broker.topic('t').entries).toEqual([]);
  });
});

describe('a lost connection', () => {
  const texts = numbered(60);

  test.each([
    ['before the batch is stored', 'ignore'],
    ['after the batch is stored, its receipt lost', 'storeSilently'],
    ['after the receipt', 'store'],
  ] as const)('%s: nothing is lost, doubled or out of order', async (_, fate) => {
    for (let number = 0; number < 6; number++) {
      const topic = `t-${fate}-${number}`;
      const restarted = deferred<void>();
      atBatch(number, fate, () => void broker.restart().then(() => restarted.resolve()));
      await using own = new Client({ serviceUrl: broker.url });
      const p = await own.createProducer({ topic, batchingMaxPublishDelayMs: 0 });
      const ids = await Promise.all(await sendAll(p, texts, 10));
      await restarted.promise;
      expect(broker.topic(topic).texts).toEqual(texts);
      expect(ids.map((id) => id.index)).toEqual(texts.map((__, i) => i));
    }
  });

  test('while it is gone, messages wait; the order of send() is kept', async () => {
    const p = await producer();
    broker.crash();
    const sends = await sendAll(p, texts, 7);
    await broker.listen();
    await Promise.all(sends);
    expect(broker.topic('t').texts).toEqual(texts);
  });

  test('the same name is asked for again, with the same instance; busy is tried again', async () => {
    const p = await producer();
    const asked: string[] = [];
    let busy = 2;
    broker.hooks.open = (open) => {
      asked.push(`${open.name} ${open.instance.toString('hex')}`);
      return busy-- > 0 ? { code: 'PRODUCER_BUSY', retryable: true } : undefined;
    };
    await broker.restart();
    await p.send({ data: 'x' });
    expect(asked.length).toBe(3);
    expect(new Set(asked).size).toBe(1);
    expect(asked[0]).toMatch(/^made-1 [0-9a-f]{32}$/);
  });

  test('sabotage: a broker that forgets watermarks doubles what it is sent again', async () => {
    atBatch(0, 'storeSilently', () => {
      broker.topic('t').watermarks.clear();
      void broker.restart();
    });
    const p = await producer();
    await p.send({ data: 'x' });
    expect(broker.topic('t').texts).toEqual(['x', 'x']);
  });
});

describe('refusals', () => {
  test('a batch refused for the time being is sent again, before those behind it', async () => {
    const texts = numbered(50);
    for (const refuse of ['NOT_OWNER', 'NOT_ENOUGH_BOOKIES', 'BATCH_ABORTED']) {
      const topic = `t-${refuse}`;
      atBatch(2, { refuse, retryable: true }, () => {});
      const p = await producer({ topic, batchingMaxPublishDelayMs: 0 });
      await Promise.all(await sendAll(p, texts, 5));
      expect(broker.topic(topic).texts).toEqual(texts);
    }
  });

  test('a batch that was damaged on its way is sent again, with those behind it', async () => {
    atBatch(1, { refuse: 'CHECKSUM_MISMATCH', retryable: false }, () => {});
    const p = await producer({ batchingMaxMessages: 1 });
    await Promise.all(numbered(4).map((data) => p.send({ data })));
    expect(broker.topic('t').texts).toEqual(['m0', 'm1', 'm2', 'm3']);
  });

  test('a batch that is refused alone rejects; those behind it are stored', async () => {
    atBatch(1, { refuse: 'INVALID_ARGUMENT', retryable: false }, () => {});
    const p = await producer({ batchingMaxMessages: 1 });
    const sends = await Promise.allSettled(numbered(4).map((data) => p.send({ data })));
    expect(sends.map((send) => send.status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled']);
    expect(broker.topic('t').texts).toEqual(['m0', 'm2', 'm3']);
  });

  test('a final refusal loses the batch; those behind it are sent again', async () => {
    atBatch(1, { refuse: 'INTERNAL', retryable: false }, () => {});
    const p = await producer({ batchingMaxMessages: 1 });
    const sends = await Promise.allSettled(numbered(4).map((data) => p.send({ data })));
    expect(sends.map((send) => send.status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled']);
    expect(broker.topic('t').texts).toEqual(['m0', 'm2', 'm3']);
  });

  test('a closed producer is opened again when that may succeed, else it fails', async () => {
    const p = await producer();
    await p.send({ data: 'a' });
    for (const stream of broker.publishStreams) stream.closeProducers('NOT_OWNER', true);
    await p.send({ data: 'b' });
    expect(broker.topic('t').texts).toEqual(['a', 'b']);
    broker.hooks.batch = () => 'ignore';
    const pending = rejection(p.send({ data: 'c' }));
    const flushed = rejection(p.flush());
    await new Promise((resolve) => setImmediate(resolve));
    for (const stream of broker.publishStreams) stream.closeProducers('PRODUCER_FENCED', false);
    expect((await pending).code).toBe('PRODUCER_FENCED');
    expect((await flushed).code).toBe('PRODUCER_FENCED');
    expect((await rejection(p.send({ data: 'd' }))).code).toBe('PRODUCER_FENCED');
  });

  test('an overlap with what somebody else stored is cut out, and the rest is stored', async () => {
    const p = await producer({ producerName: 'name' });
    const other = await producer({ topic: 'other', producerName: 'name' });
    broker.crash();
    const sends = [0, 1, 2, 3].map((id) => p.send({ data: `m${id}`, sequenceId: id }));
    const closing = other.close();
    // Meanwhile messages 0 and 1 came in under the same name.
    const topic = broker.topic('t');
    const elsewhere = await new FakeBroker().listen();
    await using second = new Client({ serviceUrl: elsewhere.url });
    const stranger = await second.createProducer({ topic: 't', producerName: 'name' });
    await Promise.all([stranger.send({ data: 'm0' }), stranger.send({ data: 'm1' })]);
    const [entry] = elsewhere.topic('t').entries;
    if (entry === undefined) throw new Error('nothing was stored');
    topic.append({ producer: 1, crc32c: entry.crc32c, block: entry.block }, decodeBlock(entry.block));
    elsewhere.crash();
    await broker.listen();
    await Promise.all([...sends, closing]);
    expect(topic.texts).toEqual(['m0', 'm1', 'm2', 'm3']);
  });

  test('a name in use is refused at once', async () => {
    await producer({ producerName: 'name' });
    await using second = new Client({ serviceUrl: broker.url });
    const error = await rejection(second.createProducer({ topic: 't', producerName: 'name' }));
    expect(error.code).toBe('PRODUCER_BUSY');
  });
});

describe('posting', () => {
  test('a tally is told of everything, once, over lost connections, refusals and time-outs', async () => {
    const told: string[] = [];
    const tally = {
      stored: (count: number): void => void told.push(`${count} stored`),
      failed: (count: number, { code }: { code: string }): void => void told.push(`${count} ${code}`),
    };
    const p = await producer({ batchingMaxMessages: 10, sendTimeoutMs: 300 });
    const post = async (texts: readonly string[]): Promise<void> => {
      for (const data of texts) p.post({ data }, tally);
      await p.flush().catch(() => {});
    };
    await post(numbered(25));
    expect(told.splice(0)).toEqual(['10 stored', '10 stored', '5 stored']);
    atBatch(0, 'storeSilently', () => void broker.restart());
    await post(numbered(5, 25));
    atBatch(1, { refuse: 'INVALID_ARGUMENT', retryable: false }, () => {});
    await post(numbered(30, 30));
    expect(told.splice(0)).toEqual(['5 stored', '10 stored', '10 INVALID_ARGUMENT', '10 stored']);
    broker.hooks.batch = () => 'ignore';
    await post(numbered(3, 60));
    expect(told).toEqual(['3 DEADLINE_EXCEEDED']);
    expect(broker.topic('t').texts).toEqual([...numbered(40), ...numbered(10, 50)]);
  });

  test('goes in order with what is sent, and does not wait for room', async () => {
    const p = await producer({ maxPendingMessages: 3 });
    const tally = { stored: (): void => {}, failed: (): void => {} };
    p.post({ data: 'a' }, tally);
    const sent = p.send({ data: 'b' });
    p.post({ data: 'c' }, tally);
    expect(() => p.post({ data: 'd' }, tally)).toThrow(/^the queue of t is full: 3 messages/);
    expect((await sent).index).toBe(1);
    await p.flush();
    await p.close();
    expect(() => p.post({ data: 'e' }, tally)).toThrow('the producer on t is closed');
    expect(broker.topic('t').texts).toEqual(['a', 'b', 'c']);
  });
});

describe('time-outs', () => {
  test('a message that is not stored in time rejects, with those behind it, and is not stored later', async () => {
    broker.hooks.batch = () => 'ignore';
    const p = await producer({ sendTimeoutMs: 1_000, batchingMaxPublishDelayMs: 0 });
    const sends = (await sendAll(p, ['a', 'b', 'c'], 1)).map(rejection);
    const flushed = rejection(p.flush());
    for (const error of await Promise.all(sends)) {
      expect(error.code).toBe('DEADLINE_EXCEEDED');
      expect(error.message).toContain('may have been stored');
    }
    expect((await flushed).code).toBe('DEADLINE_EXCEEDED');
    broker.hooks.batch = () => 'store';
    await broker.restart();
    await p.send({ data: 'd' });
    expect(broker.topic('t').texts).toEqual(['d']);
  });

  test('a process that stood still for longer reads first what lies in its socket', async () => {
    const clock = clockWithTurns();
    await client.close();
    client = new Client({ serviceUrl: broker.url }, { clock, random: seededRandom(1), logger: silentLogger });
    const receipts: Receipt[] = [];
    broker.hooks.batch = (batch, topic) => {
      receipts.push(topic.store(batch));
      return 'ignore';
    };
    const p = await producer({ sendTimeoutMs: 1_000, batchingMaxPublishDelayMs: 0 });
    const sends = await sendAll(p, ['a', 'b'], 1);
    while (receipts.length < 2) await turn();
    clock.stall(60_000);
    clock.advance(0);
    for (const stream of broker.publishStreams) stream.send({ receipts });
    expect((await Promise.all(sends)).map(({ index }) => index)).toEqual([0, 1]);

    const lost = rejection(p.send({ data: 'c' }));
    while (receipts.length < 3) await turn();
    clock.stall(60_000);
    clock.advance(1_000);
    expect((await lost).code).toBe('DEADLINE_EXCEEDED');
  });

  test('receipts that come after the time-out disturb nothing', async () => {
    const late: (() => void)[] = [];
    broker.hooks.batch = (batch, topic) => {
      const { lastSequenceId } = decodeBlock(batch.block);
      late.push(() => {
        const receipt = topic.store(batch);
        for (const stream of broker.publishStreams)
          stream.send({ receipts: [receipt], credit: { items: 1, bytes: 0 } });
        expect(receipt.lastSequenceId).toBe(lastSequenceId);
      });
      return 'ignore';
    };
    const p = await producer({ sendTimeoutMs: 100 });
    expect((await rejection(p.send({ data: 'a' }))).code).toBe('DEADLINE_EXCEEDED');
    const second = p.send({ data: 'b' });
    while (late.length < 2) await new Promise((resolve) => setImmediate(resolve));
    for (const send of late) send();
    expect((await second).index).toBe(1);
    expect(broker.topic('t').texts).toEqual(['a', 'b']);
    expect(broker.streamsOpened).toBe(1);
  });

  test('a full disk is named as the reason, after retries, until something is stored', async () => {
    let tries = 0;
    broker.hooks.batch = () => {
      tries++;
      return { refuse: 'DISK_FULL', retryable: true };
    };
    const p = await producer({ sendTimeoutMs: 1_000 });
    const error = await rejection(p.send({ data: 'a' }));
    expect(error.code).toBe('DISK_FULL');
    expect(error.message).toMatch(/within sendTimeoutMs, 1000 ms.*refused by the test: DISK_FULL/);
    expect(tries).toBeGreaterThan(1);
    broker.hooks.batch = () => 'store';
    await p.send({ data: 'b' });
    broker.hooks.batch = () => 'ignore';
    expect((await rejection(p.send({ data: 'c' }))).code).toBe('DEADLINE_EXCEEDED');
  });

  test('what was not sent says so, and why', async () => {
    const lost = deferred<void>();
    const logger = { ...silentLogger, warn: () => lost.resolve() };
    await using own = new Client({ serviceUrl: broker.url, logger, operationTimeoutMs: 100 });
    const p = await own.createProducer({ topic: 't', sendTimeoutMs: 150 });
    broker.crash();
    await lost.promise;
    const error = await rejection(p.send({ data: 'a' }));
    expect(error.code).toBe('DEADLINE_EXCEEDED');
    expect(error.message).toMatch(/was not sent .*cannot reach the broker at grpc:.*connection refused/);
    expect(error.message).not.toContain('\n');
  });
});

describe('flush and close', () => {
  test('closing does not wait for batches that were given up before', async () => {
    broker.hooks.batch = () => 'ignore';
    const own = new Client({ serviceUrl: broker.url, operationTimeoutMs: 60_000 });
    const p = await own.createProducer({ topic: 't', sendTimeoutMs: 100 });
    expect((await rejection(p.send({ data: 'a' }))).code).toBe('DEADLINE_EXCEEDED');
    await p.close();
    await own.close();
  });

  test('closing stores what is pending behind a batch that was given up', async () => {
    broker.hooks.batch = ({ block }) =>
      decodeMessages(block).messages[0]?.payload.toString() === 'a' ? 'ignore' : 'store';
    const own = new Client({ serviceUrl: broker.url, operationTimeoutMs: 60_000 });
    const given = await own.createProducer({ topic: 't', sendTimeoutMs: 100 });
    const other = await own.createProducer({ topic: 't' });
    expect((await rejection(given.send({ data: 'a' }))).code).toBe('DEADLINE_EXCEEDED');
    const sent = other.send({ data: 'b' });
    await own.close();
    expect((await sent).index).toBe(0);
  });

  test('flush waits for what was sent before, also for what waits for room', async () => {
    const p = await producer({ maxPendingMessages: 10 });
    const settled: string[] = [];
    for (const data of numbered(20)) void p.send({ data }).then(() => settled.push(data));
    await p.flush();
    expect(settled.length).toBe(20);
    await p.flush();
  });

  test('flush rejects when a message before it is not stored', async () => {
    broker.hooks.batch = () => ({ refuse: 'INVALID_ARGUMENT', retryable: false });
    const p = await producer();
    const sent = rejection(p.send({ data: 'a' }));
    expect((await rejection(p.flush())).code).toBe('INVALID_ARGUMENT');
    await sent;
  });

  test('close stores what was sent; nothing can be sent after it', async () => {
    const p = await producer();
    const sends = numbered(100).map((data) => p.send({ data }));
    const closing = p.close();
    expect((await rejection(p.send({ data: 'late' }))).code).toBe('ALREADY_CLOSED');
    await closing;
    await p.close();
    expect((await Promise.all(sends)).length).toBe(100);
    expect((await rejection(p.flush())).code).toBe('ALREADY_CLOSED');
    expect(broker.topic('t').producers.size).toBe(0);
  });

  test('closing the client closes its producers; close gives up what cannot be stored', async () => {
    broker.hooks.batch = () => 'ignore';
    const impatient = new Client({ serviceUrl: broker.url, operationTimeoutMs: 100 });
    const p = await impatient.createProducer({ topic: 't' });
    const sent = rejection(p.send({ data: 'a' }));
    await impatient.close();
    expect((await sent).code).toBe('ALREADY_CLOSED');
    expect(hasCode(await rejection(impatient.createProducer({ topic: 't' })), 'ALREADY_CLOSED')).toBe(true);
  });

  test('await using closes', async () => {
    {
      await using p = await producer();
      void p.send({ data: 'a' });
    }
    expect(broker.topic('t').texts).toEqual(['a']);
    expect(broker.topic('t').producers.size).toBe(0);
  });
});
