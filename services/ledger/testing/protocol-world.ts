/**
 * A small world for the pure machines: one writer, some recoverers, bookies and the ledger's metadata. Every message is
 * delivered in an order that chance decides, late, after its time-out, or not at all; bookies lose disks; the writer changes
 * its ensemble.
 *
 * Checked at every close and at the end (LP-21): every entry that was acknowledged is at or below the closed end; every
 * such entry is still on a bookie that readers ask; every entry of the closed ledger is on an ack quorum; bodies belong to their ids; and the
 * end never moves. With fewer damaged bookies than an ack quorum nothing counts as lost (LP-31); with more, nothing of which
 * there is a copy is cut off (LP-32). `Rules` are what the world keeps to; a test breaks one to see the checks fail.
 */
import { assert } from '../../lib/assert.ts';
import type { LedgerId, Millis } from '../../lib/ids.ts';
import type { Random } from '../../runtime/random.ts';
import { type AddEffect, type AddEvent, AddTracker } from '../protocol/add-tracker.ts';
import { inWriteSet, type Quorum } from '../protocol/distribution.ts';
import {
  beginRecovery,
  changeEnsemble,
  closeByRecovery,
  closeByWriter,
  fragmentOf,
  type LedgerMetadata,
  lastFragment,
  newLedger,
  type Transition,
} from '../protocol/ledger-metadata.ts';
import { type ReadOutcome, Recovery, type RecoveryEffect, type RecoveryEvent } from '../protocol/recovery.ts';

/** What correct parts do. Each may be broken. */
export interface Rules {
  /** A bookie that knows an entry to be stored, and damaged, says so, and not "never stored" (LP-3, LP-31). */
  readonly damageIsSaid: boolean;
  /** Only a bookie that has answered counts towards a loss (LP-31, LP-32). */
  readonly lossNeedsAnswers: boolean;
  /** The end is not lost before an entry that a bookie knows of (LP-32). */
  readonly highestIsHeeded: boolean;
  /** Reads of recovery fence (LP-16, LP-21a). */
  readonly readsFence: boolean;
  /** A bookie refuses what is not a rewrite once it is fenced (LP-10). */
  readonly fenceHolds: boolean;
  /** A bookie whose disk was lost says "unknown", not "never stored" (LP-28, LP-29). */
  readonly limbo: boolean;
  /** A bookie that does not answer counts as unknown, not as a negative (LP-16). */
  readonly silenceIsUnknown: boolean;
  /** Recovery rewrites before it closes (LP-17). */
  readonly rewrites: boolean;
}

const ALL_RULES: Rules = {
  damageIsSaid: true,
  lossNeedsAnswers: true,
  highestIsHeeded: true,
  readsFence: true,
  fenceHolds: true,
  limbo: true,
  silenceIsUnknown: true,
  rewrites: true,
};

export interface WorldOptions {
  readonly random: Random;
  readonly quorum: Quorum;
  readonly bookies: number;
  readonly entries: number;
  readonly recoverers: number;
  /** Chance of each message, and of each answer, to be lost. */
  readonly loss: number;
  /** One bookie loses its disk at some time. */
  readonly diskLoss?: boolean;
  /** So many bookies are damaged at some time: of each entry that they have, a copy may go bad; some lose track of what they had. */
  readonly damagedBookies?: number;
  /** The writer replaces bookies that failed. */
  readonly ensembleChange?: boolean;
  readonly rules?: Partial<Rules>;
}

interface StoredCopy {
  readonly body: string;
  readonly length: number;
  readonly lac: number;
}

class ModelBookie {
  fenced = false;
  limbo = false;
  entries = new Map<number, StoredCopy>();
  /** Entries that it knows to have stored, and cannot give. */
  damaged = new Set<number>();
}

const LEDGER = 1 as LedgerId;
const ENTRY_BYTES = 10;
const RECOVERIES = 4;

export class ProtocolWorld {
  readonly #options: WorldOptions;
  readonly #rules: Rules;
  readonly #bookies = new Map<string, ModelBookie>();
  readonly #writer: AddTracker;
  /** What may happen next; chance takes one. */
  #possible: (() => void)[] = [];
  #metadata: LedgerMetadata;
  #acked = -1;
  #writerClosed = false;
  #changing = false;
  #lostDisks = 0;
  #damagedBookies = 0;
  /** What came about, to be counted by tests: a world in which nothing happens proves nothing. */
  readonly counts = {
    acked: 0,
    rewritten: 0,
    closedByWriter: 0,
    closedByRecovery: 0,
    adopted: 0,
    changes: 0,
    refused: 0,
    lost: 0,
    lostTails: 0,
  };
  /** Every invariant that did not hold. */
  readonly violations: string[] = [];

