import { Deque } from '../../lib/collections/deque.ts';
import type { Clock } from '../clock.ts';

/** File offsets, lengths and addresses of direct I/O are multiples of this: the largest sector of a disk. */
export const DIRECT_BYTES: number = 4_096;
/** One transfer of direct I/O. */
export const TRANSFER_BYTES: number = 2_097_152;
const WASM_PAGE_BYTES = 65_536;
const BUFFERS = 6;
/** They are given back when nobody has wanted one for so many ms, and after twice that at the latest. */
const KEPT_MS = 5_000;

/**
 * The buffers through which direct I/O goes, of 2 MiB each, at addresses as the disk wants them. They are lent for one
 * transfer at a time; who finds none waits. A memory of WebAssembly is what JavaScript has that begins on a page; it
 * becomes resident as it is used, and leaves with the next collection once it is given back.
 */
export class AlignedBuffers {
  #free: Buffer[] | undefined;
  readonly #waiting = new Deque<(buffer: Buffer) => void>();
  readonly #clock: Clock;
  /** Somebody has wanted one since the last look. */
  #used = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** True while it has memory. */
  get held(): boolean {
    return this.#free !== undefined;
  }

  /** Runs `transfer` with a buffer that is its own until it has ended. */
  async lend<T>(transfer: (buffer: Buffer) => Promise<T>): Promise<T> {
    this.#used = true;
    const free = (this.#free ??= this.#allocate());
    const buffer = free.pop() ?? (await new Promise<Buffer>((resolve) => this.#waiting.push(resolve)));
    try {
      return await transfer(buffer);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) free.push(buffer);
      else next(buffer);
    }
  }

  #allocate(): Buffer[] {
    this.#lookLater();
    return allocate();
  }

  #lookLater(): void {
    this.#clock.after(KEPT_MS, () => this.#look(), { unref: true });
  }

  #look(): void {
    const idle = !this.#used && this.#free?.length === BUFFERS;
    this.#used = false;
    if (idle) this.#free = undefined;
    else this.#lookLater();
  }
}

/** The part of WebAssembly that is used here; the types of Node do not have it. */
type Memory = new (size: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer };

function allocate(): Buffer[] {
  const pages = (BUFFERS * TRANSFER_BYTES) / WASM_PAGE_BYTES;
  const { Memory } = (globalThis as unknown as { WebAssembly: { Memory: Memory } }).WebAssembly;
  const memory = new Memory({ initial: pages, maximum: pages });
  return Array.from({ length: BUFFERS }, (_, at) => Buffer.from(memory.buffer, at * TRANSFER_BYTES, TRANSFER_BYTES));
}
