/**
 * The driver of `protocol/recovery.ts` (LP-14 to LP-19, LP-31, LP-32).
 */
import { assert } from '../lib/assert.ts';
import { type ErrorCode, hasCode, MagnetarError, toMagnetarError } from '../lib/errors.ts';
import { type EntryId, type LedgerId, NO_ENTRY } from '../lib/ids.ts';
import type { AppendEntry, BookieId, StoredEntry } from './bookie.ts';
import type { Logger } from '../runtime/logger.ts';
import type { BookieLane } from './bookie-lane.ts';
import type { ClosedLedger } from './ledgers.ts';
import type { LedgerUpdater } from './metadata-update.ts';
import { beginRecovery, closeByRecovery, type LedgerMetadata, type RecoveredEnd } from './protocol/ledger-metadata.ts';
import {
  type AbortReason,
  type LacOutcome,
  type ReadOutcome,
  Recovery,
  type RecoveryEffect,
  type RecoveryEvent,
} from './protocol/recovery.ts';
import { isValid } from './verify.ts';

/** Entries that are read and rewritten at the same time. Each may be megabytes, from every replica. */
const READ_AHEAD = 8;

const ABORT_CODES: Readonly<Record<AbortReason, ErrorCode>> = {
  unreachable: 'UNAVAILABLE',
  badKey: 'BAD_MASTER_KEY',
};

interface RecoveryContext {
  readonly updater: LedgerUpdater;
  readonly lane: (id: BookieId) => BookieLane | undefined;
  readonly logger: Logger;
}

/**
 * Fences a ledger, finds its end and closes it there; on a closed one, says where it ends. Several may do so at the same
 * time: the first to close decides, the others take over what it says. Ends within the deadlines of its requests.
 *
 * What is lost is logged by whoever closes it.
 *
 * @throws NO_SUCH_LEDGER, UNAVAILABLE (too few copies answer: may be tried again), BAD_MASTER_KEY
 */
export async function recoverLedger(context: RecoveryContext, id: LedgerId): Promise<ClosedLedger> {
  const frozen = await context.updater.update(id, beginRecovery);
  if (frozen.state === 'closed') return closed(id, frozen);
  const run = new RecoveryRun(context, id, frozen);
  const end = await run.run();
  const metadata = await context.updater.update(id, closeByRecovery(id, end));
  if (metadata.lostTail) logLostTail(context.logger, id, metadata);
  for (const { first, last, why } of run.lost) {
    context.logger.error(`entries ${first} to ${last} of ledger ${id} are lost: ${why}`, { ledger: id, first, last });
  }
  return closed(id, metadata);
}

function logLostTail(logger: Logger, ledger: LedgerId, { lastEntryId }: LedgerMetadata): void {
  const last =
    lastEntryId === NO_ENTRY ? 'before its first entry' : `at entry ${lastEntryId}, the last one that is known`;
  const text = `ledger ${ledger} is closed ${last}: no copy can say what came behind it, and that is lost`;
  logger.error(text, { ledger, lastEntryId });
}

function closed(ledgerId: LedgerId, metadata: LedgerMetadata): ClosedLedger {
  const { lastEntryId, length, lostTail } = metadata;
  return { ledgerId, lastEntryId, length, lostTail };
}

/** Consecutive lost entries, and why the first one is. */
interface LostRun {
  readonly first: number;
  last: number;
  readonly why: string;
}

class RecoveryRun {
  readonly #context: RecoveryContext;
  readonly #id: LedgerId;
  readonly #metadata: LedgerMetadata;
  readonly #machine: Recovery;
  /** A valid copy of each entry of the tail that was found, while it may have to be rewritten: not below `#oldest`. */
  readonly #found = new Map<number, StoredEntry>();
  readonly lost: LostRun[] = [];
  #oldest = 0;
  #resolve: (end: RecoveredEnd) => void = () => {};
  #reject: (error: MagnetarError) => void = () => {};

  constructor(context: RecoveryContext, id: LedgerId, frozen: LedgerMetadata) {
    this.#context = context;
    this.#id = id;
    this.#metadata = frozen;
    this.#machine = new Recovery(frozen, READ_AHEAD);
  }

