/** What goes through subscriptions, topics and namespaces, counted per entry. */
import { Buckets, LATENCY_MS, RecentBuckets, SIZE_BYTES, Window } from '../../runtime/metrics.ts';

/** Per second. */
export interface Rates {
  readonly messagesIn: number;
  readonly bytesIn: number;
  readonly entriesIn: number;
  readonly messagesOut: number;
  readonly bytesOut: number;
  readonly acked: number;
  readonly redelivered: number;
}

/** Of what `Rates` tells. */
const RATES = 7;

/** Running totals. What is counted here is counted in the parent, too. */
export class Traffic {
  messagesIn = 0;
  /** Bytes of producer blocks, as for `bytesOut`. */
  bytesIn = 0;
  entriesIn = 0;
  messagesOut = 0;
  bytesOut = 0;
  /** Messages that were acknowledged for the first time, per subscription. */
  acked = 0;
  /** Messages that had been delivered before, by this owner. */
  redelivered = 0;
  /** Batches that had been stored before. */
  duplicates = 0;
  readonly #since: number;
  readonly #parent: Traffic | undefined;
  #window: Window | undefined;

  /** @param since monotonic time at which counting begins */
  constructor(since: number, parent?: Traffic) {
    this.#since = since;
    this.#parent = parent;
  }

  /** An entry was stored, so many ms after it had got its place. */
  stored(messages: number, bytes: number, latencyMs: number): void {
    this.entriesIn++;
    this.messagesIn += messages;
    this.bytesIn += bytes;
    this.#parent?.stored(messages, bytes, latencyMs);
  }

  /** An entry went to a consumer; `messages`: those of it that are wanted. */
  delivered(messages: number, bytes: number, again: boolean): void {
    this.messagesOut += messages;
    this.bytesOut += bytes;
    if (again) this.redelivered += messages;
    this.#parent?.delivered(messages, bytes, again);
  }

  acknowledged(messages: number): void {
    this.acked += messages;
    this.#parent?.acknowledged(messages);
  }

  duplicate(): void {
    this.duplicates++;
    this.#parent?.duplicate();
  }

  /** Over the last minute or so. */
  rates(now: number): Rates {
    this.#window ??= new Window(this.#since, RATES);
    const { messagesIn, bytesIn, entriesIn, messagesOut, bytesOut, acked, redelivered } = this;
    const totals = [messagesIn, bytesIn, entriesIn, messagesOut, bytesOut, acked, redelivered];
    const { added, seconds } = this.#window.changes(totals, now);
    const rate = (place: number): number => (added[place] as number) / seconds;
    return {
      messagesIn: rate(0),
      bytesIn: rate(1),
      entriesIn: rate(2),
      messagesOut: rate(3),
      bytesOut: rate(4),
      acked: rate(5),
      redelivered: rate(6),
    };
  }
}

/** What went through all topics of a namespace, whether they are still open or not. */
export class NamespaceTraffic extends Traffic {
  readonly writeLatency: RecentBuckets;
  readonly entrySize: Buckets = new Buckets(SIZE_BYTES);

  constructor(since: number) {
    super(since);
    this.writeLatency = new RecentBuckets(LATENCY_MS, since);
  }

  override stored(messages: number, bytes: number, latencyMs: number): void {
    super.stored(messages, bytes, latencyMs);
    this.entrySize.observe(bytes);
    this.writeLatency.observe(latencyMs);
  }
}
