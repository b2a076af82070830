import { randomBytes } from 'node:crypto';
import { deflateRawSync, deflateSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ProtoWriter } from '../lib/bytes.ts';
import type { Epoch, Millis, SequenceId } from '../lib/ids.ts';
import { BlockBuilder, decodeBlock, decodeMessages, type OutgoingMessage } from './block.ts';
import { DECODED_OR_VIOLATION, outcome } from './codec.contract.ts';
import {
  type Compression,
  COMPRESSION_TYPES,
  compressionFlaw,
  Compressions,
  compressions,
  type CompressionType,
  MAX_AREA_BYTES,
} from './compression.ts';
import type { ProducerBlock } from './frames.ts';
import { requirePackage } from '../runtime/node/packages.ts';

const NOW = 1_700_000_000_000 as Millis;
const TYPES = ['lz4', 'zstd', 'snappy', 'zlib'] as const satisfies readonly CompressionType[];

function loaded(type: CompressionType): Compression {
  const compression = compressions.named(type);
  if (compression === undefined) throw new Error(`${type} is no compression`);
  return compression;
}

function build(messages: readonly OutgoingMessage[], type: CompressionType): Buffer {
  const compression = compressions.named(type);
  const builder = new BlockBuilder({ producerName: 'p', epoch: 0 as Epoch, capacityBytes: 131_072, compression });
  for (const [at, message] of messages.entries()) builder.append(message, BigInt(at) as SequenceId);
  const { blockBytes } = builder;
  const { block } = builder.finish(NOW);
  expect(block.length).toBeLessThanOrEqual(blockBytes);
  return block;
}

/** Everything that a reader can see of a block's messages. */
function seen(block: Buffer): unknown[] {
  return decodeMessages(block).messages.map(({ payload, key, orderingKey, properties, eventTime, sequenceId }) => {
    return [payload.toString('latin1'), key, orderingKey?.toString('latin1'), properties, eventTime, sequenceId];
  });
}

/** A block whose payload area is as given; one message unless said otherwise. */
function blockOf(compression: number, uncompressedSize: number, payload: Buffer, count = 1): Buffer {
  const writer = new ProtoWriter();
  writer.varint(5, count);
  writer.varint(7, compression);
  writer.varint(8, uncompressedSize);
  writer.bytes(15, payload);
  return writer.finish();
}

/** A payload area of messages with these payloads. */
function areaOf(...payloads: readonly Buffer[]): Buffer {
  const writer = new ProtoWriter();
  for (const payload of payloads) writer.message(1, (message) => message.bytes(1, payload));
  return writer.finish();
}

const text = fc.oneof(
  fc.string(),
  fc.constantFrom('a', 'b').map((c) => c.repeat(1_000)),
);
const messages = fc.array(
  fc.record(
    {
      payload: fc.oneof(
        fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
        fc.nat(60_000).map((length) => Buffer.alloc(length, 'payload ')),
      ),
      key: text,
      orderingKey: fc.uint8Array({ maxLength: 20 }),
      properties: fc.array(fc.tuple(text, text), { maxLength: 2 }),
      eventTime: fc.nat(),
    },
    { requiredKeys: ['payload'] },
  ),
  { minLength: 1, maxLength: 20 },
);

