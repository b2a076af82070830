import fc from 'fast-check';
import { expect, test } from 'vitest';
import { EndedNumbers } from './ended-numbers.ts';

const MOST = 4;

test('has the last numbers that ended and are not in use again', () => {
  const step = fc.record({ number: fc.nat(9), ends: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const ended = new EndedNumbers(MOST);
      const model: { readonly number: number; inUse: boolean }[] = [];
      for (const { number, ends } of steps) {
        const had = model.slice(-MOST).find((one) => one.number === number && !one.inUse);
        if (!ends) ended.delete(number);
        else ended.add(number);
        if (!ends && had !== undefined) had.inUse = true;
        if (ends && had === undefined) model.push({ number, inUse: false });
        const kept = model.slice(-MOST).filter((one) => !one.inUse);
        for (let n = 0; n < 10; n++) expect(ended.has(n)).toBe(kept.some((one) => one.number === n));
      }
    }),
  );
});

test('takes no longer for a number after many have been forgotten', () => {
  const ended = new EndedNumbers(10_000);
  const from = performance.now();
  for (let n = 0; n < 1_000_000; n++) ended.add(n);
  expect(performance.now() - from).toBeLessThan(3_000); // 0.1 s; with a search for the oldest one 8 s
  expect([ended.has(989_999), ended.has(990_000), ended.has(999_999)]).toEqual([false, true, true]);
});
