/**
 * Replaying an ack log: records in the order in which they were written, into the state that they add up to.
 *
 * The state is the one of the last complete snapshot with every record since its *begin* applied: pages are taken one
 * after another while the log goes on, so a record between begin and end may concern a page that was written before
 * it.
 *
 * Entries that are lost are passed over. What can come of it is that messages are delivered again, never that one is not
 * delivered:
 * - Acknowledgments add up in any order, so those that are left count.
 * - A snapshot of which an entry is missing does not count as complete; its pages are taken for what they say.
 * - Each entry says how many records so far have made, deleted or moved a subscription. When one of those is missing, a
 *   subscription may have been moved back: then everything before counts as not acknowledged; and one may be unknown: see
 *   `RecoveredAcks.subscriptionsMissing`.
 */
import type { ClosedLedger, LedgerReader, Ledgers } from '../../ledger/ledgers.ts';
import { assertNever } from '../../lib/assert.ts';
import { hasCode, MagnetarError } from '../../lib/errors.ts';
import { type EntryId, type LedgerId, type MessageIndex, type Millis, NO_ENTRY } from '../../lib/ids.ts';
import { type AckLogEntry, type AckLogRecord, ackLogEntry, type SubscriptionCreated } from '../../wire/records.ts';
import { AckState } from '../protocol/ack-state.ts';
import type { DedupProducer } from '../protocol/dedup.ts';

/** A durable subscription of the topic. The same object for as long as it exists. */
export interface AckSubscription {
  /** Its number within the topic, from 1; never used again. */
  readonly number: number;
  readonly name: string;
  readonly createdAt: Millis;
  /** What is acknowledged, as submitted; it may be ahead of what is durable. Changed by the log alone. */
  readonly state: AckState;
}

/** The deduplication state at some point of the data. */
export interface DedupSnapshot {
  /** It speaks of all messages below this index, and of none from it on. */
  readonly coveredIndex: MessageIndex;
  readonly producers: readonly DedupProducer[];
}

/** Entries of an ack log that are lost. */
export interface AckLoss {
  readonly ledgerId: LedgerId;
  readonly firstEntryId: EntryId;
  /** Undefined: what came behind the ledger's last entry, whatever it was. */
  readonly lastEntryId: EntryId | undefined;
  readonly reason: string;
}

/** What a log adds up to. */
export interface RecoveredAcks {
  readonly subscriptions: readonly AckSubscription[];
  readonly dedup: DedupSnapshot | undefined;
  /** The highest number that a subscription has had. */
  readonly highestNumber: number;
  /** The highest number that a snapshot has had. */
  readonly highestSnapshot: number;
  /** The `structure` of the log's last entry; 1 for a new log. */
  readonly structure: number;
  /** Every message index that the log speaks of is below. */
  readonly heardOf: MessageIndex;
  readonly losses: readonly AckLoss[];
  /** A subscription may have been moved, and that is lost: all of them count as having acknowledged nothing. */
  readonly restarted: boolean;
  /** A subscription may have been made, and that is lost. */
  readonly subscriptionsMissing: boolean;
  /** Numbers of subscriptions that were acknowledged on, and of which nothing else is known. */
  readonly nameless: readonly number[];
  /** As in the newest SnapshotBegin. */
  readonly missingBelow: MessageIndex;
}

/** The sum of the records from some point on. */
class Sum {
  readonly subscriptions = new Map<number, AckSubscription>();
  readonly #producers: DedupProducer[] = [];
  #coveredIndex: MessageIndex | undefined;
  highest = 0;
  /** Subscriptions that were changed without ever having been made. */
  readonly unknown = new Set<number>();

