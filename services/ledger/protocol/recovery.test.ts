import { describe, expect, test } from 'vitest';
import type { EntryId, Millis } from '../../lib/ids.ts';
import type { Quorum } from './distribution.ts';
import { type Fragment, type LedgerMetadata, newLedger } from './ledger-metadata.ts';
import { type LacOutcome, type ReadOutcome, Recovery, type RecoveryEffect } from './recovery.ts';

const THREE: Quorum = { ensembleSize: 3, writeQuorum: 3, ackQuorum: 2 };
const NO: ReadOutcome = { kind: 'negative' };
const SILENT: ReadOutcome = { kind: 'unknown' };
const LIMBO: ReadOutcome = { kind: 'limbo' };
const BAD: ReadOutcome = { kind: 'damaged' };

/** A copy; in these tests every entry is 10 bytes long. */
function valid(entry: number): ReadOutcome {
  return { kind: 'valid', length: 10 * (entry + 1) };
}

function metadata(quorum: Quorum, fragments?: readonly Fragment[]): LedgerMetadata {
  const ensemble = 'abcdefgh'.split('').slice(0, quorum.ensembleSize);
  const open = newLedger({ quorum, masterKey: Buffer.alloc(16), createdAt: 1 as Millis, ensemble });
  return { ...open, state: 'inRecovery', fragments: fragments ?? open.fragments };
}

/** A recovery with a transcript of its effects in short. */
class Transcript {
  readonly machine: Recovery;

  constructor(quorum: Quorum = THREE, options: { readAhead?: number; fragments?: readonly Fragment[] } = {}) {
    this.machine = new Recovery(metadata(quorum, options.fragments), options.readAhead ?? 1);
  }

  start(): string {
    return short(this.machine.step({ type: 'start' }));
  }

  /** A number: fenced, with this last-add-confirmed; `last`: the highest entry that the bookie knows of. */
  lac(slot: number, outcome: LacOutcome | number, last = -1): string {
    const said: LacOutcome =
      typeof outcome === 'number' ? { kind: 'fenced', lac: outcome, lastEntryId: last } : outcome;
    return short(this.machine.step({ type: 'lac', slot, outcome: said }));
  }

  read(entryId: number, slot: number, outcome: ReadOutcome): string {
    return short(this.machine.step({ type: 'read', entryId, slot, outcome }));
  }

  rewritten(entryId: number, slot: number, stored = true): string {
    return short(this.machine.step({ type: 'rewritten', entryId, slot, stored }));
  }

  /** Fenced, with nothing known. */
  fenced(lac = -1): this {
    this.start();
    this.lac(0, lac);
    this.lac(1, -1);
    return this;
  }
}

function short(effects: readonly RecoveryEffect[]): string {
  return effects
    .map((effect) => {
      switch (effect.type) {
        case 'readLac':
          return `${effect.bookie}?`;
        case 'read':
          return `${effect.bookie}>${effect.entryId}`;
        case 'rewrite':
          return `${effect.bookie}<${effect.entryId}`;
        case 'close':
          return `close ${effect.lastEntryId} ${effect.length}${effect.lostTail ? ' lost tail' : ''}`;
        case 'lost':
          return `lost ${effect.entryId}`;
        case 'abort':
          return `abort ${effect.reason}`;
        default:
          return '';
      }
    })
    .join(' ');
}

describe('fencing', () => {
  test('LP-14: asks every bookie of the last fragment, and goes on when no ack quorum is left without', () => {
    const t = new Transcript();
    expect(t.start()).toBe('a? b? c?');
    expect(t.lac(1, -1)).toBe('');
    expect(t.lac(2, -1)).toBe('a>0 b>0 c>0');
    expect(t.lac(0, 17)).toBe(''); // late: what it knew only made the tail shorter
  });

  test('LP-14: with striping, every window of Qw slots has to be covered', () => {
    const t = new Transcript({ ensembleSize: 5, writeQuorum: 3, ackQuorum: 2 });
    t.start();
    expect([t.lac(0, -1), t.lac(1, -1), t.lac(2, -1)]).toEqual(['', '', '']); // 3, 4 could acknowledge entry 3
    expect(t.lac(3, -1)).toBe('a>0 b>0 c>0');
  });

  test('LP-14: too few fenced bookies leave the ledger in recovery', () => {
    const t = new Transcript();
    t.start();
    expect([t.lac(0, 5), t.lac(1, { kind: 'unknown' })]).toEqual(['', '']);
    expect(t.lac(2, { kind: 'unknown' })).toBe('abort unreachable');
    expect(t.lac(1, 5)).toBe('');
  });

  test('a wrong master key is called that', () => {
    const t = new Transcript();
    t.start();
    t.lac(0, { kind: 'badKey' });
    t.lac(1, { kind: 'badKey' });
    expect(t.lac(2, -1)).toBe('abort badKey');
  });

  test('LP-15, LP-21b: never starts below the last fragment', () => {
    const fragments = [
      { firstEntryId: 0 as EntryId, bookies: ['x', 'y', 'z'] },
      { firstEntryId: 7 as EntryId, bookies: ['a', 'b', 'c'] },
    ];
    const t = new Transcript(THREE, { fragments });
    t.start();
    t.lac(0, -1);
    expect(t.lac(1, -1)).toBe('a>7 b>7 c>7');
    t.read(7, 0, NO);
    // The end is in the fragment before: its length stands there.
    expect(t.read(7, 1, NO)).toBe('x>6 y>6 z>6');
    expect(t.read(6, 2, valid(6))).toBe('close 6 70');
  });
});

