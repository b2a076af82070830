/**
 * Recovery-open as a pure machine (LP-14 to LP-19): fence the ledger, find its last entry, rewrite the tail, close.
 *
 * It starts when the metadata is in recovery, works on that frozen copy of it, and ends with one `close` or one `abort`; an
 * aborted ledger stays in recovery, and anybody may try again. Every request that it asks for is a fencing one (LP-21a).
 */
import { assert, assertNever } from '../../lib/assert.ts';
import { type EntryId, NO_ENTRY } from '../../lib/ids.ts';
import { covers, negativesNeeded, slotCount, writeSet } from './distribution.ts';
import { type Fragment, fragmentOf, type LedgerMetadata, lastFragment } from './ledger-metadata.ts';

/** What a bookie said to a read of one entry. */
export type ReadOutcome =
  /** A valid copy: digest, ledger id and entry id are right. `length`: its cumulative length. */
  | { readonly kind: 'valid'; readonly length: number }
  /** It never stored it (LP-12): the only explicit negative. */
  | { readonly kind: 'negative' }
  /** A copy that does not match its digest: a failed replica, not a missing one (LP-3). */
  | { readonly kind: 'damaged' }
  /** The master key is not the ledger's. */
  | { readonly kind: 'badKey' }
  /** No answer, no access, limbo (LP-29): it may have stored it. */
  | { readonly kind: 'unknown' };

/** What a bookie said to a fencing read of the last-add-confirmed. */
export type LacOutcome =
  /** Fenced; this is the highest one that it knows; NO_ENTRY: none. */
  { readonly kind: 'fenced'; readonly lac: number } | { readonly kind: 'badKey' } | { readonly kind: 'unknown' };

export type RecoveryEvent =
  | { readonly type: 'start' }
  | { readonly type: 'lac'; readonly slot: number; readonly outcome: LacOutcome }
  | { readonly type: 'read'; readonly entryId: number; readonly slot: number; readonly outcome: ReadOutcome }
  | { readonly type: 'rewritten'; readonly entryId: number; readonly slot: number; readonly stored: boolean };

export type RecoveryEffect =
  /** Ask for the last-add-confirmed, fencing. */
  | { readonly type: 'readLac'; readonly slot: number; readonly bookie: string }
  /** Read one entry, fencing. */
  | { readonly type: 'read'; readonly entryId: EntryId; readonly slot: number; readonly bookie: string }
  /** Store the entry's valid copy, as it is, with the recovery flag (LP-17). */
  | { readonly type: 'rewrite'; readonly entryId: EntryId; readonly slot: number; readonly bookie: string }
  /** Close the ledger there by compare-and-set (LP-19). */
  | { readonly type: 'close'; readonly lastEntryId: EntryId; readonly length: number }
  | { readonly type: 'abort'; readonly reason: AbortReason; readonly detail: string };

/** `unreachable`: too few answers, try again. `damaged`: no good copy of an entry. */
export type AbortReason = 'unreachable' | 'damaged' | 'badKey';

interface TailEntry {
  readonly entryId: EntryId;
  readonly fragment: Fragment;
  readonly writeSet: number;
  valid: boolean;
  length: number;
  negative: number;
  damaged: number;
  other: number;
  rewriting: boolean;
  stored: number;
  failed: number;
}

const NOTHING: readonly RecoveryEffect[] = [];

export class Recovery {
  readonly #metadata: LedgerMetadata;
  readonly #last: Fragment;
  readonly #readAhead: number;
  #phase: 'new' | 'fencing' | 'reading' | 'anchor' | 'done' = 'new';
  #fenced = 0;
  #lacUnknown = 0;
  #badKey = false;
  #lac: EntryId = NO_ENTRY;
  /** Entries from the start of the tail on, in order; the head goes when it is rewritten. */
  #tail: TailEntry[] = [];
  #nextRead = 0;
  /** The last entry that is rewritten, or needs no rewriting; and its length, when known. */
  #recovered: { entryId: EntryId; length: number | undefined } = { entryId: NO_ENTRY, length: 0 };
  /** The entry that a quorum of negatives has proved absent. */
  #end: number | undefined;

  /** `readAhead`: how many entries are read at the same time, at least 1. */
  constructor(metadata: LedgerMetadata, readAhead: number) {
    assert(metadata.state === 'inRecovery', 'recovery works on metadata that is in recovery');
    this.#metadata = metadata;
    this.#last = lastFragment(metadata);
    this.#readAhead = readAhead;
  }

