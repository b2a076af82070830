/**
 * The broker's cache of recent entries: consumers that keep up are served from it, in the turn in which they ask.
 *
 * It holds whole frames: an entry is a view of the buffer in which it arrived, and pins all of it. So the cache is charged
 * by backing buffers, each once. An entry that is small beside its buffer is copied out, so that it never pins the rest.
 * Entries leave in the order in which they came, over all topics, so that what shares a buffer leaves together: for newer
 * ones, for others who need memory, or because nobody who keeps up can still want them.
 */
import { Deque } from '../../lib/collections/deque.ts';
import type { MessageIndex } from '../../lib/ids.ts';
import { unpinned } from '../../lib/views.ts';
import type { ByteShare } from '../../runtime/byte-budget.ts';
import type { Clock, Timer } from '../../runtime/clock.ts';
import { endOf, type LogEntry } from './log-entry.ts';

/** So many entries that have left may stay in the order at least. */
const STALE_SLOTS: number = 1_024;
/** What everybody connected has read leaves too, but for so many bytes of a topic: somebody may come to read on from there. */
const KEPT_BYTES: number = 1_048_576;
/** Entries leave between one and two of these spans after they came. */
const AGE_MS: number = 5_000;
/** So many leave in one turn of the event loop. */
const EXPIRED_PER_TURN: number = 4_096;
/** What an entry costs besides its buffer. */
const ENTRY_BYTES: number = 200;

/** Limits of one read. At least one entry always comes. */
export interface ReadLimits {
  readonly maxEntries: number;
  /** Bytes of blocks. */
  readonly maxBytes: number;
  /** None follows an entry with which there are so many messages. */
  readonly maxMessages?: number;
}

/** What a cache has done since it was made. */
export interface CacheStats {
  /** Entries that were read, and bytes of their blocks: from the cache, and past it. */
  hits: number;
  hitBytes: number;
  misses: number;
  missBytes: number;
  inserted: number;
  /** Entries that have left, for whatever reason. */
  evicted: number;
}

export class EntryCache {
  readonly stats: CacheStats = { hits: 0, hitBytes: 0, misses: 0, missBytes: 0, inserted: 0, evicted: 0 };
  readonly #maxBytes: number;
  readonly #share: ByteShare;
  readonly #clock: Clock;
  /** Whose entry leaves next; also names entries that have left by `clear`, until they are too many, and has the mark. */
  #order: Deque<TopicCache> = new Deque();
  /** In the order behind the entries that leave when the timer fires next. */
  readonly #mark: TopicCache;
  #marked = false;
  #timer: Timer | undefined;
  #closed = false;
  #stale = 0;
  readonly #references: Map<ArrayBufferLike, number> = new Map();
  #bytes = 0;

  /**
   * @param maxBytes bytes of backing buffers that it may pin
   * @param share what they are charged to; when that has no more, older entries leave
   */
  constructor(maxBytes: number, share: ByteShare, clock: Clock) {
    this.#maxBytes = maxBytes;
    this.#share = share;
    this.#clock = clock;
    this.#mark = this.topic();
  }

  /** Bytes that it pins. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Places in the order in which entries leave: one for each entry held, and some that are not yet given back. */
  get slots(): number {
    return this.#order.length;
  }

  topic(): TopicCache {
    return new TopicCache({
      add: (slot, entry) => this.#add(slot, entry),
      remove: (entry) => this.#release(entry),
      cleared: (count) => this.#cleared(count),
      stats: this.stats,
    });
  }

  /** Charges an entry, and makes room for it. Returns what is to be kept of it: nothing when there is no memory at all. */
  #add(slot: TopicCache, entry: LogEntry): LogEntry | undefined {
    const kept = compact(entry);
    const backing = kept.block.buffer;
    const references = this.#references.get(backing) ?? 0;
    const bytes = ENTRY_BYTES + (references === 0 ? backing.byteLength : 0);
    this.#references.set(backing, references + 1); // so that what is evicted now leaves the buffer
    while (!this.#share.tryTake(bytes)) {
      if (this.#order.length === 0) {
        this.#references.delete(backing);
        if (references > 0) this.#giveBack(backing.byteLength); // taken over from its neighbours, which have left
        return undefined;
      }
      this.#evict();
    }
    this.#bytes += bytes;
    this.stats.inserted++;
    this.#order.push(slot);
    this.#timer ??= this.#expireLater();
    while (this.#bytes > this.#maxBytes && this.#order.length > 1) this.#evict();
    return kept;
  }

  #evict(): void {
    const slot = this.#order.shift();
    if (slot === this.#mark) this.#marked = false;
    else if (slot?.evict() === false) this.#stale--;
  }