describe('finding the end', () => {
  test('an empty ledger is closed empty', () => {
    const t = new Transcript().fenced();
    expect(t.read(0, 0, NO)).toBe('');
    expect(t.read(0, 2, NO)).toBe('close -1 0');
  });

  test('LP-16, LP-17: one valid copy is rewritten to an ack quorum before the next one counts', () => {
    const t = new Transcript().fenced(3);
    expect(t.read(4, 1, valid(4))).toBe('a<4 b<4 c<4');
    expect(t.read(4, 0, NO)).toBe('');
    expect(t.rewritten(4, 0)).toBe('');
    expect(t.rewritten(4, 2)).toBe('a>5 b>5 c>5');
    t.read(5, 0, NO);
    expect(t.read(5, 1, NO)).toBe('close 4 50');
  });

  test('LP-16: a half-written entry is either found or proved absent, never both', () => {
    // Only c has entry 0. With a and b negative it was never acknowledged, and being fenced they never will take it.
    const absent = new Transcript().fenced();
    absent.read(0, 0, NO);
    expect(absent.read(0, 1, NO)).toBe('close -1 0');
    // If c answers before one of them, it is kept.
    const found = new Transcript().fenced();
    found.read(0, 0, NO);
    expect(found.read(0, 2, valid(0))).toBe('a<0 b<0 c<0');
    expect(found.read(0, 1, NO)).toBe('');
  });

  test('LP-12, LP-29: what is unknown is no negative: a copy that nobody could ask may be good', () => {
    for (const others of [
      [NO, SILENT],
      [NO, LIMBO],
      [BAD, BAD],
      [LIMBO, BAD],
    ] as const) {
      const t = new Transcript().fenced();
      expect([t.read(0, 0, others[0]), t.read(0, 1, others[1])]).toEqual(['', '']);
      expect(t.read(0, 2, SILENT)).toBe('abort unreachable');
    }
  });

  test('LP-31: an entry that every copy was asked for, and that is stored and damaged, is passed over', () => {
    for (const others of [
      [NO, BAD],
      [BAD, LIMBO],
      [LIMBO, NO],
    ] as const) {
      const t = new Transcript().fenced();
      expect([t.read(0, 0, others[0]), t.read(0, 1, others[1])]).toEqual(['', '']);
      expect(t.read(0, 2, BAD)).toBe('lost 0 a>1 b>1 c>1');
      expect(t.read(1, 2, valid(1))).toBe('a<1 b<1 c<1');
      expect([t.rewritten(1, 0), t.rewritten(1, 1)]).toEqual(['', 'a>2 b>2 c>2']);
      expect([t.read(2, 0, NO), t.read(2, 1, NO)]).toEqual(['', 'close 1 20']);
    }
  });

  test('LP-16, LP-31: a quorum of negatives wins over damage: the entry was never acknowledged', () => {
    const t = new Transcript().fenced();
    expect([t.read(0, 0, BAD), t.read(0, 1, NO)]).toEqual(['', '']);
    expect(t.read(0, 2, NO)).toBe('close -1 0');
  });

  test('LP-31: one good copy is enough, also behind damaged ones', () => {
    const t = new Transcript().fenced();
    expect([t.read(0, 0, BAD), t.read(0, 1, LIMBO)]).toEqual(['', '']);
    expect(t.read(0, 2, valid(0))).toBe('a<0 b<0 c<0');
  });

  test('LP-31: in limbo everywhere, with a later entry known: lost, and what is behind it is kept', () => {
    const t = new Transcript();
    t.start();
    expect([t.lac(0, -1, 1), t.lac(1, -1)]).toEqual(['', 'a>0 b>0 c>0']);
    expect([t.read(0, 0, LIMBO), t.read(0, 1, LIMBO)]).toEqual(['', '']);
    expect(t.read(0, 2, LIMBO)).toBe('lost 0 a>1 b>1 c>1');
    expect(t.read(1, 0, valid(1))).toBe('a<1 b<1 c<1');
  });

  test('LP-31: lost entries at the end count; the length is that of the last good one', () => {
    const t = new Transcript(THREE, { readAhead: 3 }).fenced(1);
    t.read(2, 0, valid(2));
    t.rewritten(2, 0);
    t.rewritten(2, 1);
    expect([t.read(3, 0, BAD), t.read(3, 1, BAD)]).toEqual(['', '']);
    expect(t.read(3, 2, BAD)).toBe('lost 3 a>6 b>6 c>6');
    expect([t.read(4, 0, NO), t.read(4, 1, NO)]).toEqual(['', 'close 3 30']);
  });

  test('LP-32: the tail is lost when nobody can say and nobody knows of more, which all bookies have to have said', () => {
    const t = new Transcript().fenced();
    expect([t.read(0, 0, LIMBO), t.read(0, 1, LIMBO)]).toEqual(['', '']);
    expect(t.read(0, 2, LIMBO)).toBe(''); // what does c know of?
    expect(t.lac(2, -1)).toBe('close -1 0 lost tail');
    const more = new Transcript().fenced();
    for (const slot of [0, 1, 2]) more.read(0, slot, LIMBO);
    expect(more.lac(2, -1, 4)).toBe('lost 0 a>1 b>1 c>1');
    const silent = new Transcript().fenced();
    for (const slot of [0, 1, 2]) silent.read(0, slot, LIMBO);
    expect(silent.lac(2, { kind: 'unknown' })).toBe('abort unreachable');
  });

  test('LP-32: a quorum that can say is enough: nothing is lost with one of three in limbo', () => {
    const t = new Transcript().fenced();
    expect([t.read(0, 0, LIMBO), t.read(0, 1, NO)]).toEqual(['', '']);
    expect(t.read(0, 2, NO)).toBe('close -1 0');
  });

  test('LP-17: a rewrite without an ack quorum leaves the ledger in recovery', () => {
    const t = new Transcript().fenced();
    t.read(0, 0, valid(0));
    expect(t.rewritten(0, 0)).toBe('');
    expect(t.rewritten(0, 1, false)).toBe('');
    expect(t.rewritten(0, 2, false)).toBe('abort unreachable');
  });

  test('LP-19: what was read ahead of the end is not rewritten', () => {
    const t = new Transcript(THREE, { readAhead: 3 });
    t.start();
    t.lac(0, -1);
    expect(t.lac(1, -1)).toBe('a>0 b>0 c>0 a>1 b>1 c>1 a>2 b>2 c>2');
    expect(t.read(2, 0, valid(2))).toBe(''); // beyond a hole, for all that is known
    expect(t.read(0, 0, valid(0))).toBe('a<0 b<0 c<0');
    expect([t.rewritten(0, 0), t.read(1, 0, NO)]).toEqual(['', '']);
    expect(t.read(1, 1, NO)).toBe('');
    expect(t.rewritten(0, 1)).toBe('close 0 10');
  });

  test('rewrites may overlap; the close waits for all of them', () => {
    const t = new Transcript(THREE, { readAhead: 3 });
    t.start();
    t.lac(0, -1);
    t.lac(1, -1);
    expect(t.read(0, 0, valid(0))).toBe('a<0 b<0 c<0');
    expect(t.read(1, 0, valid(1))).toBe('a<1 b<1 c<1');
    t.read(2, 0, NO);
    expect(t.read(2, 1, NO)).toBe('');
    expect([t.rewritten(1, 0), t.rewritten(1, 1), t.rewritten(0, 0)]).toEqual(['', '', '']);
    expect(t.rewritten(0, 1)).toBe('close 1 20');
  });

  test('where nothing was rewritten, the length is that of the last confirmed entry', () => {
    const t = new Transcript().fenced(5);
    t.read(6, 0, NO);
    expect(t.read(6, 1, NO)).toBe('a>5 b>5 c>5');
    expect([t.read(6, 2, valid(6)), t.read(5, 0, BAD)]).toEqual(['', '']);
    expect(t.read(5, 1, valid(5))).toBe('close 5 60');
    const lost = new Transcript().fenced(5);
    lost.read(6, 0, NO);
    lost.read(6, 1, NO);
    expect([lost.read(5, 0, BAD), lost.read(5, 1, NO), lost.read(5, 2, NO)]).toEqual(['', '', 'lost 5 a>4 b>4 c>4']);
    expect(lost.read(4, 0, valid(4))).toBe('close 5 50');
    const unknown = new Transcript().fenced(0);
    unknown.read(1, 0, NO);
    unknown.read(1, 1, NO);
    expect([unknown.read(0, 0, BAD), unknown.read(0, 1, BAD), unknown.read(0, 2, BAD)]).toEqual([
      '',
      '',
      'lost 0 close 0 0',
    ]);
  });

  test('after its end nothing moves it any more', () => {
    const t = new Transcript().fenced();
    t.read(0, 0, NO);
    t.read(0, 1, NO);
    expect([t.read(0, 2, valid(0)), t.lac(2, 9), t.rewritten(0, 0)]).toEqual(['', '', '']);
  });
});