  constructor(options: WorldOptions) {
    this.#options = options;
    this.#rules = { ...ALL_RULES, ...options.rules };
    const ids = Array.from({ length: options.bookies }, (_, i) => `b${i}`);
    for (const id of ids) this.#bookies.set(id, new ModelBookie());
    const { quorum } = options;
    const ensemble = ids.slice(0, quorum.ensembleSize);
    this.#metadata = newLedger({ quorum, masterKey: Buffer.alloc(16), createdAt: 0 as Millis, ensemble });
    this.#writer = new AddTracker(quorum, ensemble);
  }

  /** Runs until nothing is left to happen; then recovers without faults, and checks. */
  run(): void {
    for (let i = 0; i < this.#options.entries; i++) this.#possible.push(() => this.#add());
    for (let i = 0; i < this.#options.recoverers; i++) this.#sometime(() => this.#recover(RECOVERIES));
    if (this.#options.random.next() < 0.5) this.#sometime(() => this.#closeWriter());
    if (this.#options.diskLoss === true) this.#sometime(() => this.#loseDisk());
    for (const id of this.#chosen(this.#options.damagedBookies ?? 0)) this.#sometime(() => this.#damage(id));
    this.#drain(this.#options.loss);
    this.#recover(1);
    this.#drain(0);
    if (this.#metadata.state !== 'closed') this.violations.push('never closed, though nothing is lost any more');
    this.#check();
  }

  /** Lets much else happen first, mostly. */
  #sometime(action: () => void): void {
    this.#possible.push(() => {
      if (this.#possible.length === 0 || this.#options.random.next() < 0.15) action();
      else this.#sometime(action);
    });
  }

  #loss = 0;

  #drain(loss: number): void {
    this.#loss = loss;
    while (this.#possible.length > 0) {
      const at = Math.floor(this.#options.random.next() * this.#possible.length);
      const [action] = this.#possible.splice(at, 1);
      action?.();
    }
  }

  #bookie(id: string): ModelBookie {
    const bookie = this.#bookies.get(id);
    assert(bookie !== undefined, 'a bookie of this world');
    return bookie;
  }

  /** A request and its answer; either may get lost, and then there is silence. */
  #exchange<Answer>(request: () => Answer, answered: (answer: Answer) => void, silence: () => void): void {
    const lost = (): boolean => this.#options.random.next() < this.#loss;
    this.#possible.push(() => {
      if (lost()) {
        this.#possible.push(silence);
        if (lost()) this.#possible.push(() => void request()); // it was on its way only for very long
        return;
      }
      const answer = request();
      if (!lost()) this.#possible.push(() => answered(answer));
      else if (lost())
        this.#possible.push(silence, () => answered(answer)); // timed out, and then answered
      else this.#possible.push(silence);
    });
  }

  // The writer.

  #add(): void {
    if (this.#writer.stopped === undefined) this.#step({ type: 'add' });
  }

  #step(event: AddEvent): void {
    for (const effect of this.#writer.step(event)) this.#carryOut(effect);
  }

  #carryOut(effect: AddEffect): void {
    if (effect.type === 'send') this.#send(effect);
    if (effect.type !== 'confirm') return;
    this.#acked = effect.entryId;
    this.counts.acked++;
    if (this.#metadata.state === 'closed') this.#check();
  }

  #send({ entryId, slot, bookie }: { entryId: number; slot: number; bookie: string }): void {
    const copy = { body: `body ${entryId}`, length: ENTRY_BYTES * (entryId + 1), lac: this.#writer.confirmed };
    this.#exchange(
      () => this.#store(bookie, entryId, copy, false),
      (stored) => (stored ? this.#step({ type: 'stored', entryId, slot, bookie }) : this.#step({ type: 'fenced' })),
      () => {
        this.#step({ type: 'failed', entryId, slot, bookie });
        this.#changeEnsemble(slot, bookie);
      },
    );
  }

