import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Deque } from './deque.ts';

test('behaves as an array with push and shift', () => {
  const step = fc.record({ pushes: fc.integer({ min: 0, max: 500 }), shifts: fc.integer({ min: 0, max: 500 }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 15 }), (steps) => {
      const deque = new Deque<number>();
      const model: number[] = [];
      const [taken, expected]: [unknown[], unknown[]] = [[], []];
      let next = 0;
      for (const { pushes, shifts } of steps) {
        for (let n = 0; n < pushes; n++) {
          deque.push(next);
          model.push(next++);
        }
        for (let n = 0; n < shifts; n++) {
          taken.push(deque.peek(), deque.shift(), deque.length);
          expected.push(model[0], model.shift(), model.length);
        }
      }
      expect(taken).toEqual(expected);
    }),
    { numRuns: 40 },
  );
});

test('keeps undefined apart from empty by its length, and goes on after running empty', () => {
  const deque = new Deque<number | undefined>();
  deque.push(undefined);
  expect(deque.length).toBe(1);
  expect(deque.shift()).toBeUndefined();
  expect(deque.length).toBe(0);
  for (let n = 0; n < 5_000; n++) deque.push(n);
  for (let n = 0; n < 5_000; n++) deque.shift();
  deque.push(7);
  expect([deque.peek(), deque.length]).toEqual([7, 1]);
});
