import { describe, expect, test } from 'vitest';
import { type EntryId, type LedgerId, type Millis, NO_ENTRY } from '../../lib/ids.ts';
import {
  beginRecovery,
  changeEnsemble,
  closeByRecovery,
  closeByWriter,
  fragmentOf,
  type LedgerMetadata,
  lastFragment,
  newLedger,
} from './ledger-metadata.ts';

const id = 7 as LedgerId;
const at = (entry: number): EntryId => entry as EntryId;
const open: LedgerMetadata = newLedger({
  quorum: { ensembleSize: 3, writeQuorum: 3, ackQuorum: 2 },
  masterKey: Buffer.alloc(16),
  createdAt: 1 as Millis,
  ensemble: ['a', 'b', 'c'],
});
const inRecovery: LedgerMetadata = { ...open, state: 'inRecovery' };
const end = { lastEntryId: at(4), length: 50 };
const closed: LedgerMetadata = { ...open, state: 'closed', ...end };

describe('ledger metadata', () => {
  test('LP-14: only an open ledger is taken into recovery', () => {
    expect(beginRecovery(open)).toEqual(inRecovery);
    expect(beginRecovery(inRecovery)).toBeUndefined();
    expect(beginRecovery(closed)).toBeUndefined();
  });

  test('LP-20: a writer closes an open ledger, and finds its own close again', () => {
    expect(closeByWriter(id, end)(open)).toEqual(closed);
    expect(closeByWriter(id, end)(closed)).toBeUndefined();
  });

  test('LP-20: a writer never closes a ledger that is in recovery, nor moves an end', () => {
    expect(() => closeByWriter(id, end)(inRecovery)).toThrow(/being recovered/);
    expect(() => closeByWriter(id, { lastEntryId: at(5), length: 60 })(closed)).toThrow(
      /closed by another client at entry 4/,
    );
    expect(() => closeByWriter(id, { lastEntryId: at(4), length: 60 })(closed)).toThrow(/closed by another client/);
  });

  test('LP-19: recovery closes once; a second recoverer takes over the first one’s end', () => {
    expect(closeByRecovery(id, { ...end, lostTail: false })(inRecovery)).toEqual(closed);
    expect(closeByRecovery(id, { lastEntryId: at(9), length: 90, lostTail: true })(closed)).toBeUndefined();
    expect(() => closeByRecovery(id, { ...end, lostTail: false })(open)).toThrow(/is open while it is being recovered/);
  });

  test('LP-7: a new fragment replaces an empty one, else comes behind it', () => {
    const from = lastFragment(open);
    const first = { firstEntryId: at(0), bookies: ['a', 'b', 'd'] };
    const later = { firstEntryId: at(3), bookies: ['a', 'e', 'd'] };
    const once = changeEnsemble(id, from, first)(open) ?? open;
    expect(once.fragments).toEqual([first]);
    const twice = changeEnsemble(id, first, later)(once) ?? open;
    expect(twice.fragments).toEqual([first, later]);
    expect(fragmentOf(twice, 2)).toEqual({ fragment: first, last: 2 });
    expect(fragmentOf(twice, 3)).toEqual({ fragment: later, last: undefined });
    // Its answer was lost: the second try finds it done.
    expect(changeEnsemble(id, first, later)(twice)).toBeUndefined();
    expect(() => changeEnsemble(id, later, { ...later, firstEntryId: at(2), bookies: ['x', 'y', 'z'] })(twice)).toThrow(
      /behind the last one/,
    );
  });

  test('LP-7: nobody changes the ensemble of a ledger that another client has', () => {
    for (const state of [inRecovery, closed]) {
      expect(() =>
        changeEnsemble(id, lastFragment(open), { firstEntryId: at(0), bookies: ['a', 'b', 'd'] })(state),
      ).toThrow(/taken over/);
    }
  });

  test('LP-18: bookies that recovery replaced become known with its close alone', () => {
    const ensemble = { firstEntryId: at(3), bookies: ['a', 'b', 'd'] };
    expect(closeByRecovery(id, { ...end, lostTail: false }, ensemble)(inRecovery)?.fragments).toEqual([
      lastFragment(open),
      ensemble,
    ]);
    expect(closeByRecovery(id, { ...end, lostTail: false })(inRecovery)?.lastEntryId).not.toBe(NO_ENTRY);
  });
});
