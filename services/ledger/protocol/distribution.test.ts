import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  canWrite,
  checkQuorum,
  covers,
  inWriteSet,
  negativesNeeded,
  type Quorum,
  runInSlot,
  slotCount,
  writeSet,
} from './distribution.ts';
import { chooseEnsemble } from './ensemble.ts';

/** Any quorum of an ensemble of up to `largest`. */
function quorums(largest: number): fc.Arbitrary<Quorum> {
  return fc
    .tuple(fc.integer({ min: 1, max: largest }), fc.nat(), fc.nat())
    .map(([ensembleSize, w, a]) => ({ ensembleSize, w: 1 + (w % ensembleSize), a }))
    .map(({ ensembleSize, w, a }) => ({ ensembleSize, writeQuorum: w, ackQuorum: 1 + (a % w) }));
}

/** The write set, slot by slot, as the rule reads (LP-2). */
function dumbWriteSet({ ensembleSize, writeQuorum }: Quorum, entry: number): number[] {
  return Array.from({ length: writeQuorum }, (_, i) => (entry + i) % ensembleSize);
}

function has(slots: number, slot: number): boolean {
  return (slots & (1 << slot)) !== 0;
}

/**
 * Coverage by trying everything (LP-14): every set of slots that could acknowledge some entry has a known slot among it.
 */
function dumbCovers(quorum: Quorum, known: number): boolean {
  for (let entry = 0; entry < quorum.ensembleSize; entry++) {
    const slots = dumbWriteSet(quorum, entry);
    for (let subset = 0; subset < 1 << slots.length; subset++) {
      const acked = slots.filter((_, i) => has(subset, i));
      if (acked.length >= quorum.ackQuorum && !acked.some((slot) => has(known, slot))) return false;
    }
  }
  return true;
}

describe('distribution', () => {
  test('LP-2: an entry is on Qw consecutive slots from its id modulo E on', () => {
    fc.assert(
      fc.property(quorums(30), fc.nat({ max: 2 ** 40 }), (quorum, entry) => {
        const slots = dumbWriteSet(quorum, entry);
        for (let slot = 0; slot < quorum.ensembleSize; slot++) {
          expect(inWriteSet(quorum, entry, slot)).toBe(slots.includes(slot));
        }
        expect(slotCount(writeSet(quorum, entry))).toBe(quorum.writeQuorum);
      }),
    );
  });

  test('LP-14: covered when no ack quorum of any write set is without a known slot', () => {
    fc.assert(
      fc.property(quorums(7), fc.nat(), (quorum, any) => {
        const known = any % (1 << quorum.ensembleSize);
        expect(covers(quorum, known)).toBe(dumbCovers(quorum, known));
      }),
      { numRuns: 3_000 },
    );
  });

  test('LP-14: with E = Qw, (Qw-Qa)+1 answers cover, and one fewer does not', () => {
    const quorum = { ensembleSize: 5, writeQuorum: 5, ackQuorum: 3 };
    expect(negativesNeeded(quorum)).toBe(3);
    expect(covers(quorum, 0b10101)).toBe(true);
    expect(covers(quorum, 0b00101)).toBe(false);
  });

  test('an ensemble can be written when every write set has an ack quorum of available slots', () => {
    fc.assert(
      fc.property(quorums(7), fc.nat(), (quorum, any) => {
        const available = any % (1 << quorum.ensembleSize);
        const dumb = Array.from({ length: quorum.ensembleSize }, (_, entry) => dumbWriteSet(quorum, entry)).every(
          (slots) => slots.filter((slot) => has(available, slot)).length >= quorum.ackQuorum,
        );
        expect(canWrite(quorum, available)).toBe(dumb);
      }),
    );
  });

  test('a run ends where the slot no longer holds the entry', () => {
    const striped = { ensembleSize: 3, writeQuorum: 2, ackQuorum: 1 }; // slot 1 holds 0, 1, not 2, 3, 4, not 5
    expect(runInSlot(striped, 0, 1, 10)).toBe(2);
    expect(runInSlot(striped, 1, 1, 10)).toBe(1);
    expect(runInSlot(striped, 2, 1, 10)).toBe(0);
    expect(runInSlot({ ensembleSize: 3, writeQuorum: 3, ackQuorum: 2 }, 7, 1, 1_000_000)).toBe(1_000_000);
  });

  test('a quorum that cannot be is refused by name', () => {
    for (const [ensembleSize, writeQuorum, ackQuorum] of [
      [3, 4, 2],
      [3, 2, 3],
      [3, 3, 0],
      [31, 3, 2],
      [3, 2.5, 2],
    ] as const) {
      expect(() => checkQuorum({ ensembleSize, writeQuorum, ackQuorum })).toThrow(/quorum is ensemble/);
    }
  });
});

function candidates(...available: boolean[]): { id: string; available: boolean }[] {
  return available.map((up, i) => ({ id: `b${i}`, available: up }));
}

describe('choosing an ensemble', () => {
  const quorum: Quorum = { ensembleSize: 3, writeQuorum: 3, ackQuorum: 2 };

  test('spreads ledgers over all bookies', () => {
    const used = new Map<string, number>();
    for (let id = 0; id < 100; id++) {
      const ensemble = chooseEnsemble(candidates(true, true, true, true, true), quorum, id) ?? [];
      expect(new Set(ensemble).size).toBe(3);
      for (const bookie of ensemble) used.set(bookie, (used.get(bookie) ?? 0) + 1);
    }
    expect([...used.values()]).toEqual([60, 60, 60, 60, 60]);
  });

  test('takes available bookies before others, and fills up with others while every write set can be written', () => {
    expect(chooseEnsemble(candidates(false, true, true, true), quorum, 0)).toEqual(['b1', 'b2', 'b3']);
    expect(chooseEnsemble(candidates(false, true, true), quorum, 0)?.toSorted()).toEqual(['b0', 'b1', 'b2']);
    expect(chooseEnsemble(candidates(false, false, true), quorum, 0)).toBeUndefined();
    expect(chooseEnsemble(candidates(true, true), quorum, 0)).toBeUndefined();
  });

  test('with striping, keeps unavailable ones apart', () => {
    const striped = { ensembleSize: 6, writeQuorum: 3, ackQuorum: 2 };
    const ensemble = chooseEnsemble(candidates(false, false, true, true, true, true), striped, 0) ?? [];
    expect(ensemble.map((id) => id === 'b0' || id === 'b1')).toEqual([true, false, false, true, false, false]);
  });
});
