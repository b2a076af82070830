/**
 * A ledger's metadata and every change that it may undergo (LP-1), as pure functions: from the metadata as it is, to what is
 * to be written in its place, or to nothing (it already is as wanted), or to an error. `metadata-update.ts` applies them by
 * compare-and-set; after a conflict the function runs again on what is there then.
 */
import { assert, assertNever } from '../../lib/assert.ts';
import { MagnetarError } from '../../lib/errors.ts';
import { type EntryId, type LedgerId, type Millis, NO_ENTRY } from '../../lib/ids.ts';
import type { Quorum } from './distribution.ts';

type LedgerState = 'open' | 'inRecovery' | 'closed';

/** The bookies that hold the entries from one on: one bookie id per slot. */
export interface Fragment {
  readonly firstEntryId: EntryId;
  readonly bookies: readonly string[];
}

/** Immutable. */
export interface LedgerMetadata {
  readonly quorum: Quorum;
  readonly state: LedgerState;
  /** Final when closed; NO_ENTRY before. */
  readonly lastEntryId: EntryId;
  /** Bytes of all payloads; final when closed, 0 before. */
  readonly length: number;
  /** Closed where the highest entry was that anybody knew of: entries behind it may have been confirmed, and are lost (LP-32). */
  readonly lostTail: boolean;
  /** 16 bytes. */
  readonly masterKey: Buffer;
  /** In order of their first entry; at least one, the first from entry 0. */
  readonly fragments: readonly Fragment[];
  readonly createdAt: Millis;
}

/** Where a ledger ends. */
export interface LedgerEnd {
  readonly lastEntryId: EntryId;
  readonly length: number;
}

/** Where recovery found the end. */
export interface RecoveredEnd extends LedgerEnd {
  /** As in LedgerMetadata. */
  readonly lostTail: boolean;
}

/** What to write; undefined: nothing. Throws when the change is not allowed any more. */
export type Transition = (metadata: LedgerMetadata) => LedgerMetadata | undefined;

/** A new ledger's metadata. */
export function newLedger(
  parts: Pick<LedgerMetadata, 'quorum' | 'masterKey' | 'createdAt'> & { readonly ensemble: readonly string[] },
): LedgerMetadata {
  assert(parts.ensemble.length === parts.quorum.ensembleSize, 'an ensemble has a bookie in every slot');
  return {
    quorum: parts.quorum,
    state: 'open',
    lastEntryId: NO_ENTRY,
    length: 0,
    lostTail: false,
    masterKey: parts.masterKey,
    fragments: [{ firstEntryId: 0 as EntryId, bookies: parts.ensemble }],
    createdAt: parts.createdAt,
  };
}

/** The fragment that entries are appended to. */
export function lastFragment(metadata: LedgerMetadata): Fragment {
  const fragment = metadata.fragments.at(-1);
  assert(fragment !== undefined, 'a ledger has a fragment');
  return fragment;
}

/** The fragment that holds an entry, and the last entry that it may hold; undefined: no end yet. */
export function fragmentOf(metadata: LedgerMetadata, entry: number): { fragment: Fragment; last: number | undefined } {
  const at = metadata.fragments.findLastIndex((fragment) => fragment.firstEntryId <= entry);
  const fragment = metadata.fragments[at];
  assert(fragment !== undefined, 'the first fragment begins at entry 0');
  const next = metadata.fragments[at + 1];
  return { fragment, last: next === undefined ? undefined : next.firstEntryId - 1 };
}

/** Takes an open ledger into recovery (LP-14). Nothing to do when it is in recovery already, or closed. */
export const beginRecovery: Transition = (metadata) =>
  metadata.state === 'open' ? { ...metadata, state: 'inRecovery' } : undefined;

/**
 * The writer's close (LP-20): from open alone. Already closed at the same end is a success.
 * The transition throws LEDGER_FENCED when another client recovers the ledger or has closed it elsewhere.
 */
export function closeByWriter(id: LedgerId, end: LedgerEnd): Transition {
  return (metadata) => {
    switch (metadata.state) {
      case 'open':
        return { ...metadata, state: 'closed', lastEntryId: end.lastEntryId, length: end.length };
      case 'inRecovery':
        throw new MagnetarError('LEDGER_FENCED', `ledger ${id} is being recovered by another client`);
      case 'closed':
        if (metadata.lastEntryId === end.lastEntryId && metadata.length === end.length) return undefined;
        throw new MagnetarError(
          'LEDGER_FENCED',
          `ledger ${id} was closed by another client at entry ${metadata.lastEntryId}, not ${end.lastEntryId}`,
        );
      default:
        return assertNever(metadata.state);
    }
  };
}

/**
 * Recovery's close (LP-19): once the end is found and everything up to it rewritten. When another client was first, its end
 * stands. `ensemble`: the bookies that the tail was rewritten to, where recovery had to replace some (LP-18).
 */
export function closeByRecovery(
  id: LedgerId,
  end: RecoveredEnd,
  ensemble?: { readonly firstEntryId: EntryId; readonly bookies: readonly string[] },
): Transition {
  return (metadata) => {
    if (metadata.state === 'closed') return undefined;
    assert(metadata.state === 'inRecovery', `ledger ${id} is ${metadata.state} while it is being recovered`);
    const fragments = ensemble === undefined ? metadata.fragments : withFragment(metadata.fragments, ensemble);
    const { lastEntryId, length, lostTail } = end;
    return { ...metadata, state: 'closed', fragments, lastEntryId, length, lostTail };
  };
}

/**
 * The ensemble change of a writer (LP-7): a new fragment from `firstEntryId` (its last-add-confirmed + 1) on. Only while the
 * ledger is open and the last fragment is the one that the writer knows.
 * The transition throws LEDGER_FENCED when another client recovers the ledger or has closed it.
 */
export function changeEnsemble(id: LedgerId, from: Fragment, to: Fragment): Transition {
  return (metadata) => {
    if (metadata.state !== 'open') {
      throw new MagnetarError('LEDGER_FENCED', `ledger ${id} has been taken over by another client`);
    }
    const last = lastFragment(metadata);
    if (sameFragment(last, to)) return undefined; // an earlier try got through although its answer was lost
    assert(sameFragment(last, from), `ledger ${id} has a fragment that its writer did not make`);
    return { ...metadata, fragments: withFragment(metadata.fragments, to) };
  };
}

function sameFragment(a: Fragment, b: Fragment): boolean {
  return a.firstEntryId === b.firstEntryId && a.bookies.every((bookie, slot) => bookie === b.bookies[slot]);
}

/** Equal to the last first-entry: takes its place; later: comes behind it (LP-7). */
function withFragment(fragments: readonly Fragment[], fragment: Fragment): readonly Fragment[] {
  const last = fragments.at(-1);
  assert(last !== undefined && last.firstEntryId <= fragment.firstEntryId, 'a new fragment begins behind the last one');
  const kept = last.firstEntryId === fragment.firstEntryId ? fragments.slice(0, -1) : fragments;
  return [...kept, fragment];
}
