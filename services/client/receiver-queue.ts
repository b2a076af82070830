import { Deque } from '../lib/collections/deque.ts';
import { IndexSet } from '../lib/collections/index-set.ts';
import { hasCode, MagnetarError, toMagnetarError } from '../lib/errors.ts';
import { decodeBlock, scanMessages } from '../wire/block.ts';
import type { Delivery, ProducerBlock } from '../wire/frames.ts';
import type { EntryFacts } from './message.ts';
import { Message } from './message.ts';

/** How much may wait to be handed out. */
interface QueueLimits {
  readonly messages: number;
  readonly bytes: number;
}

/** A delivered entry, as far as it is not handed out. */
interface Entry {
  readonly delivery: Delivery;
  readonly block: ProducerBlock;
  /** There once the first message is taken: until then what is compressed stays so. */
  facts: EntryFacts | undefined;
  readonly index: number;
  readonly count: number;
  /** Bit i: message i is not to be handed out. Empty: all are. */
  readonly skip: Buffer;
  /** What the delivery cost in permits. */
  readonly permits: number;
  readonly bytes: number;
  /** The next message to hand out. */
  next: number;
}

/** Messages that cannot be had, in their place. */
interface Lost {
  readonly index: number;
  /** The index behind the last one. */
  readonly end: number;
  readonly error: MagnetarError;
}

function isSkipped(skip: Buffer, at: number): boolean {
  return (((skip[at >>> 3] ?? 0) >>> (at & 7)) & 1) === 1;
}

/** How many of the first `count` bits are set. */
function skippedIn(skip: Buffer, count: number): number {
  let skipped = 0;
  for (let i = 0; i < Math.min(count, skip.length * 8); i++) if (isSkipped(skip, i)) skipped++;
  return skipped;
}

/**
 * Messages that came and are not handed out, and what was handed out before.
 *
 * The broker delivers again, after a lost connection, whatever is not acknowledged: what the app had been given is
 * left out then. Messages that the broker itself leaves out (they are acknowledged) count as given, so that the set
 * stays a few runs.
 *
 * Blocks wait as they came, and are decompressed one at a time, when their first message is taken: what waits takes no
 * more memory than the permits allow, and one block.
 */
export class ReceiverQueue {
  readonly #topic: string;
  readonly #consumed: (messages: number, bytes: number) => void;
  readonly #entries = new Deque<Entry | Lost>();
  readonly #given = new IndexSet();
  readonly #limits: QueueLimits;
  /** What is here of the permits, by what they cost: a whole entry until the last of it is handed out. */
  #heldMessages = 0;
  #heldBytes = 0;
  #nextIndex = 0;
  #caughtUp = 0;

  /**
   * `limits`: the permits of which the broker is ever given all. `consumed` is told of deliveries that are handed out
   * completely: what they had cost in permits.
   */
  constructor(topic: string, limits: QueueLimits, consumed: (messages: number, bytes: number) => void) {
    this.#topic = topic;
    this.#limits = limits;
    this.#consumed = consumed;
  }

  /** The index behind the last message handed out, or where it all began. */
  get nextIndex(): number {
    return this.#nextIndex;
  }

  /** The index of the message that `take` returns next, or that is lost next; Infinity: there is none. */
  get peekIndex(): number {
    const entry = this.#entries.peek();
    if (entry === undefined) return Number.POSITIVE_INFINITY;
    return 'error' in entry ? entry.index : entry.index + entry.next;
  }

  /** True when nothing below `end` is left to come. */
  isThrough(end: number): boolean {
    return this.#nextIndex >= end || (this.#entries.length === 0 && this.#caughtUp >= end);
  }

  /** Begins anew at an index: forgets everything. */
  beginAt(index: number): void {
    this.#clear();
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
    if (first !== undefined && !('error' in first) && first.next > 0)
      this.#given.add(first.index, first.index + first.next);
    this.#clear();
    this.#caughtUp = 0;
  }

