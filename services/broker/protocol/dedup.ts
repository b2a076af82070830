/**
 * Deduplication by (producer name, sequence id) (ML-10).
 *
 * Per producer there is a *stored* watermark, the last sequence id of its newest batch that is durable, and a *pushed*
 * one, which counts batches handed to the ledger, too. What is at or below the pushed one is a duplicate. When a batch
 * fails, so do the producer's later ones that are in flight, and the pushed watermark falls back to the stored one.
 */
import type { MagnetarError } from '../../lib/errors.ts';
import type { EntryId, LedgerId, Millis, MessageIndex, SequenceId } from '../../lib/ids.ts';

/** What every producer's newest batches are: answered with their original place, always. */
const LEAST_BATCHES = 5;

/** Where a batch was stored. */
export interface DedupPlace {
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  /** Index of the first message. */
  readonly index: MessageIndex;
  readonly count: number;
}

/** A batch that is stored. */
export interface DedupBatch extends DedupPlace {
  readonly firstSequenceId: SequenceId;
  readonly lastSequenceId: SequenceId;
}

/** What is known of one producer, as it is in snapshots. Frozen. */
export interface DedupProducer {
  readonly name: string;
  /** The last batches, oldest first, at least one. The last one's last sequence id is the stored watermark. */
  readonly batches: readonly DedupBatch[];
  /** Append time of the newest batch. */
  readonly lastUsed: Millis;
}

/** Told when a batch in flight is settled: with its place when it is stored, else with why it failed. */
type DedupWaiter = (batch: DedupBatch | undefined, error?: MagnetarError) => void;

/** A batch in flight. */
export interface DedupToken {
  readonly producerName: string;
  readonly firstSequenceId: SequenceId;
  readonly lastSequenceId: SequenceId;
  /** Calls `waiter` once, when the batch is confirmed or aborted. Not for tokens that are settled. */
  attach(waiter: DedupWaiter): void;
}

/** What to do with a batch. */
export type DedupVerdict =
  /** Append it: `begin` next. */
  | { readonly kind: 'new' }
  /** Stored before; `batch` when it is among the last ones, cut in the same way. */
  | { readonly kind: 'stored'; readonly batch: DedupBatch | undefined }
  /** A duplicate of what is in flight: it shares the outcome of `token`, the batch that ends it. */
  | { readonly kind: 'pending'; readonly token: DedupToken }
  /** Part old, part new. With `pending`, the old part is settled by that batch: wait for it before answering. */
  | { readonly kind: 'overlap'; readonly watermark: SequenceId; readonly pending?: DedupToken };

/** Bounds of what is remembered. */
export interface DedupLimits {
  /** Names; beyond that, those that were idle longest are forgotten. */
  readonly producers: number;
  /** A name that was idle for so long, by append time, is forgotten. */
  readonly inactivity: Millis;
  /**
   * Batches of one producer whose places are remembered. At least as many as one stream may have under way: whatever a
   * producer sends again after a crash is then answered with its original place.
   */
  readonly batchesPerProducer: number;
  /** The same for all producers together; beyond that, those that were idle longest keep five each. */
  readonly batches: number;
}

const DEFAULT_LIMITS: DedupLimits = {
  producers: 10_000,
  inactivity: (7 * 86_400_000) as Millis,
  batchesPerProducer: 1_024,
  batches: 131_072,
};

class Token implements DedupToken {
  readonly producerName: string;
  readonly firstSequenceId: SequenceId;
  readonly lastSequenceId: SequenceId;
  #waiters: DedupWaiter[] | undefined;

  constructor(producerName: string, first: SequenceId, last: SequenceId) {
    this.producerName = producerName;
    this.firstSequenceId = first;
    this.lastSequenceId = last;
  }

  attach(waiter: DedupWaiter): void {
    this.#waiters ??= [];
    this.#waiters.push(waiter);
  }

  settle(batch: DedupBatch | undefined, error?: MagnetarError): void {
    const waiters = this.#waiters;
    this.#waiters = undefined;
    for (const waiter of waiters ?? []) waiter(batch, error);
  }
}

