/**
 * Writer, recoverers and bookies in every order that chance finds (LP-21). A seed replays exactly: the name of a failed
 * check has it.
 */
import { describe, expect, test } from 'vitest';
import { seededRandom } from '../../runtime/testing/seeded-random.ts';
import { ProtocolWorld, type Rules, type WorldOptions } from '../testing/protocol-world.ts';

const SMALL = {
  quorum: { ensembleSize: 3, writeQuorum: 3, ackQuorum: 2 },
  bookies: 3,
  entries: 3,
  recoverers: 2,
  loss: 0.15,
};

function world(seed: number, options: Partial<WorldOptions>): ProtocolWorld {
  const made = new ProtocolWorld({ ...SMALL, ...options, random: seededRandom(seed) });
  made.run();
  return made;
}

/** Runs many worlds; all hold. Says what came about in them. */
function explore(seeds: number, options: Partial<WorldOptions> = {}): ProtocolWorld['counts'] {
  const total = { ...new ProtocolWorld({ ...SMALL, random: seededRandom(0) }).counts };
  for (let seed = 0; seed < seeds; seed++) {
    const { violations, counts } = world(seed, options);
    expect(violations, `seed ${seed}`).toEqual([]);
    for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += counts[key];
  }
  return total;
}

/** The first seed under which a broken rule is noticed, and what is noticed. */
function caught(rules: Partial<Rules>, options: Partial<WorldOptions> = {}): string {
  for (let seed = 0; seed < 20_000; seed++) {
    const { violations } = world(seed, { ...options, rules });
    if (violations[0] !== undefined) return violations[0];
  }
  return 'nothing';
}

describe('LP-21: the invariants hold', () => {
  test('with loss and reordering', () => {
    const counts = explore(6_000);
    expect(counts.acked).toBeGreaterThan(1_000);
    expect(counts.rewritten).toBeGreaterThan(1_000);
    expect(counts.closedByWriter).toBeGreaterThan(100);
    expect(counts.closedByRecovery).toBeGreaterThan(1_000);
    expect(counts.adopted).toBeGreaterThan(100);
    expect(counts.refused).toBeGreaterThan(1_000);
  });

  test('without loss, for orders alone', () => {
    expect(explore(3_000, { loss: 0 }).acked).toBeGreaterThan(1_000);
  });

  test('when the writer replaces bookies (LP-5, LP-7)', () => {
    expect(explore(4_000, { ensembleChange: true, bookies: 5, entries: 4 }).changes).toBeGreaterThan(500);
  });

  test('with striping', () => {
    const quorum = { ensembleSize: 4, writeQuorum: 3, ackQuorum: 2 };
    expect(explore(3_000, { quorum, bookies: 4, entries: 5 }).acked).toBeGreaterThan(3_000);
  });

  test('with Qa = Qw, and with Qa = 1', () => {
    const strict = explore(1_500, { quorum: { ensembleSize: 3, writeQuorum: 3, ackQuorum: 3 }, loss: 0.05 });
    expect(strict.acked).toBeGreaterThan(500);
    const loose = explore(1_500, { quorum: { ensembleSize: 3, writeQuorum: 3, ackQuorum: 1 } });
    expect(loose.acked).toBeGreaterThan(1_500);
  });

  test('when a bookie loses its disk and says so (LP-28, LP-29)', () => {
    const counts = explore(4_000, { diskLoss: true });
    expect(counts.closedByRecovery).toBeGreaterThan(500);
  });

  test('LP-31: with damage in one of three bookies nothing is lost', () => {
    const counts = explore(4_000, { damagedBookies: 1 });
    expect(counts.closedByRecovery).toBeGreaterThan(500);
    expect([counts.lost, counts.lostTails]).toEqual([0, 0]);
  });

  test.each([2, 3])(
    'LP-31, LP-32: with damage in %d of them whatever is left is kept, and the rest is said to be lost',
    (n) => {
      const counts = explore(4_000, { damagedBookies: n, entries: 5 });
      expect(counts.closedByRecovery).toBeGreaterThan(500);
      expect(counts.lost).toBeGreaterThan(100);
      expect(counts.lostTails).toBeGreaterThan(100);
    },
  );

  test('LP-31, LP-32: with a single copy', () => {
    const quorum = { ensembleSize: 1, writeQuorum: 1, ackQuorum: 1 };
    const counts = explore(3_000, { quorum, bookies: 1, entries: 5, damagedBookies: 1 });
    expect(counts.lost).toBeGreaterThan(100);
    expect(counts.lostTails).toBeGreaterThan(100);
  });
});

describe('a broken rule is noticed', () => {
  test('LP-21a: recovery reads that do not fence lose acknowledged entries', () => {
    expect(caught({ readsFence: false })).toMatch(/was acknowledged; the end is/);
  });

  test('LP-10: a bookie that takes entries although it is fenced', () => {
    expect(caught({ fenceHolds: false })).toMatch(/was acknowledged; the end is/);
  });

  test('LP-16: a bookie that does not answer, taken for one that has nothing', () => {
    expect(caught({ silenceIsUnknown: false })).toMatch(/was acknowledged; the end is/);
  });

  test('LP-17: a close without rewriting leaves entries on too few bookies', () => {
    expect(caught({ rewrites: false })).toMatch(/has 1 copies/);
  });

  test('LP-31: a bookie that says "never stored" of what is damaged', () => {
    expect(caught({ damageIsSaid: false }, { damagedBookies: 1 })).toMatch(/was acknowledged; the end is/);
  });

  test('LP-31: a loss that is stated without having heard of every copy', () => {
    expect(caught({ lossNeedsAnswers: false }, { damagedBookies: 1 })).toMatch(/a loss with [01] faults/);
  });

  test('LP-32: a tail that is given up although a bookie knows of more', () => {
    expect(caught({ highestIsHeeded: false }, { damagedBookies: 3, entries: 5 })).toMatch(
      /acknowledged and is cut off/,
    );
  });

  test('LP-29: a bookie that lost its disk and says "never stored"', () => {
    expect(caught({ limbo: false }, { diskLoss: true })).toMatch(/was acknowledged; the end is|0 copies/);
  });
});
