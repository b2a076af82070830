import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { crc32c } from '../lib/crc32c.ts';
import type { Epoch, Millis, SequenceId } from '../lib/ids.ts';
import { BlockBuilder, countMessages, decodeBlock, decodeMessages, type OutgoingMessage } from './block.ts';
import {
  bytes,
  choices,
  DECODED_OR_VIOLATION,
  outcome,
  referenceType,
  safe,
  scramble,
  sequenceIds,
  text,
} from './codec.contract.ts';

const FILE = 'magnetar/v1/message.proto';
const blockType = referenceType(FILE, 'magnetar.v1.ProducerBlock');
const messagesType = referenceType(FILE, 'magnetar.v1.Messages');

const longText = fc.oneof(
  text,
  fc.string({ minLength: 100, maxLength: 200 }),
  fc.constantFrom('', 'k', 'é', '漢字', '🙂'),
);
const payloads = fc.oneof(
  bytes,
  fc.integer({ min: 0, max: 40_000 }).map((length) => Buffer.alloc(length, 0xa5)),
);
const messages: fc.Arbitrary<OutgoingMessage> = fc.record(
  {
    payload: payloads,
    key: longText,
    orderingKey: bytes,
    properties: fc.array(fc.tuple(longText, longText), { maxLength: 3 }),
    eventTime: safe,
  },
  { requiredKeys: ['payload'] },
);

interface Batch {
  readonly producerName: string;
  readonly epoch: Epoch;
  readonly publishTime: Millis;
  readonly items: readonly { readonly message: OutgoingMessage; readonly sequenceId: SequenceId }[];
}

const batches: fc.Arbitrary<Batch> = fc
  .record({
    producerName: longText,
    epoch: safe as fc.Arbitrary<Epoch>,
    publishTime: safe as fc.Arbitrary<Millis>,
    contents: fc.array(messages, { minLength: 1, maxLength: 6 }),
    sequence: fc.oneof(
      fc.uniqueArray(sequenceIds, { minLength: 6, maxLength: 6 }),
      fc.bigInt({ min: 0n, max: (1n << 64n) - 7n }).map((first) => [0n, 1n, 2n, 3n, 4n, 5n].map((n) => first + n)),
    ),
  })
  .map(({ contents, sequence, ...rest }) => {
    const ids = [...sequence].toSorted((a, b) => (a < b ? -1 : 1)) as SequenceId[];
    return { ...rest, items: contents.map((message, at) => ({ message, sequenceId: ids[at] ?? (0n as SequenceId) })) };
  });

function build({ producerName, epoch, publishTime, items }: Batch): Buffer {
  const subject = new BlockBuilder({ producerName, epoch, capacityBytes: 131_072 });
  for (const { message, sequenceId } of items) subject.append(message, sequenceId);
  return subject.finish(publishTime).block;
}

/** What a reader has to find, in terms of protobufjs (bytes as Base64, 64-bit numbers as decimals). */
function expected({ items }: Batch): object[] {
  const first = items[0]?.sequenceId ?? 0n;
  return items.map(({ message, sequenceId }, at) => ({
    payload: Buffer.from(message.payload).toString('base64'),
    ...(message.key === undefined ? {} : { key: message.key }),
    ...(message.orderingKey === undefined ? {} : { orderingKey: Buffer.from(message.orderingKey).toString('base64') }),
    properties: (message.properties ?? []).map(([name, value]) => ({ name, value })),
    ...(message.eventTime === undefined ? {} : { eventTime: String(message.eventTime) }),
    ...(sequenceId - first === BigInt(at) ? {} : { sequenceDelta: String(sequenceId - first) }),
  }));
}

const plain = { longs: String, defaults: true, bytes: String } as const;

/** A batch's decoded messages have to be what was appended. */
function expectDecoded(block: Buffer, batch: Batch): void {
  const decoded = decodeMessages(block);
  expect(decoded.producerName).toBe(batch.producerName);
  expect(decoded.producerEpoch).toBe(batch.epoch);
  expect(decoded.publishTime).toBe(batch.publishTime);
  const found = decoded.messages.map(({ payload, payloadBytes, key, orderingKey, properties, eventTime, ...rest }) => {
    expect(payload.length).toBe(payloadBytes);
    return { payload: payload.toString('base64'), key, orderingKey, properties, eventTime, position: rest.position };
  });
  const wanted = batch.items.map(({ message }, position) => {
    const { payload, key, orderingKey, properties = [], eventTime } = message;
    return { payload: Buffer.from(payload).toString('base64'), key, orderingKey, properties, eventTime, position };
  });
  expect(decoded.messages.map((message) => message.sequenceId)).toEqual(batch.items.map((item) => item.sequenceId));
  expect(found).toEqual(wanted);
}

