/**
 * Recovery-open as a pure machine (LP-14 to LP-19): fence the ledger, find its last entry, rewrite the tail, close.
 *
 * It starts when the metadata is in recovery, works on that frozen copy of it, and ends with one `close` or one `abort`; an
 * aborted ledger stays in recovery, and anybody may try again. Every request that it asks for is a fencing one (LP-21a).
 * Damage ends no recovery: an entry of which every copy was answered for and none is good is passed over as lost (LP-31).
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
  /** Limbo (LP-29): the bookie answers that it may have stored it, and cannot give it. */
  | { readonly kind: 'limbo' }
  /** The master key is not the ledger's. */
  | { readonly kind: 'badKey' }
  /** No answer, no access: it may have a good copy. */
  | { readonly kind: 'unknown' };

/** What a bookie said to a fencing read of the last-add-confirmed. */
export type LacOutcome =
  /** Fenced. The highest last-add-confirmed, and the highest entry, that it knows of, good or not; NO_ENTRY: none. */
  | { readonly kind: 'fenced'; readonly lac: number; readonly lastEntryId: number }
  | { readonly kind: 'badKey' }
  | { readonly kind: 'unknown' };

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
  /** The entry counts as stored, and no good copy of it is left (LP-31). At most once for each. */
  | { readonly type: 'lost'; readonly entryId: EntryId; readonly detail: string }
  /** Close the ledger there by compare-and-set (LP-19). `lostTail`: there may have been more (LP-32). */
  | { readonly type: 'close'; readonly lastEntryId: EntryId; readonly length: number; readonly lostTail: boolean }
  | { readonly type: 'abort'; readonly reason: AbortReason; readonly detail: string };

/** `unreachable`: too few answers, try again. */
export type AbortReason = 'unreachable' | 'badKey';

interface TailEntry {
  readonly entryId: EntryId;
  readonly fragment: Fragment;
  readonly writeSet: number;
  valid: boolean;
  length: number;
  negative: number;
  damaged: number;
  limbo: number;
  other: number;
  rewriting: boolean;
  lost: boolean;
  stored: number;
  failed: number;
}

