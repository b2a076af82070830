/** A hostile client on the consume stream: it is told what is wrong, and nobody else notices. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Client } from '../services/client/index.ts';
import { ProtoWriter } from '../services/lib/bytes.ts';
import type { MessageIndex } from '../services/lib/ids.ts';
import type { Ack, ConsumeRequest, Subscribe, WireError } from '../services/wire/frames.ts';
import { consumeRequest } from '../services/wire/consume-codec.ts';
import { fuzz } from './support/fuzz.ts';
import { type ServerProcess, startStandalone } from './support/process.ts';
import { type ConsumeStream, consumeStream, type Ended, HELLO, publishStream } from './support/raw-stream.ts';
import { Watch } from './support/watch.ts';
import { memoryOf } from './support/well-behaved.ts';

const NOBODY = Buffer.alloc(0);
const HIGHEST = Number.MAX_SAFE_INTEGER as MessageIndex;

let server: ServerProcess;
let watch: Watch;
let client: Client;
/** A topic of ten messages. */
let topic: string;
let subscriptions = 0;

beforeAll(async () => {
  server = await startStandalone();
  watch = await Watch.start([server], server.serviceUrl);
  client = new Client({ serviceUrl: server.serviceUrl });
  topic = await filled('ten', 10);
});
afterEach(async () => {
  await watch.unharmed();
});
afterAll(async () => {
  try {
    await client?.close();
    await watch?.stop();
  } finally {
    await server?.[Symbol.asyncDispose]();
  }
});

async function filled(name: string, count: number, bytes = 1): Promise<string> {
  await using producer = await client.createProducer({
    topic: name,
    maxPendingMessages: count,
    maxPendingBytes: 2 ** 30,
  });
  await Promise.all(Array.from({ length: count }, () => producer.send({ data: Buffer.alloc(bytes, 'x') })));
  return name;
}

function subscribe(more: Partial<Subscribe> = {}): Subscribe {
  const subscription = `s${++subscriptions}`;
  const type = 'exclusive';
  const usual = { consumer: 1, topic, subscription, type, name: '', instance: NOBODY, topicIdentity: '' } as const;
  return { ...usual, start: { at: 'earliest' }, ...more };
}

function ack(fields: Partial<Ack>): Ack {
  return { consumer: 1, ackId: 1, below: 0 as MessageIndex, ranges: [], ...fields };
}

/** What a frame with a raw field of a number holds, for what the codecs refuse to write. */
function raw(field: number, write: (writer: ProtoWriter) => void): Buffer {
  const writer = new ProtoWriter();
  writer.message(field, write);
  return writer.finish();
}

async function subscribed(stream: ConsumeStream, number = 1): Promise<string> {
  const answer = await stream.answer((frame) => frame.subscribed?.find(({ consumer }) => consumer === number));
  return answer.error === undefined ? 'open' : text(answer.error);
}

function text({ code, message }: WireError): string {
  return `${code}: ${message}`;
}

/** How a stream ends that sends these frames, or bytes, one after another. */
async function endOf(...frames: readonly (ConsumeRequest | Uint8Array)[]): Promise<Ended> {
  await using stream = consumeStream(server.port);
  for (const frame of frames) {
    if (frame instanceof Uint8Array) stream.sendBytes(frame);
    else stream.send(frame);
  }
  return await stream.ended();
}

const OPEN = (): ConsumeRequest => ({ hello: HELLO, subscribes: [subscribe()] });

