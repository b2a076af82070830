import { Deque } from '../lib/collections/deque.ts';
import type { ByteShare } from '../runtime/byte-budget.ts';

/** A frame, and when it came. */
interface Arrival {
  readonly bytes: Buffer;
  readonly at: number;
}

/** What a gate does with a stream. */
export interface FrameGateOptions<Frame> {
  readonly share: ByteShare;
  /** @throws MagnetarError: the stream ends with it */
  readonly decode: (bytes: Buffer) => Frame;
  /** What a frame costs, in bytes; 0: it passes without memory. @throws as `decode` does */
  readonly cost: (frame: Frame) => number;
  /** Handles a frame. Its bytes are taken: whoever has them gives them back. @throws as `decode` does */
  readonly run: (frame: Frame, at: number) => void;
  /** Runs something that may throw; an error ends the stream. */
  readonly attempt: (work: () => void) => void;
  readonly fail: (error: unknown) => void;
  /** The stream is to be read, or not. */
  readonly read: (on: boolean) => void;
}

/**
 * Lets the frames of a stream in, in order, as memory for them is there. Meanwhile the stream is not read; frames that
 * are on their way already wait here.
 */
export class FrameGate<Frame> {
  readonly #options: FrameGateOptions<Frame>;
  readonly #waiting: Deque<Arrival> = new Deque();
  #blocked: AbortController | undefined;
  #closed = false;

  constructor(options: FrameGateOptions<Frame>) {
    this.#options = options;
  }

  /** Frames that wait. */
  get waiting(): number {
    return this.#waiting.length + (this.#blocked === undefined ? 0 : 1);
  }

  /** A frame has come, at that time. @throws as `decode`, `cost` and `run` do */
  enter(bytes: Buffer, at = 0): void {
    if (this.#blocked !== undefined) this.#waiting.push({ bytes, at });
    else this.#handle(bytes, at);
  }

  #handle(bytes: Buffer, at: number): void {
    const { share, decode, cost, run } = this.#options;
    const frame = decode(bytes);
    const size = cost(frame);
    if (size === 0 || share.tryTake(size)) run(frame, at);
    else void this.#wait(frame, size, at);
  }

  async #wait(frame: Frame, size: number, at: number): Promise<void> {
    const { share, run, attempt, fail, read } = this.#options;
    const blocked = new AbortController();
    this.#blocked = blocked;
    read(false);
    try {
      await share.take(size, blocked.signal);
    } catch (error) {
      if (!this.#closed) fail(error);
      return;
    }
    if (this.#closed) {
      share.give(size);
      return;
    }
    this.#blocked = undefined;
    attempt(() => run(frame, at));
    while (!this.#isBlocked) {
      const next = this.#waiting.shift();
      if (next === undefined) {
        read(true);
        return;
      }
      attempt(() => this.#handle(next.bytes, next.at));
    }
  }

  get #isBlocked(): boolean {
    return this.#blocked !== undefined || this.#closed;
  }

  /** The stream is over. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#waiting.clear();
    this.#blocked?.abort();
  }
}
