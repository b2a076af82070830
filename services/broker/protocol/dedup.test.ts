import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MagnetarError } from '../../lib/errors.ts';
import type { EntryId, LedgerId, MessageIndex, Millis, SequenceId } from '../../lib/ids.ts';
import { type DedupBatch, type DedupPlace, type DedupProducer, DedupState, type DedupToken } from './dedup.ts';

const seq = (value: number | bigint): SequenceId => BigInt(value) as SequenceId;
const ms = (value: number): Millis => value as Millis;
const DAY = 86_400_000;

function place(index: number, count = 1): DedupPlace {
  return { ledgerId: 7 as LedgerId, entryId: index as EntryId, index: index as MessageIndex, count };
}

/** Stores a batch in one go. */
function store(state: DedupState, name: string, first: number, last: number, time = 0): void {
  state.confirm(state.begin(name, seq(first), seq(last)), place(first, last - first + 1), ms(time));
}

function sorted(state: DedupState): readonly DedupProducer[] {
  return state.snapshot().toSorted((x, y) => x.name.localeCompare(y.name));
}

const failure = new MagnetarError('LEDGER_FENCED', 'fenced');

describe('DedupState', () => {
  test('a duplicate of a stored batch is answered with the original place', () => {
    const state = new DedupState({ batches: 8 });
    for (let n = 0; n < 7; n++) store(state, 'p', 10 * n, 10 * n + 9);
    const known = (n: number): object => state.check('p', seq(10 * n), seq(10 * n + 9));
    expect(known(0)).toMatchObject({ kind: 'stored', batch: place(0, 10) });
    // Beyond the limit for all together, whoever was idle longest keeps five.
    for (let n = 0; n < 2; n++) store(state, 'q2', 100 + n, 100 + n);
    expect(state.watermark('p')).toBe(69n);
    for (let n = 0; n < 7; n++) {
      const batch = { firstSequenceId: seq(10 * n), lastSequenceId: seq(10 * n + 9), ...place(10 * n, 10) };
      expect(state.check('p', seq(10 * n), seq(10 * n + 9))).toEqual({
        kind: 'stored',
        batch: n < 2 ? undefined : batch,
      });
    }
    // Cut in another way, nobody can say where each message is.
    expect(state.check('p', seq(63), seq(69))).toEqual({ kind: 'stored', batch: undefined });
    expect(state.check('p', seq(70), seq(70))).toEqual({ kind: 'new' });
    expect(state.check('q', seq(0), seq(9))).toEqual({ kind: 'new' });
  });

  test('a duplicate of a batch in flight shares its outcome', () => {
    const state = new DedupState();
    const token = state.begin('p', seq(0), seq(9));
    const verdict = state.check('p', seq(0), seq(9));
    expect(verdict).toEqual({ kind: 'pending', token });
    const outcomes: (DedupBatch | undefined)[] = [];
    token.attach((batch) => outcomes.push(batch));
    token.attach((batch) => outcomes.push(batch));
    expect(state.watermark('p')).toBeUndefined();
    state.confirm(token, place(100, 10), ms(5));
    expect(outcomes.map((batch) => batch?.index)).toEqual([100, 100]);
    expect(state.watermark('p')).toBe(9n);
  });

  test('a failure takes the later batches of the same producer with it, and the watermark falls back', () => {
    const state = new DedupState();
    store(state, 'p', 0, 4);
    const [a, b, c] = [5, 6, 7].map((n) => state.begin('p', seq(n), seq(n)));
    const other = state.begin('q', seq(0), seq(0));
    const failed: string[] = [];
    for (const token of [b, c, other])
      token?.attach((_, error) => failed.push(`${token.lastSequenceId} ${error?.code}`));
    state.confirm(a as DedupToken, place(5), ms(1));
    state.abort(b as DedupToken, failure);
    expect(failed).toEqual(['6 LEDGER_FENCED', '7 LEDGER_FENCED']);
    expect(state.watermark('p')).toBe(5n);
    expect(state.check('p', seq(6), seq(7))).toEqual({ kind: 'new' });
    // The ledger reports each of them.
    state.abort(c as DedupToken, failure);
    expect(failed).toHaveLength(2);
    expect(state.check('q', seq(0), seq(0)).kind).toBe('pending');
  });

  test('a batch that turns out to be stored after all raises the watermark', () => {
    const state = new DedupState();
    const [a, b] = [state.begin('p', seq(0), seq(0)), state.begin('p', seq(1), seq(1))];
    state.abort(a, failure);
    state.confirm(b, place(1), ms(1));
    expect(state.watermark('p')).toBe(1n);
    expect(state.check('p', seq(1), seq(1)).kind).toBe('stored');
  });

  test('a partial overlap carries the watermark, and what it waits for', () => {
    const state = new DedupState();
    store(state, 'p', 0, 9);
    expect(state.check('p', seq(5), seq(12))).toEqual({ kind: 'overlap', watermark: 9n });
    const token = state.begin('p', seq(10), seq(19));
    expect(state.check('p', seq(15), seq(25))).toEqual({ kind: 'overlap', watermark: 19n, pending: token });
    // It settles what is below, too.
    expect(state.check('p', seq(5), seq(12))).toEqual({ kind: 'pending', token });
  });

  test('uses all 64 bits of sequence ids', () => {
    const state = new DedupState();
    const highest = 2n ** 64n - 1n;
    state.confirm(state.begin('p', seq(highest - 1n), seq(highest)), place(0, 2), ms(0));
    expect(state.check('p', seq(2n ** 53n), seq(2n ** 53n)).kind).toBe('stored');
    expect(state.check('p', seq(highest), seq(highest)).kind).toBe('stored');
  });

  test('forgets names that were idle for long, and those idle longest beyond the limit, but none in flight', () => {
    const state = new DedupState({ producers: 3, inactivity: ms(7 * DAY) });
    store(state, 'old', 0, 0, 0);
    store(state, 'busy', 0, 0, 1);
    const token = state.begin('busy', seq(1), seq(1));
    store(state, 'new', 0, 0, 7 * DAY + 2);
    expect([state.watermark('old'), state.watermark('busy'), state.watermark('new')]).toEqual([undefined, 0n, 0n]);
    store(state, 'a', 0, 0, 7 * DAY + 3);
    store(state, 'b', 0, 0, 7 * DAY + 4);
    expect(state.size).toBe(3);
    expect([state.watermark('busy'), state.watermark('new'), state.watermark('b')]).toEqual([0n, undefined, 0n]);
    state.abort(token, failure);
    expect(state.watermark('busy')).toBe(0n);
  });

  test('a producer whose first batch failed leaves nothing', () => {
    const state = new DedupState();
    state.abort(state.begin('p', seq(0), seq(0)), failure);
    expect(state.size).toBe(0);
    expect(state.snapshot()).toEqual([]);
  });

  test('a snapshot and the replay of what follows rebuild the stored state, wherever the snapshot was taken', () => {
    const batches = fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.integer({ min: 1, max: 3 })), {
      maxLength: 30,
    });
    fc.assert(
      fc.property(batches, fc.nat(30), fc.nat(30), (cuts, takenAt, replayFrom) => {
        const state = new DedupState();
        const copy = new DedupState();
        const next = new Map<string, number>();
        const log: { name: string; first: number; last: number }[] = [];
        for (const [name, length] of cuts) {
          if (log.length === takenAt) copy.load(state.snapshot());
          const first = next.get(name) ?? 0;
          next.set(name, first + length);
          log.push({ name, first, last: first + length - 1 });
          store(state, name, first, first + length - 1, log.length);
        }
        if (log.length <= takenAt) copy.load(state.snapshot());
        // Replaying what the snapshot covers already does no harm.
        for (const [i, { name, first, last }] of log.entries()) {
          if (i >= Math.min(replayFrom, takenAt)) {
            copy.replay(name, seq(first), seq(last), place(first, last - first + 1), ms(i + 1));
          }
        }
        expect(sorted(copy)).toEqual(sorted(state));
      }),
      { numRuns: 200 },
    );
  });
});