describe('a stream ends with the reason', () => {
  test.each([
    ['no hello', () => [{}], /no ClientHello/],
    ['hello twice', () => [{ hello: HELLO }, { hello: HELLO }], /second ClientHello/],
    ['bytes that are not protobuf', () => [{ hello: HELLO }, Buffer.from('not protobuf')], /./],
    ['a number in use', () => [OPEN(), { subscribes: [subscribe()] }], /consumer 1, which is in use/],
    ['permits for nobody', () => [{ hello: HELLO, flows: [{ consumer: 7, messages: 1, bytes: 1 }] }], /consumer 7/],
    ['an ack for nobody', () => [{ hello: HELLO, acks: [ack({ consumer: 7 })] }], /consumer 7/],
    [
      'a seek for nobody',
      () => [{ hello: HELLO, seeks: [{ consumer: 7, seekId: 1, to: { at: 'latest' } }] }],
      /consumer 7/,
    ],
    ['closing nobody', () => [{ hello: HELLO, closes: [{ consumer: 7, unsubscribe: true }] }], /consumer 7/],
    ['closing twice', () => [OPEN(), { closes: [1, 1].map((consumer) => ({ consumer, unsubscribe: true })) }], /twice/],
    ['half a range', () => [OPEN(), { acks: [ack({ ranges: [3] })] }], /pairs/],
    ['a seek to nowhere', () => [OPEN(), raw(5, (seek) => seek.varint(1, 1))], /position/],
    ['an index above 2^53', () => [OPEN(), raw(4, (one) => one.bigint(3, 2n ** 64n - 1n))], /2\^53/],
    [
      'a subscription that is not UTF-8',
      () => [{ hello: HELLO }, raw(2, (one) => one.bytes(3, Buffer.from([0xff])))],
      /UTF-8/,
    ],
  ] as [string, () => (ConsumeRequest | Uint8Array)[], RegExp][])('%s', async (_, frames, message) => {
    const ended = await endOf(...frames());
    expect(ended).toEqual({
      status: 'INVALID_ARGUMENT',
      reason: 'PROTOCOL_VIOLATION',
      message: expect.stringMatching(message) as string,
    });
  });

  test('more acks than there was credit for', async () => {
    const acks = Array.from({ length: 10_001 }, (_, at) => ack({ ackId: at + 1, ranges: [at % 10, 1] }));
    const { status, reason } = await endOf(OPEN(), { acks });
    expect([status, reason]).toEqual(['RESOURCE_EXHAUSTED', 'CREDIT_EXCEEDED']);
  });

  test('a frame above the limit', async () => {
    expect((await endOf(OPEN(), Buffer.alloc(17_000_000))).status).toBe('RESOURCE_EXHAUSTED');
  });
});

describe('what is wrong with one consumer is said in band; the stream goes on', () => {
  test.each([
    ['an unknown subscription type', { type: { unknown: 2 } }, 'UNSUPPORTED'],
    ['a topic with control characters', { topic: 'a\u0007' }, 'TOPIC_NAME_INVALID'],
    ['a subscription with control characters', { subscription: 'a\r\nb' }, 'INVALID_ARGUMENT'],
    ['a subscription of ten million characters', { subscription: 'x'.repeat(10_000_000) }, 'INVALID_ARGUMENT'],
    ['a name with control characters', { name: '\u0000' }, 'INVALID_ARGUMENT'],
    ['a reader with such a name', { subscription: '', name: '\u0000' }, 'INVALID_ARGUMENT'],
    ['a start beyond the end', { start: { at: 'index', index: HIGHEST } }, 'POSITION_NOT_FOUND'],
    ['another tenant', { topic: 'nobody/default/t' }, 'TENANT_NOT_FOUND'],
  ] as [string, Partial<Subscribe>, string][])('%s', async (_, fields, code) => {
    await using stream = consumeStream(server.port);
    stream.send({ hello: HELLO, subscribes: [subscribe(fields)] });
    const answer = await subscribed(stream);
    expect(answer).toMatch(new RegExp(`^${code}: `));
    expect(answer).not.toMatch(/\p{Cc}/u);
    expect(answer.length).toBeLessThan(2_000);
    stream.send({ subscribes: [subscribe({ consumer: 2 })] });
    expect(await subscribed(stream, 2)).toBe('open');
  });

  test('an ack of a reader, and acks beyond the end, are refused one by one', async () => {
    await using stream = consumeStream(server.port);
    stream.send({ hello: HELLO, subscribes: [subscribe({ subscription: '' }), subscribe({ consumer: 2 })] });
    stream.send({ acks: [ack({ below: 1 as MessageIndex })] });
    const wrong = [
      { below: 11 as MessageIndex },
      { below: HIGHEST },
      { ranges: [9, 2] },
      { ranges: [HIGHEST, HIGHEST] },
    ];
    stream.send({ acks: wrong.map((fields, at) => ack({ consumer: 2, ackId: at + 1, ...fields })) });
    stream.send({ acks: [ack({ consumer: 2, ackId: 9, below: 10 as MessageIndex, ranges: [0, 10, 3, 5, 3, 1] })] });
    const receipts = await stream.until((frames) => {
      const all = frames.flatMap((frame) => frame.ackReceipts ?? []);
      return all.some(({ ackId }) => ackId === 9) && all.some(({ consumer }) => consumer === 1) ? all : undefined;
    });
    const shown = receipts.map(({ consumer, ackId, error }) => [consumer, ackId, error?.code]);
    expect(shown.filter(([consumer]) => consumer === 1)).toEqual([[1, 1, 'INVALID_ARGUMENT']]);
    expect(shown.filter(([consumer]) => consumer === 2)).toEqual([
      ...[1, 2, 3, 4].map((ackId) => [2, ackId, 'INVALID_ARGUMENT']),
      [2, 9, undefined],
    ]);
    expect(receipts.find(({ ackId }) => ackId === 2)?.error?.message).toMatch(/next message of topic .* gets 10/);
  });

  test('seeks are bounded, and those to nowhere change nothing', async () => {
    await using stream = consumeStream(server.port);
    stream.send(OPEN());
    const seeks = Array.from({ length: 1_000 }, (_, at) => ({
      consumer: 1,
      seekId: at + 1,
      to: { at: 'index', index: (at % 2 === 0 ? 10 : HIGHEST) as MessageIndex } as const,
    }));
    stream.send({ seeks });
    const done = await stream.until((frames) => {
      const all = frames.flatMap((frame) => frame.seeksDone ?? []);
      return all.length === 1_000 ? all : undefined;
    });
    const codes = new Set(done.map(({ error }) => error?.code));
    expect(codes).toEqual(new Set([undefined, 'POSITION_NOT_FOUND', 'QUEUE_FULL']));
  });

  test('permits beyond all measure are permits', async () => {
    await using stream = consumeStream(server.port);
    stream.send(OPEN());
    const flow = { consumer: 1, messages: 4_294_967_295, bytes: HIGHEST };
    stream.send({ flows: Array.from({ length: 10_000 }, () => flow) });
    const delivery = await stream.answer((frame) => frame.deliveries?.[0]);
    expect(delivery.index).toBe(0);
  });
});

