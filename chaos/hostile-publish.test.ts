/** A hostile client on the publish stream: it is told what is wrong, and nobody else notices. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ProtoWriter } from '../services/lib/bytes.ts';
import { crc32c } from '../services/lib/crc32c.ts';
import type { PublishBatch, PublishRequest, Receipt } from '../services/wire/frames.ts';
import { publishRequest } from '../services/wire/publish-codec.ts';
import { fuzz } from './support/fuzz.ts';
import { type ServerProcess, startBookie, startStandalone } from './support/process.ts';
import { type Ended, HELLO, type PublishStream, publishStream } from './support/raw-stream.ts';
import { suspend } from './support/suspend.ts';
import { Watch } from './support/watch.ts';

const MiB = 1_048_576;

let server: ServerProcess;
let watch: Watch;
let topics = 0;

beforeAll(async () => {
  server = await startStandalone();
  watch = await Watch.start([server], server.serviceUrl);
});
afterEach(async () => {
  await watch.unharmed();
});
afterAll(async () => {
  try {
    await watch?.stop();
  } finally {
    await server?.[Symbol.asyncDispose]();
  }
});

const NOBODY = Buffer.alloc(0);

/** The first frame of a stream, which opens producer 1. */
function opening(name = 'p', topic = `hostile-${++topics}`, instance: Buffer = NOBODY): PublishRequest {
  return { hello: HELLO, opens: [{ producer: 1, topic, name, instance }] };
}

function messages(...payloads: readonly Buffer[]): Buffer {
  const writer = new ProtoWriter();
  for (const payload of payloads) writer.message(1, (message) => message.bytes(1, payload));
  return writer.finish();
}

interface BlockFields {
  readonly name?: string;
  readonly epoch?: number;
  readonly first?: bigint;
  readonly last?: bigint;
  readonly count?: number;
  readonly compression?: number;
  readonly clearRows?: number;
  readonly payload?: Buffer;
}

/** A block of two messages by producer "p", with whatever is wrong with it. */
function block(fields: BlockFields = {}): Buffer {
  const {
    name = 'p',
    first = 0n,
    last = 1n,
    count = 2,
    payload = messages(Buffer.from('a'), Buffer.from('b')),
  } = fields;
  const writer = new ProtoWriter();
  writer.string(1, name);
  if (fields.epoch !== undefined) writer.varint(2, fields.epoch);
  writer.bigint(3, first);
  writer.bigint(4, last);
  writer.varint(5, count);
  writer.varint(6, 1);
  if (fields.compression !== undefined) writer.varint(7, fields.compression);
  for (let row = 0; row < (fields.clearRows ?? 0); row++) writer.message(9, (clear) => clear.varint(1, 1));
  writer.bytes(15, payload);
  return writer.finish();
}

function batch(bytes: Buffer, checksum: number = crc32c(bytes), producer = 1): PublishBatch {
  return { producer, crc32c: checksum, block: bytes };
}

async function opened(stream: PublishStream, number = 1): Promise<string> {
  const answer = await stream.answer((frame) => frame.opened?.find(({ producer }) => producer === number));
  return answer.error === undefined ? 'open' : `${answer.error.code}: ${answer.error.message}`;
}

async function receipts(stream: PublishStream, count: number): Promise<Receipt[]> {
  return await stream.until((frames) => {
    const all = frames.flatMap((frame) => frame.receipts ?? []);
    return all.length >= count ? all : undefined;
  });
}

/** How a stream ends that sends these frames, or bytes, one after another. */
async function endOf(...frames: readonly (PublishRequest | Uint8Array)[]): Promise<Ended> {
  await using stream = publishStream(server.port);
  for (const frame of frames) {
    if (frame instanceof Uint8Array) stream.sendBytes(frame);
    else stream.send(frame);
  }
  return await stream.ended();
}

/** A client that breaks the rules of the stream. */
function violation(message: RegExp): object {
  return {
    status: 'INVALID_ARGUMENT',
    reason: 'PROTOCOL_VIOLATION',
    message: expect.stringMatching(message) as string,
  };
}