  #clear(): void {
    this.#entries.clear();
    this.#heldMessages = 0;
    this.#heldBytes = 0;
  }

  /**
   * Takes a delivery in. @throws MagnetarError PROTOCOL_VIOLATION when it cannot be told how many messages it has,
   * CREDIT_EXCEEDED when there were no permits left for it
   */
  add(delivery: Delivery): void {
    this.#requirePermits();
    const { index } = delivery;
    const block = decodeBlock(delivery.block);
    const { count } = block;
    const permits = count - skippedIn(delivery.skip, count);
    const skip = this.#withGiven(delivery.skip, index, count);
    const bytes = delivery.block.length;
    const entry: Entry = { delivery, block, facts: undefined, index, count, skip, permits, bytes, next: 0 };
    this.#heldMessages += permits;
    this.#heldBytes += bytes;
    if (skip.length > 0) passOver(entry);
    if (entry.next < count) this.#entries.push(entry);
    else this.#finish(entry);
  }

  /** A delivery may overdraw the permits, but not come when there are none. */
  #requirePermits(): void {
    const { messages, bytes } = this.#limits;
    if (this.#heldMessages < messages && this.#heldBytes < bytes) return;
    const held = `${this.#heldMessages} messages of ${this.#heldBytes} bytes of ${this.#topic} are here`;
    throw new MagnetarError(
      'CREDIT_EXCEEDED',
      `the broker delivers more than it may: ${held}, where ${messages} of ${bytes} bytes are allowed`,
    );
  }

  /** Takes in that messages from `index` to below `end` are lost. */
  addLost(index: number, end: number, error: MagnetarError): void {
    if (end > index && this.#given.countIn(index, end) < end - index) this.#entries.push({ index, end, error });
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

  #finish({ index, count, permits, bytes }: Entry): void {
    this.#given.add(index, index + count);
    this.#heldMessages -= permits;
    this.#heldBytes -= bytes;
    this.#consumed(permits, bytes);
  }

  /**
   * Hands out the next message; undefined when there is none.
   *
   * @throws MagnetarError DATA_LOSS, once, where messages are lost or an entry cannot be read: they are passed over.
   *   UNSUPPORTED: this process cannot read it; it stays.
   */
  take(): Message | undefined {
    const entry = this.#entries.peek();
    if (entry === undefined) return undefined;
    if ('error' in entry) throw this.#passOverLost(entry);
    const message = new Message(entry.facts ?? this.#open(entry), entry.next++);
    this.#nextIndex = entry.index + entry.next;
    if (entry.skip.length > 0) passOver(entry);
    if (entry.next === entry.count) this.#shift(entry);
    return message;
  }

  /** Lost messages count as given once that is said. */
  #passOverLost(lost: Lost): MagnetarError {
    this.#entries.shift();
    this.#given.add(lost.index, lost.end);
    this.#nextIndex = lost.end;
    return lost.error;
  }

  #shift(entry: Entry): void {
    this.#entries.shift();
    this.#finish(entry);
  }

  #open(entry: Entry): EntryFacts {
    const { ledgerId, entryId, index, appendTime, redeliveries } = entry.delivery;
    const { publishTime, producerName } = entry.block;
    const topic = this.#topic;
    try {
      const messages = scanMessages(entry.block);
      entry.facts = { topic, ledgerId, entryId, index, appendTime, publishTime, producerName, redeliveries, messages };
      return entry.facts;
    } catch (cause) {
      if (!hasCode(cause, 'UNSUPPORTED')) {
        this.#nextIndex = index + entry.count;
        this.#shift(entry);
      }
      throw unreadable(topic, entry, toMagnetarError(cause));
    }
  }
}

/** What an app is told instead of the messages of an entry. */
function unreadable(topic: string, { delivery, index, count }: Entry, cause: MagnetarError): MagnetarError {
  const { ledgerId, entryId } = delivery;
  const text = `entry ${ledgerId}:${entryId} of ${topic}, with the messages ${index} to ${index + count - 1}, cannot be read: ${cause.message}`;
  const details = {
    topic,
    firstIndex: `${index}`,
    lastIndex: `${index + count - 1}`,
    ledgerId: `${ledgerId}`,
    firstEntryId: `${entryId}`,
    lastEntryId: `${entryId}`,
  };
  return new MagnetarError(cause.code === 'UNSUPPORTED' ? 'UNSUPPORTED' : 'DATA_LOSS', text, { details, cause });
}

function passOver(entry: Entry): void {
  const { skip, count } = entry;
  while (entry.next < count && isSkipped(skip, entry.next)) entry.next++;
}
