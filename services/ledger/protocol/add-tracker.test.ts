import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type AddEffect, AddTracker } from './add-tracker.ts';
import type { Quorum } from './distribution.ts';

const THREE: Quorum = { ensembleSize: 3, writeQuorum: 3, ackQuorum: 2 };

/** A tracker with a transcript: `does` runs an event and says in short what comes of it. */
class Transcript {
  readonly tracker: AddTracker;

  constructor(quorum: Quorum = THREE, bookies = 'abcdefgh') {
    this.tracker = new AddTracker(quorum, bookies.split('').slice(0, quorum.ensembleSize));
  }

  add(): string {
    return short(this.tracker.step({ type: 'add' }));
  }

  /** "a0": bookie a has stored entry 0. The slot is the bookie's place in the present ensemble, or in the alphabet. */
  stored(copy: string): string {
    return short(this.tracker.step({ type: 'stored', ...this.#copy(copy) }));
  }

  failed(copy: string): string {
    return short(this.tracker.step({ type: 'failed', ...this.#copy(copy) }));
  }

  #copy(copy: string): { entryId: number; slot: number; bookie: string } {
    const bookie = copy.charAt(0);
    const now = this.tracker.ensemble.indexOf(bookie);
    return { bookie, entryId: Number(copy.slice(1)), slot: now >= 0 ? now : 'abcdefgh'.indexOf(bookie) };
  }

  change(ensemble: string): string {
    const firstEntryId = this.tracker.confirmed + 1;
    return short(this.tracker.step({ type: 'changed', firstEntryId, ensemble: ensemble.split('') }));
  }
}

function short(effects: readonly AddEffect[]): string {
  return effects
    .map((effect) => {
      if (effect.type === 'send') return `${effect.bookie}<${effect.entryId}`;
      return effect.type === 'confirm' ? `ok${effect.entryId}` : `fail ${effect.reason}`;
    })
    .join(' ');
}

describe('adding', () => {
  test('LP-4: an entry is confirmed at Qa copies, strictly in order of ids', () => {
    const t = new Transcript();
    expect([t.add(), t.add(), t.add()]).toEqual(['a<0 b<0 c<0', 'a<1 b<1 c<1', 'a<2 b<2 c<2']);
    expect([t.stored('a1'), t.stored('b1'), t.stored('c2'), t.stored('a2')]).toEqual(['', '', '', '']);
    expect(t.stored('a0')).toBe('');
    expect(t.stored('c0')).toBe('ok0 ok1 ok2');
    expect(t.tracker.confirmed).toBe(2);
    expect(t.tracker.pending).toBe(0);
  });

  test('LP-2: with striping, each entry goes to its own write set', () => {
    const t = new Transcript({ ensembleSize: 4, writeQuorum: 2, ackQuorum: 2 });
    expect([t.add(), t.add(), t.add(), t.add()]).toEqual(['a<0 b<0', 'b<1 c<1', 'c<2 d<2', 'a<3 d<3']);
  });

  test('the same bookie twice is one copy', () => {
    const t = new Transcript();
    t.add();
    expect([t.stored('a0'), t.stored('a0')]).toEqual(['', '']);
    expect(t.tracker.confirmed).toBe(-1);
  });

  test('a copy that failed and then turns out to be stored counts', () => {
    const t = new Transcript();
    t.add();
    expect([t.failed('a0'), t.stored('a0'), t.failed('b0'), t.stored('c0')]).toEqual(['', '', '', 'ok0']);
    expect(t.tracker.holes).toEqual([{ slot: 1, bookie: 'b', first: 0, last: 0 }]);
  });

  test('more than Qw-Qa failed copies stop the writer, after what can be confirmed', () => {
    const t = new Transcript();
    t.add();
    t.add();
    t.add();
    expect([t.stored('a0'), t.stored('a1'), t.failed('b1'), t.failed('b2')]).toEqual(['', '', '', '']);
    expect(t.stored('b0')).toBe('ok0');
    expect(t.failed('c1')).toBe('fail notEnoughBookies');
    expect([t.stored('c1'), t.stored('b1'), t.tracker.confirmed]).toEqual(['', '', 0]);
  });

  test('LP-6: a fenced reply stops everything, and no later answer confirms', () => {
    const t = new Transcript();
    t.add();
    t.stored('a0');
    expect(short(t.tracker.step({ type: 'fenced' }))).toBe('fail fenced');
    expect([t.stored('b0'), t.stored('c0')]).toEqual(['', '']);
    expect(t.tracker.confirmed).toBe(-1);
    expect(() => t.add()).toThrow(/stopped/);
  });

  test('LP-20: a close fails what is pending, and an answer on its way does not move the end', () => {
    const t = new Transcript();
    t.add();
    t.add();
    t.stored('a0');
    expect(t.stored('b0')).toBe('ok0');
    t.stored('a1');
    expect(short(t.tracker.step({ type: 'close' }))).toBe('fail closed');
    expect([t.stored('b1'), t.tracker.confirmed]).toEqual(['', 0]);
  });

  test('copies missing at a confirmed entry are remembered, whether they failed before or after', () => {
    const t = new Transcript();
    t.add();
    t.add();
    t.failed('c0');
    t.stored('a0');
    t.stored('b0');
    t.stored('a1');
    t.stored('b1');
    t.failed('c1');
    expect(t.tracker.holes).toEqual([{ slot: 2, bookie: 'c', first: 0, last: 1 }]);
  });
});

describe('ensemble change', () => {
  test('LP-5: nobody is told while slots are changing', () => {
    const t = new Transcript();
    t.add();
    t.failed('c0');
    t.tracker.step({ type: 'changeBegun' });
    expect([t.stored('a0'), t.stored('b0')]).toEqual(['', '']);
    expect(t.change('abd')).toBe('d<0 ok0');
  });

  test('LP-7: an entry that was complete with a replaced bookie is incomplete again', () => {
    const t = new Transcript();
    t.add();
    t.add();
    t.stored('a1');
    t.stored('c1'); // complete, not yet to be told: 0 is pending
    t.failed('c0');
    t.tracker.step({ type: 'changeBegun' });
    expect(t.change('abd')).toBe('d<0 d<1');
    expect(t.stored('a0')).toBe('');
    expect(t.stored('c0')).toBe(''); // LP-4: it no longer holds the slot
    expect(t.stored('b0')).toBe('ok0');
    expect(t.stored('d1')).toBe('ok1');
  });

  test('LP-7: only slots in an entry’s write set are sent again', () => {
    const t = new Transcript({ ensembleSize: 4, writeQuorum: 2, ackQuorum: 2 });
    t.add(); // a b
    t.add(); // b c
    t.add(); // c d
    t.failed('c1');
    expect(t.tracker.stopped).toBe('notEnoughBookies'); // nobody began a change in time
    const u = new Transcript({ ensembleSize: 4, writeQuorum: 2, ackQuorum: 2 });
    u.add();
    u.add();
    u.add();
    u.tracker.step({ type: 'changeBegun' });
    expect(u.failed('c1')).toBe('');
    expect(u.change('abed')).toBe('e<1 e<2');
    expect([u.stored('b1'), u.stored('a0'), u.stored('e1')]).toEqual(['', '', '']);
    expect(u.stored('b0')).toBe('ok0 ok1');
  });

  test('a change that did not happen leaves the old answers valid, and the old failures', () => {
    const t = new Transcript();
    t.add();
    t.add();
    t.tracker.step({ type: 'changeBegun' });
    t.stored('a0');
    t.stored('b0');
    t.failed('c1');
    t.failed('b1');
    expect(short(t.tracker.step({ type: 'changeAbandoned' }))).toBe('ok0 fail notEnoughBookies');
  });

  test('LP-7: a new fragment anywhere but behind last-add-confirmed is a bug', () => {
    const t = new Transcript();
    t.add();
    t.tracker.step({ type: 'changeBegun' });
    expect(() => t.tracker.step({ type: 'changed', firstEntryId: 1, ensemble: ['a', 'b', 'd'] })).toThrow(/fragment/);
  });
});

/** The rule without any cleverness: what is confirmed after a history of answers, when no ensemble changes. */
function dumbConfirmed(quorum: Quorum, entries: number, stored: ReadonlySet<string>): number {
  for (let entry = 0; entry < entries; entry++) {
    let copies = 0;
    for (let i = 0; i < quorum.writeQuorum; i++)
      if (stored.has(`${entry} ${(entry + i) % quorum.ensembleSize}`)) copies++;
    if (copies < quorum.ackQuorum) return entry - 1;
  }
  return entries - 1;
}

test('LP-4: after any order of answers, confirmed is the longest prefix with Qa copies each', () => {
  const answers = fc.array(fc.tuple(fc.nat({ max: 199 }), fc.nat({ max: 4 })), { maxLength: 1_500 });
  const shapes = fc.constantFrom([3, 3, 2], [5, 3, 2], [1, 1, 1], [4, 2, 1], [5, 5, 3]);
  fc.assert(
    fc.property(shapes, answers, ([e = 1, w = 1, a = 1], history) => {
      const quorum = { ensembleSize: e, writeQuorum: w, ackQuorum: a };
      const t = new Transcript(quorum);
      for (let entry = 0; entry < 200; entry++) t.add();
      const stored = new Set<string>();
      const told: number[] = [];
      for (const [entryId, i] of history) {
        const slot = (entryId + (i % w)) % e;
        stored.add(`${entryId} ${slot}`);
        const bookie = t.tracker.ensemble[slot] ?? '';
        for (const effect of t.tracker.step({ type: 'stored', entryId, slot, bookie })) {
          if (effect.type === 'confirm') told.push(effect.entryId);
        }
        expect(t.tracker.confirmed).toBe(dumbConfirmed(quorum, 200, stored));
      }
      expect(told).toEqual(Array.from({ length: t.tracker.confirmed + 1 }, (_, entry) => entry));
    }),
    { numRuns: 40 },
  );
});