/** So many lost entries at the end are passed over while one is looked for that says how long the ledger is. */
const ANCHOR_STEPS = 64;

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
  /** The highest entry that a bookie knows of, or that was found. */
  #highest: EntryId = NO_ENTRY;
  /** Entries from the start of the tail on, in order; the head goes when it is rewritten. */
  #tail: TailEntry[] = [];
  #nextRead = 0;
  /** The last entry that is rewritten, or needs no rewriting, or is lost; and the length up to there, when known. */
  #recovered: { entryId: EntryId; length: number | undefined } = { entryId: NO_ENTRY, length: 0 };
  /** The entry that a quorum of negatives has proved absent, or that nobody knows of (`#lostTail`). */
  #end: number | undefined;
  #lostTail = false;
  #anchorSteps = 0;

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
    if (this.#phase !== 'fencing' && this.#phase !== 'reading') return NOTHING;
    const bit = 1 << slot;
    if (outcome.kind === 'fenced') {
      this.#fenced |= bit;
      this.#lac = Math.max(this.#lac, outcome.lac) as EntryId;
      this.#know(outcome.lastEntryId);
    } else {
      this.#lacUnknown |= bit;
      this.#badKey ||= outcome.kind === 'badKey';
    }
    if (this.#phase === 'reading') return this.#decide(); // it may wait for what this bookie knows of
    const { quorum } = this.#metadata;
    if (covers(quorum, this.#fenced)) return this.#startReading();
    if (slotCount(this.#fenced | this.#lacUnknown) < quorum.ensembleSize) return NOTHING;
    return this.#abort(this.#badKey ? 'badKey' : 'unreachable', this.#fencedText());
  }

  #know(entryId: number): void {
    this.#highest = Math.max(this.#highest, entryId) as EntryId;
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
      limbo: 0,
      other: 0,
      rewriting: false,
      lost: false,
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
    if (entry === undefined || entry.valid || entry.lost) return NOTHING;
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
        this.#know(entry.entryId);
        return;
      case 'negative':
        entry.negative |= bit;
        return;
      case 'damaged':
        entry.damaged |= bit;
        this.#know(entry.entryId);
        return;
      case 'limbo':
        entry.limbo |= bit;
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
   * LP-16, in order of entries: a valid copy is rewritten; (Qw-Qa)+1 explicit negatives are the end. When everybody has
   * answered and neither came out of it, the entry is lost (LP-31), or the end is (LP-32). What was read ahead of the end is
   * dropped (LP-19).
   */
  #decide(): readonly RecoveryEffect[] {
    const effects: RecoveryEffect[] = [];
    for (const entry of this.#tail) {
      if (entry.rewriting || entry.lost) continue;
      if (entry.valid) {
        entry.rewriting = true;
        const { entryId } = entry;
        for (const { slot, bookie } of slotsOf(entry)) effects.push({ type: 'rewrite', entryId, slot, bookie });
        continue;
      }
      if (slotCount(entry.negative) >= negativesNeeded(this.#metadata.quorum)) {
        this.#endAt(entry);
        break;
      }
      if (!allAnswered(entry)) break;
      if (entry.other !== 0) return [...effects, ...this.#abortRead(entry)];
      if (entry.entryId > this.#highest) {
        if (!this.#allSaidWhatTheyKnow()) break;
        if (this.#lacUnknown !== 0) return [...effects, ...this.#abort('unreachable', this.#fencedText())];
        this.#lostTail = true;
        this.#endAt(entry);
        break;
      }
      entry.lost = true;
      effects.push(this.#lost(entry));
    }
    return [...effects, ...this.#advance()];
  }

  #endAt(entry: TailEntry): void {
    this.#end = entry.entryId;
    this.#tail = this.#tail.slice(0, entry.entryId - (this.#tail[0] as TailEntry).entryId);
  }

  #allSaidWhatTheyKnow(): boolean {
    return slotCount(this.#fenced | this.#lacUnknown) === this.#metadata.quorum.ensembleSize;
  }

  #fencedText(): string {
    return `${slotCount(this.#fenced)} of ${this.#metadata.quorum.ensembleSize} bookies could be fenced`;
  }

  #lost(entry: TailEntry): RecoveryEffect {
    return { type: 'lost', entryId: entry.entryId, detail: copiesText(entry) };
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
    return this.#advance();
  }

  /** Lets go of entries at the head that are done. */
  #advance(): readonly RecoveryEffect[] {
    for (let head = this.#tail[0]; head !== undefined; head = this.#tail[0]) {
      if (!head.lost && slotCount(head.stored) < this.#metadata.quorum.ackQuorum) break;
      this.#recovered = { entryId: head.entryId, length: head.lost ? this.#recovered.length : head.length };
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
    return this.#askAnchor(entryId);
  }

  #askAnchor(entryId: EntryId): readonly RecoveryEffect[] {
    const anchor = this.#tailEntry(entryId, fragmentOf(this.#metadata, entryId).fragment);
    this.#tail = [anchor];
    return this.#reads(anchor);
  }

  /** Where the last entries are lost, the last good one has to do: the length is then that of what is left. */
  #onAnchor(event: { entryId: number; slot: number; outcome: ReadOutcome }): readonly RecoveryEffect[] {
    const [anchor] = this.#tail;
    if (anchor === undefined || anchor.entryId !== event.entryId) return NOTHING;
    this.#record(anchor, event.slot, event.outcome);
    const { entryId } = anchor;
    const end = this.#recovered.entryId;
    if (anchor.valid) return this.#close(end, anchor.length);
    if (!allAnswered(anchor)) return NOTHING;
    if (anchor.other !== 0) return this.#abortRead(anchor);
    const lost = this.#lost(anchor);
    this.#anchorSteps++;
    if (entryId === 0 || this.#anchorSteps > ANCHOR_STEPS) return [lost, ...this.#close(end, 0)];
    return [lost, ...this.#askAnchor((entryId - 1) as EntryId)];
  }

  #close(lastEntryId: EntryId, length: number): readonly RecoveryEffect[] {
    this.#phase = 'done';
    return [{ type: 'close', lastEntryId, length, lostTail: this.#lostTail }];
  }

  #abortRead(entry: TailEntry): readonly RecoveryEffect[] {
    const detail = `${copiesText(entry)}; ${negativesNeeded(this.#metadata.quorum)} no are needed`;
    return this.#abort(this.#badKey ? 'badKey' : 'unreachable', detail);
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
  return (entry.negative | entry.damaged | entry.limbo | entry.other) === entry.writeSet;
}

function copiesText({ entryId, negative, damaged, limbo, other }: TailEntry): string {
  const counts = `${slotCount(negative)} say no, ${slotCount(damaged)} damaged, ${slotCount(limbo)} in limbo`;
  return `copies of entry ${entryId}: ${counts}, ${slotCount(other)} unknown`;
}