  #store(id: string, entryId: number, copy: StoredCopy, recovery: boolean): boolean {
    const bookie = this.#bookie(id);
    if (bookie.fenced && !recovery && this.#rules.fenceHolds) {
      this.counts.refused++;
      return false;
    }
    bookie.entries.set(entryId, copy);
    bookie.damaged.delete(entryId);
    return true;
  }

  /** LP-5, LP-7. */
  #changeEnsemble(slot: number, failed: string): void {
    if (this.#options.ensembleChange !== true || this.#changing || this.#writer.stopped !== undefined) return;
    const from = lastFragment(this.#metadata);
    if (this.#writer.ensemble[slot] !== failed) return;
    const spare = [...this.#bookies.keys()].filter((id) => !this.#writer.ensemble.includes(id));
    const replacement = spare[Math.floor(this.#options.random.next() * spare.length)];
    if (replacement === undefined) return;
    this.#changing = true;
    this.#step({ type: 'changeBegun' });
    const bookies = this.#writer.ensemble.map((id, at) => (at === slot ? replacement : id));
    const to = { firstEntryId: (this.#writer.confirmed + 1) as typeof from.firstEntryId, bookies };
    this.#possible.push(() => {
      this.#changing = false;
      try {
        this.#change(changeEnsemble(LEDGER, from, to));
        this.counts.changes++;
        this.#step({ type: 'changed', firstEntryId: to.firstEntryId, ensemble: bookies });
      } catch {
        this.#step({ type: 'fenced' });
      }
    });
  }

  #closeWriter(): void {
    this.#step({ type: 'close' });
    if (this.#writerClosed || this.#changing) return;
    this.#writerClosed = true;
    const lastEntryId = this.#writer.confirmed;
    this.#possible.push(() => {
      const before = this.#metadata;
      try {
        this.#change(closeByWriter(LEDGER, { lastEntryId, length: ENTRY_BYTES * (lastEntryId + 1) }));
        if (this.#metadata !== before) this.counts.closedByWriter++;
      } catch {
        // Somebody else has it: whoever asks next finds out where it ends.
      }
    });
  }

  #change(transition: Transition): void {
    const next = transition(this.#metadata);
    if (next === undefined) return;
    if (this.#metadata.state === 'closed') this.violations.push('a closed ledger was changed');
    this.#metadata = next;
    if (next.state !== 'closed') return;
    this.#check();
    if (!next.lostTail) return;
    this.counts.lostTails++;
    // LP-32: the tail is lost only where nobody has anything of it.
    for (let entry = next.lastEntryId + 1; entry <= this.#acked; entry++) {
      if (this.#copies(entry).length > 0) this.violations.push(`entry ${entry} was acknowledged and is cut off`);
    }
  }

  // Recovery.

  #recover(attempts: number): void {
    this.#change(beginRecovery);
    if (this.#metadata.state === 'closed') return;
    const machine = new Recovery(this.#metadata, 1 + Math.floor(this.#options.random.next() * 3));
    const found = new Map<number, StoredCopy>();
    const step = (event: RecoveryEvent): void => {
      for (const effect of machine.step(event)) this.#recovery(effect, { step, found, attempts });
    };
    step({ type: 'start' });
  }

  #recovery(
    effect: RecoveryEffect,
    run: { step: (event: RecoveryEvent) => void; found: Map<number, StoredCopy>; attempts: number },
  ): void {
    switch (effect.type) {
      case 'readLac': {
        const { slot, bookie } = effect;
        this.#exchange(
          () => this.#readLac(bookie),
          (known) => run.step({ type: 'lac', slot, outcome: { kind: 'fenced', ...known } }),
          () => run.step({ type: 'lac', slot, outcome: { kind: 'unknown' } }),
        );
        return;
      }
      case 'read': {
        const { entryId, slot, bookie } = effect;
        const silence: ReadOutcome = { kind: this.#silence() };
        this.#exchange(
          () => this.#read(bookie, entryId),
          ({ outcome, copy }) => {
            if (copy !== undefined && !run.found.has(entryId)) run.found.set(entryId, copy);
            run.step({ type: 'read', entryId, slot, outcome });
          },
          () => run.step({ type: 'read', entryId, slot, outcome: silence }),
        );
        return;
      }
      case 'rewrite':
        this.#rewrite(effect, run);
        return;
      case 'close':
        this.#possible.push(() => {
          const before = this.#metadata;
          this.#change(closeByRecovery(LEDGER, effect));
          if (this.#metadata === before) this.counts.adopted++;
          else this.counts.closedByRecovery++;
        });
        return;
      case 'lost':
        this.counts.lost++;
        return;
      case 'abort':
        if (run.attempts > 1) this.#possible.push(() => this.#recover(run.attempts - 1));
        return;
      default:
    }
  }

  #silence(): 'unknown' | 'negative' | 'limbo' {
    if (!this.#rules.lossNeedsAnswers) return 'limbo';
    return this.#rules.silenceIsUnknown ? 'unknown' : 'negative';
  }

  #readLac(id: string): { lac: number; lastEntryId: number } {
    const bookie = this.#bookie(id);
    bookie.fenced = true;
    const known = this.#rules.highestIsHeeded ? [...bookie.entries.keys(), ...bookie.damaged] : [];
    return {
      lac: Math.max(-1, ...[...bookie.entries.values()].map(({ lac }) => lac)),
      lastEntryId: Math.max(-1, ...known),
    };
  }

  #read(id: string, entryId: number): { outcome: ReadOutcome; copy: StoredCopy | undefined } {
    const bookie = this.#bookie(id);
    if (this.#rules.readsFence) bookie.fenced = true;
    const copy = bookie.entries.get(entryId);
    if (copy !== undefined) return { outcome: { kind: 'valid', length: copy.length }, copy };
    if (bookie.damaged.has(entryId) && this.#rules.damageIsSaid) return { outcome: { kind: 'damaged' }, copy };
    return { outcome: { kind: bookie.limbo && this.#rules.limbo ? 'limbo' : 'negative' }, copy };
  }

  #rewrite(
    { entryId, slot, bookie }: { entryId: number; slot: number; bookie: string },
    run: { step: (event: RecoveryEvent) => void; found: Map<number, StoredCopy> },
  ): void {
    const copy = run.found.get(entryId);
    assert(copy !== undefined, 'what is rewritten has been read');
    if (!this.#rules.rewrites) {
      this.#possible.push(() => run.step({ type: 'rewritten', entryId, slot, stored: true }));
      return;
    }
    this.#exchange(
      () => this.#store(bookie, entryId, copy, true),
      () => {
        this.counts.rewritten++;
        run.step({ type: 'rewritten', entryId, slot, stored: true });
      },
      () => run.step({ type: 'rewritten', entryId, slot, stored: false }),
    );
  }

  // Faults and checks.

  #chosen(count: number): string[] {
    const ids = [...this.#bookies.keys()];
    while (ids.length > count) ids.splice(Math.floor(this.#options.random.next() * ids.length), 1);
    return ids;
  }

  /** LP-28: the bookie comes back empty; it knows that it does, and is fenced for every ledger that it may have had. */
  #loseDisk(): void {
    const [id = ''] = this.#chosen(1);
    const bookie = this.#bookie(id);
    this.#lostDisks++;
    bookie.entries = new Map();
    bookie.fenced = this.#rules.limbo;
    bookie.limbo = true;
  }

  /** Copies go bad: of some the bookie still knows that it had them, of others (from some entry on) nothing (LP-29). */
  #damage(id: string): void {
    const { random } = this.#options;
    const bookie = this.#bookie(id);
    const forgetsFrom = random.next() < 0.5 ? Math.floor(random.next() * this.#options.entries) : undefined;
    for (const entryId of bookie.entries.keys()) {
      if (random.next() < 0.5) continue;
      bookie.entries.delete(entryId);
      if (forgetsFrom === undefined || entryId < forgetsFrom) bookie.damaged.add(entryId);
    }
    if (forgetsFrom !== undefined) {
      bookie.limbo = true;
      bookie.fenced ||= this.#rules.limbo; // it takes nothing more of the ledger (LP-29)
    }
    this.#damagedBookies++;
  }

  #copies(entryId: number): StoredCopy[] {
    const { fragment } = fragmentOf(this.#metadata, entryId);
    return fragment.bookies
      .filter((_, slot) => inWriteSet(this.#metadata.quorum, entryId, slot))
      .map((id) => this.#bookie(id).entries.get(entryId))
      .filter((copy) => copy !== undefined);
  }

  #check(): void {
    const { state, lastEntryId, length, quorum, lostTail } = this.#metadata;
    if (state !== 'closed') return;
    const faults = this.#lostDisks + this.#damagedBookies;
    if (this.#acked > lastEntryId && !lostTail)
      this.violations.push(`entry ${this.#acked} was acknowledged; the end is ${lastEntryId}`);
    if (faults < quorum.ackQuorum && (lostTail || this.counts.lost > 0))
      this.violations.push(`a loss with ${faults} faults, where ${quorum.ackQuorum} copies were acknowledged`);
    const whole = length === ENTRY_BYTES * (lastEntryId + 1);
    if (!whole && faults < quorum.ackQuorum) this.violations.push(`length ${length} at end ${lastEntryId}`);
    for (let entry = 0; entry <= lastEntryId; entry++) {
      const copies = this.#copies(entry);
      const enough = faults >= quorum.ackQuorum ? 0 : quorum.ackQuorum - faults;
      if (copies.length < enough)
        this.violations.push(`entry ${entry} of the closed ledger has ${copies.length} copies`);
      if (copies.some(({ body }) => body !== `body ${entry}`))
        this.violations.push(`entry ${entry} has another one's body`);
    }
  }
}
