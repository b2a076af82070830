import { expect, test } from 'vitest';

import { crc32c } from '../lib/crc32c.ts';
import type { EntryId, LedgerId } from '../lib/ids.ts';
import { type DigestInput, entryDigest } from './digest.ts';

const input: DigestInput = {
  ledgerId: 1 as LedgerId,
  entryId: 2 as EntryId,
  lac: -1 as EntryId,
  length: Number.MAX_SAFE_INTEGER,
  payload: [Buffer.from('hello'), Buffer.alloc(0), Buffer.from('world')],
};

test('is the CRC32C of four little-endian 64-bit numbers and the payload (LP-3)', () => {
  const numbers = Buffer.alloc(32);
  numbers.writeBigInt64LE(1n, 0);
  numbers.writeBigInt64LE(2n, 8);
  numbers.writeBigInt64LE(-1n, 16);
  numbers.writeBigInt64LE((1n << 53n) - 1n, 24);
  expect(entryDigest(input)).toBe(crc32c(Buffer.concat([numbers, Buffer.from('helloworld')])));
});

test('does not depend on how the payload is cut, and does on everything else (LP-3)', () => {
  expect(entryDigest({ ...input, payload: [Buffer.from('helloworld')] })).toBe(entryDigest(input));
  const others: DigestInput[] = [
    { ...input, ledgerId: 0x1_0000_0001 as LedgerId },
    { ...input, entryId: 3 as EntryId },
    { ...input, lac: 0 as EntryId },
    { ...input, length: 10 },
    { ...input, payload: [Buffer.from('helloworlD')] },
  ];
  expect(new Set([input, ...others].map(entryDigest)).size).toBe(6);
});

test('is the same when the checksum of the last piece is known, and rests on it when that piece is large (LP-3)', () => {
  for (const bytes of [0, 5, 4_095, 4_096, 70_000]) {
    const last = Buffer.alloc(bytes, 'm');
    const known = { ...input, payload: [Buffer.from('head'), last], lastCrc32c: crc32c(last) };
    expect(entryDigest(known)).toBe(entryDigest({ ...known, lastCrc32c: undefined }));
    const wrong = entryDigest({ ...known, lastCrc32c: crc32c(last) ^ 1 });
    expect(wrong === entryDigest(known)).toBe(bytes < 4_096);
  }
});
