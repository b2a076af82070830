import fc from 'fast-check';
import { expect, test } from 'vitest';

import { crc32c } from '../lib/crc32c.ts';
import type { Epoch, MessageIndex, Millis } from '../lib/ids.ts';
import { bytes, outcome, safe, uint32 } from './codec.contract.ts';
import { decodeEntry, ENTRY_HEADER_BYTES, encodeEntryHeader, type EntryHeader } from './entry.ts';

const headers: fc.Arbitrary<EntryHeader> = fc.record({
  baseIndex: safe as fc.Arbitrary<MessageIndex>,
  count: uint32,
  appendTime: safe as fc.Arbitrary<Millis>,
  ownerEpoch: safe as fc.Arbitrary<Epoch>,
  blockCrc32c: uint32,
});

const header: EntryHeader = {
  baseIndex: 0x1_0000_0002 as MessageIndex,
  count: 3,
  appendTime: 1_700_000_000_000 as Millis,
  ownerEpoch: 5 as Epoch,
  blockCrc32c: 0xdeadbeef,
};

function entry(changed: (header: Buffer) => void = () => undefined): Buffer {
  const encoded = encodeEntryHeader(header, 4);
  changed(encoded);
  encoded.writeUInt32LE(crc32c(encoded.subarray(0, 44)), 44);
  return Buffer.concat([encoded, Buffer.from('abcd')]);
}

test('headers come back, with the block as a view', () => {
  fc.assert(
    fc.property(headers, bytes, (fields, block) => {
      const payload = Buffer.concat([encodeEntryHeader(fields, block.length), block]);
      const decoded = decodeEntry(payload);
      expect(decoded.header).toEqual(fields);
      expect(decoded.block.equals(block)).toBe(true);
      expect(decoded.block.buffer).toBe(payload.buffer);
    }),
  );
});

test('the bytes are those of the diagram', () => {
  const numbers = ['0100000003000000', '0200000001000000', '0068e5cf8b010000', '0500000000000000'].join('');
  const ending = ['efbeadde', '04000000', '00000000'].join('');
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32LE(crc32c(Buffer.from(numbers + ending, 'hex')));
  expect(entry().toString('hex')).toBe(`${numbers}${ending}${checksum.toString('hex')}61626364`);
});

test('every flipped bit of the header, and every missing byte, is found', () => {
  const whole = entry();
  for (let bit = 8; bit < ENTRY_HEADER_BYTES * 8; bit++) {
    const flipped = Buffer.from(whole);
    flipped[bit >>> 3] = (flipped[bit >>> 3] ?? 0) ^ (1 << (bit & 7));
    expect(outcome(() => decodeEntry(flipped))).toMatch(/^CHECKSUM_MISMATCH: damaged entry: /);
  }
  for (let length = 0; length < whole.length; length++) {
    expect(outcome(() => decodeEntry(whole.subarray(0, length)))).toMatch(/^CHECKSUM_MISMATCH: damaged entry: /);
  }
});

test('what a newer version wrote is refused by name', () => {
  const refused: [number, RegExp][] = [
    [0, /format version 2; this version reads 1/],
    [1, /kind 2; this version reads 0 \(data\)/],
    [2, /block format 2; this version reads 0 \(native\)/],
    [40, /an origin or a subset bitmap of lengths 2/],
  ];
  for (const [offset, text] of refused) {
    const newer = entry((encoded) => {
      encoded[offset] = 2;
    });
    expect(outcome(() => decodeEntry(newer))).toMatch(text);
    expect(outcome(() => decodeEntry(newer))).toMatch(/^UNSUPPORTED/);
  }
});
