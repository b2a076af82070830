import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Revision } from '../lib/ids.ts';
import { crc32c } from '../lib/crc32c.ts';
import {
  decodeItem,
  decodeMark,
  decodeRow,
  encodeItem,
  encodeMark,
  encodeRow,
  itemKey,
  rowKey,
} from './level-format.ts';
import type { KeyValue, WatchEvent } from './store.ts';
import { keyValue } from './transaction.ts';

const revisions = fc.maxSafeNat().map((value) => value as Revision);
const values = fc.uint8Array({ maxLength: 300 }).map((value) => Buffer.from(value));
const items: fc.Arbitrary<KeyValue> = fc
  .tuple(
    fc.string({ minLength: 1, unit: 'grapheme' }),
    values,
    revisions,
    revisions,
    fc.option(fc.bigInt({ min: 1n, max: (1n << 63n) - 1n })),
  )
  .map(([key, value, created, modified, lease]) => keyValue(key, value, created, modified, lease ?? undefined));

test('an item comes back as it was stored, and not under another key', () => {
  fc.assert(
    fc.property(items, (item) => {
      const stored = encodeItem(item);
      expect(decodeItem(item.key, stored)).toEqual({ item, crc: stored.readUInt32LE(0) });
      expect(() => decodeItem(`${item.key}x`, stored)).toThrow(/has a wrong checksum/);
    }),
  );
});

test('a row comes back as it was stored, and not as another revision', () => {
  const changes = fc.array(fc.oneof(items, fc.string({ minLength: 1 })), { maxLength: 10 });
  fc.assert(
    fc.property(revisions, changes, fc.maxSafeNat(), (revision, changed, keys) => {
      const events = changed.map(
        (change): WatchEvent =>
          typeof change === 'string' ? { type: 'delete', key: change, revision } : { type: 'put', item: change },
      );
      const stored = changed.map((change) => (typeof change === 'string' ? undefined : encodeItem(change)));
      const digest = { keys, crcs: 0xfedcba98 };
      const row = encodeRow(revision, digest, events, stored);
      expect(decodeRow(revision, row)).toEqual({ digest, events, crcs: stored.map((item) => item?.readUInt32LE(0)) });
      expect(() => decodeRow((revision === 0 ? 1 : revision - 1) as Revision, row)).toThrow(/has a wrong checksum/);
    }),
  );
});

test('whichever bit flips, it shows', () => {
  const stored = encodeItem(keyValue('key', Buffer.from('value'), 1 as Revision, 2 as Revision, 7n));
  for (let bit = 0; bit < stored.length * 8; bit++) {
    const flipped = Buffer.from(stored);
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(() => decodeItem('key', flipped)).toThrow('the metadata store is damaged: "k/key" has a wrong checksum');
  }
  for (let length = 0; length < stored.length; length++) {
    expect(() => decodeItem('key', stored.subarray(0, length))).toThrow(/the metadata store is damaged: "k\/key" has/);
  }
});

/** A stored value as a later version might write it. */
function newer(key: string, stored: Buffer): Buffer {
  stored.writeUInt8(2, 4);
  stored.writeUInt32LE(crc32c(stored.subarray(4), crc32c(Buffer.from(key))), 0);
  return stored;
}

test('a newer format is refused by name', () => {
  const item = newer(itemKey('a'), encodeItem(keyValue('a', Buffer.from(''), 1 as Revision, 1 as Revision, undefined)));
  expect(() => decodeItem('a', item)).toThrow('"k/a" has format 2; this version knows format 1');
  expect(() => decodeMark('m/x', newer('m/x', encodeMark('m/x', 5)))).toThrow('"m/x" has format 2');
  expect(decodeMark('m/x', encodeMark('m/x', 2 ** 53 - 1))).toBe(2 ** 53 - 1);
});

test('keys of rows sort as their revisions', () => {
  fc.assert(
    fc.property(revisions, revisions, (a, b) => {
      expect(rowKey(a) < rowKey(b)).toBe(a < b);
    }),
  );
});
