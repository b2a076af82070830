/** Takes memory from those who do not move on, when others wait for it. */
import { MagnetarError } from '../lib/errors.ts';
import type { ByteShare } from './byte-budget.ts';
import type { Clock } from './clock.ts';

/** Somebody who holds memory until a peer has taken, or sent, what it is for. */
export interface Holder {
  readonly heldBytes: number;
  /** When the peer last got on, by the monotonic clock, in ms. */
  readonly progressAt: number;
  /** Gives everything back, and tells the peer why. */
  end(error: MagnetarError): void;
}

const PATIENCE_MS = 5_000;

/**
 * While there is enough memory, peers that stand still are left alone. Once others have to wait for some, every holder that has
 * made no progress for `patienceMs` is ended, so that no number of stalled peers can stop the rest.
 */
export class StallGuard {
  readonly share: ByteShare;
  readonly clock: Clock;
  readonly #patienceMs: number;
  readonly #holders: Set<Holder> = new Set();
  #watching = false;

  /** @param patienceMs how long somebody waits for memory before holders are looked at, and how long these may stand still */
  constructor(clock: Clock, share: ByteShare, patienceMs: number = PATIENCE_MS) {
    this.clock = clock;
    this.share = share;
    this.#patienceMs = patienceMs;
  }

  add(holder: Holder): void {
    this.#holders.add(holder);
  }

  remove(holder: Holder): void {
    this.#holders.delete(holder);
  }

  /** Takes bytes of the share, as its `take` does; whoever stands still meanwhile has to make room. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    this.#watch();
    await this.share.take(bytes, signal);
  }

  #watch(): void {
    if (this.#watching) return;
    this.#watching = true;
    this.clock.after(this.#patienceMs, () => this.#check(), { unref: true });
  }

  #check(): void {
    this.#watching = false;
    if (this.share.waiting === 0) return;
    const before = this.clock.monotonic() - this.#patienceMs;
    for (const holder of this.#holders) {
      if (holder.heldBytes === 0 || holder.progressAt > before) continue;
      const text = `memory for ${this.share.name} is short, and ${holder.heldBytes} bytes have not moved for ${this.#patienceMs} ms`;
      holder.end(new MagnetarError('QUEUE_FULL', `${text}; connect again`));
    }
    this.#watch();
  }
}
