import type { Subscribe } from '../wire/frames.ts';
import { afterEach, describe, expect, test } from 'vitest';
import { smallMemory } from '../runtime/testing/small-memory.ts';
import {
  batch,
  BrokerWorld,
  HELLO,
  index,
  openProducer,
  type RunningTestBroker,
  subscribe,
} from './testing/broker-world.ts';
import {
  consumer,
  deliveriesOf,
  holdAppends,
  opened,
  producer,
  publish,
  received,
  receipts,
  receiptsOf,
  subscribed,
  TOPIC,
} from './testing/steps.ts';

let world: BrokerWorld;

async function startWorld(...args: Parameters<BrokerWorld['start']>): Promise<RunningTestBroker> {
  world = new BrokerWorld();
  return world.start(...args);
}

afterEach(async () => {
  await world.close();
});

/** A window of about 70 KB, and memory for one of them. */
const SMALL = { maxMessageBytes: 2_000, publishWindowBytes: 70_000 } as const;
const LITTLE = { write: 70_000 } as const;

/** So many payloads of 1,000 bytes. */
function lines(count: number): string[] {
  return Array.from({ length: count }, () => 'x'.repeat(1_000));
}

/** Closes producer 1 and opens it again; what is stored of it ends with this sequence id. */
async function reopen(stream: Awaited<ReturnType<typeof producer>>, watermark = 0n): Promise<void> {
  stream.send({ closes: [{ producer: 1 }] });
  await stream.until((frames) => frames.flatMap((f) => f.closed ?? []).find((c) => c.error === undefined));
  stream.send({ opens: [openProducer(1, TOPIC, 'p')] });
  const answer = await stream.until((frames) => frames.flatMap((f) => f.opened ?? [])[1]);
  expect(answer.lastSequenceId).toBe(watermark);
}

/** Subscribes of readers with these numbers. */
const readers = (numbers: readonly number[]): Subscribe[] =>
  numbers.map((n) => subscribe(n, TOPIC, { subscription: '' }));