  #expireLater(): Timer {
    return this.#clock.after(AGE_MS, () => this.#expire(), { unref: true });
  }

  /** Drops what came before the mark, a part in each turn; then marks the place for the next time. */
  #expire(): void {
    if (this.#closed) return;
    for (let left = EXPIRED_PER_TURN; this.#marked && left > 0; left--) this.#evict();
    if (this.#marked) {
      this.#clock.nextTurn(() => this.#expire());
      return;
    }
    this.#timer = undefined;
    if (this.#order.length === 0) return;
    this.#order.push(this.#mark);
    this.#marked = true;
    this.#timer = this.#expireLater();
  }

  /** Ends its timer. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  /** Others need memory: gives so many bytes back, as far as it has more than its reserve. */
  shrink(bytes: number): void {
    const { usedBytes, limits } = this.#share;
    const until = Math.max(usedBytes - bytes, limits.reserveBytes);
    while (this.#share.usedBytes > until && this.#order.length > 0) this.#evict();
  }

  /** Topics come and go without the cache ever being full: what is left of them in the order is dropped now and then. */
  #cleared(count: number): void {
    this.#stale += count;
    if (this.#stale < STALE_SLOTS || this.#stale * 2 < this.#order.length) return;
    const order: Deque<TopicCache> = new Deque();
    for (let slot = this.#order.shift(); slot !== undefined; slot = this.#order.shift()) {
      if (!slot.passStale()) order.push(slot);
    }
    this.#order = order;
    this.#stale = 0;
  }

  #release(entry: LogEntry): void {
    this.stats.evicted++;
    const backing = entry.block.buffer;
    const references = this.#references.get(backing) ?? 0;
    let bytes = ENTRY_BYTES;
    if (references <= 1) {
      this.#references.delete(backing);
      bytes += backing.byteLength;
    } else this.#references.set(backing, references - 1);
    this.#giveBack(bytes);
  }

  #giveBack(bytes: number): void {
    this.#bytes -= bytes;
    this.#share.give(bytes);
  }
}

function compact(entry: LogEntry): LogEntry {
  const block = unpinned(entry.block);
  return block === entry.block ? entry : { ...entry, block };
}

interface Account {
  add(slot: TopicCache, entry: LogEntry): LogEntry | undefined;
  remove(entry: LogEntry): void;
  /** So many entries have left out of their turn. */
  cleared(count: number): void;
  readonly stats: CacheStats;
}

/** The newest entries of one topic, without a gap. */
export class TopicCache {
  readonly #account: Account;
  readonly #entries: Deque<LogEntry> = new Deque();
  /** Entries of this topic that left by `clear` or `passed` while the cache's order still names them. */
  #cleared = 0;
  /** Bytes of blocks. */
  #bytes = 0;

  constructor(account: Account) {
    this.#account = account;
  }

  /** Appends the topic's newest entry. */
  push(entry: LogEntry): void {
    const last = this.#entries.at(this.#entries.length - 1);
    if (last !== undefined && endOf(last) !== entry.index) this.clear();
    const kept = this.#account.add(this, entry);
    if (kept === undefined) return;
    this.#entries.push(kept);
    this.#bytes += kept.block.length;
  }

  /** The first index that it holds. */
  get oldestIndex(): MessageIndex | undefined {
    return this.#entries.at(0)?.index;
  }

  #shift(): void {
    const entry = this.#entries.shift();
    if (entry === undefined) return;
    this.#bytes -= entry.block.length;
    this.#account.remove(entry);
  }

  /** Everybody who reads from here wants nothing below `index` any more: it leaves, but for the newest of it. */
  passed(index: number): void {
    let count = 0;
    for (let first = this.#entries.at(0); first !== undefined; first = this.#entries.at(0)) {
      if (endOf(first) > index || this.#bytes - first.block.length < KEPT_BYTES) break;
      this.#shift();
      count++;
    }
    this.#cleared += count;
    if (count > 0) this.#account.cleared(count);
  }

  /** Drops the oldest entry; called by the cache. False when it had left before. */
  evict(): boolean {
    if (this.passStale()) return false;
    this.#shift();
    return true;
  }

  /** True when the cache's order names an entry that has left before. */
  passStale(): boolean {
    if (this.#cleared === 0) return false;
    this.#cleared--;
    return true;
  }

  /** Consecutive entries from the one that holds `index` on; undefined when that one is not here. */
  read(index: MessageIndex, limits: ReadLimits): LogEntry[] | undefined {
    let at = this.#placeOf(index);
    if (at === undefined) return undefined;
    const { maxBytes, maxEntries, maxMessages = Number.POSITIVE_INFINITY } = limits;
    const found: LogEntry[] = [];
    let [bytes, messages] = [0, 0];
    for (let entry = this.#entries.at(at); entry !== undefined; entry = this.#entries.at(++at)) {
      bytes += entry.block.length;
      if (found.length > 0 && (bytes > maxBytes || found.length >= maxEntries || messages >= maxMessages)) break;
      messages += endOf(entry) - Math.max(entry.index, index);
      found.push(entry);
      this.#account.stats.hitBytes += entry.block.length;
    }
    this.#account.stats.hits += found.length;
    return found;
  }

  /** An entry was read past the cache. */
  missed(bytes: number): void {
    this.#account.stats.misses++;
    this.#account.stats.missBytes += bytes;
  }

  /** The bytes of the entry that holds `index`; undefined when it is not here. */
  bytesAt(index: MessageIndex): number | undefined {
    const at = this.#placeOf(index);
    return at === undefined ? undefined : this.#entries.at(at)?.block.length;
  }

  /** Drops everything. */
  clear(): void {
    const { length } = this.#entries;
    if (length === 0) return;
    this.#cleared += length;
    for (let i = 0; i < length; i++) this.#account.remove(this.#entries.at(i) as LogEntry);
    this.#entries.clear();
    this.#bytes = 0;
    this.#account.cleared(length);
  }

  #placeOf(index: MessageIndex): number | undefined {
    const first = this.#entries.at(0);
    const last = this.#entries.at(this.#entries.length - 1);
    if (first === undefined || last === undefined || index < first.index || index >= endOf(last)) return undefined;
    let [low, high] = [0, this.#entries.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((this.#entries.at(middle) as LogEntry).index <= index) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}
