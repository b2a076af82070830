/**
 * The driver of `protocol/add-tracker.ts`: sends copies, tells callers, closes the ledger.
 */
import { assertNever } from '../lib/assert.ts';
import { hasCode, MagnetarError } from '../lib/errors.ts';
import type { EntryId, LedgerId } from '../lib/ids.ts';
import { byteLength } from '../lib/views.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Logger } from '../runtime/logger.ts';
import { entryDigest } from '../wire/digest.ts';
import type { AppendEntry, BookieId } from './bookie.ts';
import type { BookieLane, Copy } from './bookie-lane.ts';
import type { ClosedLedger, LedgerWriter } from './ledgers.ts';
import type { LedgerStats } from './metrics.ts';
import type { LedgerUpdater } from './metadata-update.ts';
import { type AddEffect, type AddEvent, AddTracker, type StopReason } from './protocol/add-tracker.ts';
import { closeByWriter, type LedgerMetadata, lastFragment } from './protocol/ledger-metadata.ts';

type Done = (error?: MagnetarError) => void;

interface WriterOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly id: LedgerId;
  readonly metadata: LedgerMetadata;
  readonly lane: (id: BookieId) => BookieLane | undefined;
  readonly updater: LedgerUpdater;
  readonly stats: LedgerStats;
  /** Called once, when it takes no more entries. */
  readonly ended: (writer: Writer) => void;
}

/** An entry that has not been confirmed. */
interface Pending {
  readonly entry: AppendEntry;
  /** Monotonic time. */
  readonly appendedAt: number;
  readonly done: Done;
  readonly copies: { readonly lane: BookieLane; readonly copy: Copy }[];
}

export class Writer implements LedgerWriter {
  readonly ledgerId: LedgerId;
  readonly #options: WriterOptions;
  readonly #tracker: AddTracker;
  readonly #pending = new Map<EntryId, Pending>();
  #pendingBytes = 0;
  /** Bytes of all entries given out; and up to the last confirmed one. */
  #length = 0;
  #confirmedLength = 0;
  #failure: MagnetarError | undefined;
  /** The last error of a copy: says why a quorum could not be reached. */
  #lastError: MagnetarError | undefined;
  #closing: Promise<ClosedLedger> | undefined;
  /** Effects run one after another, also when one of them calls back into the writer. */
  readonly #effects: AddEffect[] = [];
  #running = false;

  constructor(options: WriterOptions) {
    this.ledgerId = options.id;
    this.#options = options;
    this.#tracker = new AddTracker(options.metadata.quorum, lastFragment(options.metadata).bookies);
  }

  get lastConfirmed(): EntryId {
    return this.#tracker.confirmed;
  }