describe('blocks against protobufjs', () => {
  test('what the builder writes, protobufjs reads', () => {
    fc.assert(
      fc.property(batches, (batch) => {
        const { payload, clear, ...block } = blockType.toObject(blockType.decode(build(batch)), {
          longs: String,
          defaults: true,
        }) as { payload: Buffer; clear: { size: number; key?: Buffer }[] };
        expect(block).toEqual({
          producerName: batch.producerName,
          producerEpoch: String(batch.epoch),
          firstSequenceId: String(batch.items[0]?.sequenceId),
          lastSequenceId: String(batch.items.at(-1)?.sequenceId),
          count: batch.items.length,
          publishTime: String(batch.publishTime),
          compression: 0,
          uncompressedSize: 0,
        });
        expect(messagesType.toObject(messagesType.decode(payload), plain)).toEqual({ messages: expected(batch) });
        const keyed = batch.items.some(({ message }) => message.key !== undefined || message.orderingKey !== undefined);
        const rows = clear.map(({ size, key }) => ({ size, key: key?.toString('latin1') }));
        const wanted = batch.items.map(({ message: { payload: bytesOf, key, orderingKey } }) => ({
          size: bytesOf.length,
          key: Buffer.from(orderingKey ?? key ?? '').toString('latin1'),
        }));
        expect(rows.length).toBe(clear.length);
        expect(rows.map((row) => ({ ...row, key: row.key ?? '' }))).toEqual(keyed ? wanted : []);
      }),
    );
  });

  test('what the builder writes, the decoder reads', () => {
    fc.assert(
      fc.property(batches, (batch) => {
        const block = build(batch);
        expectDecoded(block, batch);
        const fields = decodeBlock(block);
        expect([fields.firstSequenceId, fields.lastSequenceId]).toEqual([
          batch.items[0]?.sequenceId,
          batch.items.at(-1)?.sequenceId,
        ]);
        expect([fields.count, countMessages(fields.payload)]).toEqual([batch.items.length, batch.items.length]);
      }),
    );
  });

  test('fields may come in any order and among unknown ones', () => {
    fc.assert(
      fc.property(batches, fc.nat(), (batch, seed) => {
        const block = blockType.decode(build(batch)) as unknown as { payload: Uint8Array };
        const area = scramble(messagesType, block.payload, choices(seed));
        const encoded = blockType.encode(blockType.create({ ...block, payload: area })).finish();
        const scrambled = scramble(blockType, encoded, choices(seed + 1));
        expectDecoded(scrambled, batch);
        expect(countMessages(decodeBlock(scrambled).payload)).toBe(batch.items.length);
      }),
    );
  });

  test('what is cut short or damaged is a PROTOCOL_VIOLATION, or another block whose getters work', () => {
    fc.assert(
      fc.property(batches, fc.nat(), fc.nat(255), (batch, at, byte) => {
        const block = build(batch);
        const cut = block.subarray(0, at % block.length);
        expect(outcome(() => readAll(cut))).toMatch(ALLOWED);
        block[at % block.length] = byte;
        expect(outcome(() => readAll(block))).toMatch(ALLOWED);
        expect(outcome(() => countMessages(block))).toMatch(DECODED_OR_VIOLATION);
      }),
      { numRuns: 1_000 },
    );
  });

  test('garbage in the payload area is a PROTOCOL_VIOLATION, or messages whose getters work', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 50 }), (garbage) => {
        const area = Buffer.from(garbage);
        const counted = outcome(() => countMessages(area));
        expect(counted).toMatch(DECODED_OR_VIOLATION);
        const count = counted === 'decoded' ? countMessages(area) : 1;
        const block = Buffer.from(blockType.encode(blockType.create({ count, payload: area })).finish());
        expect(outcome(() => readAll(block))).toMatch(counted === 'decoded' ? /^decoded$/ : DECODED_OR_VIOLATION);
        const inner = messagesType.encode({ messages: [] }).uint32(10).bytes(area).finish();
        const nested = Buffer.from(blockType.encode(blockType.create({ count: 1, payload: inner })).finish());
        expect(outcome(() => readAll(nested))).toBe(outcome(() => countMessages(Buffer.from(inner))));
      }),
      { numRuns: 1_000 },
    );
  });
});

