import { afterEach, describe, expect, test } from 'vitest';
import type { MessageIndex, SequenceId } from '../lib/ids.ts';
import type { Delivery, ProducerOpened, Receipt, Subscribed } from '../wire/frames.ts';
import {
  batch,
  BrokerWorld,
  type ConsumeStream,
  HELLO,
  index,
  openProducer,
  place,
  type PublishStream,
  type RunningTestBroker,
  subscribe,
  texts,
} from './testing/broker-world.ts';

const TOPIC = 'orders';
const PLENTY = { messages: 100_000, bytes: 1_000_000_000 };

let world: BrokerWorld;

async function startWorld(...args: Parameters<BrokerWorld['start']>): Promise<RunningTestBroker> {
  world = new BrokerWorld();
  return world.start(...args);
}

afterEach(async () => {
  await world.close();
});

async function opened(stream: PublishStream, producer: number): Promise<ProducerOpened> {
  return stream.until((frames) => frames.flatMap((f) => f.opened ?? []).findLast((o) => o.producer === producer));
}

function receiptsOf(stream: PublishStream): Receipt[] {
  return stream.frames.flatMap((frame) => frame.receipts ?? []);
}

async function receipts(stream: PublishStream, count: number): Promise<Receipt[]> {
  return stream.until(() => (receiptsOf(stream).length >= count ? receiptsOf(stream) : undefined));
}

async function producer(broker: RunningTestBroker, name = 'p', instance = ''): Promise<PublishStream> {
  const stream = broker.publish();
  stream.send({ hello: HELLO, opens: [openProducer(1, TOPIC, name, instance)] });
  expect((await opened(stream, 1)).error).toBeUndefined();
  return stream;
}

/** Publishes and waits for the receipt. */
async function publish(stream: PublishStream, first: number, lines: readonly string[], name = 'p'): Promise<Receipt> {
  const before = receiptsOf(stream).length;
  stream.send({ batches: [batch(1, name, first, lines)] });
  return (await receipts(stream, before + 1))[before] as Receipt;
}

async function subscribed(stream: ConsumeStream, consumer: number): Promise<Subscribed> {
  return stream.until((frames) => frames.flatMap((f) => f.subscribed ?? []).findLast((s) => s.consumer === consumer));
}

async function consumer(
  broker: RunningTestBroker,
  more: Parameters<typeof subscribe>[2] = {},
): Promise<{ stream: ConsumeStream; subscribed: Subscribed }> {
  const stream = broker.consume();
  stream.send({ hello: HELLO, subscribes: [subscribe(1, TOPIC, more)], flows: [{ consumer: 1, ...PLENTY }] });
  const answer = await subscribed(stream, 1);
  expect(answer.error).toBeUndefined();
  return { stream, subscribed: answer };
}

function deliveriesOf(stream: ConsumeStream): Delivery[] {
  return stream.frames.flatMap((frame) => frame.deliveries ?? []);
}

async function received(stream: ConsumeStream, count: number): Promise<string[]> {
  return stream.until(() => {
    const all = texts(deliveriesOf(stream));
    return all.length >= count ? all : undefined;
  });
}

async function acked(stream: ConsumeStream, ackId: number): Promise<void> {
  await stream.until((frames) =>
    frames.flatMap((f) => f.ackReceipts ?? []).find((r) => r.ackId >= ackId && r.error === undefined),
  );
}