  get dedup(): DedupSnapshot | undefined {
    if (this.#coveredIndex === undefined) return undefined;
    return { coveredIndex: this.#coveredIndex, producers: this.#producers };
  }

  apply(record: AckLogRecord): void {
    switch (record.type) {
      case 'created':
        this.#add(record);
        break;
      case 'deleted':
        this.subscriptions.delete(record.subscription);
        this.highest = Math.max(this.highest, record.subscription);
        break;
      case 'delta':
        this.#known(record.subscription)?.acknowledge(record.below, record.ranges);
        break;
      case 'reset':
        this.#known(record.subscription)?.reset(record.markDelete);
        break;
      case 'page': {
        const { subscription: number, markDelete, moves } = record.subscription;
        const known = this.subscriptions.get(number) ?? this.#add(record.subscription);
        known.state.replace(markDelete, moves, { from: record.fromIndex, to: record.toIndex, runs: record.runs });
        break;
      }
      case 'dedup':
        this.#coveredIndex = record.coveredIndex;
        this.#producers.push(...record.producers);
        break;
      case 'snapshotBegin':
      case 'snapshotEnd':
        break;
    }
  }

  #add({ subscription: number, name, createdAt, markDelete, moves }: SubscriptionCreated): AckSubscription {
    const subscription = { number, name, createdAt, state: new AckState(markDelete, moves) };
    this.subscriptions.set(number, subscription);
    this.highest = Math.max(this.highest, number);
    return subscription;
  }

  #known(number: number): AckState | undefined {
    if (number > this.highest) this.unknown.add(number);
    return this.subscriptions.get(number)?.state;
  }

  /** Nobody has acknowledged anything. */
  restart(): void {
    for (const { state } of this.subscriptions.values()) state.reset(0 as MessageIndex);
  }
}

/** How many of the records make, delete or move a subscription. */
export function structuralIn(records: readonly AckLogRecord[]): number {
  return records.filter(({ type }) => type === 'created' || type === 'deleted' || type === 'reset').length;
}

/** The index behind the highest one that a record speaks of. */
function heardIn(record: AckLogRecord): number {
  switch (record.type) {
    case 'created':
    case 'reset':
      return record.markDelete;
    case 'delta': {
      let highest: number = record.below;
      const { ranges } = record;
      for (let i = 0; i + 1 < ranges.length; i += 2) {
        highest = Math.max(highest, (ranges[i] as number) + (ranges[i + 1] as number));
      }
      return highest;
    }
    case 'page':
      return Math.max(
        record.subscription.markDelete,
        record.runs.reduce((at, length) => at + length, record.runs.length === 0 ? 0 : record.fromIndex),
      );
    case 'dedup':
      return record.producers.reduce((highest, { batches }) => {
        const last = batches.at(-1);
        return last === undefined ? highest : Math.max(highest, last.index + last.count);
      }, record.coveredIndex as number);
    case 'deleted':
    case 'snapshotBegin':
    case 'snapshotEnd':
      return 0;
    default:
      return assertNever(record);
  }
}

/** Takes the entries of a log in, from its first ledger on. */
class AckReplay {
  #sum = new Sum();
  /** The sum since the begin of a snapshot that has not had its end yet. */
  #since: { readonly snapshot: number; readonly sum: Sum } | undefined;
  #highestSnapshot = 0;
  #missingBelow = 0 as MessageIndex;
  #heardOf = 0;
  readonly #losses: AckLoss[] = [];
  /** The `structure` of the last entry; 0: not known. */
  #structure: number | undefined;
  /** Entries before the next one are lost. */
  #gap = false;
  /** The sum has begun with a whole snapshot, or with the log itself. */
  #isWhole = false;
  #restarted = false;

  apply({ records, structure }: AckLogEntry): void {
    const before = structure === 0 ? 0 : structure - structuralIn(records);
    if (this.#structure === undefined && !this.#gap) this.#isWhole = before <= 1;
    else if (this.#gap && this.#structure !== undefined && (before === 0 || before !== this.#structure))
      this.#restart();
    this.#gap = false;
    this.#structure = structure;
    for (const record of records) this.#apply(record);
  }

  #apply(record: AckLogRecord): void {
    this.#heardOf = Math.max(this.#heardOf, heardIn(record));
    if (record.type === 'snapshotBegin') {
      this.#since = { snapshot: record.snapshot, sum: new Sum() };
      this.#highestSnapshot = Math.max(this.#highestSnapshot, record.snapshot);
      this.#missingBelow = record.missingBelow;
    } else if (record.type === 'snapshotEnd') {
      if (this.#since?.snapshot === record.snapshot) this.#complete(this.#since.sum);
    } else {
      // Pages of deduplication belong to their snapshot alone.
      if (record.type !== 'dedup') this.#sum.apply(record);
      this.#since?.sum.apply(record);
    }
  }

  #complete(sum: Sum): void {
    this.#sum = sum;
    this.#sum.unknown.clear();
    this.#since = undefined;
    this.#isWhole = true;
    this.#restarted = false;
  }

  /** Entries are lost here. */
  lose(loss: AckLoss): void {
    this.#losses.push(loss);
    this.#gap = true;
    this.#since = undefined;
  }

  /** A subscription that was moved back would seem to have acknowledged more than it has. */
  #restart(): void {
    this.#sum.restart();
    this.#restarted = true;
  }

