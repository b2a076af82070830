import { deflateSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { ProtoWriter } from '../../lib/bytes.ts';
import { checkBlock } from './block-check.ts';

interface Fields {
  readonly compression?: number;
  readonly size?: number;
  readonly count?: number;
  readonly payload?: Buffer;
}

/** A payload area of 1,000 bytes: 500 empty messages. */
const AREA = Buffer.alloc(1_000, Buffer.from([10, 0]));
const RULES = { producerName: 'p', producerEpoch: 0, maxMessageBytes: 100, maxMessages: 1_000 };

function check({ compression = 4, size = 1_000, count = 500, payload = deflateSync(AREA) }: Fields = {}): string {
  const writer = new ProtoWriter();
  writer.string(1, 'p');
  writer.varint(4, Math.max(0, count - 1));
  writer.varint(5, count);
  writer.varint(7, compression);
  writer.varint(8, size);
  writer.bytes(15, payload);
  const { error } = checkBlock({ producer: 1, block: writer.finish() }, RULES);
  return error === undefined ? 'stored' : `${error.code}: ${error.message}`;
}

describe('a compressed batch', () => {
  test('is not opened: what only its consumers can see is theirs to see', () => {
    expect(check()).toBe('stored');
    expect(check({ count: 1 })).toBe('stored');
    const payload = Buffer.concat([deflateSync(AREA).subarray(0, 8), Buffer.alloc(20)]);
    expect(check({ payload })).toBe('stored');
    expect(check({ size: 15_728_640 })).toBe('stored');
  });

  test.each<[string, Fields, RegExp]>([
    ['no size', { size: 0 }, /^INVALID_ARGUMENT: payload area of \d+ bytes, which says that it had 0 before/],
    ['a size above the limit', { size: 15_728_641 }, /^MESSAGE_TOO_LARGE: batch of 15728641 bytes before compression/],
    ['no message', { count: 0 }, /^INVALID_ARGUMENT: batch says 0 messages; .* at most 500 in 1000 bytes$/],
    [
      'more messages than fit',
      { count: 501 },
      /^INVALID_ARGUMENT: batch says 501 messages; .* at most 500 in 1000 bytes$/,
    ],
    ['no payload area', { payload: Buffer.alloc(0) }, /^INVALID_ARGUMENT: payload area of 0 bytes/],
    ['another format', { payload: AREA }, /^INVALID_ARGUMENT: payload area .* is not a zlib stream/],
    [
      'an unknown compression',
      { compression: 5 },
      /^UNSUPPORTED: block has compression 5; this version knows 0 \(none\)/,
    ],
  ])('with %s is refused', (_, fields, message) => {
    expect(check(fields)).toMatch(message);
  });
});

function withRows(...times: readonly number[]): string {
  const writer = new ProtoWriter();
  writer.string(1, 'p');
  writer.varint(4, times.length - 1);
  writer.varint(5, times.length);
  for (const time of times) {
    const row = new ProtoWriter();
    row.varint(3, time);
    writer.bytes(9, row.finish());
  }
  writer.bytes(15, AREA.subarray(0, 2 * times.length));
  const { error } = checkBlock({ producer: 1, block: writer.finish() }, RULES);
  return error === undefined ? 'stored' : `${error.code}: ${error.message}`;
}

describe('a clear table', () => {
  test('that asks for a later delivery is refused: it would be delivered at once', () => {
    expect(withRows(0, 0)).toBe('stored');
    expect(withRows(0, 1_900_000_000_000)).toMatch(
      /^UNSUPPORTED: batch has a message with deliver_at; .* has to be 0$/,
    );
  });
});

describe('a batch', () => {
  const payload = Buffer.concat([AREA, AREA, AREA]);

  test.each([
    ['as it is', { compression: 0, payload }],
    ['compressed', { size: 3_000, payload: deflateSync(payload) }],
  ])('of more messages than are allowed is refused: %s', (_, fields) => {
    expect(check({ ...fields, count: 1_500 })).toBe(
      'INVALID_ARGUMENT: batch has 1500 messages; at most 1000 are allowed',
    );
  });
});