describe('a client that does not read', () => {
  test('costs the server a bounded amount of memory, and nobody else anything', async () => {
    const large = await filled('large', 400, 1_000_000);
    const before = await memoryOf(server);
    const streams = Array.from({ length: 20 }, () => {
      const stream = consumeStream(server.port);
      stream.pause();
      const flows = [{ consumer: 1, messages: 4_294_967_295, bytes: HIGHEST }];
      stream.send({ hello: HELLO, subscribes: [subscribe({ topic: large, subscription: '' })], flows });
      return stream;
    });
    await using reader = await client.createReader({ topic: large, startPosition: 'earliest' });
    for (let n = 0; n < 400; n++) expect((await reader.readNext()).index).toBe(n);
    await watch.unharmed();
    expect((await memoryOf(server)).now - before.now).toBeLessThan(400); // of 8,000 that were asked for
    for (const stream of streams) await stream[Symbol.asyncDispose]();
  });
});

test('a message that no consumer could read is not let in', async () => {
  await filled('poison', 3);
  const messages = new ProtoWriter();
  messages.message(1, (message) => message.varint(1, 5)); // a payload of a wrong wire type
  const block = new ProtoWriter();
  block.string(1, 'poisoner');
  block.varint(5, 1);
  block.bytes(15, messages.finish());
  await using stream = publishStream(server.port);
  stream.send({ hello: HELLO, opens: [{ producer: 1, topic: 'poison', name: 'poisoner', instance: NOBODY }] });
  stream.send({ batches: [{ producer: 1, block: block.finish() }] });
  expect((await stream.ended()).reason).toBe('PROTOCOL_VIOLATION');
  await filled('poison', 3);
  await using reader = await client.createReader({ topic: 'poison', startPosition: 'earliest' });
  for (let n = 0; n < 6; n++) expect((await reader.readNext()).index).toBe(n);
});

test('frames with flipped, missing and additional bytes: a clear end or an answer, never an internal error', async () => {
  const ends = await fuzz(7, () => {
    const bytes = consumeRequest.encode({
      ...OPEN(),
      flows: [{ consumer: 1, messages: 10, bytes: 1_000 }],
      acks: [ack({ below: 2 as MessageIndex, ranges: [4, 1, 7, 2] })],
      seeks: [{ consumer: 1, seekId: 1, to: { at: 'time', time: 5 } }],
      closes: [{ consumer: 1, unsubscribe: true }],
    });
    return { stream: consumeStream(server.port), bytes };
  });
  expect([...ends.keys()].toSorted()).toEqual(['INVALID_ARGUMENT PROTOCOL_VIOLATION', 'OK undefined']);
  for (const count of ends.values()) expect(count).toBeGreaterThan(25);
});
