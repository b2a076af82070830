import type { OutgoingRest } from '../wire/block.ts';
import type { Deferred } from './abort.ts';
import type { MessageId } from './message-id.ts';

/** How the promise of a message that waits is settled, and its watch ended. */
export interface Ends {
  readonly resolve: (id: MessageId) => void;
  readonly reject: (error: unknown) => void;
  /** Ends the watch on its signal. */
  readonly stop: () => void;
}

/** A message for which there is no room yet. */
export interface WaitingMessage extends Ends {
  readonly kind: 'message';
  readonly payload: Uint8Array;
  readonly rest: OutgoingRest | undefined;
  /** Of all its contents. */
  readonly bytes: number;
  readonly sequenceId: bigint | undefined;
  readonly deadline: number;
}

/** Somebody who waits for everything that was sent before. */
export interface Flush {
  readonly kind: 'flush';
  /** How many messages have to be settled; Infinity while some of them wait for room. */
  target: number;
  readonly done: Deferred<void>;
  error: Error | undefined;
}

type Waiting = WaitingMessage | Flush;

/** Messages that wait for room, and flushes behind some of them, in the order in which they came; bounded. */
export class WaitingLine {
  readonly #maxMessages: number;
  readonly #maxBytes: number;
  readonly #line = new Set<Waiting>();
  #messages = 0;
  #bytes = 0;

  constructor(limits: { readonly maxMessages: number; readonly maxBytes: number }) {
    this.#maxMessages = limits.maxMessages;
    this.#maxBytes = limits.maxBytes;
  }

  get empty(): boolean {
    return this.#line.size === 0;
  }

  get messages(): number {
    return this.#messages;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** True when a message of so many bytes may wait, too. One alone always may. */
  takes(bytes: number): boolean {
    return this.#messages === 0 || (this.#messages < this.#maxMessages && this.#bytes + bytes <= this.#maxBytes);
  }

  push(waiting: Waiting): void {
    this.#line.add(waiting);
    if (waiting.kind === 'flush') return;
    this.#messages++;
    this.#bytes += waiting.bytes;
  }

  /** Who came first. */
  first(): Waiting | undefined {
    for (const waiting of this.#line) return waiting;
    return undefined;
  }

  remove(waiting: Waiting): void {
    if (!this.#line.delete(waiting) || waiting.kind === 'flush') return;
    this.#messages--;
    this.#bytes -= waiting.bytes;
  }

  /** Takes everybody out; gives the messages. */
  clear(): WaitingMessage[] {
    const messages = [...this.#line].filter((waiting) => waiting.kind === 'message');
    this.#line.clear();
    this.#messages = 0;
    this.#bytes = 0;
    return messages;
  }
}
