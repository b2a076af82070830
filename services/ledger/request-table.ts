/**
 * Requests of a stream that wait for their answers, by number; and those that still wait for credit to be sent.
 */
import { MagnetarError } from '../lib/errors.ts';
import type { Credit } from '../wire/frames.ts';

/** What becomes of a request: its answer, or an error. Called once. */
export interface Settle<Answer> {
  answer(answer: Answer): void;
  fail(error: MagnetarError): void;
}

interface Waiting<Item> {
  readonly item: Item;
  readonly cost: Credit;
}

const FREE: Credit = { items: 0, bytes: 0 };

export class RequestTable<Item, Answer> {
  readonly #send: (item: Item, bytes: number) => void;
  readonly #open = new Map<number, { readonly settle: Settle<Answer>; readonly bytes: number }>();
  #waiting: Waiting<Item>[] = [];
  #credit: Credit = FREE;
  #next = 0;
  #bytes = 0;

  /** `send` puts a request on its way. */
  constructor(send: (item: Item, bytes: number) => void) {
    this.#send = send;
  }

  /** Requests without an answer. */
  get openItems(): number {
    return this.#open.size;
  }

  /** Payload bytes of requests without an answer. */
  get openBytes(): number {
    return this.#bytes;
  }

  /** Sends a request, at once or when there is credit for it, in order. `make` gets its number. */
  request(make: (request: number) => Item, cost: Credit, settle: Settle<Answer>): void {
    do this.#next = (this.#next + 1) >>> 0;
    while (this.#open.has(this.#next));
    this.#open.set(this.#next, { settle, bytes: cost.bytes });
    this.#bytes += cost.bytes;
    this.#waiting.push({ item: make(this.#next), cost });
    this.#pump();
  }

  grant(credit: Credit): void {
    this.#credit = { items: this.#credit.items + credit.items, bytes: this.#credit.bytes + credit.bytes };
    this.#pump();
  }

  #pump(): void {
    let sent = 0;
    for (const { item, cost } of this.#waiting) {
      const left = { items: this.#credit.items - cost.items, bytes: this.#credit.bytes - cost.bytes };
      if (left.items < 0 || left.bytes < 0) break;
      this.#credit = left;
      sent++;
      this.#send(item, cost.bytes);
    }
    if (sent === this.#waiting.length) this.#waiting = [];
    else if (sent > 0) this.#waiting = this.#waiting.slice(sent);
  }

  /** Takes a request out, for its answer. @throws PROTOCOL_VIOLATION when there is none of this number */
  take(request: number): Settle<Answer> {
    const open = this.#open.get(request);
    if (open === undefined)
      throw new MagnetarError('PROTOCOL_VIOLATION', `an answer to request ${request}, which is not open`);
    this.#open.delete(request);
    this.#bytes -= open.bytes;
    return open.settle;
  }

  /** The stream is gone. */
  fail(error: MagnetarError): void {
    const open = [...this.#open.values()];
    this.#open.clear();
    this.#waiting = [];
    this.#bytes = 0;
    this.#credit = FREE;
    for (const { settle } of open) settle.fail(error);
  }
}