  run(): Promise<RecoveredEnd> {
    return new Promise<RecoveredEnd>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      this.#step({ type: 'start' });
    });
  }

  #step(event: RecoveryEvent): void {
    try {
      for (const effect of this.#machine.step(event)) this.#run(effect);
    } catch (error) {
      this.#reject(toMagnetarError(error));
    }
  }

  #run(effect: RecoveryEffect): void {
    switch (effect.type) {
      case 'readLac':
        void this.#readLac(effect.bookie).then((outcome) => {
          this.#step({ type: 'lac', slot: effect.slot, outcome });
        });
        return;
      case 'read':
        this.#forget(effect.entryId - READ_AHEAD);
        void this.#read(effect.entryId, effect.bookie).then((outcome) => {
          this.#step({ type: 'read', entryId: effect.entryId, slot: effect.slot, outcome });
        });
        return;
      case 'rewrite':
        this.#rewrite(effect.entryId, effect.slot, effect.bookie);
        return;
      case 'lost':
        this.#noteLost(effect.entryId, effect.detail);
        return;
      case 'close':
        this.#resolve(effect);
        return;
      case 'abort':
        this.#reject(
          new MagnetarError(ABORT_CODES[effect.reason], `ledger ${this.#id} cannot be recovered: ${effect.detail}`),
        );
    }
  }

  #noteLost(entryId: EntryId, why: string): void {
    const before = this.lost.at(-1);
    if (before?.last === entryId - 1) before.last = entryId;
    else this.lost.push({ first: entryId, last: entryId, why });
  }

  /** An entry so far behind the newest read has been rewritten. */
  #forget(upTo: number): void {
    this.#oldest = Math.max(this.#oldest, upTo + 1);
    for (const entryId of this.#found.keys()) if (entryId < this.#oldest) this.#found.delete(entryId);
  }

  #lane(bookie: BookieId): BookieLane {
    const lane = this.#context.lane(bookie);
    if (lane === undefined) throw new MagnetarError('UNAVAILABLE', `bookie ${bookie} is not known to this process`);
    return lane;
  }

  async #readLac(bookie: BookieId): Promise<LacOutcome> {
    try {
      const fence = { masterKey: this.#metadata.masterKey };
      const { lac, lastEntryId } = await this.#lane(bookie).readLac({ ledgerId: this.#id, fence });
      return { kind: 'fenced', lac, lastEntryId };
    } catch (error) {
      return { kind: hasCode(error, 'BAD_MASTER_KEY') ? 'badKey' : 'unknown' };
    }
  }

  async #read(entryId: EntryId, bookie: BookieId): Promise<ReadOutcome> {
    try {
      const [stored] = await this.#lane(bookie).read({
        ledgerId: this.#id,
        firstEntryId: entryId,
        maxEntries: 1,
        maxBytes: 1,
        fence: { masterKey: this.#metadata.masterKey }, // LP-21a
      });
      if (stored === undefined || !isValid(this.#id, entryId, stored)) return { kind: 'damaged' };
      if (entryId >= this.#oldest && !this.#found.has(entryId)) this.#found.set(entryId, stored);
      return { kind: 'valid', length: stored.length };
    } catch (thrown) {
      const error = toMagnetarError(thrown);
      if (hasCode(error, 'NO_SUCH_ENTRY', 'NO_SUCH_LEDGER')) return { kind: 'negative' };
      if (hasCode(error, 'CHECKSUM_MISMATCH')) return { kind: 'damaged' };
      if (hasCode(error, 'ENTRY_UNKNOWN')) return { kind: 'limbo' };
      return { kind: hasCode(error, 'BAD_MASTER_KEY') ? 'badKey' : 'unknown' };
    }
  }

  /** The copy as it was found, numbers and digest included, so that all copies stay alike (LP-17). */
  #rewrite(entryId: EntryId, slot: number, bookie: BookieId): void {
    const stored = this.#found.get(entryId);
    assert(stored !== undefined, 'what is rewritten has been read');
    const { lac, length, digest, payload } = stored;
    const entry: AppendEntry = {
      ledgerId: this.#id,
      entryId,
      lac,
      length,
      digest,
      masterKey: this.#metadata.masterKey,
      recovery: true,
      payload: [payload],
      payloadBytes: payload.length,
    };
    const settled = (error: MagnetarError | undefined): void => {
      this.#step({ type: 'rewritten', entryId, slot, stored: error === undefined });
    };
    const lane = this.#context.lane(bookie);
    if (lane !== undefined) lane.append({ entry, settled });
    else void Promise.resolve().then(() => this.#step({ type: 'rewritten', entryId, slot, stored: false }));
  }
}
