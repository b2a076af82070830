import { describe, expect, test } from 'vitest';
import { parseFrom } from './position.ts';

const NOW = 1_795_000_000_000;

function from(text: string): unknown {
  return parseFrom(text, { now: NOW, parseTime: (iso) => (iso.startsWith('2026-') ? 1_700_000_000_000 : undefined) });
}

describe('parseFrom', () => {
  test.each([
    ['earliest', { type: 'earliest' }],
    ['latest', { type: 'latest' }],
    ['7:0:3', { type: 'id', id: '7:0:3' }],
    ['7:0:3:1', { type: 'id', id: '7:0:3:1' }],
    ['2026-11-20T08:30:00Z', { type: 'time', time: 1_700_000_000_000 }],
    ['1795000000000', { type: 'time', time: 1_795_000_000_000 }],
    ['0', { type: 'time', time: 0 }],
    ['-10m', { type: 'time', time: NOW - 600_000 }],
    ['-250ms', { type: 'time', time: NOW - 250 }],
    ['-2w', { type: 'time', time: NOW - 14 * 86_400_000 }],
    ['-999999999999w', { type: 'time', time: 0 }],
  ])('%s', (text, expected) => {
    expect(from(text)).toEqual(expected);
  });

  test.each([
    '',
    'newest',
    '7:0',
    '7:0:',
    '7:0:3:4:5',
    '-1:0:0',
    '9007199254740993:0:0',
    '1:0:4294967296',
    '10m',
    '-m',
    '-10',
    '1e3',
    '1764403200', // seconds
  ])('%s is refused', (text) => {
    expect(from(text)).toBeUndefined();
  });
});
