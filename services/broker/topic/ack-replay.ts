/**
 * Replaying an ack log: records in the order in which they were written, into the state that they add up to.
 *
 * The state is the one of the last complete snapshot with every record since its *begin* applied: pages are taken one
 * after another while the log goes on, so a record between begin and end may concern a page that was written before
 * it.
 */
import type { Ledgers } from '../../ledger/ledgers.ts';
import { MagnetarError } from '../../lib/errors.ts';
import { type EntryId, type LedgerId, type MessageIndex, type Millis, NO_ENTRY } from '../../lib/ids.ts';
import { type AckLogRecord, ackLogEntry, type SubscriptionCreated } from '../../wire/records.ts';
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

/** What a log adds up to. */
export interface RecoveredAcks {
  readonly subscriptions: readonly AckSubscription[];
  readonly dedup: DedupSnapshot | undefined;
  /** The highest number that a subscription has had. */
  readonly highestNumber: number;
  /** The highest number that a snapshot has had. */
  readonly highestSnapshot: number;
}

/** The sum of the records from some point on. */
class Sum {
  readonly subscriptions = new Map<number, AckSubscription>();
  readonly #producers: DedupProducer[] = [];
  #coveredIndex: MessageIndex | undefined;
  highest = 0;
  /** A subscription that was changed without ever having been made. */
  unknown: number | undefined;

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
    if (number > this.highest) this.unknown ??= number;
    return this.subscriptions.get(number)?.state;
  }
}

/** Takes the records of a log in, from its first ledger on. */
class AckReplay {
  #sum = new Sum();
  /** The sum since the begin of a snapshot that has not had its end yet. */
  #since: { readonly snapshot: number; readonly sum: Sum } | undefined;
  #highestSnapshot = 0;

  apply(records: readonly AckLogRecord[]): void {
    for (const record of records) {
      if (record.type === 'snapshotBegin') {
        this.#since = { snapshot: record.snapshot, sum: new Sum() };
        this.#highestSnapshot = Math.max(this.#highestSnapshot, record.snapshot);
      } else if (record.type === 'snapshotEnd') {
        if (this.#since?.snapshot === record.snapshot) this.#complete(this.#since.sum);
      } else {
        // Pages of deduplication belong to their snapshot alone.
        if (record.type !== 'dedup') this.#sum.apply(record);
        this.#since?.sum.apply(record);
      }
    }
  }

  #complete(sum: Sum): void {
    this.#sum = sum;
    this.#sum.unknown = undefined;
    this.#since = undefined;
  }

  /** @throws DATA_LOSS when the log speaks of a subscription whose beginning it does not have. */
  finish(): RecoveredAcks {
    const { subscriptions, dedup, highest, unknown } = this.#sum;
    if (unknown !== undefined) {
      throw new MagnetarError('DATA_LOSS', `the ack log changes subscription ${unknown}, but never makes it`);
    }
    return {
      subscriptions: [...subscriptions.values()],
      dedup,
      highestNumber: Math.max(highest, this.#since?.sum.highest ?? 0),
      highestSnapshot: this.#highestSnapshot,
    };
  }
}

/**
 * Recovers the ledgers of an ack log, and replays them in their order. Afterwards nobody else can write to them.
 *
 * @throws what Ledgers.recover and LedgerReader.read throw; for what is in them DATA_LOSS, METADATA_DAMAGED, UNSUPPORTED.
 */
export async function recoverAcks(ledgers: Ledgers, ids: readonly LedgerId[]): Promise<RecoveredAcks> {
  const replay = new AckReplay();
  const closed = await Promise.all(ids.map((id) => ledgers.recover(id)));
  for (const { ledgerId, lastEntryId } of closed) await readLedger(ledgers, ledgerId, lastEntryId, replay);
  return replay.finish();
}

/** Bytes of one read: small, so that the event loop goes on in between. */
const READ_BYTES = 65_536;

async function readLedger(ledgers: Ledgers, id: LedgerId, last: EntryId, replay: AckReplay): Promise<void> {
  if (last === NO_ENTRY) return;
  const reader = await ledgers.reader(id, () => last);
  for (let next = 0; next <= last; ) {
    const entries = await reader.read(next as EntryId, { maxEntries: 1_000, maxBytes: READ_BYTES });
    for (const { entryId, payload } of entries) {
      replay.apply(ackLogEntry.decode(payload).records);
      next = entryId + 1;
    }
  }
}