  get pendingEntries(): number {
    return this.#pending.size;
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  get failure(): MagnetarError | undefined {
    return this.#failure;
  }

  append(payload: readonly Buffer[], done: Done, lastCrc32c?: number): EntryId {
    const entryId = this.#tracker.nextEntryId;
    if (this.#failure !== undefined) {
      const failure = this.#failure;
      this.#options.clock.nextTurn(() => done(failure));
      return entryId;
    }
    const payloadBytes = byteLength(payload);
    this.#length += payloadBytes;
    const { ledgerId } = this;
    const [lac, length] = [this.#tracker.confirmed, this.#length];
    const entry: AppendEntry = {
      ledgerId,
      entryId,
      lac,
      length,
      digest: entryDigest({ ledgerId, entryId, lac, length, payload, lastCrc32c }),
      masterKey: this.#options.metadata.masterKey,
      recovery: false,
      payload,
      payloadBytes,
      checked: true,
    };
    this.#pending.set(entryId, { entry, appendedAt: this.#options.clock.monotonic(), done, copies: [] });
    this.#pendingBytes += payloadBytes;
    this.#step({ type: 'add' });
    return entryId;
  }

  #step(event: AddEvent): void {
    this.#effects.push(...this.#tracker.step(event));
    const reason = this.#tracker.stopped;
    if (reason !== undefined) this.#failure ??= this.#stopped(reason);
    if (this.#running) return;
    this.#running = true;
    try {
      for (let effect = this.#effects.shift(); effect !== undefined; effect = this.#effects.shift()) this.#run(effect);
    } finally {
      this.#running = false;
    }
  }

  #run(effect: AddEffect): void {
    switch (effect.type) {
      case 'send':
        this.#send(effect.entryId, effect.slot, effect.bookie);
        return;
      case 'confirm':
        this.#confirm(effect.entryId);
        return;
      case 'fail':
        this.#fail();
    }
  }

  #send(entryId: EntryId, slot: number, bookie: BookieId): void {
    const pending = this.#pending.get(entryId);
    if (pending === undefined) return; // confirmed or failed by a callback in between
    const lane = this.#options.lane(bookie);
    const settled = (error: MagnetarError | undefined): void => {
      if (error === undefined) {
        this.#step({ type: 'stored', entryId, slot, bookie });
        return;
      }
      if (hasCode(error, 'LEDGER_FENCED', 'BAD_MASTER_KEY')) {
        this.#stop(error, 'fenced');
        return;
      }
      this.#lastError = error;
      this.#step({ type: 'failed', entryId, slot, bookie });
    };
    if (lane === undefined) {
      const error = new MagnetarError('UNAVAILABLE', `bookie ${bookie} is not known to this process`);
      this.#options.clock.nextTurn(() => settled(error));
      return;
    }
    const copy: Copy = { entry: pending.entry, settled };
    pending.copies.push({ lane, copy });
    lane.append(copy);
  }

  #confirm(entryId: EntryId): void {
    const pending = this.#pending.get(entryId);
    if (pending === undefined) return;
    this.#pending.delete(entryId);
    this.#pendingBytes -= pending.entry.payloadBytes;
    this.#confirmedLength = pending.entry.length;
    const { clock, stats } = this.#options;
    stats.appendLatency.observe(clock.monotonic() - pending.appendedAt);
    for (const { lane, copy } of pending.copies) lane.confirmed(copy);
    pending.done();
  }

  #stopped(reason: StopReason): MagnetarError {
    switch (reason) {
      case 'fenced':
        return new MagnetarError('LEDGER_FENCED', `ledger ${this.ledgerId} has been taken over by another client`);
      case 'notEnoughBookies': {
        const { ackQuorum } = this.#options.metadata.quorum;
        const why = this.#lastError === undefined ? '' : `: ${this.#lastError.message}`;
        const message = `an entry of ledger ${this.ledgerId} cannot reach ${ackQuorum} bookies${why}`;
        const code = hasCode(this.#lastError, 'DISK_FULL') ? 'DISK_FULL' : 'NOT_ENOUGH_BOOKIES';
        return new MagnetarError(code, message, { cause: this.#lastError });
      }
      case 'closed':
        return new MagnetarError('LEDGER_CLOSED', `ledger ${this.ledgerId} is closed`);
      default:
        return assertNever(reason);
    }
  }

  /** Stops for a reason from outside the tracker. */
  #stop(error: MagnetarError, how: 'fenced' | 'close'): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#step({ type: how });
  }

  #fail(): void {
    const error = this.#failure;
    if (!hasCode(error, 'LEDGER_CLOSED', 'ALREADY_CLOSED')) this.#options.stats.failed++;
    this.#options.ended(this);
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    this.#pendingBytes = 0;
    for (const { done } of pending) done(error);
  }

  abandon(error: MagnetarError): void {
    this.#stop(error, 'close');
  }

  close(): Promise<ClosedLedger> {
    this.#closing ??= this.#close().catch((error: unknown) => {
      // Whether it is closed may be open: a later call finds out, and finds the same end.
      if (!hasCode(error, 'LEDGER_FENCED')) this.#closing = undefined;
      throw error;
    });
    return this.#closing;
  }

  async #close(): Promise<ClosedLedger> {
    const { id, logger, updater, stats } = this.#options;
    this.#stop(this.#stopped('closed'), 'close');
    await Promise.resolve(); // called from a callback, confirmations of the same step are still to be told
    // LP-20: nothing is confirmed from here on, so this is the end.
    const end = { lastEntryId: this.#tracker.confirmed, length: this.#confirmedLength };
    const { holes } = this.#tracker;
    if (holes.length > 0) logger.warn('ledger is closed with missing copies', { ledger: id, holes });
    await updater.update(id, closeByWriter(id, end));
    stats.closed++;
    for (const { first, last } of holes) stats.missingCopies += last - first + 1;
    return { ledgerId: id, ...end, lostTail: false };
  }
}
