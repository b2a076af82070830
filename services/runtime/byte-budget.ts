import { assert } from '../lib/assert.ts';
import { Deque } from '../lib/collections/deque.ts';
import { MagnetarError } from '../lib/errors.ts';

interface Waiter {
  readonly bytes: number;
  readonly grant: () => void;
  gone: boolean;
}

interface Share {
  readonly reserve: number;
  used: number;
  /** Waiters that have not gone away. */
  waiting: number;
  readonly queue: Deque<Waiter>;
}

/** How a budget is cut. `reserves`: per class of use, the bytes that no other class can take; 0 for none. */
export interface ByteBudgetOptions<Class extends string> {
  readonly totalBytes: number;
  readonly reserves: Readonly<Record<Class, number>>;
  /** At most so many wait per class. */
  readonly waiters: number;
}

/**
 * Bytes that a process may hold in buffers, shared by classes of use. A class can always get its reserve, whatever the
 * others hold; beyond it, it gets what is left after the others' reserves. So work that frees memory (reads, acks,
 * recovery) goes on when publishes have filled everything that they can get.
 *
 * Invariant: in use + what is left of each reserve <= total.
 */
export class ByteBudget<Class extends string> {
  readonly #total: number;
  readonly #waiters: number;
  readonly #shares: ReadonlyMap<Class, Share>;
  #used = 0;
  /** What the classes' reserves still hold back. */
  #heldBack = 0;

  constructor({ totalBytes, reserves, waiters }: ByteBudgetOptions<Class>) {
    const shares = new Map<Class, Share>();
    for (const [name, reserve] of Object.entries<number>(reserves)) {
      shares.set(name as Class, { reserve, used: 0, waiting: 0, queue: new Deque() });
      this.#heldBack += reserve;
    }
    if (this.#heldBack > totalBytes) {
      throw new MagnetarError(
        'INVALID_ARGUMENT',
        `reserves of ${this.#heldBack} bytes exceed the budget of ${totalBytes}`,
      );
    }
    this.#total = totalBytes;
    this.#waiters = waiters;
    this.#shares = shares;
  }

  /** Bytes taken and not given back. */
  get usedBytes(): number {
    return this.#used;
  }

  #share(name: Class): Share {
    const share = this.#shares.get(name);
    assert(share !== undefined, `no class ${name} in this budget`);
    return share;
  }

  /** Takes the bytes if they are there and nobody of this class waits for some. */
  tryTake(bytes: number, name: Class): boolean {
    const share = this.#share(name);
    return share.waiting === 0 && this.#takeIfThere(bytes, share);
  }

  #takeIfThere(bytes: number, share: Share): boolean {
    const ownLeft = Math.max(0, share.reserve - share.used);
    if (bytes > this.#total - this.#used - (this.#heldBack - ownLeft)) return false;
    this.#move(share, bytes);
    return true;
  }

  #move(share: Share, bytes: number): void {
    this.#heldBack -= Math.max(0, share.reserve - share.used);
    share.used += bytes;
    this.#used += bytes;
    this.#heldBack += Math.max(0, share.reserve - share.used);
  }

  /**
   * Takes the bytes, waiting for them behind those of the same class that came before.
   *
   * @throws INVALID_ARGUMENT (more than the class can ever get), QUEUE_FULL (too many wait), the signal's reason.
   */
  async take(bytes: number, name: Class, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const share = this.#share(name);
    if (this.tryTake(bytes, name)) return;
    const highest = this.#mostFor(share);
    if (bytes > highest) {
      throw new MagnetarError('INVALID_ARGUMENT', `${bytes} bytes for ${name}: the budget allows at most ${highest}`);
    }
    if (share.waiting >= this.#waiters) {
      throw new MagnetarError('QUEUE_FULL', `${share.waiting} wait for memory for ${name} already; no more are let in`);
    }
    share.waiting++;
    await new Promise<void>((resolve, reject) => {
      const grant = (): void => {
        signal.removeEventListener('abort', abort);
        resolve();
      };
      const waiter: Waiter = { bytes, grant, gone: false };
      const abort = (): void => {
        waiter.gone = true;
        share.waiting--;
        reject(signal.reason as Error);
        this.#serve(share);
      };
      signal.addEventListener('abort', abort, { once: true });
      share.queue.push(waiter);
    });
  }

  #mostFor(share: Share): number {
    let most = this.#total;
    for (const other of this.#shares.values()) most -= other === share ? 0 : other.reserve;
    return most;
  }

  /** Gives bytes back that were taken for this class. @throws AssertionError when more is given than was taken. */
  give(bytes: number, name: Class): void {
    const share = this.#share(name);
    assert(bytes <= share.used, `${bytes} bytes given back to ${name}, of which ${share.used} were taken`);
    this.#move(share, -bytes);
    for (const other of this.#shares.values()) this.#serve(other);
  }

  #serve(share: Share): void {
    for (let first = share.queue.peek(); first !== undefined; first = share.queue.peek()) {
      if (!first.gone) {
        if (!this.#takeIfThere(first.bytes, share)) return;
        share.waiting--;
        first.grant();
      }
      share.queue.shift();
    }
  }
}