async function ackError(stream: ConsumeStream, ackId: number): Promise<string> {
  return stream.until(
    (frames) => frames.flatMap((f) => f.ackReceipts ?? []).find((r) => r.ackId === ackId)?.error?.code,
  );
}

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

  test('errors of one batch alone leave the producer working; another error aborts what follows', async () => {
    const stream = await producer(await startWorld());
    const good = batch(1, 'p', 0, ['a']);
    stream.send({ batches: [{ ...good, crc32c: (good.crc32c ?? 0) ^ 1 }, batch(1, 'other', 0, ['a']), good] });
    const got = await receipts(stream, 3);
    expect(got.map((r) => r.error?.code)).toEqual(['CHECKSUM_MISMATCH', 'INVALID_ARGUMENT', undefined]);
    const compressed = batch(1, 'p', 1, ['b']);
    // The field "compression" (7) at the end of the block, where the checksum is left out.
    const block = Buffer.concat([compressed.block, Buffer.from([0x38, 0x01])]);
    stream.send({ batches: [{ producer: 1, block }, batch(1, 'p', 2, ['c'])] });
    const rest = (await receipts(stream, 5)).slice(3);
    expect(rest.map((r) => r.error?.code)).toEqual(['UNSUPPORTED', 'BATCH_ABORTED']);
    stream.send({ closes: [{ producer: 1 }] });
    await stream.until((frames) => frames.flatMap((f) => f.closed ?? []).find((c) => c.error === undefined));
    stream.send({ opens: [openProducer(1, TOPIC, 'p')] });
    const answer = await stream.until((frames) => frames.flatMap((f) => f.opened ?? [])[1]);
    expect(answer.lastSequenceId).toBe(0n);
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
    const broker = await startWorld({ publishBudgetBytes: 4_000, publishWindowBytes: 100_000 });
    const streams = [await producer(broker, 'a'), await producer(broker, 'b')];
    for (const [i, stream] of streams.entries()) {
      const name = i === 0 ? 'a' : 'b';
      for (let n = 0; n < 20; n++) stream.send({ batches: [batch(1, name, n, ['x'.repeat(1_000)])] });
    }
    for (const stream of streams) {
      const got = await receipts(stream, 20);
      expect(got.every((receipt) => receipt.error === undefined)).toBe(true);
    }
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
    const broker = await startWorld({ publishBudgetBytes: 1_000, publishWindowBytes: 1_000 });
    for (let n = 0; n < 3; n++) {
      const stream = await producer(broker, `p${n}`);
      stream.send({ batches: [{ producer: 1, block: Buffer.alloc(700, 0xff) }] });
      expect((await stream.untilEnded())?.code).toBe('PROTOCOL_VIOLATION');
    }
    expect((await publish(await producer(broker), 0, ['x'.repeat(700)])).error).toBeUndefined();
  });

  test('sending without credit', async () => {
    const broker = await startWorld({ publishWindowItems: 2, publishWindowBytes: 10_000, ackWindowItems: 2 });
    const items = await producer(broker, 'a');
    items.send({ batches: [0, 1, 2].map((n) => batch(1, 'a', n, ['x'])) });
    expect((await items.untilEnded())?.code).toBe('CREDIT_EXCEEDED');
    const bytes = await producer(broker, 'b');
    bytes.send({ batches: [batch(1, 'b', 0, ['x'.repeat(11_000)])] });
    expect((await bytes.untilEnded())?.code).toBe('CREDIT_EXCEEDED');
    const { stream } = await consumer(broker);
    stream.send({ acks: [1, 2, 3].map((ackId) => ({ consumer: 1, ackId, below: index(0), ranges: [] })) });
    expect((await stream.untilEnded())?.code).toBe('CREDIT_EXCEEDED');
  });

  test('saying nothing', async () => {
    const broker = await startWorld({ handshakeMs: 30 });
    const stream = broker.publish();
    stream.send({} as never); // opens the stream; the frame has no hello
    expect((await stream.untilEnded())?.code).toBe('PROTOCOL_VIOLATION');
    expect((await broker.consume().untilEnded())?.code).toBe('DEADLINE_EXCEEDED');
  });
});

