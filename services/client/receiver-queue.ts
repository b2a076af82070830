import { Deque } from '../lib/collections/deque.ts';
import { IndexSet } from '../lib/collections/index-set.ts';
import { scanMessages } from '../wire/block.ts';
import type { Delivery } from '../wire/frames.ts';
import type { EntryFacts } from './message.ts';
import { Message } from './message.ts';

/** A delivered entry, as far as it is not handed out. */
interface Entry {
  readonly facts: EntryFacts;
  readonly count: number;
  /** Bit i: message i is not to be handed out. Empty: all are. */
  readonly skip: Buffer;
  /** What the delivery cost in permits. */
  readonly permits: number;
  readonly bytes: number;
  /** The next message to hand out. */
  next: number;
}

function isSkipped(skip: Buffer, at: number): boolean {
  return (((skip[at >>> 3] ?? 0) >>> (at & 7)) & 1) === 1;
}

/** How many of the first `count` bits are set. */
function skippedIn(skip: Buffer, count: number): number {
  let skipped = 0;
  if (skip.length > 0) for (let i = 0; i < count; i++) if (isSkipped(skip, i)) skipped++;
  return skipped;
}

/**
 * Messages that came and are not handed out, and what was handed out before.
 *
 * The broker delivers again, after a lost connection, whatever is not acknowledged: what the app had been given is
 * left out then. Messages that the broker itself leaves out (they are acknowledged) count as given, so that the set
 * stays a few runs.
 */
export class ReceiverQueue {
  readonly #topic: string;
  readonly #consumed: (messages: number, bytes: number) => void;
  readonly #entries = new Deque<Entry>();
  readonly #given = new IndexSet();
  #nextIndex = 0;
  #caughtUp = 0;

  /** `consumed` is told of deliveries that are handed out completely: what they had cost in permits. */
  constructor(topic: string, consumed: (messages: number, bytes: number) => void) {
    this.#topic = topic;
    this.#consumed = consumed;
  }

  /** The index behind the last message handed out, or where it all began. */
  get nextIndex(): number {
    return this.#nextIndex;
  }

  /** The index of the message that `take` returns next; Infinity: there is none. */
  get peekIndex(): number {
    const entry = this.#entries.peek();
    return entry === undefined ? Number.POSITIVE_INFINITY : entry.facts.index + entry.next;
  }

  /** True when nothing below `end` is left to come. */
  isThrough(end: number): boolean {
    return this.#nextIndex >= end || (this.#entries.length === 0 && this.#caughtUp >= end);
  }

  /** Begins anew at an index: forgets everything. */
  beginAt(index: number): void {
    this.#entries.clear();
    this.#given.clear();
    this.#nextIndex = index;
    this.#caughtUp = 0;
  }

  /** Everything below `index` was delivered, or needed no delivery. */
  caughtUp(index: number): void {
    this.#caughtUp = index;
  }

  /** Drops what is not handed out: it will be delivered again. */
  drop(): void {
    const first = this.#entries.peek();
    if (first !== undefined && first.next > 0) this.#given.add(first.facts.index, first.facts.index + first.next);
    this.#entries.clear();
    this.#caughtUp = 0;
  }

  /** Takes a delivery in. @throws MagnetarError when its block cannot be read */
  add(delivery: Delivery): void {
    const { index, ledgerId, entryId, appendTime, redeliveries, block } = delivery;
    const { messages, publishTime, producerName } = scanMessages(block);
    const count = messages.length;
    const topic = this.#topic;
    const facts = { topic, ledgerId, entryId, index, appendTime, publishTime, producerName, redeliveries, messages };
    const permits = count - skippedIn(delivery.skip, count);
    const skip = this.#withGiven(delivery.skip, index, count);
    const entry: Entry = { facts, count, skip, permits, bytes: block.length, next: 0 };
    if (skip.length > 0) passOver(entry);
    if (entry.next < count) this.#entries.push(entry);
    else this.#finish(entry);
  }

  /** The bits with those of messages added that were handed out before. */
  #withGiven(skip: Buffer, index: number, count: number): Buffer {
    if (this.#given.countIn(index, index + count) === 0) return skip;
    const both = Buffer.alloc(Math.ceil(count / 8));
    skip.copy(both);
    for (const [from, to] of this.#given.runs(index, index + count)) {
      for (let i = from - index; i < to - index; i++) both[i >>> 3] = (both[i >>> 3] ?? 0) | (1 << (i & 7));
    }
    return both;
  }

  #finish({ facts, count, permits, bytes }: Entry): void {
    this.#given.add(facts.index, facts.index + count);
    this.#consumed(permits, bytes);
  }

  /** Hands out the next message; undefined when there is none. */
  take(): Message | undefined {
    const entry = this.#entries.peek();
    if (entry === undefined) return undefined;
    const message = new Message(entry.facts, entry.next++);
    this.#nextIndex = entry.facts.index + entry.next;
    if (entry.skip.length > 0) passOver(entry);
    if (entry.next === entry.count) {
      this.#entries.shift();
      this.#finish(entry);
    }
    return message;
  }
}

function passOver(entry: Entry): void {
  const { skip, count } = entry;
  while (entry.next < count && isSkipped(skip, entry.next)) entry.next++;
}
