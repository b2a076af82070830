import { expect, test } from 'vitest';
import { newHistogram } from './histogram.ts';

test('tells percentiles to three figures, and takes whatever comes', () => {
  const [all, more] = [newHistogram(), newHistogram()];
  expect(all.count).toBe(0);
  for (let value = 1; value <= 1_000; value++) all.record(value);
  for (const value of [0, -5, 0.4, 1e12]) more.record(value);
  expect(all.percentile(50)).toBe(500);
  expect(all.percentile(99)).toBe(990);
  expect(all.max).toBe(1_000);
  all.add(more);
  expect(all.count).toBe(1_004);
  expect(all.percentile(0.1)).toBe(1);
  expect(all.max / 3_600_000_000).toBeCloseTo(1, 2);
  all.reset();
  expect([all.count, more.count]).toEqual([0, 4]);
});
