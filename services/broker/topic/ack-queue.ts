/** What waits to be written to an ack log, in order, cut into entries. */
import type { MagnetarError } from '../../lib/errors.ts';
import type { MessageIndex } from '../../lib/ids.ts';
import type { AckLogRecord } from '../../wire/records.ts';
import type { AckDelta } from '../protocol/ack-state.ts';
import { structuralIn } from './ack-replay.ts';

/** Called when what was asked for is durable, or has failed. */
export type AckDone = (error?: MagnetarError) => void;

/** A delta that can still grow. */
interface OpenDelta {
  readonly type: 'delta';
  readonly subscription: number;
  below: MessageIndex;
  ranges: number[];
}

/** What becomes one entry. */
export interface AckBatch {
  readonly records: readonly AckLogRecord[];
  /** In the order of the requests. */
  readonly done: AckDone[];
  /** As in AckLogEntry. */
  readonly structure: number;
}

class OpenBatch implements AckBatch {
  readonly records: AckLogRecord[] = [];
  readonly done: AckDone[] = [];
  bytes = 0;
  structure: number;
  /** By subscription: where further deltas may be merged without changing their order towards its other records. */
  readonly deltas = new Map<number, OpenDelta>();

  constructor(structure: number) {
    this.structure = structure;
  }
}

/** What a delta costs in an entry, at most, apart from its ranges. */
const DELTA_BYTES = 32;
/** What a range costs, at most. */
const RANGE_BYTES = 16;

/** Requests in order. Deltas of one subscription that follow one another are merged. */
export class AckQueue {
  readonly #entryBytes: number;
  readonly #batches: OpenBatch[] = [];
  #items = 0;
  #bytes = 0;
  #structure: number;

  /**
   * @param entryBytes an entry is closed when it has reached this size, about
   * @param structure of the log's last entry
   */
  constructor(entryBytes: number, structure: number) {
    this.#entryBytes = entryBytes;
    this.#structure = structure;
  }

  /** How many requests wait. */
  get items(): number {
    return this.#items;
  }

  /** How large they are, at most. */
  get bytes(): number {
    return this.#bytes;
  }

  get empty(): boolean {
    return this.#batches.length === 0;
  }

  /** One that is larger than an entry is cut: the parts become durable one by one, `done` belongs to the last. */
  pushDelta(subscription: number, { below, ranges }: AckDelta, done: AckDone): void {
    const most = 2 * Math.max(1, Math.floor(this.#entryBytes / RANGE_BYTES));
    let from = 0;
    for (; ranges.length - from > most; from += most) {
      this.#pushPart(subscription, below, ranges.slice(from, from + most), undefined);
    }
    this.#pushPart(subscription, below, from === 0 ? ranges : ranges.slice(from), done);
  }

  #pushPart(subscription: number, below: MessageIndex, ranges: readonly number[], done: AckDone | undefined): void {
    const batch = this.#open();
    const delta = batch.deltas.get(subscription);
    let bytes = DELTA_BYTES;
    if (delta === undefined) {
      const fresh: OpenDelta = { type: 'delta', subscription, below, ranges: [...ranges] };
      batch.deltas.set(subscription, fresh);
      batch.records.push(fresh);
      bytes += (ranges.length / 2) * RANGE_BYTES;
    } else {
      if (below > delta.below) delta.below = below;
      const before = delta.ranges.length;
      merge(delta.ranges, ranges);
      bytes = ((delta.ranges.length - before) / 2) * RANGE_BYTES;
    }
    this.#count(batch, bytes, done);
  }

  /** Any other record. `barrier`: the subscription whose later deltas must stay behind it. */
  push(record: AckLogRecord, bytes: number, done: AckDone | undefined, barrier?: number): void {
    const batch = this.#open();
    batch.records.push(record);
    this.#structure += structuralIn([record]);
    batch.structure = this.#structure;
    if (barrier !== undefined) batch.deltas.delete(barrier);
    this.#count(batch, bytes, done);
  }

  /** `done` is called with the newest request that waits. False when there is none. */
  attach(done: AckDone): boolean {
    const batch = this.#batches.at(-1);
    if (batch === undefined) return false;
    this.#count(batch, 0, done);
    return true;
  }

  /** Takes out what makes up the next entry. */
  shift(): AckBatch | undefined {
    const batch = this.#batches.shift();
    if (batch === undefined) return undefined;
    this.#items -= batch.done.length;
    this.#bytes -= batch.bytes;
    for (const delta of batch.deltas.values()) prune(delta);
    return batch;
  }

  /** Takes out those who wait, in their order; what they have asked for stays. */
  takeDone(): AckDone[] {
    const taken = this.#batches.flatMap((batch) => batch.done.splice(0));
    this.#items = 0;
    return taken;
  }

  #open(): OpenBatch {
    const last = this.#batches.at(-1);
    if (last !== undefined && last.bytes < this.#entryBytes) return last;
    const batch = new OpenBatch(this.#structure);
    this.#batches.push(batch);
    return batch;
  }

  #count(batch: OpenBatch, bytes: number, done: AckDone | undefined): void {
    batch.bytes += bytes;
    this.#bytes += bytes;
    if (done === undefined) return;
    batch.done.push(done);
    this.#items++;
  }
}

/** Appends ranges; one that begins where the last one ends makes that longer. */
function merge(into: number[], ranges: readonly number[]): void {
  for (let i = 0; i < ranges.length; i += 2) {
    const last = into.length - 1;
    const [first, count] = [ranges[i] as number, ranges[i + 1] as number];
    if (last > 0 && (into[last - 1] as number) + (into[last] as number) === first)
      into[last] = (into[last] as number) + count;
    else into.push(first, count);
  }
}

/** Leaves out ranges that `below` has swallowed. */
function prune(delta: OpenDelta): void {
  const { below, ranges } = delta;
  if (below === 0) return;
  delta.ranges = ranges.filter((_, i) => (ranges[i & ~1] as number) + (ranges[i | 1] as number) > below);
}