class Producer {
  readonly name: string;
  /** Oldest first. */
  batches: DedupBatch[] = [];
  lastUsed = 0 as Millis;
  /** In the order in which they were handed to the ledger, which confirms them in that order. */
  readonly inFlight: Token[] = [];

  constructor(name: string) {
    this.name = name;
  }

  get stored(): SequenceId | undefined {
    return this.batches.at(-1)?.lastSequenceId;
  }

  get pushed(): SequenceId | undefined {
    return this.inFlight.at(-1)?.lastSequenceId ?? this.stored;
  }

  /** The batch in flight that settles sequence ids up to `last`; undefined when they are stored. */
  settling(last: SequenceId): Token | undefined {
    return this.inFlight.find((token) => token.lastSequenceId >= last);
  }

  /** The remembered batch of exactly these sequence ids. */
  find(first: SequenceId, last: SequenceId): DedupBatch | undefined {
    let [low, high] = [0, this.batches.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.batches[middle] as DedupBatch).lastSequenceId < last) low = middle + 1;
      else high = middle;
    }
    const batch = this.batches[low];
    return batch?.lastSequenceId === last && batch.firstSequenceId === first ? batch : undefined;
  }

  /** Returns by how many batches more are remembered. `keep`: the newest; up to twice as many for a while. */
  remember(batch: DedupBatch, appendTime: Millis, keep: number): number {
    if (appendTime > this.lastUsed) this.lastUsed = appendTime;
    const stored = this.stored;
    if (stored !== undefined && batch.lastSequenceId <= stored) return 0;
    this.batches.push(batch);
    return this.batches.length > 2 * keep ? 1 - this.trim(keep) : 1;
  }

  /** Forgets all but the newest `keep`; returns how many were forgotten. */
  trim(keep: number): number {
    const excess = this.batches.length - keep;
    if (excess <= 0) return 0;
    this.batches = this.batches.slice(excess);
    return excess;
  }
}

/** The deduplication state of one topic. Pure; it changes at once. */
export class DedupState {
  readonly #limits: DedupLimits;
  /** Of all producers. */
  #batches = 0;
  /** In the order of their last use, so that the first ones are the first to be forgotten. */
  readonly #producers = new Map<string, Producer>();

  constructor(limits: Partial<DedupLimits> = {}) {
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
  }

  /** How many producer names are remembered. */
  get size(): number {
    return this.#producers.size;
  }

  /** The highest sequence id that is stored of a producer; undefined: none. */
  watermark(name: string): SequenceId | undefined {
    return this.#producers.get(name)?.stored;
  }

  /** The last batch of a producer that is in flight; with it all others are settled. */
  newestInFlight(name: string): DedupToken | undefined {
    return this.#producers.get(name)?.inFlight.at(-1);
  }

  /** What to do with a batch of sequence ids from `first` to `last`. */
  check(name: string, first: SequenceId, last: SequenceId): DedupVerdict {
    const producer = this.#producers.get(name);
    const pushed = producer?.pushed;
    if (producer === undefined || pushed === undefined || first > pushed) return { kind: 'new' };
    if (last > pushed) {
      const pending = producer.inFlight.at(-1);
      return { kind: 'overlap', watermark: pushed, ...(pending === undefined ? {} : { pending }) };
    }
    const stored = producer.stored;
    if (stored === undefined || last > stored) {
      const token = producer.settling(last);
      if (token !== undefined) return { kind: 'pending', token };
    }
    return { kind: 'stored', batch: producer.find(first, last) };
  }

  /** A batch that `check` called new is handed to the ledger. */
  begin(name: string, first: SequenceId, last: SequenceId): DedupToken {
    const token = new Token(name, first, last);
    const known = this.#producers.get(name);
    if (known !== undefined) {
      known.inFlight.push(token);
      return token;
    }
    const producer = new Producer(name);
    producer.inFlight.push(token);
    this.#producers.set(name, producer);
    this.#forgetBeyondLimit();
    return token;
  }

