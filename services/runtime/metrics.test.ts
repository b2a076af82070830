import { describe, expect, test } from 'vitest';
import {
  Buckets,
  ErrorCounts,
  type LabelText,
  labelText,
  type Metric,
  quantile,
  RecentBuckets,
  Window,
} from './metrics.ts';

test('label values may be any text', () => {
  expect(labelText({ namespace: 'public/default', topic: 'a "b"\\c\nd' })).toBe(
    'namespace="public/default",topic="a \\"b\\"\\\\c\\nd"',
  );
  expect(labelText({})).toBe('');
});

describe('Buckets', () => {
  test('a value at a bound is below it', () => {
    const buckets = new Buckets([1, 5, 10]);
    for (const value of [0, 1, 1.5, 5, 5.1, 10, 11, 1_000]) buckets.observe(value);
    expect([...buckets.counts]).toEqual([2, 2, 2, 2]);
    expect(buckets.count).toBe(8);
    expect(buckets.sum).toBeCloseTo(1_033.6);
  });

  test('agree with counting one by one', () => {
    const bounds = [0.1, 0.2, 0.5, 1, 2, 5, 10];
    const buckets = new Buckets(bounds);
    const values = Array.from({ length: 1_000 }, (_, i) => ((i * 7_919) % 1_200) / 100);
    for (const value of values) buckets.observe(value);
    for (const [place, bound] of bounds.entries()) {
      const upTo = buckets.counts.slice(0, place + 1).reduce((sum, count) => sum + count, 0);
      expect(upTo).toBe(values.filter((value) => value <= bound).length);
    }
  });
});

describe('Window', () => {
  test('looks back 30 to 60 s when it is asked often', () => {
    const window = new Window(0, 1);
    const seen: [number, number][] = [];
    for (let second = 15; second <= 120; second += 15) {
      const { added, seconds } = window.changes([second * 10], second * 1_000);
      seen.push([seconds, added[0] as number]);
    }
    // 10 a second, whatever the window is.
    expect(seen).toEqual([15, 30, 45, 30, 45, 30, 45, 30].map((seconds) => [seconds, seconds * 10]));
  });

  test('forgets what is long ago', () => {
    const window = new Window(0, 1);
    window.changes([1_000], 30_000);
    window.changes([1_000], 60_000);
    expect(window.changes([1_000], 90_000).added[0]).toBe(0);
  });

  test('a burst at the very beginning is no rate of millions', () => {
    expect(new Window(0, 1).changes([1_000], 1).seconds).toBe(1);
  });

  test('asking twice at a time changes nothing', () => {
    const window = new Window(0, 1);
    const first = window.changes([5], 31_000);
    expect(window.changes([5], 31_000)).toEqual(first);
  });
});

describe('quantile', () => {
  const bounds = [1, 2, 5, 10];

  test('lies within the bucket that holds it', () => {
    expect(quantile(bounds, [0, 100, 0, 0, 0], 0.5)).toBe(1.5);
    expect(quantile(bounds, [90, 0, 10, 0, 0], 0.9)).toBe(1);
    expect(quantile(bounds, [90, 0, 10, 0, 0], 0.95)).toBe(3.5);
    expect(quantile(bounds, [90, 0, 9, 1, 0], 0.999)).toBeGreaterThan(5);
  });

  test('is the highest bound where more is not known, and NaN where nothing is', () => {
    expect(quantile(bounds, [0, 0, 0, 0, 3], 0.5)).toBe(10);
    expect(quantile(bounds, [0, 0, 0, 0, 0], 0.5)).toBeNaN();
  });
});

test('recent observations are told apart from all', () => {
  const buckets = new RecentBuckets([1, 2], 0);
  buckets.observe(1);
  buckets.recent(30_000);
  buckets.recent(60_000);
  buckets.observe(2);
  expect([...buckets.recent(90_000).added]).toEqual([0, 1, 0]);
  expect(buckets.count).toBe(2);
});

test('errors are counted by operation and code', () => {
  const errors = new ErrorCounts();
  errors.add('publish', 'NOT_OWNER');
  errors.add('publish', 'NOT_OWNER');
  errors.add('seek', 'NOT_OWNER');
  const told: [string, LabelText, number][] = [];
  const metric: Metric = { name: 'errors_total', type: 'counter', help: 'Errors.' };
  const sink = {
    now: 0,
    value: ({ name }: Metric, labels: LabelText, value: number) => void told.push([name, labels, value]),
    histogram: () => undefined,
    summary: () => undefined,
  };
  errors.collect(sink, metric);
  expect(told).toEqual([
    ['errors_total', 'operation="publish",code="NOT_OWNER"', 2],
    ['errors_total', 'operation="seek",code="NOT_OWNER"', 1],
  ]);
});