/** A flipped bit may also make a block look compressed. */
const ALLOWED = /^(decoded|PROTOCOL_VIOLATION: .+|UNSUPPORTED: block has compression .+)$/;

/** Decodes, and touches everything. */
function readAll(block: Buffer): unknown {
  return decodeMessages(block).messages.map((message) => [
    message.payload.length,
    message.key,
    message.orderingKey,
    message.properties,
    message.eventTime,
    message.sequenceId,
  ]);
}

function outgoing(payload: string, rest: Omit<OutgoingMessage, 'payload'> = {}): OutgoingMessage {
  return { payload: Buffer.from(payload), ...rest };
}

function builder(capacityBytes = 131_072): BlockBuilder {
  return new BlockBuilder({ producerName: 'p', epoch: 0 as Epoch, capacityBytes });
}

function clearRows(...parts: OutgoingMessage[]): number {
  const subject = builder();
  for (const [at, part] of parts.entries()) subject.append(part, BigInt(at) as SequenceId);
  return decodeBlock(subject.finish(NOW).block).clearRows;
}

const NOW = 1_700_000_000_000 as Millis;

describe('BlockBuilder', () => {
  test('tells what it holds, and takes the next batch after finish', () => {
    const subject = builder();
    for (let round = 0n; round < 3n; round++) {
      expect([subject.count, subject.bytes]).toEqual([0, 0]);
      for (let i = 0n; i < 1_000n; i++) subject.append(outgoing(`m${i}`), (round * 1_000n + i) as SequenceId);
      expect(subject.count).toBe(1_000);
      expect(subject.bytes).toBe(7_890);
      expect([subject.firstSequenceId, subject.lastSequenceId]).toEqual([round * 1_000n, round * 1_000n + 999n]);
      const { block, crc32c: checksum } = subject.finish(NOW);
      expect(checksum).toBe(crc32c(block));
      const decoded = decodeMessages(block);
      expect(decoded.messages.map((m) => m.payload.toString())).toEqual(
        Array.from({ length: 1_000 }, (_, i) => `m${i}`),
      );
      expect(decoded.messages.at(-1)?.sequenceId).toBe(round * 1_000n + 999n);
    }
  });

  test('a finished block is not touched by the next batch', () => {
    const subject = builder();
    subject.append(outgoing('first'), 0n as SequenceId);
    const { block } = subject.finish(NOW);
    const copy = Buffer.from(block);
    subject.append(outgoing('second'), 1n as SequenceId);
    subject.finish(NOW);
    expect(block).toEqual(copy);
  });

  test('a small batch after large ones does not pin a large buffer', () => {
    const subject = builder();
    subject.append({ payload: Buffer.alloc(100_000) }, 0n as SequenceId);
    subject.finish(NOW);
    subject.append(outgoing('small'), 1n as SequenceId);
    expect(subject.finish(NOW).block.buffer.byteLength).toBeLessThanOrEqual(Buffer.poolSize);
  });

  test('takes a message that is larger than its capacity', () => {
    const subject = builder(1_000);
    const payload = Buffer.alloc(5_242_880, 3);
    subject.append({ payload }, 0n as SequenceId);
    expect(decodeMessages(subject.finish(NOW).block).messages[0]?.payload.equals(payload)).toBe(true);
  });

  test('writes a clear table as soon as one message has a key, also when all agree or there is one alone', () => {
    const orderingKey = Buffer.from('o');
    expect(clearRows(outgoing('a'))).toBe(0);
    expect(clearRows(outgoing('a'), outgoing('b', { properties: [['p', 'v']], eventTime: 7 }))).toBe(0);
    expect(clearRows(outgoing('a', { key: 'k' }))).toBe(1);
    expect(clearRows(outgoing('a', { key: '' }))).toBe(1);
    expect(clearRows(outgoing('a', { orderingKey }))).toBe(1);
    expect(clearRows(outgoing('a', { key: 'k' }), outgoing('b', { key: 'k' }))).toBe(2);
    expect(clearRows(outgoing('a'), outgoing('b'), outgoing('c', { key: 'k' }))).toBe(3);
    const subject = builder();
    for (const key of ['k', undefined]) {
      subject.append(outgoing('a', key === undefined ? {} : { key }), 0n as SequenceId);
      expect(decodeBlock(subject.finish(NOW).block).clearRows).toBe(key === undefined ? 0 : 1);
    }
  });

  test('knows before it is finished how large the block will be at most', () => {
    fc.assert(
      fc.property(batches, ({ producerName, epoch, publishTime, items }) => {
        const subject = new BlockBuilder({ producerName, epoch, capacityBytes: 131_072 });
        for (const { message, sequenceId } of items) subject.append(message, sequenceId);
        const most = subject.blockBytes;
        const { block } = subject.finish(publishTime);
        expect(block.length).toBeLessThanOrEqual(most);
      }),
    );
  });

  test('refuses sequence ids that do not rise, and event times that are none', () => {
    const subject = builder();
    subject.append(outgoing('a'), 7n as SequenceId);
    expect(() => subject.append(outgoing('b'), 7n as SequenceId)).toThrow(/sequence id 7 follows 7; .* rise strictly/);
    for (const eventTime of [-1, 0.5, Number.NaN, 2 ** 53]) {
      expect(() => subject.append(outgoing('b', { eventTime }), 8n as SequenceId)).toThrow(/event time is .*; it must/);
    }
    expect(subject.count).toBe(1);
    subject.append(outgoing('b'), 8n as SequenceId);
    expect(decodeMessages(subject.finish(NOW).block).messages.length).toBe(2);
  });

  test('a message without a sequence id gets the one after the last', () => {
    const own = new BlockBuilder({ producerName: 'p', epoch: 0 as Epoch, capacityBytes: 1_000 });
    const message = { payload: Buffer.from('x') };
    expect(() => own.append(message)).toThrow(/first message of a batch has a sequence id/);
    for (const id of [7n, undefined, undefined, 20n, undefined, 22n, undefined]) {
      own.append(message, id as SequenceId | undefined);
    }
    expect([own.firstSequenceId, own.lastSequenceId]).toEqual([7n, 23n]);
    const ids = decodeMessages(own.finish(0 as Millis).block).messages.map(({ sequenceId }) => sequenceId);
    expect(ids).toEqual([7n, 8n, 9n, 20n, 21n, 22n, 23n]);
    own.append(message, 3n as SequenceId);
    own.append(message);
    expect(decodeBlock(own.finish(0 as Millis).block).lastSequenceId).toBe(4n);
  });

  test('has no block without messages', () => {
    expect(() => builder().finish(NOW)).toThrow('a block has at least one message');
  });
});

