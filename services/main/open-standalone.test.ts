import { describe, expect, test } from 'vitest';
import type { DataFolder } from './data-folder.ts';
import { bookieCount, standaloneQuorum } from './open-standalone.ts';

test.each([
  [1, 1, 1],
  [2, 2, 2],
  [3, 3, 2],
  [7, 3, 2],
])('%i bookies: %i copies, of which %i are waited for', (bookies, copies, ackQuorum) => {
  expect(standaloneQuorum(bookies)).toEqual({ ensembleSize: copies, writeQuorum: copies, ackQuorum });
});

function holding(bookies: number): DataFolder {
  return { folder: 'd', metadataFolder: 'd/metadata', bookies, bookieFolder: (number) => `d/bookie-${number}` };
}

describe('bookieCount', () => {
  test('is what was asked for, else what is there, else one', () => {
    expect(bookieCount(undefined, holding(0))).toBe(1);
    expect(bookieCount(undefined, holding(3))).toBe(3);
    expect(bookieCount(5, holding(3))).toBe(5);
  });

  test('never leaves out a bookie that holds data', () => {
    expect(() => bookieCount(2, holding(3))).toThrow(
      '--bookies is 2, but the data folder d holds 3 bookies; it must be at least 3',
    );
  });
});
