/** What goes through subscriptions, topics and namespaces, counted per entry. */
import { Buckets, LATENCY_MS, RecentBuckets, SIZE_BYTES, Window, WINDOW_STEP_MS } from '../../runtime/metrics.ts';

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
/** What was longer ago is of no consequence for rates. */
const RECENT_MS = 60_000;

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
  /** When something was last counted, and when the window is to go on. */
  #lastAt: number;
  #turnAt: number;

  /** @param since monotonic time at which counting begins */
  constructor(since: number, parent?: Traffic) {
    this.#since = since;
    this.#parent = parent;
    this.#lastAt = since;
    this.#turnAt = since + WINDOW_STEP_MS;
  }

  /** An entry was stored, so many ms after it had got its place. `now`: monotonic time, here and below. */
  stored(messages: number, bytes: number, latencyMs: number, now: number): void {
    this.#at(now);
    this.entriesIn++;
    this.messagesIn += messages;
    this.bytesIn += bytes;
    this.#parent?.stored(messages, bytes, latencyMs, now);
  }

  /** An entry went to a consumer; `messages`: those of it that are wanted. */
  delivered(messages: number, bytes: number, again: boolean, now: number): void {
    this.#at(now);
    this.messagesOut += messages;
    this.bytesOut += bytes;
    if (again) this.redelivered += messages;
    this.#parent?.delivered(messages, bytes, again, now);
  }

  acknowledged(messages: number, now: number): void {
    this.#at(now);
    this.acked += messages;
    this.#parent?.acknowledged(messages, now);
  }

  duplicate(): void {
    this.duplicates++;
    this.#parent?.duplicate();
  }

  /** Something is about to be counted. Twice a minute, while there is something, the window goes on. */
  #at(now: number): void {
    this.#lastAt = now;
    if (now >= this.#turnAt) this.#changes(now);
  }

  #changes(now: number): ReturnType<Window['changes']> {
    this.#turnAt = now + WINDOW_STEP_MS;
    this.#window ??= new Window(this.#since, RATES);
    const { messagesIn, bytesIn, entriesIn, messagesOut, bytesOut, acked, redelivered } = this;
    return this.#window.changes([messagesIn, bytesIn, entriesIn, messagesOut, bytesOut, acked, redelivered], now);
  }

  /** Over the last minute or so, however long ago somebody has asked last. */
  rates(now: number): Rates {
    const { added, seconds } = this.#changes(now);
    const idle = now - this.#lastAt >= RECENT_MS;
    const rate = (place: number): number => (idle ? 0 : (added[place] as number) / seconds);
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

  override stored(messages: number, bytes: number, latencyMs: number, now: number): void {
    super.stored(messages, bytes, latencyMs, now);
    this.entrySize.observe(bytes);
    this.writeLatency.observe(latencyMs);
  }
}
