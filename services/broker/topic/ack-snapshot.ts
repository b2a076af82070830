/** Writing a snapshot of all subscriptions and of the deduplication state, in parts that go among the other records. */
import { varintSize } from '../../lib/bytes.ts';
import type { MessageIndex } from '../../lib/ids.ts';
import type { AckLogRecord } from '../../wire/records.ts';
import type { DedupProducer } from '../protocol/dedup.ts';
import type { AckSubscription, DedupSnapshot } from './ack-replay.ts';

/** Bytes that a run takes, at most. */
const RUN_BYTES = 16;
/** What a record costs, at most, apart from names and runs. */
const RECORD_BYTES = 64;

/** A record with a bound of its size in bytes. */
export interface SizedRecord {
  readonly record: AckLogRecord;
  readonly bytes: number;
  /** The subscription that a page is of. */
  readonly subscription?: number;
}

interface SnapshotOptions {
  /** The number of the snapshot. */
  readonly number: number;
  /** The highest number that a subscription has had. */
  readonly highestSubscription: number;
  /** The subscriptions by number, as they change. */
  readonly live: ReadonlyMap<number, AckSubscription>;
  readonly dedup: DedupSnapshot;
  /** As in SnapshotBegin. */
  readonly missingBelow: MessageIndex;
  /** A part is closed when it has reached this size; with its last record it has at most about twice as much. */
  readonly partBytes: number;
}

/** One snapshot on its way. A part shows the subscriptions as they are when it is taken: it is to be queued at once. */
export class AckSnapshot {
  readonly #options: SnapshotOptions;
  readonly #records: Generator<SizedRecord, void, undefined>;

  constructor(options: SnapshotOptions) {
    this.#options = options;
    this.#records = this.#all();
  }

  /** The data index that the snapshot covers. */
  get coveredIndex(): MessageIndex {
    return this.#options.dedup.coveredIndex;
  }

  /** The next part; empty after the last one. */
  next(): SizedRecord[] {
    const part: SizedRecord[] = [];
    for (let bytes = 0; bytes < this.#options.partBytes; ) {
      const { value } = this.#records.next();
      if (value === undefined) break;
      part.push(value);
      bytes += value.bytes;
    }
    return part;
  }

  *#all(): Generator<SizedRecord, void, undefined> {
    const { number: snapshot, highestSubscription: highest, live, dedup, missingBelow, partBytes } = this.#options;
    yield { record: { type: 'snapshotBegin', snapshot, missingBelow }, bytes: RECORD_BYTES };
    // The highest number lives on, so that it is not given again.
    if (highest > 0 && !live.has(highest)) {
      yield { record: { type: 'deleted', subscription: highest }, bytes: RECORD_BYTES };
    }
    // Those that are gone by the time of their turn need nothing.
    for (const number of live.keys()) yield* this.#pages(number);
    yield* dedupPages(dedup, partBytes);
    yield { record: { type: 'snapshotEnd', snapshot }, bytes: RECORD_BYTES };
  }

  *#pages(number: number): Generator<SizedRecord, void, undefined> {
    const { live, partBytes } = this.#options;
    let from = 0 as MessageIndex;
    for (;;) {
      const subscription = live.get(number);
      if (subscription === undefined) return;
      const { name, createdAt, state } = subscription;
      const page = state.page(from, Math.ceil(partBytes / RUN_BYTES));
      yield {
        record: {
          type: 'page',
          subscription: { subscription: number, name, markDelete: state.markDelete, createdAt, moves: state.moves },
          fromIndex: page.from,
          toIndex: page.to,
          runs: page.runs,
        },
        bytes: page.runs.reduce((bytes, value) => bytes + varintSize(value), RECORD_BYTES + 4 * name.length),
        subscription: number,
      };
      if (page.to === Number.MAX_SAFE_INTEGER) return;
      from = page.to;
    }
  }
}

function producerBytes(producer: DedupProducer): number {
  return RECORD_BYTES + 4 * producer.name.length + producer.batches.length * RECORD_BYTES;
}

/** At least one page, so that the covered index is said. */
function* dedupPages(
  { coveredIndex, producers }: DedupSnapshot,
  partBytes: number,
): Generator<SizedRecord, void, undefined> {
  let page: DedupProducer[] = [];
  let bytes = RECORD_BYTES;
  for (const producer of producers) {
    page.push(producer);
    bytes += producerBytes(producer);
    if (bytes < partBytes) continue;
    yield { record: { type: 'dedup', coveredIndex, producers: page }, bytes };
    page = [];
    bytes = RECORD_BYTES;
  }
  yield { record: { type: 'dedup', coveredIndex, producers: page }, bytes };
}