describe.each(TYPES)('%s', (type) => {
  const { number } = loaded(type);

  test('messages, keys and the clear table come out as they went in', () => {
    fc.assert(
      fc.property(messages, (batch) => {
        const [plain, block] = [build(batch, 'none'), build(batch, type)];
        expect(seen(block)).toEqual(seen(plain));
        const [before, after] = [decodeBlock(plain), decodeBlock(block)];
        expect(after.clearRows).toBe(before.clearRows);
        expect(block.length).toBeLessThanOrEqual(plain.length);
        if (after.compression === 0) return;
        expect([after.compression, after.uncompressedSize]).toEqual([number, before.payload.length]);
        expect(compressionFlaw(after)).toBeUndefined();
      }),
      { numRuns: 60 },
    );
  });

  test('a batch shrinks where it can, and goes out as it is where it cannot', () => {
    const json = Array.from({ length: 100 }, (_, i) => ({ payload: Buffer.from(`{"order":${i},"state":"paid"}`) }));
    const compressed = decodeBlock(build(json, type));
    expect(compressed.compression).toBe(number);
    expect(compressed.uncompressedSize / compressed.payload.length).toBeGreaterThan(2.5);
    expect(decodeBlock(build([{ payload: Buffer.alloc(100) }], type))).toMatchObject({ compression: 0 });
    const noise = [{ payload: randomBytes(10_000) }];
    const { compression, uncompressedSize } = decodeBlock(build(noise, type));
    expect([compression, uncompressedSize]).toEqual([0, 0]);
  });

  test('a batch of the largest message', () => {
    const payload = Buffer.alloc(5_242_880, 'abc');
    const block = build([{ payload }], type);
    expect(block.length).toBeLessThan(300_000);
    expect(decodeMessages(block).messages[0]?.payload.equals(payload)).toBe(true);
  });

  test('a size that is not that of the messages is a violation, however it lies', () => {
    const area = areaOf(Buffer.alloc(5_000, 'x'));
    const payload = loaded(type).compress(area);
    expect(outcome(() => decodeMessages(blockOf(number, area.length, payload)))).toBe('decoded');
    for (const size of [0, 1, area.length - 1, area.length + 1, 100_000, MAX_AREA_BYTES, 4_294_967_295]) {
      expect(outcome(() => decodeMessages(blockOf(number, size, payload)))).toMatch(/^PROTOCOL_VIOLATION: .+/);
    }
  });

  test('gives no more bytes than are asked for, whatever is compressed', () => {
    const bomb = loaded(type).compress(Buffer.alloc(200_000_000));
    for (const size of [10, 100_000]) expect(() => loaded(type).decompress(bomb, size)).toThrow(/./);
  });

  test('a wrong count is a violation', () => {
    const area = areaOf(Buffer.alloc(1_000), Buffer.alloc(1_000));
    const payload = loaded(type).compress(area);
    expect(decodeMessages(blockOf(number, area.length, payload, 2)).messages.length).toBe(2);
    for (const count of [0, 1, 3, 1_001, 4_294_967_295]) {
      const error = outcome(() => decodeMessages(blockOf(number, area.length, payload, count)));
      expect(error).toBe(`PROTOCOL_VIOLATION: block has 2 messages; its count is ${count}`);
    }
  });

  test('what is cut short, damaged or garbage is a violation, or messages whose getters work', () => {
    const batch = Array.from({ length: 20 }, (_, i) => ({ payload: Buffer.from(`message ${i}`), key: `k${i}` }));
    const { payload, uncompressedSize } = decodeBlock(build(batch, type));
    fc.assert(
      fc.property(fc.nat(), fc.nat(255), fc.uint8Array({ maxLength: 60 }), (at, byte, garbage) => {
        const damaged = Buffer.from(payload);
        damaged[at % damaged.length] = byte;
        const head = payload.subarray(0, 12);
        const candidates = [damaged, payload.subarray(0, at % payload.length), Buffer.concat([head, garbage])];
        for (const bytes of [...candidates, Buffer.from(garbage)]) {
          const block = blockOf(number, uncompressedSize, bytes, 20);
          expect(outcome(() => seen(block))).toMatch(DECODED_OR_VIOLATION);
        }
      }),
      { numRuns: 500 },
    );
  });
});

test('a second zstd frame is not decompressed', () => {
  const area = areaOf(Buffer.alloc(1_000));
  const zstd = loaded('zstd');
  const payload = Buffer.concat([area, Buffer.alloc(200_000_000)].map((each) => zstd.compress(each)));
  expect(() => zstd.decompress(payload, area.length)).toThrow('Content size is too large');
  expect(outcome(() => decodeMessages(blockOf(2, area.length, payload)))).toMatch(/^PROTOCOL_VIOLATION/);
});

/** A message with the payload "hello", written down by hand from the formats' specifications. */
describe('the formats', () => {
  const area = '0a070a0568656c6c6f';
  const byHand = {
    lz4: `90${area}`, // a sequence of nine literals
    zstd: `28b52ffd2009490000${area}`, // a single segment of nine bytes; the last block, raw, of nine
    snappy: `0920${area}`, // nine bytes; a literal of nine
    zlib: `7801010900f6ff${area}07260235`, // a stored block of nine, and its Adler-32
  };

  test.each(TYPES)('%s', (type) => {
    const { number } = loaded(type);
    const [message] = decodeMessages(blockOf(number, 9, Buffer.from(byHand[type], 'hex'))).messages;
    expect(message?.payload.toString()).toBe('hello');
  });

  test('LZ4 and Snappy blocks are such as their specifications say', () => {
    const plain = Buffer.from('an order of 7 items, an order of 9 items, '.repeat(50));
    expect(expandLz4(loaded('lz4').compress(plain)).equals(plain)).toBe(true);
    expect(expandSnappy(loaded('snappy').compress(plain)).equals(plain)).toBe(true);
  });
});

/** Reads a raw LZ4 block. */
function expandLz4(block: Buffer): Buffer {
  const bytes: number[] = [];
  let at = 0;
  const length = (nibble: number): number => {
    let value = nibble;
    for (let more = nibble === 15; more; ) {
      value += block[at] ?? 0;
      more = block[at++] === 255;
    }
    return value;
  };
  while (at < block.length) {
    const token = block[at++] ?? 0;
    for (let literals = length(token >>> 4); literals > 0; literals--) bytes.push(block[at++] ?? 0);
    if (at === block.length) break;
    const from = bytes.length - block.readUInt16LE(at);
    at += 2;
    const matched = length(token & 15) + 4;
    for (let i = 0; i < matched; i++) bytes.push(bytes[from + i] ?? 0);
  }
  return Buffer.from(bytes);
}

