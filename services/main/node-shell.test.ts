import { expect, test } from 'vitest';
import { parseTime } from './node-shell.ts';

test.each([
  ['2024-02-29', '2024-02-29T00:00:00.000Z'],
  ['2026-11-20T08:30:00Z', '2026-11-20T08:30:00.000Z'],
  ['2026-11-20 08:30:00,250+0130', '2026-11-20T07:00:00.250Z'],
])('%s is a time', (text, expected) => {
  expect(new Date(parseTime(text) ?? Number.NaN).toISOString()).toBe(expected);
});

test.each(['2026-11-31', '2026-02-29T10:00Z', '2026-13-01', '2026-00-10', '2026-11-20T25:00Z', '2026', 'now'])(
  '%s is none',
  (text) => {
    expect(parseTime(text)).toBeUndefined();
  },
);
