import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { MessageIndex } from '../../lib/ids.ts';
import { type AckDelta, AckState } from './ack-state.ts';

const at = (value: number): MessageIndex => value as MessageIndex;
const END = 300;

/** All that is acknowledged below END. */
function acked(state: AckState): number[] {
  const found: number[] = [];
  for (let n = 0; n < END; n++) if (state.isAcked(at(n))) found.push(n);
  return found;
}

type Step =
  | { readonly type: 'ack'; readonly below: number; readonly ranges: readonly number[] }
  | { readonly type: 'reset'; readonly to: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      type: fc.constant('ack' as const),
      below: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.nat(END - 1)),
      ranges: fc
        .array(fc.tuple(fc.nat(END - 20), fc.integer({ min: 1, max: 12 })), { maxLength: 5 })
        .map((pairs) => pairs.flat()),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('reset' as const), to: fc.nat(END - 1) }) },
);

function applyToSet(members: Set<number>, action: Step): void {
  if (action.type === 'reset') {
    members.clear();
    for (let n = 0; n < action.to; n++) members.add(n);
    return;
  }
  for (let n = 0; n < action.below; n++) members.add(n);
  for (let i = 0; i < action.ranges.length; i += 2) {
    const first = action.ranges[i] as number;
    for (let n = first; n < first + (action.ranges[i + 1] as number); n++) members.add(n);
  }
}

function apply(state: AckState, action: Step): AckDelta | undefined {
  if (action.type === 'ack') return state.acknowledge(at(action.below), action.ranges);
  state.reset(at(action.to));
  return undefined;
}

describe('AckState', () => {
  test('agrees with a plain set; deltas say exactly what is new, and applied elsewhere give the same', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), fc.nat(END - 1), fc.nat(40), (steps, first, length) => {
        const state = new AckState(at(0));
        const replica = new AckState(at(0));
        const members = new Set<number>();
        for (const action of steps) {
          const before = action.type === 'reset' ? 0 : members.size;
          applyToSet(members, action);
          const delta = apply(state, action);
          expect(action.type === 'reset' ? before : before + (delta?.count ?? 0)).toBe(
            action.type === 'reset' ? 0 : members.size,
          );
          if (action.type === 'reset') replica.reset(at(action.to));
          else if (delta !== undefined) replica.acknowledge(delta.below, delta.ranges);
          expect(apply(state, action)).toBeUndefined();
        }
        const expected = [...members].toSorted((a, b) => a - b);
        expect(acked(state)).toEqual(expected);
        expect(acked(replica)).toEqual(expected);
        expect(replica.markDelete).toBe(state.markDelete);
        expect(members.has(state.markDelete)).toBe(false);
        expect(state.markDelete + state.ackedAbove).toBe(members.size);
        checkEntry(state, members, first, 1 + length);
      }),
      { numRuns: 300 },
    );
  });

  test('pages taken from one state rebuild it, in any size', () => {
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 15 }),
        fc.array(step, { maxLength: 5 }),
        fc.integer({ min: 1, max: 4 }),
        (steps, other, maxRuns) => {
          const state = new AckState(at(0));
          for (const action of steps) apply(state, action);
          // What the copy knew before does not matter.
          const copy = new AckState(at(0));
          for (const action of other) apply(copy, action);
          for (let from = at(0); from < Number.MAX_SAFE_INTEGER; ) {
            const page = state.page(from, maxRuns);
            expect(page.runs.length).toBeLessThanOrEqual(2 * maxRuns);
            copy.replace(state.markDelete, state.moves, page);
            from = page.to;
          }
          expect(acked(copy)).toEqual(acked(state));
          expect([copy.markDelete, copy.ackedAbove, copy.moves]).toEqual([
            state.markDelete,
            state.ackedAbove,
            state.moves,
          ]);
        },
      ),
      { numRuns: 200 },
    );
  });

  test('acknowledging in order leaves nothing but the mark-delete index', () => {
    const state = new AckState(at(10));
    expect(state.acknowledge(at(0), [10, 1])).toEqual({ below: 11, ranges: [], count: 1 });
    expect(state.acknowledge(at(0), [12, 2, 20, 1])).toEqual({ below: 0, ranges: [12, 2, 20, 1], count: 3 });
    expect(state.acknowledge(at(0), [11, 1])).toEqual({ below: 14, ranges: [], count: 1 });
    expect(state.acknowledge(at(0), [3, 2, 12, 2])).toBeUndefined();
    expect(state.ackedAbove).toBe(1);
  });

  test('skip bits are little-endian, and absent when nothing is to be skipped', () => {
    const state = new AckState(at(2));
    expect(state.skipBits(at(2), 10)).toBeUndefined();
    state.acknowledge(at(0), [9, 2]);
    expect(state.skipBits(at(0), 11)).toEqual(Buffer.from([0b0000_0011, 0b0000_0110]));
    expect(state.skipBits(at(11), 4)).toBeUndefined();
  });

  test('malformed ranges change nothing', () => {
    const state = new AckState(at(0));
    for (const ranges of [[1], [3, 0], [-1, 2], [1.5, 1], [Number.MAX_SAFE_INTEGER, 1], [4, 1, 5, -1]]) {
      expect(() => state.acknowledge(at(9), ranges)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    }
    expect([state.markDelete, state.ackedAbove]).toEqual([0, 0]);
  });

  test('malformed pages are refused', () => {
    for (const runs of [[0], [0, 0], [5, 6], [-1, 3]]) {
      const page = { from: at(0), to: at(10), runs };
      expect(() => new AckState(at(0)).replace(at(0), 0, page)).toThrow(/page of acknowledgments \[0, 10\)/);
    }
  });
});

function checkEntry(state: AckState, members: Set<number>, first: number, count: number): void {
  const bits: number[] = [];
  for (let i = 0; i < count; i++) if (members.has(first + i)) bits.push(i);
  expect(state.countAcked(at(first), count)).toBe(bits.length);
  expect(state.allAcked(at(first), count)).toBe(bits.length === count);
  const skip = state.skipBits(at(first), count);
  const found: number[] = [];
  for (let i = 0; i < 8 * (skip?.length ?? 0); i++) if ((((skip?.[i >> 3] ?? 0) >> (i & 7)) & 1) === 1) found.push(i);
  expect(found).toEqual(bits);
  let next = first;
  while (members.has(next)) next++;
  expect(state.nextUnacked(at(first))).toBe(next);
}