describe('a stream ends with the reason', () => {
  test.each([
    ['no hello', [{}], /no ClientHello/],
    [
      'an opening before the hello',
      [{ ...opening(), hello: undefined } as unknown as PublishRequest],
      /no ClientHello/,
    ],
    ['hello twice', [{ hello: HELLO }, { hello: HELLO }], /second ClientHello/],
    ['bytes that are not protobuf', [{ hello: HELLO }, Buffer.from('not protobuf')], /./],
    ['random bytes at once', [Buffer.alloc(4_096, 0xff)], /./],
    [
      'a batch for a producer never opened',
      [{ hello: HELLO, batches: [batch(block())] }],
      /producer 1, which is not open/,
    ],
    ['closing a producer never opened', [{ hello: HELLO, closes: [{ producer: 9 }] }], /producer 9, which is not open/],
    [
      'a number in use',
      [opening(), opening('q', 't')].map((f, at) => (at === 0 ? f : { opens: f.opens ?? [] })),
      /in use/,
    ],
    ['a block that is not protobuf', [opening(), { batches: [batch(Buffer.from([0x0a, 0xff]))] }], /./],
    ['a block whose clear table has holes', [opening(), { batches: [batch(block({ clearRows: 1 }))] }], /clear table/],
    ['a name that is not UTF-8', [Buffer.from([0x0a, 0, 0x12, 4, 0x12, 2, 0xc3, 0x28])], /UTF-8/],
  ] as [string, (PublishRequest | Uint8Array)[], RegExp][])('%s', async (_, frames, message) => {
    expect(await endOf(...frames)).toEqual(violation(message));
  });

  test('more batches than there was credit for', async () => {
    const { status, reason, message } = await endOf(opening(), {
      batches: Array.from({ length: 1_001 }, () => batch(block())),
    });
    expect([status, reason]).toEqual(['RESOURCE_EXHAUSTED', 'CREDIT_EXCEEDED']);
    expect(message).toContain('1001 batches');
  });

  test('more bytes than there was credit for', async () => {
    const large = batch(block({ payload: messages(Buffer.alloc(5 * MiB), Buffer.alloc(5 * MiB)) }));
    await using bookie = await startBookie();
    await using broker = await startStandalone({ args: ['--bookie', `127.0.0.1:${bookie.port}`] });
    await using stream = publishStream(broker.port);
    stream.send(opening());
    expect(await opened(stream)).toBe('open');
    using _ = await suspend(bookie); // nothing is stored: no credit comes back
    for (let sent = 0; sent < 3; sent++) stream.send({ batches: [large] });
    expect((await stream.ended()).reason).toBe('CREDIT_EXCEEDED');
  });

  test('a frame above the limit', async () => {
    const { status, message } = await endOf(opening(), Buffer.alloc(17 * MiB));
    expect(status).toBe('RESOURCE_EXHAUSTED');
    expect(message).toMatch(/larger than max/);
  });
});

describe('what is wrong with one producer is said in band; the stream goes on', () => {
  test.each([
    ['a topic with control characters', opening('p', 'a\nb\u0000'), 'TOPIC_NAME_INVALID'],
    ['a topic of ten million characters', opening('p', 'x'.repeat(10_000_000)), 'TOPIC_NAME_INVALID'],
    ['no topic', opening('p', ''), 'TOPIC_NAME_INVALID'],
    ['a topic of another tenant', opening('p', 'nobody/default/t'), 'TENANT_NOT_FOUND'],
    ['a topic of another namespace', opening('p', 'public/nowhere/t'), 'NAMESPACE_NOT_FOUND'],
    ['a non-persistent topic', opening('p', 'non-persistent://public/default/t'), 'UNSUPPORTED'],
    ['a name with control characters', opening('a\u001b[31m'), 'INVALID_ARGUMENT'],
    ['a name of ten million characters', opening('x'.repeat(10_000_000)), 'INVALID_ARGUMENT'],
  ])('%s', async (_, frame, code) => {
    await using stream = publishStream(server.port);
    stream.send(frame);
    const answer = await opened(stream);
    expect(answer).toMatch(new RegExp(`^${code}: `));
    expect(answer).not.toMatch(/\p{Cc}/u);
    expect(answer.length).toBeLessThan(2_000);
    stream.send({ opens: [{ producer: 2, topic: 'hostile', name: '', instance: NOBODY }] });
    expect(await opened(stream, 2)).toBe('open');
  });

  test('a producer beyond the limit of a stream', async () => {
    await using stream = publishStream(server.port);
    const opens = Array.from({ length: 10_001 }, (_, n) => ({
      producer: n + 1,
      topic: 'crowd',
      name: '',
      instance: NOBODY,
    }));
    stream.send({ hello: HELLO, opens });
    expect(await opened(stream, 10_001)).toMatch(/^QUEUE_FULL: .*10000/);
    expect(await opened(stream, 10_000)).toBe('open');
  });
});

