/**
 * The writer's side of the protocol as a pure machine: which copies of which entries are out, when an entry is complete, what
 * is last-add-confirmed (LP-2, LP-4 to LP-7, LP-20). `step(event)` changes the state and returns what is to be done, in order.
 *
 * Invariants: callers hear of entries strictly in order of ids; `confirmed` never goes back; after `fail` nothing is sent or
 * confirmed any more.
 */
import { assert, assertNever } from '../../lib/assert.ts';
import { type EntryId, NO_ENTRY } from '../../lib/ids.ts';
import { type Quorum, slotCount, writeSet } from './distribution.ts';
import { type Hole, Holes } from './holes.ts';

/** Why a writer has stopped. */
export type StopReason =
  /** Another client has fenced the ledger, or the master key is another's (LP-6). */
  | 'fenced'
  /** Too many copies of an entry failed. */
  | 'notEnoughBookies'
  /** The writer's owner closed it (LP-20). */
  | 'closed';

export type AddEvent =
  /** The next entry. */
  | { readonly type: 'add' }
  /** A bookie has stored its copy. */
  | { readonly type: 'stored'; readonly entryId: number; readonly slot: number; readonly bookie: string }
  /** A bookie has not, or nobody knows. It may still turn out that it has: then `stored` follows. */
  | { readonly type: 'failed'; readonly entryId: number; readonly slot: number; readonly bookie: string }
  /** A bookie says that the ledger is fenced. */
  | { readonly type: 'fenced' }
  /** The owner closes the writer. */
  | { readonly type: 'close' }
  /** An ensemble change begins (LP-5). */
  | { readonly type: 'changeBegun' }
  /** It is committed: `ensemble` holds the entries from `firstEntryId` on. */
  | { readonly type: 'changed'; readonly firstEntryId: number; readonly ensemble: readonly string[] }
  /** It did not happen; the ensemble stays. */
  | { readonly type: 'changeAbandoned' };

export type AddEffect =
  /** Send the entry's copy to the bookie in the slot. */
  | { readonly type: 'send'; readonly entryId: EntryId; readonly slot: number; readonly bookie: string }
  /** The entry is confirmed: tell its caller. */
  | { readonly type: 'confirm'; readonly entryId: EntryId }
  /** All pending entries have failed: tell their callers, in order. Comes once, last. */
  | { readonly type: 'fail'; readonly reason: StopReason };

interface PendingAdd {
  readonly entryId: EntryId;
  /** Slots whose present bookie has stored it. */
  stored: number;
  /** Slots whose present bookie has not, as far as is known. */
  failed: number;
}

const NOTHING: readonly AddEffect[] = [];

export class AddTracker {
  readonly #quorum: Quorum;
  #ensemble: readonly string[];
  #nextEntryId = 0;
  #confirmed: EntryId = NO_ENTRY;
  /** Entries above `#confirmed`, in order: the first one is `#confirmed + 1`. */
  #pending: PendingAdd[] = [];
  /** How many at the head of `#pending` are confirmed already: cut off now and then, so that a step costs the same always. */
  #done = 0;
  #changing = false;
  #stopped: StopReason | undefined;
  readonly #holes = new Holes();

  constructor(quorum: Quorum, ensemble: readonly string[]) {
    assert(ensemble.length === quorum.ensembleSize, 'an ensemble has a bookie in every slot');
    this.#quorum = quorum;
    this.#ensemble = ensemble;
  }

  /** Last-add-confirmed. */
  get confirmed(): EntryId {
    return this.#confirmed;
  }

  /** The id that the next entry gets. */
  get nextEntryId(): EntryId {
    return this.#nextEntryId as EntryId;
  }

  get pending(): number {
    return this.#pending.length - this.#done;
  }

  get stopped(): StopReason | undefined {
    return this.#stopped;
  }

  get ensemble(): readonly string[] {
    return this.#ensemble;
  }

  /** Copies of confirmed entries that are missing, as far as is known. */
  get holes(): readonly Hole[] {
    return this.#holes.list();
  }

