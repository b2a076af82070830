/**
 * Dispatch to the one consumer of an exclusive subscription, or to a reader, as a pure machine: events in, effects out.
 *
 * It reads a topic from the first message that is not acknowledged, passes over entries that are wholly acknowledged,
 * and delivers whole entries while there are permits. The driver carries the effects out in their order; a read that
 * can be served at once (from a cache) is answered by a further `step` when the effects of this one are through.
 */
import { assertNever } from '../../lib/assert.ts';
import type { MessageIndex } from '../../lib/ids.ts';
import type { AckState } from './ack-state.ts';

/** What the machine looks at of an entry, or of messages that are lost. */
export interface DispatchEntry {
  /** They are lost: who consumes them is told so, for no permits, but not before there are some. */
  readonly lost?: boolean | undefined;
  /** Index of its first message. */
  readonly index: MessageIndex;
  /** How many messages it has, at least 1. */
  readonly count: number;
  /** Its length in bytes is what the entry costs in permits, and in memory. */
  readonly block: { readonly length: number };
}

export type DispatchEvent<Entry extends DispatchEntry> =
  /** Permits, added to what is left. */
  | { readonly type: 'flow'; readonly messages: number; readonly bytes: number }
  /**
   * The answer to the read of this generation: entries in order, from the one that holds the index asked for, or, when
   * that is trimmed, from a later one. At least one; when there is none, nothing is read until `appended`, `acked` or
   * `retry`.
   */
  | { readonly type: 'entries'; readonly generation: number; readonly entries: readonly Entry[] }
  /** The read of this generation failed. It is tried again on `retry` (or `seek`). */
  | { readonly type: 'readFailed'; readonly generation: number }
  | { readonly type: 'retry' }
  /** The topic's end has moved: messages below `end` can be read. */
  | { readonly type: 'appended'; readonly end: MessageIndex }
  /** The acknowledgment state has changed. */
  | { readonly type: 'acked' }
  /** The subscription was moved (its state was reset) to `to`. Permits, and what is being read, are void. */
  | { readonly type: 'seek'; readonly to: MessageIndex }
  | { readonly type: 'close' };

export type DispatchEffect<Entry extends DispatchEntry> =
  /**
   * Read entries from the one that holds index `from` on, below the topic's end, until one would take them above
   * `maxBytes`, or until they have `maxMessages` messages; the first comes in any case.
   */
  | {
      readonly type: 'read';
      readonly from: MessageIndex;
      readonly maxBytes: number;
      readonly maxMessages: number;
      readonly generation: number;
    }
  /** Deliver the entry. `skip`: as in Delivery, absent when all of its messages are wanted. */
  | { readonly type: 'deliver'; readonly entry: Entry; readonly skip?: Buffer }
  /** Tell that messages are lost. `from`: the first of them that is not acknowledged. */
  | { readonly type: 'lost'; readonly entry: Entry; readonly from: MessageIndex }
  /** Everything below `index` was delivered or needed no delivery. Once each time that it becomes so. */
  | { readonly type: 'caughtUp'; readonly index: MessageIndex };

const NOTHING: readonly never[] = Object.freeze([]);

/** The machine. `state` is shared with whoever acknowledges; a reader has one of its own, moved by `reset`. */
export class Dispatcher<Entry extends DispatchEntry> {
  readonly #state: AckState;
  readonly #readBytes: number;
  #end: MessageIndex;
  /** Everything below was delivered or needed no delivery. */
  #next: MessageIndex;
  /** Everything below was asked for, or is not wanted. */
  #readNext: MessageIndex;
  #messages = 0;
  #bytes = 0;
  /** Entries that wait for permits. */
  #waiting: Entry[] = [];
  #reading = false;
  /** Why nothing may be read: the last read found nothing, or failed. */
  #blocked: 'empty' | 'failed' | undefined;
  #generation = 0;
  #caughtUp = false;
  #closed = false;

  /** @param readBytes bytes that are asked for in one read at most */
  constructor(state: AckState, end: MessageIndex, readBytes: number) {
    this.#state = state;
    this.#readBytes = readBytes;
    this.#end = end;
    this.#next = state.markDelete;
    this.#readNext = state.markDelete;
  }

  /** Everything below was delivered in this generation, or needed no delivery. */
  get nextIndex(): MessageIndex {
    return this.#next;
  }

  /** Of what is read now; a seek begins another one. */
  get generation(): number {
    return this.#generation;
  }

  /** The topic's end, as far as it was told. */
  get end(): MessageIndex {
    return this.#end;
  }