describe('decoding', () => {
  const area = Buffer.from(messagesType.encode(messagesType.create({ messages: [{}, {}] })).finish());
  const block = (fields: object): Buffer =>
    Buffer.from(blockType.encode(blockType.create({ count: 2, payload: area, ...fields })).finish());

  test('a count other than the messages present is a violation', () => {
    expect(decodeMessages(block({})).messages.length).toBe(2);
    expect(() => decodeMessages(block({ count: 3 }))).toThrow(/block has 2 messages; its count is 3/);
    expect(() => decodeMessages(block({ count: 0 }))).toThrow(/block has 2 messages; its count is 0/);
  });

  test('a clear table has no row or one a message', () => {
    expect(decodeBlock(block({ clear: [{}, {}] })).clearRows).toBe(2);
    expect(() => decodeBlock(block({ clear: [{}] }))).toThrow(/block of 2 messages has 1 rows in its clear table/);
  });

  test('a block of an unknown compression is refused by its number', () => {
    expect(() => decodeMessages(block({ compression: 9 }))).toThrow(/block has compression 9; this version knows 0/);
    expect(decodeBlock(block({ compression: 9, uncompressedSize: 5 }))).toMatchObject({
      compression: 9,
      uncompressedSize: 5,
    });
  });

  test('known fields of a wrong wire type are violations', () => {
    for (const bad of ['0801', '120208001202', '0a020801', '0a020a0522', '0a042202080a']) {
      const payload = Buffer.from(bad, 'hex');
      expect(outcome(() => decodeMessages(block({ count: 1, payload })))).toMatch(/^PROTOCOL_VIOLATION/);
    }
  });
});
