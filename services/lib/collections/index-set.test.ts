import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { IndexSet } from './index-set.ts';

const PAGE = 65_536;

/** The same as a plain Set, over a window of indexes that begins at `base`. */
class Model {
  readonly members = new Set<number>();

  add(from: number, to: number): number {
    const before = this.members.size;
    for (let i = from; i < to; i++) this.members.add(i);
    return this.members.size - before;
  }

  remove(from: number, to: number): void {
    for (const i of this.members) if (i >= from && i < to) this.members.delete(i);
  }

  nextUnset(from: number): number {
    let at = from;
    while (this.members.has(at)) at++;
    return at;
  }
}

function runsOf(members: Set<number>): [number, number][] {
  const runs: [number, number][] = [];
  for (const i of [...members].toSorted((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last !== undefined && last[1] === i) last[1] = i + 1;
    else runs.push([i, i + 1]);
  }
  return runs;
}

type Step = { readonly kind: 'add' | 'remove' | 'removeBelow'; readonly at: number; readonly length: number };

/** Positions cluster around page borders, where the representation changes. */
const position = fc.oneof(
  fc.nat(3 * PAGE),
  fc.tuple(fc.nat(3), fc.integer({ min: -70, max: 70 })).map(([page, off]) => Math.max(0, page * PAGE + off)),
);
const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('add' as const, 'add' as const, 'add' as const, 'remove' as const, 'removeBelow' as const),
  at: position,
  length: fc.oneof({ weight: 6, arbitrary: fc.integer({ min: 1, max: 40 }) }, fc.nat(1.5 * PAGE)),
});

function check(set: IndexSet, model: Model, base: number, probes: readonly number[]): void {
  const end = base + 5 * PAGE;
  expect(set.size).toBe(model.members.size);
  expect([...set.runs(base, end)]).toEqual(runsOf(model.members));
  for (const probe of probes) {
    const at = base + probe;
    expect(set.has(at)).toBe(model.members.has(at));
    expect(set.nextUnset(at)).toBe(model.nextUnset(at));
    const expected = [...model.members].filter((i) => i >= at && i < at + PAGE).length;
    expect(set.countIn(at, at + PAGE)).toBe(expected);
  }
}

/** Plays the steps on both, and then asks both. Returns how many additions gave another answer. */
function play(steps: readonly Step[], base: number, probes: readonly number[]): number {
  const set = new IndexSet();
  let wrong = 0;
  const model = new Model();
  for (const { kind, at, length } of steps) {
    const from = base + at;
    if (kind === 'add') {
      if (set.add(from, from + length) !== model.add(from, from + length)) wrong++;
    } else if (kind === 'remove') {
      set.remove(from, from + length);
      model.remove(from, from + length);
    } else {
      set.removeBelow(from);
      model.remove(0, from);
    }
  }
  check(set, model, base, probes);
  set.clear();
  expect(set.size).toBe(0);
  expect([...set.runs(0, Number.MAX_SAFE_INTEGER)]).toEqual([]);
  return wrong;
}

describe('IndexSet', () => {
  test('behaves as a plain set of numbers, near 0 and near 2^53', () => {
    const bases = fc.constantFrom(0, 2 ** 31 - PAGE, 2 ** 32 - PAGE, 2 ** 53 - 8 * PAGE);
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), bases, fc.array(position, { maxLength: 4 }), (...input) => {
        expect(play(...input)).toBe(0);
      }),
      {
        numRuns: 120,
      },
    );
  });

  test('a page with many holes (a bitmap) behaves the same', () => {
    const holes: Step[] = [];
    for (let i = 0; i < 400; i++) holes.push({ kind: 'add', at: PAGE - 400 + i * 3, length: 1 + (i % 2) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 8 }), fc.array(position, { maxLength: 3 }), (steps, probes) => {
        expect(play([...holes, ...steps], PAGE, probes)).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  test('a range over a billion indexes costs as little as one over ten', () => {
    const set = new IndexSet();
    expect(set.add(5, 1e12)).toBe(1e12 - 5);
    expect(set.nextUnset(5)).toBe(1e12);
    expect(set.nextUnset(4)).toBe(4);
    expect([...set.runs(0, 2e12)]).toEqual([[5, 1e12]]);
    set.remove(5e11, 5e11 + 1);
    expect(set.size).toBe(1e12 - 6);
    expect([...set.runs(0, 2e12)]).toEqual([
      [5, 5e11],
      [5e11 + 1, 1e12],
    ]);
    set.removeBelow(1e12);
    expect(set.size).toBe(0);
  });

  test('pages that are far apart are found without walking what lies between', () => {
    const set = new IndexSet();
    const expected: [number, number][] = [];
    for (let i = 0; i < 20_000; i++) {
      const at = i * 1_000 * PAGE;
      set.add(at, at + 1);
      expected.push([at, at + 1]);
    }
    expect([...set.runs(0, Number.MAX_SAFE_INTEGER)]).toEqual(expected);
    set.removeBelow(10_000 * 1_000 * PAGE);
    expect(set.size).toBe(10_000);
  });

  test('single indexes in random order fill pages up', () => {
    const set = new IndexSet();
    const count = 2 * PAGE;
    let added = 0;
    for (let i = 0; i < count; i++) {
      const at = (i * 40_503) % count; // an odd factor: each index once
      added += set.add(at, at + 1);
    }
    expect(added).toBe(count);
    expect([...set.runs(0, count)]).toEqual([[0, count]]);
    expect(set.nextUnset(0)).toBe(count);
  });
});