  /** It has permits, and nothing to do before the end has moved. */
  get idle(): boolean {
    if (this.#closed || this.#reading) return false;
    if (this.#blocked !== undefined) return this.#blocked === 'empty';
    return this.#messages > 0 && this.#bytes > 0 && this.#waiting.length === 0 && this.#readNext >= this.#end;
  }

  /** What is left of the permits. Not below 0 by more than one entry. */
  get permits(): { readonly messages: number; readonly bytes: number } {
    return { messages: this.#messages, bytes: this.#bytes };
  }

  /** Takes an event in. The effects are to be carried out in order. */
  step(event: DispatchEvent<Entry>): readonly DispatchEffect<Entry>[] {
    if (this.#closed) return NOTHING;
    switch (event.type) {
      case 'flow':
        this.#messages += event.messages;
        this.#bytes += event.bytes;
        break;
      case 'entries':
        if (event.generation !== this.#generation || !this.#reading) return NOTHING;
        this.#take(event.entries);
        break;
      case 'readFailed':
        if (event.generation !== this.#generation || !this.#reading) return NOTHING;
        this.#reading = false;
        this.#readNext = this.#afterWaiting();
        this.#blocked = 'failed';
        return NOTHING;
      case 'retry':
        this.#blocked = undefined;
        break;
      case 'acked':
        if (this.#blocked === 'empty') this.#blocked = undefined;
        break;
      case 'appended':
        if (event.end > this.#end) this.#end = event.end;
        if (this.#blocked === 'empty') this.#blocked = undefined;
        break;
      case 'seek':
        this.#seek(event.to);
        break;
      case 'close':
        this.#closed = true;
        this.#forget();
        return NOTHING;
      default:
        return assertNever(event);
    }
    return this.#advance();
  }

  #forget(): void {
    this.#generation++;
    this.#reading = false;
    this.#blocked = undefined;
    this.#waiting = [];
  }

  #seek(to: MessageIndex): void {
    this.#forget();
    this.#messages = 0;
    this.#bytes = 0;
    this.#next = to;
    this.#readNext = to;
    this.#caughtUp = false;
  }

  /** The index behind the last entry in hand. */
  #afterWaiting(): MessageIndex {
    const last = this.#waiting.at(-1);
    return last === undefined ? this.#next : ((last.index + last.count) as MessageIndex);
  }

  #take(entries: readonly Entry[]): void {
    this.#reading = false;
    this.#blocked = entries.length === 0 ? 'empty' : undefined;
    let after = this.#afterWaiting();
    for (const entry of entries) {
      const end = (entry.index + entry.count) as MessageIndex;
      if (end <= after) continue;
      after = end;
      this.#waiting.push(entry);
    }
    this.#readNext = after;
  }

  #advance(): readonly DispatchEffect<Entry>[] {
    const effects: DispatchEffect<Entry>[] = [];
    this.#deliver(effects);
    this.#read(effects);
    this.#notice(effects);
    return effects;
  }

  #deliver(effects: DispatchEffect<Entry>[]): void {
    let taken = 0;
    for (const entry of this.#waiting) {
      const { index, count } = entry;
      const acked = this.#state.countAcked(index, count);
      if (acked < count) {
        if (this.#messages <= 0 || this.#bytes <= 0) break;
        effects.push(entry.lost === true ? this.#lost(entry) : this.#delivery(entry, acked));
      }
      taken++;
      this.#next = (index + count) as MessageIndex;
    }
    if (taken > 0) this.#waiting.splice(0, taken);
    // Messages behind that need no delivery are passed over, and never read.
    if (this.#waiting.length === 0) this.#next = this.#passed(this.#next);
  }

  #delivery(entry: Entry, acked: number): DispatchEffect<Entry> {
    const { index, count, block } = entry;
    this.#messages -= count - acked;
    this.#bytes -= block.length;
    const skip = acked === 0 ? undefined : this.#state.skipBits(index, count);
    return skip === undefined ? { type: 'deliver', entry } : { type: 'deliver', entry, skip };
  }

  #lost(entry: Entry): DispatchEffect<Entry> {
    return { type: 'lost', entry, from: Math.max(entry.index, this.#state.nextUnacked(entry.index)) as MessageIndex };
  }

  /** Where the next message to deliver is, not behind the end. */
  #passed(from: MessageIndex): MessageIndex {
    const next = this.#state.nextUnacked(from);
    return next > this.#end && from <= this.#end ? this.#end : next;
  }

  #read(effects: DispatchEffect<Entry>[]): void {
    if (this.#reading || this.#blocked !== undefined) return;
    const from = this.#passed(this.#readNext > this.#next ? this.#readNext : this.#next);
    this.#readNext = from;
    if (from >= this.#end) return;
    if (this.#waiting.length > 0 || this.#messages <= 0 || this.#bytes <= 0) return;
    this.#reading = true;
    const maxBytes = Math.min(this.#readBytes, this.#bytes);
    effects.push({ type: 'read', from, maxBytes, maxMessages: this.#messages, generation: this.#generation });
  }

  #notice(effects: DispatchEffect<Entry>[]): void {
    const caughtUp = this.#waiting.length === 0 && this.#next >= this.#end;
    if (caughtUp && !this.#caughtUp) effects.push({ type: 'caughtUp', index: this.#next });
    this.#caughtUp = caughtUp;
  }
}
