import { crc32c as native } from '@node-rs/crc32';
import fc from 'fast-check';
import { expect, test } from 'vitest';

import { crc32c, crc32cJoined, crc32cScalar } from './crc32c.ts';

// RFC 3720, B.4, and the usual check value.
const vectors: readonly (readonly [string, Buffer, number])[] = [
  ['nothing', Buffer.alloc(0), 0],
  ['"123456789"', Buffer.from('123456789'), 0xe3069283],
  ['32 bytes of 0', Buffer.alloc(32), 0x8a9136aa],
  ['32 bytes of 255', Buffer.alloc(32, 0xff), 0x62a8ab43],
  ['32 bytes rising', Buffer.from(Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e],
  ['32 bytes falling', Buffer.from(Array.from({ length: 32 }, (_, i) => 31 - i)), 0x113fdb5c],
];

test.each(vectors)('%s', (_name, bytes, expected) => {
  expect(crc32cScalar(bytes)).toBe(expected);
  expect(crc32c(bytes)).toBe(expected);
});

test('the implementation in JavaScript agrees with the native one, at every alignment', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 600 }),
      fc.nat(7),
      fc.integer({ min: 0, max: 0xffffffff }),
      (array, skip, crc) => {
        const bytes = array.subarray(Math.min(skip, array.length));
        expect(crc32cScalar(bytes, crc)).toBe(native(bytes, crc));
        expect(crc32c(bytes, crc)).toBe(native(bytes, crc));
      },
    ),
  );
});

test('pieces, one after another, have the checksum of the whole', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), fc.nat(600), (bytes, cut) => {
      expect(crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut)))).toBe(crc32c(bytes));
    }),
  );
});

test('checksums of pieces are joined to that of the whole', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ maxLength: 70_000 }), (head, tail) => {
      expect(crc32cJoined(crc32c(head), crc32c(tail), tail.length)).toBe(crc32c(tail, crc32c(head)));
    }),
  );
  const large = Buffer.alloc(20_000_000, 'x');
  expect(crc32cJoined(0xe3069283, crc32c(large), large.length)).toBe(crc32c(large, 0xe3069283));
});
