import type { Clock } from '../runtime/clock.ts';

/** The largest sum of bytes that an outbox puts into one frame; a single item may be larger. */
export const OUTBOX_FRAME_BYTES = 262_144;
/**
 * The same for what a server sends, whose clients have room for it: the frames of a call go out one after the other, so with
 * fewer of them a payload of 64 KB takes a tenth less of the CPU of both sides. Servers that receive pay for each frame before they
 * read it.
 */
export const SERVER_FRAME_BYTES = 1_048_576;
/** The largest number of items that an outbox puts into one frame. */
const OUTBOX_FRAME_ITEMS = 4_096;

/** The part of a gRPC stream that an outbox writes to. */
export interface FrameStream<Frame> {
  /** False: wait for 'drain'. `taken` is called when the frame has left, and perhaps not at all when the stream ends. */
  write(frame: Frame, taken?: () => void): boolean;
  on(event: 'drain', listener: () => void): unknown;
  off(event: 'drain', listener: () => void): unknown;
}

/** How an outbox is made. */
export interface OutboxOptions<Item, Frame> {
  readonly clock: Clock;
  readonly stream: FrameStream<Frame>;
  /** Makes a frame of items, in their order. The array is the frame's. */
  readonly frame: (items: readonly Item[]) => Frame;
  /** Called each time that the queue has become empty after the stream had asked to wait. */
  readonly onDrained?: () => void;
  /** Called when items of so many bytes have left; not for those that are lost with the stream. */
  readonly onTaken?: (bytes: number) => void;
  /** The largest sum of bytes of a frame; OUTBOX_FRAME_BYTES when not given. */
  readonly frameBytes?: number;
}

/**
 * Collects what one turn of the event loop has to say to a stream and writes it as one frame, or as soon as a frame is
 * full. Honours back-pressure: while the stream asks to wait, items stay here. The owner bounds them, by credits and by
 * looking at `queuedItems` and `queuedBytes`.
 */
export class Outbox<Item, Frame> {
  readonly #clock: Clock;
  readonly #stream: FrameStream<Frame>;
  readonly #frame: (items: readonly Item[]) => Frame;
  readonly #onDrained: (() => void) | undefined;
  readonly #onTaken: ((bytes: number) => void) | undefined;
  readonly #drained: () => void;
  readonly #frameBytes: number;
  #items: Item[] = [];
  #sizes: number[] = [];
  #bytes = 0;
  #scheduled = false;
  #writing = false;
  #blocked = false;
  #closed = false;

  constructor(options: OutboxOptions<Item, Frame>) {
    this.#clock = options.clock;
    this.#stream = options.stream;
    this.#frame = options.frame;
    this.#onDrained = options.onDrained;
    this.#onTaken = options.onTaken;
    this.#frameBytes = options.frameBytes ?? OUTBOX_FRAME_BYTES;
    this.#drained = (): void => {
      this.#blocked = false;
      this.flush();
      if (!this.#blocked && !this.#closed) this.#onDrained?.();
    };
    this.#stream.on('drain', this.#drained);
  }

  /** Items that are not written yet. */
  get queuedItems(): number {
    return this.#items.length;
  }

  /** Bytes of the items that are not written yet, as `push` was told them. */
  get queuedBytes(): number {
    return this.#bytes;
  }

  /** True while the stream asks to wait. */
  get blocked(): boolean {
    return this.#blocked;
  }

  /** Queues an item of about `bytes` bytes. After `close` it does nothing. */
  push(item: Item, bytes = 0): void {
    if (this.#closed) return;
    this.#items.push(item);
    this.#sizes.push(bytes);
    this.#bytes += bytes;
    if (this.#blocked) return;
    const full = this.#bytes >= this.#frameBytes || this.#items.length >= OUTBOX_FRAME_ITEMS;
    if (full && !this.#writing) this.flush();
    else if (!this.#scheduled) {
      this.#scheduled = true;
      this.#clock.nextTurn(this.#turn);
    }
  }

  /** Writes now what is queued, as far as the stream takes it. */
  flush(): void {
    this.#write(false);
  }

  /** Writes what is queued whether the stream asks to wait or not, and takes nothing more. Does not end the stream. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#write(true);
    this.discard();
  }

  /** For a stream that is gone: forgets what is queued and takes nothing more. Idempotent. */
  discard(): void {
    this.#closed = true;
    this.#items = [];
    this.#sizes = [];
    this.#bytes = 0;
    this.#stream.off('drain', this.#drained);
  }

  readonly #turn = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  #whenTaken(bytes: number): (() => void) | undefined {
    const onTaken = this.#onTaken;
    return onTaken === undefined || bytes === 0 ? undefined : () => onTaken(bytes);
  }

  /** `force`: also while the stream asks to wait. What is pushed by somebody whom a write calls back goes out later. */
  #write(force: boolean): void {
    if (this.#writing || this.#items.length === 0) return;
    this.#writing = true;
    const [items, sizes] = [this.#items, this.#sizes];
    this.#items = [];
    this.#sizes = [];
    let from = 0;
    while (from < items.length && !this.#closed) {
      if (this.#blocked && !force) break;
      let [end, bytes] = [from + 1, sizes[from] ?? 0];
      const last = Math.min(items.length, from + OUTBOX_FRAME_ITEMS);
      while (end < last && bytes + (sizes[end] ?? 0) <= this.#frameBytes) {
        bytes += sizes[end] ?? 0;
        end += 1;
      }
      this.#bytes -= bytes;
      const frame = this.#frame(from === 0 && end === items.length ? items : items.slice(from, end));
      from = end;
      if (!this.#stream.write(frame, this.#whenTaken(bytes))) this.#blocked = true;
    }
    this.#writing = false;
    if (this.#closed || from === items.length) return;
    this.#items = [...items.slice(from), ...this.#items];
    this.#sizes = [...sizes.slice(from), ...this.#sizes];
  }
}
