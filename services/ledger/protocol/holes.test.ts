import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Holes } from './holes.ts';

test('every missing copy is in a run, and runs are in order and apart', () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 60 }), { maxLength: 40 }), (entries) => {
      const holes = new Holes();
      for (const entry of entries) holes.add(1, 'b', entry);
      const listed = holes
        .list()
        .flatMap(({ first, last }) => Array.from({ length: last - first + 1 }, (_, i) => first + i));
      expect(listed).toEqual([...new Set(entries)].toSorted((a, b) => a - b));
    }),
  );
});

test('many runs become fewer that say too much, never too little', () => {
  const holes = new Holes();
  for (let i = 0; i < 1_000; i++) holes.add(0, 'b', i * 3);
  const runs = holes.list();
  expect(runs.length).toBe(64);
  for (let i = 0; i < 1_000; i++) expect(runs.some(({ first, last }) => first <= i * 3 && i * 3 <= last)).toBe(true);
});

test('a slot that changed hands has runs of its own for each bookie', () => {
  const holes = new Holes();
  holes.add(2, 'old', 4);
  holes.add(2, 'new', 5);
  expect(holes.list()).toEqual([
    { slot: 2, bookie: 'old', first: 4, last: 4 },
    { slot: 2, bookie: 'new', first: 5, last: 5 },
  ]);
});