  step(event: RecoveryEvent): readonly RecoveryEffect[] {
    if (this.#phase === 'done') return NOTHING;
    switch (event.type) {
      case 'start':
        assert(this.#phase === 'new', 'a recovery starts once');
        this.#phase = 'fencing';
        return this.#last.bookies.map((bookie, slot) => ({ type: 'readLac', slot, bookie }));
      case 'lac':
        return this.#onLac(event.slot, event.outcome);
      case 'read':
        return this.#phase === 'anchor' ? this.#onAnchor(event) : this.#onRead(event);
      case 'rewritten':
        return this.#onRewritten(event.entryId, event.slot, event.stored);
      default:
        return assertNever(event);
    }
  }

  /** LP-14: covered as soon as no write set has an ack quorum of unknown slots left. */
  #onLac(slot: number, outcome: LacOutcome): readonly RecoveryEffect[] {
    if (this.#phase !== 'fencing') return NOTHING;
    const bit = 1 << slot;
    if (outcome.kind === 'fenced') {
      this.#fenced |= bit;
      this.#lac = Math.max(this.#lac, outcome.lac) as EntryId;
    } else {
      this.#lacUnknown |= bit;
      this.#badKey ||= outcome.kind === 'badKey';
    }
    const { quorum } = this.#metadata;
    if (covers(quorum, this.#fenced)) return this.#startReading();
    if (slotCount(this.#fenced | this.#lacUnknown) < quorum.ensembleSize) return NOTHING;
    const fenced = `${slotCount(this.#fenced)} of ${quorum.ensembleSize} bookies could be fenced`;
    return this.#abort(this.#badKey ? 'badKey' : 'unreachable', fenced);
  }

  /** LP-15: never below the last fragment, however little its bookies know of last-add-confirmed. */
  #startReading(): readonly RecoveryEffect[] {
    this.#phase = 'reading';
    const start = Math.max(this.#lac, this.#last.firstEntryId - 1) as EntryId;
    this.#recovered = { entryId: start, length: start === NO_ENTRY ? 0 : undefined };
    this.#nextRead = start + 1;
    return this.#readMore();
  }

  #readMore(): readonly RecoveryEffect[] {
    const effects: RecoveryEffect[] = [];
    while (this.#end === undefined && this.#tail.length < this.#readAhead) {
      const entry = this.#tailEntry(this.#nextRead++, this.#last);
      this.#tail.push(entry);
      effects.push(...this.#reads(entry));
    }
    return effects;
  }

  #tailEntry(entryId: number, fragment: Fragment): TailEntry {
    return {
      entryId: entryId as EntryId,
      fragment,
      writeSet: writeSet(this.#metadata.quorum, entryId),
      valid: false,
      length: 0,
      negative: 0,
      damaged: 0,
      other: 0,
      rewriting: false,
      stored: 0,
      failed: 0,
    };
  }

  #reads(entry: TailEntry): RecoveryEffect[] {
    const { entryId } = entry;
    return slotsOf(entry).map(({ slot, bookie }) => ({ type: 'read', entryId, slot, bookie }));
  }

  #onRead(event: { entryId: number; slot: number; outcome: ReadOutcome }): readonly RecoveryEffect[] {
    const entry = this.#tailAt(event.entryId);
    if (entry === undefined || entry.valid) return NOTHING;
    this.#record(entry, event.slot, event.outcome);
    return this.#decide();
  }

  #tailAt(entryId: number): TailEntry | undefined {
    const first = this.#tail[0];
    return first === undefined ? undefined : this.#tail[entryId - first.entryId];
  }

  #record(entry: TailEntry, slot: number, outcome: ReadOutcome): void {
    const bit = 1 << slot;
    switch (outcome.kind) {
      case 'valid':
        entry.valid = true;
        entry.length = outcome.length;
        return;
      case 'negative':
        entry.negative |= bit;
        return;
      case 'damaged':
        entry.damaged |= bit;
        return;
      case 'badKey':
        this.#badKey = true;
        entry.other |= bit;
        return;
      case 'unknown':
        entry.other |= bit;
    }
  }

  /**
   * LP-16, in order of entries: a valid copy is rewritten; (Qw-Qa)+1 explicit negatives are the end; anything else, once
   * everybody has answered, is neither. What was read ahead of the end is dropped (LP-19).
   */
  #decide(): readonly RecoveryEffect[] {
    const effects: RecoveryEffect[] = [];
    for (const entry of this.#tail) {
      if (entry.rewriting) continue;
      if (entry.valid) {
        entry.rewriting = true;
        const { entryId } = entry;
        for (const { slot, bookie } of slotsOf(entry)) effects.push({ type: 'rewrite', entryId, slot, bookie });
        continue;
      }
      if (slotCount(entry.negative) >= negativesNeeded(this.#metadata.quorum)) {
        this.#end = entry.entryId;
        this.#tail = this.#tail.slice(0, entry.entryId - (this.#tail[0] as TailEntry).entryId);
        return [...effects, ...this.#finish()];
      }
      if (allAnswered(entry)) return [...effects, ...this.#abortRead(entry)];
      break;
    }
    return effects;
  }

  /** LP-17: each needs an ack quorum of rewritten copies. */
  #onRewritten(entryId: number, slot: number, stored: boolean): readonly RecoveryEffect[] {
    const entry = this.#tailAt(entryId);
    if (entry === undefined) return NOTHING;
    const { quorum } = this.#metadata;
    if (stored) entry.stored |= 1 << slot;
    else entry.failed |= 1 << slot;
    if (slotCount(entry.failed) > quorum.writeQuorum - quorum.ackQuorum) {
      return this.#abort('unreachable', `entry ${entryId} could not be rewritten to ${quorum.ackQuorum} bookies`);
    }
    for (let head = this.#tail[0]; head !== undefined; head = this.#tail[0]) {
      if (slotCount(head.stored) < quorum.ackQuorum) break;
      this.#recovered = { entryId: head.entryId, length: head.length };
      this.#tail.shift();
    }
    return [...this.#readMore(), ...this.#finish()];
  }

  /** LP-19: only when the end is proved and all before it is rewritten. */
  #finish(): readonly RecoveryEffect[] {
    if (this.#end === undefined || this.#tail.length > 0) return NOTHING;
    const { entryId, length } = this.#recovered;
    assert(entryId === this.#end - 1, 'every entry before the end has been recovered');
    if (length !== undefined) return this.#close(entryId, length);
    // Nothing was rewritten, so no entry has told the ledger's length: the last confirmed one does.
    this.#phase = 'anchor';
    const anchor = this.#tailEntry(entryId, fragmentOf(this.#metadata, entryId).fragment);
    this.#tail = [anchor];
    return this.#reads(anchor);
  }

  #onAnchor(event: { entryId: number; slot: number; outcome: ReadOutcome }): readonly RecoveryEffect[] {
    const [anchor] = this.#tail;
    if (anchor === undefined || anchor.entryId !== event.entryId) return NOTHING;
    this.#record(anchor, event.slot, event.outcome);
    if (anchor.valid) return this.#close(anchor.entryId, anchor.length);
    return allAnswered(anchor) ? this.#abortRead(anchor) : NOTHING;
  }

  #close(lastEntryId: EntryId, length: number): readonly RecoveryEffect[] {
    this.#phase = 'done';
    return [{ type: 'close', lastEntryId, length }];
  }

  #abortRead(entry: TailEntry): readonly RecoveryEffect[] {
    const counts = `${slotCount(entry.negative)} say no, ${slotCount(entry.damaged)} damaged, ${slotCount(entry.other)} unknown`;
    const detail = `copies of entry ${entry.entryId}: ${counts}; ${negativesNeeded(this.#metadata.quorum)} no are needed`;
    if (this.#badKey) return this.#abort('badKey', detail);
    // A copy that nobody has seen may be good; only when all are known is the entry lost.
    return this.#abort(entry.other === 0 ? 'damaged' : 'unreachable', detail);
  }

  #abort(reason: AbortReason, detail: string): readonly RecoveryEffect[] {
    this.#phase = 'done';
    return [{ type: 'abort', reason, detail }];
  }
}

function slotsOf(entry: TailEntry): { slot: number; bookie: string }[] {
  return entry.fragment.bookies
    .map((bookie, slot) => ({ slot, bookie }))
    .filter(({ slot }) => (entry.writeSet & (1 << slot)) !== 0);
}

function allAnswered(entry: TailEntry): boolean {
  return (entry.negative | entry.damaged | entry.other) === entry.writeSet;
}