describe('publishing', () => {
  test('batches get consecutive indexes, receipts come in order, and credit comes back', async () => {
    const stream = await producer(await startWorld());
    const hello = stream.frames[0]?.hello;
    expect(hello).toMatchObject({ protocolVersion: 1, maxMessageBytes: 5_242_880 });
    const sent = [batch(1, 'p', 0, ['a', 'b']), batch(1, 'p', 2, ['c']), batch(1, 'p', 3, ['d', 'e', 'f'])];
    stream.send({ batches: sent });
    const got = await receipts(stream, 3);
    expect(got.map((r) => [r.index, r.count, r.entryId, r.lastSequenceId, r.duplicate])).toEqual([
      [0, 2, 0, 1n, false],
      [2, 1, 1, 2n, false],
      [3, 3, 2, 5n, false],
    ]);
    const credits = await stream.until((frames) => {
      const all = frames.flatMap((frame) => frame.credit ?? []);
      return all.reduce((sum, credit) => sum + credit.items, 0) === 3 ? all : undefined;
    });
    expect(credits.reduce((sum, credit) => sum + credit.bytes, 0)).toBe(sent.reduce((n, b) => n + b.block.length, 0));
  });

  test('a batch that is sent again is answered with its place and not stored twice', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    const first = await publish(stream, 10, ['a', 'b']);
    const again = await publish(stream, 10, ['a', 'b']);
    expect(again).toEqual({ ...first, duplicate: true });
    const { stream: reader } = await consumer(broker, { subscription: '' });
    expect(await received(reader, 2)).toEqual(['a', 'b']);
    expect(deliveriesOf(reader)).toHaveLength(1);
  });

  test('a duplicate in the same frame waits for the outcome of the first', async () => {
    const stream = await producer(await startWorld());
    const same = batch(1, 'p', 0, ['a']);
    stream.send({ batches: [same, same, batch(1, 'p', 1, ['b'])] });
    const got = await receipts(stream, 3);
    expect(got.map((r) => [r.index, r.count, r.duplicate])).toEqual([
      [0, 1, false],
      [0, 1, true],
      [1, 1, false],
    ]);
  });

  test('a partial overlap is refused with the watermark, and so is what follows it until the producer is opened again', async () => {
    const stream = await producer(await startWorld());
    await publish(stream, 0, ['a', 'b', 'c']);
    const overlap = await publish(stream, 1, ['b', 'c', 'd']);
    expect(overlap.error).toMatchObject({ code: 'SEQUENCE_OVERLAP', details: { watermark: '2' } });
    expect((await publish(stream, 4, ['e'])).error?.code).toBe('BATCH_ABORTED'); // it would have made 'd' a duplicate
    stream.send({ closes: [{ producer: 1 }] });
    await stream.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]);
    stream.send({ opens: [openProducer(1, TOPIC, 'p')] });
    await stream.until((frames) => frames.flatMap((f) => f.opened ?? [])[1]);
    expect(await publish(stream, 3, ['d', 'e'])).toMatchObject({ index: 3, count: 2 });
  });

  test('a partial overlap with a batch under way: what follows it in the same frame is refused, too', async () => {
    const stream = await producer(await startWorld());
    stream.send({ batches: [batch(1, 'p', 0, ['a', 'b']), batch(1, 'p', 1, ['b', 'c']), batch(1, 'p', 3, ['d'])] });
    const [stored, overlap, behind] = await receipts(stream, 3);
    expect(stored).toMatchObject({ index: 0, count: 2 });
    expect(overlap?.error).toMatchObject({ code: 'SEQUENCE_OVERLAP', details: { watermark: '1' } });
    expect(behind?.error?.code).toBe('BATCH_ABORTED');
    await reopen(stream, 1n);
    expect(await publish(stream, 2, ['c', 'd'])).toMatchObject({ index: 2, count: 2 });
  });

  test('errors of one batch alone leave the producer working; another error aborts what follows', async () => {
    const stream = await producer(await startWorld());
    const good = batch(1, 'p', 0, ['a']);
    stream.send({ batches: [batch(1, 'other', 0, ['a']), good] });
    const got = await receipts(stream, 2);
    expect(got.map((r) => r.error?.code)).toEqual(['INVALID_ARGUMENT', undefined]);
    const compressed = batch(1, 'p', 1, ['b']);
    // The field "compression" (7) at the end of the block, where the checksum is left out.
    const block = Buffer.concat([compressed.block, Buffer.from([0x38, 0x09])]);
    stream.send({ batches: [{ producer: 1, block }, batch(1, 'p', 2, ['c'])] });
    const rest = (await receipts(stream, 4)).slice(2);
    expect(rest.map((r) => r.error?.code)).toEqual(['UNSUPPORTED', 'BATCH_ABORTED']);
    await reopen(stream);
    expect((await publish(stream, 1, ['b'])).index).toBe(1);
  });

  test('a batch that was damaged on its way is refused, and what follows it, so that it can be sent again', async () => {
    const stream = await producer(await startWorld());
    expect((await publish(stream, 0, ['a'])).error).toBeUndefined();
    const damaged = batch(1, 'p', 1, ['b']);
    stream.send({ batches: [{ ...damaged, crc32c: ((damaged.crc32c ?? 0) ^ 1) >>> 0 }, batch(1, 'p', 2, ['c'])] });
    const refused = (await receipts(stream, 3)).slice(1);
    expect(refused.map((r) => r.error?.code)).toEqual(['CHECKSUM_MISMATCH', 'BATCH_ABORTED']);
    await reopen(stream);
    expect((await publish(stream, 1, ['b'])).index).toBe(1);
  });

  test('a message above the limit is refused, naming size and limit', async () => {
    const stream = await producer(await startWorld({ maxMessageBytes: 1_000 }));
    const receipt = await publish(stream, 0, ['x'.repeat(1_001)]);
    expect(receipt.error).toMatchObject({ code: 'MESSAGE_TOO_LARGE', details: { size: '1001', limit: '1000' } });
    expect((await publish(stream, 0, ['x'.repeat(600), 'y'.repeat(600)])).error).toBeUndefined();
  });

  test('a missing checksum is computed, and delivered', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    const { block, crc32c } = batch(1, 'p', 0, ['a']);
    stream.send({ batches: [{ producer: 1, block }] });
    await receipts(stream, 1);
    const { stream: reader } = await consumer(broker, { subscription: '' });
    await received(reader, 1);
    expect(deliveriesOf(reader)[0]?.crc32c).toBe(crc32c);
  });

  test('names: made by the server, busy for others, taken over by the same instance', async () => {
    const broker = await startWorld();
    const stream = broker.publish();
    stream.send({ hello: HELLO, opens: [openProducer(1, TOPIC), openProducer(2, TOPIC)] });
    const names = [(await opened(stream, 1)).name, (await opened(stream, 2)).name];
    expect(new Set(names).size).toBe(2);
    const old = await producer(broker, 'p', 'me');
    const other = broker.publish();
    other.send({ hello: HELLO, opens: [openProducer(5, TOPIC, 'p', 'you'), openProducer(6, TOPIC, 'p')] });
    expect((await opened(other, 5)).error).toMatchObject({ code: 'PRODUCER_BUSY', retryable: true });
    expect((await opened(other, 6)).error?.code).toBe('PRODUCER_BUSY');
    await producer(broker, 'p', 'me');
    const closed = await old.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]);
    expect(closed.error?.code).toBe('PRODUCER_FENCED');
    old.send({ batches: [batch(1, 'p', 0, ['late'])] }); // its answer is the ProducerClosed
    await old.until((frames) => frames.flatMap((f) => f.credit ?? [])[0]);
    expect(old.ended).toBeUndefined();
  });

  test('who comes while batches of the name are under way is told of them once they are stored', async () => {
    const broker = await startWorld();
    const old = await producer(broker, 'p', 'me');
    const { underWay, stored } = holdAppends(world.cluster);
    old.send({ batches: [batch(1, 'p', 0, ['a', 'b'])] });
    await underWay.passed;
    const next = broker.publish();
    next.send({ hello: HELLO, opens: [openProducer(1, TOPIC, 'p', 'me')], batches: [batch(1, 'p', 2, ['c'])] });
    await old.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]); // The name is the next one's now.
    stored.open();
    expect((await opened(next, 1)).lastSequenceId).toBe(1n);
    expect(await receipts(next, 1)).toMatchObject([{ index: 2, duplicate: false }]);
  });

  test('a half-closed stream ends when its producer is fenced while it waits for those', async () => {
    const broker = await startWorld();
    const old = await producer(broker, 'p', 'me');
    const { underWay, stored } = holdAppends(world.cluster);
    old.send({ batches: [batch(1, 'p', 0, ['a'])] });
    await underWay.passed;
    const next = broker.publish();
    next.send({ hello: HELLO, opens: [openProducer(1, TOPIC, 'p', 'me')] });
    next.halfClose();
    await old.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]);
    await producer(broker, 'other'); // the end of the stream came before
    const last = broker.publish();
    last.send({ hello: HELLO, opens: [openProducer(1, TOPIC, 'p', 'me')] });
    await next.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]);
    expect(await next.untilEnded()).toBeUndefined();
    stored.open();
    expect((await opened(last, 1)).error).toBeUndefined();
  });

  test('a name is free as soon as its stream has ended', async () => {
    const broker = await startWorld();
    (await producer(broker, 'p')).cancel();
    const stream = broker.publish();
    stream.send({ hello: HELLO });
    let number = 1;
    await stream.until((frames) => {
      const answers = frames.flatMap((frame) => frame.opened ?? []);
      if (answers.length === number - 1) stream.send({ opens: [openProducer(number++, TOPIC, 'p')] });
      return answers.find((answer) => answer.error === undefined);
    });
    expect(stream.ended).toBeUndefined();
  });

  test('a name is free for who comes behind the close of a producer that is not open yet', async () => {
    const broker = await startWorld();
    const stream = broker.publish();
    stream.send({ hello: HELLO, opens: [openProducer(1, TOPIC, 'p', 'me')], closes: [{ producer: 1 }] });
    stream.send({ opens: [openProducer(2, TOPIC, 'p', 'you')] }); // the topic is being opened still
    expect((await opened(stream, 2)).error).toBeUndefined();
    expect(stream.frames.flatMap((f) => f.closed ?? [])).toEqual([{ producer: 1 }]);

    const { underWay, stored } = holdAppends(world.cluster);
    stream.send({ batches: [batch(2, 'p', 0, ['a'])] });
    await underWay.passed;
    const next = broker.publish();
    next.send({ hello: HELLO, opens: [openProducer(1, TOPIC, 'p', 'you')] }); // waits for what is under way
    await stream.until((frames) => frames.flatMap((f) => f.closed ?? []).find((c) => c.producer === 2));
    next.send({ closes: [{ producer: 1 }] });
    next.send({ opens: [openProducer(2, TOPIC, 'p', 'they'), openProducer(3, TOPIC)] });
    await opened(next, 3);
    stored.open();
    expect(await opened(next, 2)).toMatchObject({ name: 'p', lastSequenceId: 0n });
    expect(next.frames.flatMap((f) => f.closed ?? [])).toEqual([{ producer: 1 }]);
  });

  test('batches that come before the producer is open wait for it, and a half-closed stream is answered to the end', async () => {
    const broker = await startWorld();
    const stream = broker.publish();
    stream.send({ hello: HELLO, opens: [openProducer(1, TOPIC, 'p')], batches: [batch(1, 'p', 0, ['a'])] });
    stream.send({ batches: [batch(1, 'p', 1, ['b'])], closes: [{ producer: 1 }] });
    stream.halfClose();
    expect(await stream.untilEnded()).toBeUndefined();
    expect(receiptsOf(stream).map((r) => r.index)).toEqual([0, 1]);
    expect(stream.frames.flatMap((f) => f.closed ?? [])).toEqual([{ producer: 1 }]);
  });

  test('unknown tenants, namespaces and malformed names are refused by name', async () => {
    const broker = await startWorld();
    const stream = broker.publish();
    const names = ['nobody/x/t', 'public/x/t', 'persistent://a/b', 'non-persistent://public/default/t'];
    stream.send({ hello: HELLO, opens: names.map((name, i) => openProducer(i, name)) });
    const codes = [];
    for (const number of names.keys()) codes.push((await opened(stream, number)).error?.code);
    expect(codes).toEqual(['TENANT_NOT_FOUND', 'NAMESPACE_NOT_FOUND', 'TOPIC_NAME_INVALID', 'UNSUPPORTED']);
  });

  test('memory for batches is bounded over all streams, and everything is answered all the same', async () => {
    const memory = smallMemory(LITTLE);
    const broker = await startWorld(SMALL, { memory });
    const names = ['a', 'b', 'c'];
    const streams = await Promise.all(names.map(async (name) => producer(broker, name)));
    for (const [i, stream] of streams.entries()) {
      for (let n = 0; n < 12; n++) stream.send({ batches: [batch(1, names[i] ?? '', n * 5, lines(5))] });
    }
    for (const stream of streams) {
      const got = await receipts(stream, 12);
      expect(got.every((receipt) => receipt.error === undefined)).toBe(true);
    }
    expect(memory.share('write').usedBytes).toBe(0);
  });

  test.each([
    ['a small batch beside a large one', [batch(1, 'p', 0, ['x'.repeat(200_000)]), batch(1, 'p', 1, ['small'])], ''],
    ['a batch in a frame that is mostly something else', [batch(1, 'p', 0, ['x'.repeat(20_000)])], 'x'.repeat(90_000)],
  ])('%s does not keep the frame in memory while it is under way', async (_, batches, name) => {
    const broker = await startWorld();
    const stream = await producer(broker);
    const kept: number[] = [];
    const [bookie] = world.cluster.bookies;
    if (bookie !== undefined) {
      bookie.before = (call) => {
        if (call.type !== 'append') return;
        for (const part of call.entry.payload) kept.push(part.buffer.byteLength / part.length);
      };
    }
    stream.send({ batches, opens: name === '' ? [] : [openProducer(2, TOPIC, name)] });
    await receipts(stream, batches.length);
    const [, block = 0] = kept.slice(-2);
    expect(block).toBeLessThan(1.1);
  });

  test('options with which a batch could wait for ever are refused', async () => {
    world = new BrokerWorld();
    const memory = smallMemory({ write: 4_000_000 });
    await expect(world.start({ publishWindowBytes: 5_000_000 }, { memory })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message:
        'publishWindowBytes is 5000000; it must be at least 5308416, for messages of 5242880; publishWindowBytes is 5000000; a memory budget of 268435456 bytes has at most 4000000 for it',
    });
    await expect(world.start({ maxMessageBytes: 16_777_216, publishWindowBytes: 20_000_000 })).rejects.toThrow(
      'maxMessageBytes is 16777216; it must be at most 16711680',
    );
  });
});

