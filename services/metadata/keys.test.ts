import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ledgerId } from '../lib/ids.ts';
import { keys } from './keys.ts';

test('keys of ledgers sort as their numbers', () => {
  const id = fc.maxSafeNat().map((value) => ledgerId(value));
  fc.assert(
    fc.property(id, id, (a, b) => {
      expect(keys.ledger(a) < keys.ledger(b)).toBe(a < b);
    }),
  );
  expect(keys.ledger(ledgerId(42))).toBe('ledgers/00000000000000000042');
  expect(keys.deletedLedger(ledgerId(42))).toBe('deleted/00000000000000000042');
});

test('what lies under a prefix belongs to it', () => {
  expect(keys.namespace('a', 'n').startsWith(keys.namespaces('a'))).toBe(true);
  expect(keys.namespace('ab', 'n').startsWith(keys.namespaces('a'))).toBe(false);
  expect(keys.topic('t', 'n', 'x').startsWith(keys.topics('t', 'n'))).toBe(true);
  expect(keys.topicChunk('t', 'n', 'x', 3).startsWith(keys.topics('t', 'n'))).toBe(false);
  expect(keys.bundle('t', 'n', '00000000-ffffffff').startsWith(keys.bundles('t', 'n'))).toBe(true);
});
