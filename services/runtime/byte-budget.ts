import { assert } from '../lib/assert.ts';
import { Deque } from '../lib/collections/deque.ts';
import { MagnetarError } from '../lib/errors.ts';

interface Waiter {
  readonly bytes: number;
  readonly grant: () => void;
  gone: boolean;
}

/** What one class of use can get. */
export interface ShareLimits {
  /** Bytes that no other class can take. */
  readonly reserveBytes: number;
  /** Bytes that it can hold at most, however much is free. */
  readonly limitBytes: number;
}

/** How a budget is cut. */
export interface ByteBudgetOptions<Class extends string> {
  readonly totalBytes: number;
  readonly shares: Readonly<Record<Class, ShareLimits>>;
  /** At most so many wait per class. */
  readonly waiters: number;
}

/** What a share needs of its budget. */
interface Account {
  /** What is free beside the reserves of all classes. */
  readonly unreserved: number;
  /** A class's use has changed by `used`, what is left of its reserve by `heldBack`. */
  moved(used: number, heldBack: number): void;
  /** Asks whoever holds memory that he can do without for so many bytes. */
  reclaim(bytes: number): void;
  /** Bytes have become free. */
  freed(): void;
}

/** The use of one class. */
export class ByteShare {
  readonly name: string;
  readonly limits: ShareLimits;
  /** The most that it can ever get. */
  readonly mostBytes: number;
  readonly #account: Account;
  readonly #mostWaiters: number;
  readonly #queue: Deque<Waiter> = new Deque();
  #used = 0;
  /** Waiters that have not gone away. */
  #waiting = 0;

  constructor(
    name: string,
    limits: ShareLimits,
    most: { readonly bytes: number; readonly waiters: number },
    account: Account,
  ) {
    this.name = name;
    this.limits = limits;
    this.mostBytes = Math.min(limits.limitBytes, most.bytes);
    this.#mostWaiters = most.waiters;
    this.#account = account;
  }

  /** Bytes taken and not given back. */
  get usedBytes(): number {
    return this.#used;
  }