describe('what a stream may not do', () => {
  test.each([
    ['no hello', { opens: [openProducer(1, TOPIC)] }, 'PROTOCOL_VIOLATION'],
    ['a producer that is not open', { hello: HELLO, batches: [batch(9, 'p', 0, ['a'])] }, 'PROTOCOL_VIOLATION'],
    [
      'a number in use',
      { hello: HELLO, opens: [openProducer(1, TOPIC), openProducer(1, TOPIC)] },
      'PROTOCOL_VIOLATION',
    ],
  ])('publish: %s', async (_, frame, code) => {
    const broker = await startWorld();
    const stream = broker.publish();
    stream.send(frame);
    expect((await stream.untilEnded())?.code).toBe(code);
    await producer(broker); // the server is still up
  });

  test.each(['Publish', 'Consume'] as const)('%s: bytes that are no frame', async (method) => {
    const broker = await startWorld();
    const raw = broker.raw(method);
    raw.send(Buffer.from([0xff, 0xff, 0xff]));
    expect((await raw.untilEnded())?.code).toBe('PROTOCOL_VIOLATION');
    await producer(broker);
  });

  test('a block that cannot be read ends the stream, and gives its memory back', async () => {
    const broker = await startWorld(SMALL, { memory: smallMemory(LITTLE) });
    for (let n = 0; n < 3; n++) {
      const stream = await producer(broker, `p${n}`);
      stream.send({ batches: [{ producer: 1, block: Buffer.alloc(50_000, 0xff) }] });
      expect((await stream.untilEnded())?.code).toBe('PROTOCOL_VIOLATION');
    }
    expect((await publish(await producer(broker), 0, lines(50))).error).toBeUndefined();
  });

  test('a frame that opens a number in use gives the memory of its batches back', async () => {
    const memory = smallMemory(LITTLE);
    const broker = await startWorld(SMALL, { memory });
    for (let n = 0; n < 3; n++) {
      const stream = await producer(broker, `p${n}`);
      stream.send({ opens: [openProducer(1, TOPIC)], batches: [batch(1, `p${n}`, 0, lines(50))] });
      expect((await stream.untilEnded())?.message).toContain('producer 1, which is in use');
      expect(memory.share('write').usedBytes).toBe(0);
    }
    expect((await publish(await producer(broker), 0, lines(50))).error).toBeUndefined();
  });

  test('a frame that closes what is not open gives the memory of its batches back, once', async () => {
    const memory = smallMemory(LITTLE);
    const broker = await startWorld(SMALL, { memory });
    const stream = await producer(broker);
    stream.send({ batches: [batch(1, 'p', 0, lines(20)), batch(1, 'p', 20, lines(20))], closes: [{ producer: 9 }] });
    expect((await stream.untilEnded())?.message).toContain('producer 9, which is not open');
    await expect.poll(() => memory.share('write').usedBytes).toBe(0);
    expect((await publish(await producer(broker, 'q'), 0, lines(50), 'q')).error).toBeUndefined();
  });

  test('opening more producers than a stream may have: each is refused, as often as the refusals are taken', async () => {
    const broker = await startWorld({ maxPerStream: 3 });
    const stream = broker.publish();
    stream.send({ hello: HELLO, opens: [1, 2, 3].map((n) => openProducer(n, `t${n}`)) });
    for (const n of [1, 2, 3]) expect((await opened(stream, n)).error).toBeUndefined();
    for (let first = 4; first < 40; first += 3) {
      stream.send({ opens: [0, 1, 2].map((n) => openProducer(first + n, TOPIC)) });
      for (const n of [0, 1, 2]) expect((await opened(stream, first + n)).error?.code).toBe('QUEUE_FULL');
    }
    expect(stream.ended).toBeUndefined();
    stream.send({ batches: [batch(1, (await opened(stream, 1)).name, 0, ['a'])] });
    expect((await receipts(stream, 1))[0]?.error).toBeUndefined();
  });

  test.each([
    ['that it may not have', 'orders'],
    ['of names that are none', ''],
  ])('opening on and on what is refused, producers %s', async (_, topic) => {
    const broker = await startWorld({ maxPerStream: 3 });
    const other = await producer(broker, 'other');
    const stream = broker.publish();
    stream.send({ hello: HELLO, opens: [1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => openProducer(n, topic)) });
    expect(await stream.untilEnded()).toMatchObject({
      code: 'CREDIT_EXCEEDED',
      message: 'a stream may have 3 producers, and as many refusals that it has not taken; open another stream',
    });
    expect((await publish(other, 0, ['a'], 'other')).error).toBeUndefined();
  });

  test('subscribing on and on what is refused', async () => {
    const broker = await startWorld({ maxPerStream: 3 });
    const stream = broker.consume();
    stream.send({ hello: HELLO, subscribes: readers([1, 2, 3, 4, 5, 6]) });
    expect((await subscribed(stream, 3)).error).toBeUndefined();
    for (const n of [4, 5, 6]) expect((await subscribed(stream, n)).error?.code).toBe('QUEUE_FULL');
    stream.send({ subscribes: readers([7, 8, 9, 10]) });
    expect(await stream.untilEnded()).toMatchObject({
      code: 'CREDIT_EXCEEDED',
      message: 'a stream may have 3 consumers, and as many refusals that it has not taken; open another stream',
    });
  });

  test.each(['Publish', 'Consume'] as const)('%s: a frame of very many items', async (method) => {
    const broker = await startWorld();
    const raw = broker.raw(method);
    raw.send(Buffer.alloc(200_000, Buffer.from([0x12, 0])));
    expect((await raw.untilEnded())?.message).toBe('a frame has more than 16384 items; send several frames');
    await producer(broker);
  });

  test('sending without credit', async () => {
    const broker = await startWorld({ ...SMALL, publishWindowItems: 2, ackWindowItems: 2 });
    const items = await producer(broker, 'a');
    items.send({ batches: [0, 1, 2].map((n) => batch(1, 'a', n, ['x'])) });
    expect((await items.untilEnded())?.code).toBe('CREDIT_EXCEEDED');
    const bytes = await producer(broker, 'b');
    bytes.send({ batches: [batch(1, 'b', 0, lines(70))] });
    expect((await bytes.untilEnded())?.code).toBe('CREDIT_EXCEEDED');
    const { stream } = await consumer(broker);
    stream.send({ acks: [1, 2, 3].map((ackId) => ({ consumer: 1, ackId, below: index(0), ranges: [] })) });
    expect((await stream.untilEnded())?.code).toBe('CREDIT_EXCEEDED');
  });

  test('saying nothing', async () => {
    const broker = await startWorld({ handshakeMs: 30 });
    const stream = broker.publish();
    stream.send({}); // opens the stream; the frame has no hello
    expect((await stream.untilEnded())?.code).toBe('PROTOCOL_VIOLATION');
    expect((await broker.consume().untilEnded())?.code).toBe('DEADLINE_EXCEEDED');
  });
});