  step(event: AddEvent): readonly AddEffect[] {
    switch (event.type) {
      case 'add':
        return this.#add();
      case 'stored':
        return this.#answered(event, true);
      case 'failed':
        return this.#answered(event, false);
      case 'fenced':
        return this.#stop('fenced');
      case 'close':
        return this.#stop('closed');
      case 'changeBegun':
        assert(!this.#changing, 'one ensemble change at a time');
        this.#changing = true;
        return NOTHING;
      case 'changed':
        return this.#changed(event.firstEntryId, event.ensemble);
      case 'changeAbandoned':
        this.#changing = false;
        return this.#progress();
      default:
        return assertNever(event);
    }
  }

  #add(): readonly AddEffect[] {
    assert(this.#stopped === undefined, 'a stopped writer takes no entries');
    const entryId = this.#nextEntryId++ as EntryId;
    this.#pending.push({ entryId, stored: 0, failed: 0 });
    return this.#sends(entryId, writeSet(this.#quorum, entryId));
  }

  #sends(entryId: EntryId, slots: number): AddEffect[] {
    const effects: AddEffect[] = [];
    for (let slot = 0; slot < this.#ensemble.length; slot++) {
      const bookie = this.#ensemble[slot];
      if (bookie !== undefined && (slots & (1 << slot)) !== 0) effects.push({ type: 'send', entryId, slot, bookie });
    }
    return effects;
  }

  #answered(event: { entryId: number; slot: number; bookie: string }, stored: boolean): readonly AddEffect[] {
    const { entryId, slot, bookie } = event;
    // Only the bookie that holds the slot now counts (LP-4): one that was replaced may hold it as well, and nobody will ask it.
    if (this.#stopped !== undefined || this.#ensemble[slot] !== bookie) return NOTHING;
    if (entryId <= this.#confirmed) {
      if (!stored) this.#holes.add(slot, bookie, entryId);
      return NOTHING;
    }
    const pending = this.#pendingAt(entryId);
    const bit = 1 << slot;
    if (stored) {
      pending.stored |= bit;
      pending.failed &= ~bit;
    } else if ((pending.stored & bit) === 0) {
      pending.failed |= bit;
    }
    return this.#progress(pending);
  }

  #pendingAt(entryId: number): PendingAdd {
    const pending = this.#pending[this.#done + entryId - this.#confirmed - 1];
    assert(pending !== undefined && pending.entryId === entryId, `entry ${entryId} has not been added`);
    return pending;
  }

  /** Confirms what can be confirmed, from the head on; stops when an entry (`changed`, or any) can no longer be stored. */
  #progress(changed?: PendingAdd): readonly AddEffect[] {
    if (this.#stopped !== undefined || this.#changing) return NOTHING; // LP-5: nobody is told while slots are changing
    let effects: AddEffect[] | undefined;
    for (let head = this.#pending[this.#done]; head !== undefined; head = this.#pending[this.#done]) {
      if (slotCount(head.stored) < this.#quorum.ackQuorum) break;
      this.#confirmed = head.entryId;
      this.#done++;
      for (let slot = 0; head.failed >>> slot !== 0; slot++) {
        if ((head.failed & (1 << slot)) !== 0) this.#holes.add(slot, this.#ensemble[slot] as string, head.entryId);
      }
      effects ??= [];
      effects.push({ type: 'confirm', entryId: head.entryId });
    }
    if (this.#done > 64 && this.#done * 2 > this.#pending.length) {
      this.#pending = this.#pending.slice(this.#done);
      this.#done = 0;
    }
    const lost =
      changed === undefined ? this.#pending.slice(this.#done).some((one) => this.#isLost(one)) : this.#isLost(changed);
    if (lost) return [...(effects ?? NOTHING), ...this.#stop('notEnoughBookies')];
    return effects ?? NOTHING;
  }

  /** True when too few copies are left that could still be stored. */
  #isLost(pending: PendingAdd): boolean {
    return slotCount(pending.failed) > this.#quorum.writeQuorum - this.#quorum.ackQuorum;
  }

  #stop(reason: StopReason): readonly AddEffect[] {
    if (this.#stopped !== undefined) return NOTHING;
    this.#stopped = reason;
    this.#pending = [];
    this.#done = 0;
    return [{ type: 'fail', reason }];
  }

  /** LP-7, after the compare-and-set: answers of replaced bookies are void, their copies go to the new ones. */
  #changed(firstEntryId: number, ensemble: readonly string[]): readonly AddEffect[] {
    assert(
      this.#changing && ensemble.length === this.#ensemble.length,
      'an ensemble change was begun and keeps the slots',
    );
    assert(firstEntryId === this.#confirmed + 1, 'a new fragment begins behind last-add-confirmed');
    this.#changing = false;
    if (this.#stopped !== undefined) return NOTHING;
    let replaced = 0;
    for (let slot = 0; slot < ensemble.length; slot++)
      if (ensemble[slot] !== this.#ensemble[slot]) replaced |= 1 << slot;
    this.#ensemble = ensemble;
    const effects: AddEffect[] = [];
    for (const pending of this.#pending.slice(this.#done)) {
      pending.stored &= ~replaced;
      pending.failed &= ~replaced;
      effects.push(...this.#sends(pending.entryId, writeSet(this.#quorum, pending.entryId) & replaced));
    }
    return [...effects, ...this.#progress()];
  }
}