  /** Who waits for bytes. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Bytes that could be taken now. */
  get availableBytes(): number {
    const ownLeft = Math.max(0, this.limits.reserveBytes - this.#used);
    return Math.max(0, Math.min(this.limits.limitBytes - this.#used, this.#account.unreserved + ownLeft));
  }

  /** Takes the bytes if they are there and nobody of this class waits for some. */
  tryTake(bytes: number): boolean {
    return this.#waiting === 0 && this.#takeOrReclaim(bytes);
  }

  #takeOrReclaim(bytes: number): boolean {
    if (this.#takeIfThere(bytes)) return true;
    if (bytes > this.limits.limitBytes - this.#used) return false;
    this.#account.reclaim(bytes - this.availableBytes);
    return this.#takeIfThere(bytes);
  }

  #takeIfThere(bytes: number): boolean {
    if (bytes > this.availableBytes) return false;
    this.#move(bytes);
    return true;
  }

  #move(bytes: number): void {
    const { reserveBytes } = this.limits;
    const before = Math.max(0, reserveBytes - this.#used);
    this.#used += bytes;
    this.#account.moved(bytes, Math.max(0, reserveBytes - this.#used) - before);
  }

  /** Takes bytes that are in use already, also above the limits: nobody else gets any until they are given back. */
  charge(bytes: number): void {
    this.#move(bytes);
  }

  /**
   * Takes the bytes, waiting for them behind those of the same class that came before.
   *
   * @throws INVALID_ARGUMENT (more than the class can ever get), QUEUE_FULL (too many wait), the signal's reason.
   */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.tryTake(bytes)) return;
    if (bytes > this.mostBytes) {
      const text = `${bytes} bytes for ${this.name}: the budget allows at most ${this.mostBytes}`;
      throw new MagnetarError('INVALID_ARGUMENT', text);
    }
    if (this.#waiting >= this.#mostWaiters) {
      const text = `${this.#waiting} wait for memory for ${this.name} already; no more are let in`;
      throw new MagnetarError('QUEUE_FULL', text);
    }
    this.#waiting++;
    await new Promise<void>((resolve, reject) => {
      const grant = (): void => {
        signal.removeEventListener('abort', abort);
        resolve();
      };
      const waiter: Waiter = { bytes, grant, gone: false };
      const abort = (): void => {
        waiter.gone = true;
        this.#waiting--;
        reject(signal.reason as Error);
        this.serve();
      };
      signal.addEventListener('abort', abort, { once: true });
      this.#queue.push(waiter);
    });
  }

  /** Gives bytes back that were taken. @throws AssertionError when more is given than was taken */
  give(bytes: number): void {
    assert(bytes <= this.#used, `${bytes} bytes given back to ${this.name}, of which ${this.#used} were taken`);
    this.#move(-bytes);
    this.#account.freed();
  }

  /** Lets those go on who wait for bytes that are there now. For the budget. */
  serve(): void {
    for (let first = this.#queue.peek(); first !== undefined; first = this.#queue.peek()) {
      if (!first.gone) {
        if (!this.#takeIfThere(first.bytes)) return;
        this.#waiting--;
        first.grant();
      }
      this.#queue.shift();
    }
  }
}

/**
 * Bytes that a process may hold in buffers, shared by classes of use. A class can always get its reserve, whatever the
 * others hold; beyond it, it gets what is left after the others' reserves, up to its limit. So work that frees memory
 * (reads, acks, recovery) goes on when publishes have filled everything that they can get, and the other way round.
 *
 * Unless somebody has charged what was in use already: in use + what is left of each reserve <= total.
 */
export class ByteBudget<Class extends string> {
  readonly totalBytes: number;
  readonly #shares: ReadonlyMap<Class, ByteShare>;
  #used = 0;
  /** What the classes' reserves still hold back. */
  #heldBack = 0;
  #reclaim: ((bytes: number) => void) | undefined;

  /** @throws INVALID_ARGUMENT when the reserves exceed the total */
  constructor({ totalBytes, shares, waiters }: ByteBudgetOptions<Class>) {
    this.totalBytes = totalBytes;
    const all = Object.entries<ShareLimits>(shares);
    for (const [, { reserveBytes }] of all) this.#heldBack += reserveBytes;
    if (this.#heldBack > totalBytes) {
      const text = `reserves of ${this.#heldBack} bytes exceed the budget of ${totalBytes}`;
      throw new MagnetarError('INVALID_ARGUMENT', text);
    }
    const account = this.#account();
    this.#shares = new Map(
      all.map(([name, limits]) => {
        const most = { bytes: totalBytes - this.#heldBack + limits.reserveBytes, waiters };
        return [name as Class, new ByteShare(name, limits, most, account)];
      }),
    );
  }

  #account(): Account {
    const unreserved = (): number => this.totalBytes - this.#used - this.#heldBack;
    return {
      get unreserved() {
        return unreserved();
      },
      moved: (used, heldBack) => {
        this.#used += used;
        this.#heldBack += heldBack;
      },
      reclaim: (bytes) => this.#reclaim?.(bytes),
      freed: () => {
        for (const share of this.#shares.values()) if (share.waiting > 0) share.serve();
      },
    };
  }

  /** Bytes taken and not given back, over all classes. */
  get usedBytes(): number {
    return this.#used;
  }

  /** The parts of all classes. */
  [Symbol.iterator](): Iterator<ByteShare> {
    return this.#shares.values();
  }

  /** The part of one class. */
  share(name: Class): ByteShare {
    const share = this.#shares.get(name);
    assert(share !== undefined, `no class ${name} in this budget`);
    return share;
  }

  /** Sets who is asked, before anybody waits, to give back about so many bytes that he can do without. */
  onShort(reclaim: (bytes: number) => void): void {
    this.#reclaim = reclaim;
  }
}