  /** The batch is durable. Calls its waiters. */
  confirm(token: DedupToken, place: DedupPlace, appendTime: Millis): void {
    const batch = batchAt(token.firstSequenceId, token.lastSequenceId, place);
    const own = this.#take(token);
    this.#remember(token.producerName, batch, appendTime);
    own?.settle(batch);
  }

  /**
   * The batch was not stored, or nobody can say. It and the producer's later batches in flight are settled with
   * `error`; their own confirm or abort, should it come, is no fault.
   */
  abort(token: DedupToken, error: MagnetarError): void {
    const producer = this.#producers.get(token.producerName);
    const at = producer?.inFlight.findIndex((other) => other === token) ?? -1;
    if (producer === undefined || at < 0) return;
    const failed = producer.inFlight.splice(at);
    if (producer.batches.length === 0 && producer.inFlight.length === 0) this.#producers.delete(producer.name);
    for (const each of failed) each.settle(undefined, error);
  }

  /** Takes a stored batch in, as recovery reads it from the ledger, in order. Idempotent. */
  replay(name: string, first: SequenceId, last: SequenceId, place: DedupPlace, appendTime: Millis): void {
    this.#remember(name, batchAt(first, last, place), appendTime);
  }

  /** What is stored (not what is in flight), for a snapshot; those idle longest come first. */
  snapshot(): DedupProducer[] {
    const pages: DedupProducer[] = [];
    for (const { name, batches, lastUsed } of this.#producers.values()) {
      if (batches.length > 0) pages.push({ name, batches: batches.slice(-this.#limits.batchesPerProducer), lastUsed });
    }
    return pages;
  }

  /** Takes in what `snapshot` gave, before any `replay`. */
  load(producers: readonly DedupProducer[]): void {
    for (const { name, batches, lastUsed } of producers) {
      const producer = new Producer(name);
      producer.batches = [...batches];
      producer.lastUsed = lastUsed;
      this.#producers.set(name, producer);
      this.#batches += batches.length;
    }
  }

  #take(token: DedupToken): Token | undefined {
    const inFlight = this.#producers.get(token.producerName)?.inFlight ?? [];
    const at = inFlight.findIndex((other) => other === token);
    if (at < 0) return undefined;
    return at === 0 ? inFlight.shift() : inFlight.splice(at, 1)[0];
  }

  #remember(name: string, batch: DedupBatch, appendTime: Millis): void {
    const producer = this.#producers.get(name) ?? new Producer(name);
    this.#batches += producer.remember(batch, appendTime, this.#limits.batchesPerProducer);
    this.#producers.delete(name);
    this.#producers.set(name, producer);
    const horizon = appendTime - this.#limits.inactivity;
    for (const other of this.#producers.values()) {
      if (other.lastUsed >= horizon) break;
      if (other.inFlight.length === 0) this.#forget(other);
    }
    this.#forgetBeyondLimit();
    if (this.#batches > this.#limits.batches) this.#trim();
  }

  #forget(producer: Producer): void {
    this.#producers.delete(producer.name);
    this.#batches -= producer.batches.length;
  }

  /** Makes a quarter of the room free, so that this is not done for every batch. */
  #trim(): void {
    for (const producer of this.#producers.values()) {
      if (this.#batches <= 0.75 * this.#limits.batches) return;
      this.#batches -= producer.trim(LEAST_BATCHES);
    }
  }

  #forgetBeyondLimit(): void {
    if (this.#producers.size <= this.#limits.producers) return;
    for (const producer of this.#producers.values()) {
      if (producer.inFlight.length > 0) continue;
      if (this.#producers.size <= this.#limits.producers) return;
      this.#forget(producer);
    }
  }
}

function batchAt(firstSequenceId: SequenceId, lastSequenceId: SequenceId, place: DedupPlace): DedupBatch {
  const { ledgerId, entryId, index, count } = place;
  return { firstSequenceId, lastSequenceId, ledgerId, entryId, index, count };
}