/** Reads a raw Snappy block that has no literal of more than 60 bytes, and no offset of four bytes. */
function expandSnappy(block: Buffer): Buffer {
  const bytes: number[] = [];
  let at = block.findIndex((byte) => byte < 128) + 1;
  while (at < block.length) {
    const tag = block[at++] ?? 0;
    let [count, offset] = [(tag >>> 2) + 1, 0];
    if ((tag & 3) === 0) {
      for (; count > 0; count--) bytes.push(block[at++] ?? 0);
      continue;
    }
    if ((tag & 3) === 1) {
      count = ((tag >>> 2) & 7) + 4;
      offset = ((tag >>> 5) << 8) | (block[at++] ?? 0);
    } else {
      offset = block.readUInt16LE(at);
      at += 2;
    }
    const from = bytes.length - offset;
    for (let i = 0; i < count; i++) bytes.push(bytes[from + i] ?? 0);
  }
  return Buffer.from(bytes);
}

describe('what is seen without decompressing', () => {
  const area = areaOf(Buffer.alloc(5_000, 'x'));
  const fields = (type: CompressionType, payload: Buffer, uncompressedSize = area.length): ProducerBlock => {
    return decodeBlock(blockOf(COMPRESSION_TYPES.indexOf(type), uncompressedSize, payload));
  };
  const flaw = (...args: Parameters<typeof fields>): string => {
    const error = compressionFlaw(fields(...args));
    return error === undefined ? 'none' : `${error.code}: ${error.message}`;
  };

  test.each(TYPES)('%s: no size, one above the limit, nothing compressed', (type) => {
    const payload = loaded(type).compress(area);
    expect(flaw(type, payload)).toBe('none');
    expect(flaw(type, payload, 0)).toMatch(/^INVALID_ARGUMENT: payload area of \d+ bytes, which says that it had 0 /);
    expect(flaw(type, payload, MAX_AREA_BYTES + 1)).toMatch(/^MESSAGE_TOO_LARGE: .* at most 15728640 are allowed$/);
    expect(flaw(type, Buffer.alloc(0))).toMatch(/^INVALID_ARGUMENT/);
    expect(flaw(type, area)).toMatch(/^INVALID_ARGUMENT/);
  });

  test.each(['zstd', 'snappy'] as const)('%s: a size other than the block itself says', (type) => {
    for (const size of [area.length - 1, area.length + 1, area.length + 256]) {
      expect(flaw(type, loaded(type).compress(area), size)).toMatch(/^INVALID_ARGUMENT/);
    }
  });

  test('every width in which zstd writes a size', () => {
    for (const size of [1, 255, 256, 65_791, 65_792, 15_000_000]) {
      expect(flaw('zstd', loaded('zstd').compress(Buffer.alloc(size)), size)).toBe('none');
    }
  });

  test('formats that resemble the right ones', () => {
    const lz4Frame = (requirePackage('lz4-napi') as { compressFrameSync(data: Buffer): Buffer }).compressFrameSync(
      area,
    );
    const sized = (requirePackage('lz4-napi') as { compressSync(data: Buffer): Buffer }).compressSync(
      Buffer.alloc(256),
    );
    const noSize = Buffer.from('28b52ffd0058490000', 'hex');
    expect(flaw('lz4', lz4Frame)).toMatch(/is not a raw LZ4 block$/);
    expect(flaw('lz4', sized, 256)).toMatch(/is not a raw LZ4 block/); // 256 as four bytes in front
    expect(flaw('zstd', noSize)).toMatch(/is not a zstd frame that states its content size$/);
    expect(flaw('snappy', Buffer.from('ff060000734e61507059', 'hex'))).toMatch(/is not a raw Snappy block/);
    expect(flaw('zlib', gzipSync(area))).toMatch(/is not a zlib stream \(RFC 1950\)/);
    expect(flaw('zlib', deflateRawSync(area))).toMatch(/is not a zlib stream/);
    expect(flaw('zlib', deflateSync(area))).toBe('none');
  });
});

describe('libraries', () => {
  test('are loaded when they are first used, and once', () => {
    const asked: string[] = [];
    const own = new Compressions((name) => {
      asked.push(name);
      return requirePackage(name);
    });
    expect(own.named('none')).toBeUndefined();
    expect(asked).toEqual([]);
    for (const type of TYPES) expect(own.named(type)).toBe(own.named(type));
    expect(asked).toEqual(['lz4-napi', '@cloudpss/zstd/napi', 'snappy']);
  });

  test('one that does not load is named in one line', () => {
    const own = new Compressions(() => {
      throw new Error('no native binding\nfor this machine');
    });
    expect(outcome(() => own.named('lz4'))).toBe(
      'UNSUPPORTED: compression lz4 cannot be used here: package lz4-napi does not load (no native binding)',
    );
    expect(own.named('zlib')?.number).toBe(4);
  });
});