describe('consuming', () => {
  test('an exclusive subscription gets everything in order, is told when it has caught up, and then what is new', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    await publish(stream, 0, ['a', 'b']);
    const { stream: out, subscribed: answer } = await consumer(broker);
    expect(answer).toMatchObject({ nextIndex: 0, endIndex: 2 });
    expect(await received(out, 2)).toEqual(['a', 'b']);
    await out.until((frames) => frames.flatMap((f) => f.caughtUp ?? []).find((c) => c.index === 2));
    await publish(stream, 2, ['c']);
    expect(await received(out, 3)).toEqual(['a', 'b', 'c']);
    await out.until((frames) => frames.flatMap((f) => f.caughtUp ?? []).find((c) => c.index === 3));
  });

  test('permits in messages and in bytes are kept, but for one entry', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    for (let n = 0; n < 6; n++) await publish(stream, n * 2, [`${n}a`, `${n}b`]);
    const out = broker.consume();
    out.send({
      hello: HELLO,
      subscribes: [subscribe(1, TOPIC)],
      flows: [{ consumer: 1, messages: 3, bytes: 1_000_000 }],
    });
    await received(out, 4);
    out.send({ flows: [{ consumer: 1, messages: 3, bytes: 0 }] });
    expect(await received(out, 6)).toHaveLength(6);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(texts(deliveriesOf(out))).toHaveLength(6);
  });

  test('acks are durable over a restart, and only what is not acked comes again', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    await publish(stream, 0, ['a', 'b', 'c', 'd', 'e']);
    const { stream: out } = await consumer(broker);
    await received(out, 5);
    out.send({
      acks: [
        { consumer: 1, ackId: 1, below: index(2), ranges: [] },
        { consumer: 1, ackId: 2, below: index(0), ranges: [3, 1] },
      ],
    });
    await acked(out, 2);
    broker.kill();
    const { stream: again, subscribed: answer } = await consumer(await world.start());
    expect(answer.nextIndex).toBe(2);
    expect(await received(again, 2)).toEqual(['c', 'e']);
    again.send({ acks: [{ consumer: 1, ackId: 1, below: index(5), ranges: [] }] });
    await acked(again, 1);
    await again.until((frames) => frames.flatMap((f) => f.caughtUp ?? []).find((c) => c.index === 5));
  });

  test('acks behind the end, and acks of a reader, are refused; other acks go on', async () => {
    const broker = await startWorld();
    await publish(await producer(broker), 0, ['a']);
    const { stream: out } = await consumer(broker);
    out.send({
      acks: [
        { consumer: 1, ackId: 1, below: index(2), ranges: [] },
        { consumer: 1, ackId: 2, below: index(0), ranges: [0, 5] },
        { consumer: 1, ackId: 3, below: index(1), ranges: [] },
      ],
    });
    expect([await ackError(out, 1), await ackError(out, 2)]).toEqual(['INVALID_ARGUMENT', 'INVALID_ARGUMENT']);
    await acked(out, 3);
    const { stream: reader } = await consumer(broker, { subscription: '' });
    reader.send({ acks: [{ consumer: 1, ackId: 1, below: index(1), ranges: [] }] });
    expect(await ackError(reader, 1)).toBe('INVALID_ARGUMENT');
  });

  test('a second consumer is refused, naming the first; the same instance takes over; what had been delivered is marked', async () => {
    const broker = await startWorld();
    await publish(await producer(broker), 0, ['a']);
    const { stream: first } = await consumer(broker, { name: 'one', instance: Buffer.from('me') });
    await received(first, 1);
    const second = broker.consume();
    second.send({ hello: HELLO, subscribes: [subscribe(1, TOPIC, { instance: Buffer.from('you') })] });
    const refused = await subscribed(second, 1);
    expect(refused.error).toMatchObject({ code: 'CONSUMER_BUSY', details: { subscription: 's', consumer: 'one' } });
    expect(refused.error?.message).toMatch(/persistent:\/\/public\/default\/orders/);
    const { stream: again } = await consumer(broker, { instance: Buffer.from('me') });
    expect((await first.until((frames) => frames.flatMap((f) => f.closed ?? [])[0])).error?.code).toBe(
      'CONSUMER_FENCED',
    );
    await received(again, 1);
    expect(deliveriesOf(again)[0]?.redeliveries).toBe(1);
  });

  test('seek: by index, by place, by time, and to what is not there', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    const stored = [];
    for (let n = 0; n < 5; n++) stored.push(await publish(stream, n * 2, [`${n}a`, `${n}b`]));
    const { stream: out } = await consumer(broker);
    await received(out, 10);
    let seekId = 0;
    const seek = async (to: Parameters<typeof out.send>[0]['seeks']) => {
      const [one] = to ?? [];
      seekId++;
      out.send({ seeks: one === undefined ? [] : [{ ...one, seekId }] });
      return out.until((frames) => frames.flatMap((f) => f.seeksDone ?? []).find((done) => done.seekId === seekId));
    };
    expect((await seek([{ consumer: 1, seekId: 0, to: { at: 'index', index: index(7) } }])).nextIndex).toBe(7);
    const before = deliveriesOf(out).length;
    out.send({ flows: [{ consumer: 1, ...PLENTY }] });
    expect((await received(out, 13)).slice(10)).toEqual(['3b', '4a', '4b']);
    expect(deliveriesOf(out)[before]).toMatchObject({ index: 6 });
    const { ledgerId, entryId } = stored[2] as Receipt;
    const place2 = { at: 'messageId', id: { ledgerId, entryId, batchIndex: 1 } } as const;
    expect((await seek([{ consumer: 1, seekId: 0, to: place2 }])).nextIndex).toBe(5);
    expect((await seek([{ consumer: 1, seekId: 0, to: { at: 'time', time: Date.now() + 3_600_000 } }])).nextIndex).toBe(
      10,
    );
    expect((await seek([{ consumer: 1, seekId: 0, to: { at: 'time', time: 1_000 } }])).nextIndex).toBe(0);
    const nowhere = { at: 'messageId', id: { ...place(ledgerId, 99), batchIndex: 0 } } as const;
    const missing = await seek([{ consumer: 1, seekId: 0, to: nowhere }]);
    expect(missing.error).toMatchObject({ code: 'POSITION_NOT_FOUND' });
    expect(missing.error?.message).toContain(`${ledgerId}:0:0 (index 0) to ${ledgerId}:4:1 (index 9)`);
    const beyond = await seek([{ consumer: 1, seekId: 0, to: { at: 'index', index: index(11) } }]);
    expect(beyond.error?.code).toBe('POSITION_NOT_FOUND');
    expect((await seek([{ consumer: 1, seekId: 0, to: { at: 'index', index: index(10) } }])).nextIndex).toBe(10);
  });

  test('a seek is durable, and the caught-up notice of the new position follows the next permits', async () => {
    const broker = await startWorld();
    await publish(await producer(broker), 0, ['a', 'b', 'c']);
    const { stream: out } = await consumer(broker);
    await received(out, 3);
    out.send({ acks: [{ consumer: 1, ackId: 1, below: index(3), ranges: [] }] });
    await acked(out, 1);
    out.send({ seeks: [{ consumer: 1, seekId: 1, to: { at: 'latest' } }] });
    await out.until((frames) => frames.flatMap((f) => f.seeksDone ?? [])[0]);
    const soFar = out.frames.length;
    out.send({ flows: [{ consumer: 1, ...PLENTY }] });
    await out.until((frames) => frames.slice(soFar).flatMap((f) => f.caughtUp ?? [])[0]);
    out.send({ seeks: [{ consumer: 1, seekId: 2, to: { at: 'index', index: index(1) } }] });
    await out.until((frames) => frames.flatMap((f) => f.seeksDone ?? []).find((done) => done.seekId === 2));
    broker.kill();
    const { stream: again } = await consumer(await world.start());
    expect(await received(again, 2)).toEqual(['b', 'c']);
  });

  test('unsubscribe deletes the subscription; closing alone does not', async () => {
    const broker = await startWorld();
    await publish(await producer(broker), 0, ['a', 'b']);
    const { stream: out } = await consumer(broker);
    await received(out, 2);
    out.send({
      acks: [{ consumer: 1, ackId: 1, below: index(1), ranges: [] }],
      closes: [{ consumer: 1, unsubscribe: false }],
    });
    await out.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]);
    await acked(out, 1);
    const { stream: again, subscribed: answer } = await consumer(broker);
    expect(answer.nextIndex).toBe(1);
    again.send({ closes: [{ consumer: 1, unsubscribe: true }] });
    await again.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]);
    expect((await consumer(broker)).subscribed.nextIndex).toBe(0);
  });

  test('a new subscription begins at the end unless told otherwise; a start that is not there is refused', async () => {
    const broker = await startWorld();
    await publish(await producer(broker), 0, ['a', 'b']);
    const out = broker.consume();
    const { start, ...latest } = subscribe(1, TOPIC);
    expect(start).toBeDefined();
    const beyond = subscribe(2, TOPIC, { subscription: 't', start: { at: 'index', index: index(3) } });
    const type = subscribe(3, TOPIC, { subscription: 'u', type: { unknown: 7 } });
    out.send({ hello: HELLO, subscribes: [latest, beyond, type] });
    expect((await subscribed(out, 1)).nextIndex).toBe(2);
    expect((await subscribed(out, 2)).error?.code).toBe('POSITION_NOT_FOUND');
    expect((await subscribed(out, 3)).error?.code).toBe('UNSUPPORTED');
  });

  test('a client that does not read holds few bytes of the server, and gets everything later', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    const large = 'x'.repeat(500_000);
    for (let n = 0; n < 60; n++) await publish(stream, n, [large]);
    const { stream: out } = await consumer(broker, { subscription: '' });
    out.pause();
    await new Promise((resolve) => setTimeout(resolve, 100));
    out.resume();
    expect(await received(out, 60)).toHaveLength(60);
  });
});

