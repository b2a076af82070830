import { expect, test } from 'vitest';

import { hasCode } from './errors.ts';
import { entryId, epoch, ledgerId, messageIndex, millis, NO_ENTRY, revision, sequenceId } from './ids.ts';

const numbers = [ledgerId, messageIndex, epoch, revision, millis];

function refusal(make: () => unknown): unknown {
  try {
    return make();
  } catch (error) {
    return hasCode(error, 'INVALID_ARGUMENT') ? error.message : error;
  }
}

test('ids that Magnetar allocates are safe integers from 0', () => {
  for (const make of numbers) {
    expect([make(0), make(Number.MAX_SAFE_INTEGER)]).toEqual([0, Number.MAX_SAFE_INTEGER]);
    for (const bad of [-1, 0.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(refusal(() => make(bad))).toMatch(/ is .+; it must be an integer from 0 to 2\^53-1$/);
    }
  }
  expect(refusal(() => ledgerId(-1))).toBe('ledger id is -1; it must be an integer from 0 to 2^53-1');
});

test('an entry id may say that there is none', () => {
  expect(entryId(-1)).toBe(NO_ENTRY);
  expect(refusal(() => entryId(-2))).toBe('entry id is -2; it must be an integer from -1 to 2^53-1');
});

test('sequence ids use all 64 bits', () => {
  expect([sequenceId(0n), sequenceId((1n << 64n) - 1n)]).toEqual([0n, 18_446_744_073_709_551_615n]);
  for (const bad of [-1n, 1n << 64n])
    expect(refusal(() => sequenceId(bad))).toMatch(/it must be an integer from 0 to 2\^64-1/);
});