describe('what is wrong with one batch is said in its receipt', () => {
  const own: [string, Buffer, string, RegExp][] = [
    ['a count that is too high', block({ count: 3, last: 9n }), 'INVALID_ARGUMENT', /has 2 messages and says 3/],
    ['a count that is too low', block({ count: 1 }), 'INVALID_ARGUMENT', /has 2 messages and says 1/],
    ['no message', block({ count: 0, payload: NOBODY }), 'INVALID_ARGUMENT', /0 messages/],
    [
      'a count of four thousand million',
      block({ count: 4_294_967_295 }),
      'INVALID_ARGUMENT',
      /4294967295 messages; at most 100000/,
    ],
    ['sequence ids that fall', block({ first: 5n, last: 3n }), 'INVALID_ARGUMENT', /rise/],
    ['too few sequence ids', block({ last: 0n }), 'INVALID_ARGUMENT', /rise/],
    ['the name of another producer', block({ name: 'q' }), 'INVALID_ARGUMENT', /"q"/],
    ['another epoch', block({ epoch: 7 }), 'INVALID_ARGUMENT', /epoch 7/],
    [
      'a message above the limit',
      block({ payload: messages(Buffer.alloc(5 * MiB + 1), NOBODY) }),
      'MESSAGE_TOO_LARGE',
      /5242881.*5242880/,
    ],
  ];
  test.each(own)('%s: the next batch is stored', async (_, bad, code, message) => {
    await using stream = publishStream(server.port);
    stream.send(opening());
    stream.send({ batches: [batch(bad), batch(block())] });
    const [first, second] = await receipts(stream, 2);
    expect(first?.error?.code).toBe(code);
    expect(first?.error?.message).toMatch(message);
    expect(second).toMatchObject({ index: 0, count: 2, duplicate: false });
    expect(second?.error).toBeUndefined();
  });

  test.each([
    ['a checksum that does not match', batch(block(), 1), 'CHECKSUM_MISMATCH'],
    ['a compression that is not known', batch(block({ compression: 9 })), 'UNSUPPORTED'],
  ])('%s: those behind it are refused until the producer is opened again', async (_, bad, code) => {
    await using stream = publishStream(server.port);
    const frame = opening();
    stream.send(frame);
    stream.send({ batches: [bad, batch(block()), batch(block({ first: 2n, last: 3n }))] });
    const refused = (await receipts(stream, 3)).map(({ error }) => error?.code);
    expect(refused).toEqual([code, 'BATCH_ABORTED', 'BATCH_ABORTED']);
    stream.send({ closes: [{ producer: 1 }] });
    await stream.answer(({ closed }) => closed?.[0]);
    stream.send({
      opens: (frame.opens ?? []).map((open) => ({ ...open, producer: 2 })),
      batches: [batch(block(), undefined, 2)],
    });
    expect((await receipts(stream, 4))[3]).toMatchObject({ producer: 2, index: 0, count: 2 });
  });

  test('a part that was stored before: the watermark is said, and the rest can be stored', async () => {
    await using stream = publishStream(server.port);
    const frame = opening();
    stream.send({ ...frame, batches: [batch(block({ first: 0n, last: 1n }))] });
    stream.send({ batches: [batch(block({ first: 1n, last: 2n })), batch(block({ first: 3n, last: 4n }))] });
    const [stored, overlap, aborted] = await receipts(stream, 3);
    expect(stored).toMatchObject({ index: 0, count: 2 });
    expect(overlap?.error).toMatchObject({ code: 'SEQUENCE_OVERLAP', details: { watermark: '1' } });
    // Stored, it would make the rest of the one before it a duplicate.
    expect(aborted?.error?.code).toBe('BATCH_ABORTED');
    stream.send({ closes: [{ producer: 1 }] });
    await stream.answer(({ closed }) => closed?.[0]);
    const again = (frame.opens ?? []).map((open) => ({ ...open, producer: 2 }));
    stream.send({ opens: again, batches: [batch(block({ first: 2n, last: 4n }), undefined, 2)] });
    expect((await receipts(stream, 4))[3]).toMatchObject({ producer: 2, index: 2, count: 2, duplicate: false });
  });
});

test('frames with flipped, missing and additional bytes: a clear end or an answer, never an internal error', async () => {
  const good = publishRequest.encode({ ...opening('p', 'fuzz'), batches: [batch(block())], closes: [{ producer: 1 }] });
  const ends = await fuzz(20_261, () => ({ stream: publishStream(server.port), bytes: Buffer.from(good) }));
  expect([...ends.keys()].toSorted()).toEqual(['INVALID_ARGUMENT PROTOCOL_VIOLATION', 'OK undefined']);
  for (const count of ends.values()) expect(count).toBeGreaterThan(25);
});