describe('restart', () => {
  test('a killed broker loses nothing: data, indexes, deduplication', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    const before = await publish(stream, 0, ['a', 'b']);
    broker.kill();
    const next = await world.start();
    const again = await producer(next);
    expect((await opened(again, 1)).lastSequenceId).toBe(1n as SequenceId);
    expect(await publish(again, 0, ['a', 'b'])).toEqual({ ...before, duplicate: true });
    expect(await publish(again, 2, ['c'])).toMatchObject({ index: 2, entryId: 0 });
    const { stream: reader } = await consumer(next, { subscription: '' });
    expect(await received(reader, 3)).toEqual(['a', 'b', 'c']);
  });

  test('a broker that has been replaced stores nothing more', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    await publish(stream, 0, ['a']);
    const next = await producer(await world.start());
    await publish(next, 1, ['b']);
    const late = await publish(stream, 2, ['late']);
    expect(late.error).toMatchObject({ code: 'NOT_OWNER', retryable: true });
    const closed = await stream.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]);
    expect(closed.error).toMatchObject({ code: 'NOT_OWNER', retryable: true });
  });

  test('a broker that is stopped answers what is under way and tells its clients to come again', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    stream.send({ batches: [batch(1, 'p', 0, ['a'])] });
    await stream.until((frames) => (frames.length > 0 ? true : undefined));
    await receipts(stream, 1);
    await broker.broker.close();
    expect(await stream.untilEnded()).toMatchObject({ code: 'UNAVAILABLE', retryable: true });
    const refused = broker.publish();
    refused.send({ hello: HELLO });
    expect((await refused.untilEnded())?.code).toBe('UNAVAILABLE');
    const next = await world.start();
    const { stream: reader } = await consumer(next, { subscription: '' });
    expect(await received(reader, 1)).toEqual(['a']);
  });

  test('ledgers roll, and everything is read over all of them, by index and by place', async () => {
    const broker = await startWorld({ ledger: { rollEntries: 3 }, cacheBytes: 0 });
    const stream = await producer(broker);
    stream.send({ batches: Array.from({ length: 20 }, (_, n) => batch(1, 'p', n * 2, [`${n}a`, `${n}b`])) });
    const got = await receipts(stream, 20);
    expect(got.map((r) => r.index)).toEqual(Array.from({ length: 20 }, (_, n) => n * 2));
    const ledgers = new Set(got.map((r) => r.ledgerId));
    expect(ledgers.size).toBeGreaterThanOrEqual(7);
    const last = got[13] as Receipt;
    broker.kill();
    const next = await world.start({ cacheBytes: 0 });
    const { stream: all } = await consumer(next, { subscription: '' });
    expect(await received(all, 40)).toEqual(Array.from({ length: 20 }, (_, n) => [`${n}a`, `${n}b`]).flat());
    const id = { ledgerId: last.ledgerId, entryId: last.entryId, batchIndex: 1 };
    const { subscribed: answer } = await consumer(next, { subscription: '', start: { at: 'messageId', id } });
    expect(answer.nextIndex).toBe(27 as MessageIndex);
  });
});