  /** @throws DATA_LOSS when the log speaks of a subscription whose beginning it does not have, though no entry is lost. */
  finish(): RecoveredAcks {
    if (this.#gap) this.#restart();
    const { subscriptions, dedup, highest, unknown } = this.#sum;
    const isDamaged = this.#losses.length > 0;
    const [nameless] = unknown;
    if (nameless !== undefined && !isDamaged) {
      throw new MagnetarError('DATA_LOSS', `the ack log changes subscription ${nameless}, but never makes it`);
    }
    return {
      subscriptions: [...subscriptions.values()],
      dedup,
      highestNumber: Math.max(highest, this.#since?.sum.highest ?? 0, ...unknown),
      highestSnapshot: this.#highestSnapshot,
      structure: Math.max(1, this.#structure ?? 1),
      heardOf: this.#heardOf as MessageIndex,
      losses: this.#losses,
      restarted: this.#restarted,
      subscriptionsMissing: isDamaged && (this.#restarted || !this.#isWhole || nameless !== undefined),
      nameless: [...unknown],
      missingBelow: this.#missingBelow,
    };
  }
}

/**
 * Recovers the ledgers of an ack log, and replays them in their order. Afterwards nobody else can write to them.
 *
 * Lost entries are passed over and reported.
 *
 * @throws what Ledgers.recover and LedgerReader.read throw, DATA_LOSS excepted; UNSUPPORTED.
 */
export async function recoverAcks(ledgers: Ledgers, ids: readonly LedgerId[]): Promise<RecoveredAcks> {
  const replay = new AckReplay();
  const closed = await Promise.all(ids.map((id) => ledgers.recover(id)));
  for (const ledger of closed) await readLedger(ledgers, ledger, replay);
  return replay.finish();
}

/** Bytes of one read: small, so that the event loop goes on in between. */
const READ_BYTES = 65_536;

async function readLedger(ledgers: Ledgers, ledger: ClosedLedger, replay: AckReplay): Promise<void> {
  const { ledgerId, lastEntryId: last, lostTail } = ledger;
  if (last !== NO_ENTRY) {
    const reader = await ledgers.reader(ledgerId, () => last);
    for (let next = 0 as EntryId; next <= last; ) next = await readOn(reader, next, replay);
  }
  if (!lostTail) return;
  const reason = 'nobody can say what there was';
  replay.lose({ ledgerId, firstEntryId: (last + 1) as EntryId, lastEntryId: undefined, reason });
}

/** Returns where to go on. */
async function readOn(reader: LedgerReader, from: EntryId, replay: AckReplay): Promise<EntryId> {
  let next: number = from;
  try {
    for (const { entryId, payload } of await reader.read(from, { maxEntries: 1_000, maxBytes: READ_BYTES })) {
      const entry = ackLogEntry.decode(payload);
      next = entryId + 1;
      replay.apply(entry);
    }
  } catch (error) {
    // METADATA_DAMAGED: it was damaged before it was stored.
    if (!hasCode(error, 'DATA_LOSS', 'METADATA_DAMAGED')) throw error;
    const firstEntryId = next as EntryId;
    const lastEntryId = error.code === 'DATA_LOSS' ? await reader.lostUpTo(firstEntryId) : firstEntryId;
    replay.lose({ ledgerId: reader.ledgerId, firstEntryId, lastEntryId, reason: error.message });
    next = lastEntryId + 1;
  }
  return next as EntryId;
}
