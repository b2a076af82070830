import type { Writable } from 'node:stream';
import { MagnetarError } from '../lib/errors.ts';
import type { Clock } from '../runtime/clock.ts';
import { platformReason } from './text.ts';

const CHUNK_BYTES = 262_144;
const PENDING_BYTES = 2_097_152;

/** The reader of our output has gone away (`| head`): the command ends quietly. */
export class OutputClosed extends Error {
  constructor() {
    super('nobody reads the output any more');
    this.name = 'OutputClosed';
  }
}

function isClosed(error: Error): boolean {
  return 'code' in error && (error.code === 'EPIPE' || error.code === 'ERR_STREAM_DESTROYED');
}

/** The output takes no more, such as a file on a full disk. */
function cannotWriteOutput(error: Error): MagnetarError {
  return new MagnetarError('UNAVAILABLE', `cannot write the output (${platformReason(error)})`, { cause: error });
}

/** What is to be said of an error of stdout; undefined: nothing, its reader has gone away. */
export function outputFailure(error: Error): MagnetarError | undefined {
  return isClosed(error) ? undefined : cannotWriteOutput(error);
}

/**
 * Writes many small records to a stream as few large chunks: what one turn of the event loop has to say goes out
 * together. `commit(tag)` ends a record; `onTaken(tag)` says that the stream has taken every record up to that tag.
 */
export class ChunkedOutput<Tag = undefined> {
  readonly #stream: Writable;
  readonly #clock: Clock;
  readonly #onTaken: (tag: Tag) => void;
  #chunk: Buffer = Buffer.alloc(0);
  /** The part of the chunk that is filled and not yet handed to the stream. */
  #start = 0;
  #end = 0;
  #committed: { tag: Tag } | undefined;
  #flushComes = false;
  #pendingBytes = 0;
  #failure: Error | undefined;
  #waiters: { upTo: number; resolve: () => void; reject: (error: Error) => void }[] = [];
  readonly #onError = (error: Error): void => this.#fail(error);

  constructor(stream: Writable, clock: Clock, onTaken: (tag: Tag) => void = () => {}) {
    this.#stream = stream;
    this.#clock = clock;
    this.#onTaken = onTaken;
    stream.on('error', this.#onError);
  }

  /** Appends bytes to the record. Large ones are not copied and must not change any more. */
  write(bytes: Buffer): void {
    if (bytes.length >= CHUNK_BYTES) {
      this.flush();
      this.#send(bytes);
      return;
    }
    this.#room(bytes.length);
    this.#end += bytes.copy(this.#chunk, this.#end);
  }

  /** Appends text to the record. */
  writeText(text: string): void {
    if (text.length * 3 > CHUNK_BYTES) {
      this.write(Buffer.from(text));
      return;
    }
    this.#room(text.length * 3);
    this.#end += this.#chunk.write(text, this.#end);
  }

  /** Appends one byte to the record. */
  writeByte(byte: number): void {
    this.#room(1);
    this.#chunk[this.#end++] = byte;
  }

  /** Ends the record. */
  commit(tag: Tag): void {
    this.#committed = { tag };
    if (this.#flushComes) return;
    this.#flushComes = true;
    this.#clock.nextTurn(() => {
      this.#flushComes = false;
      this.flush();
    });
  }

  /** True while the stream is behind: wait for `drained()` before writing more. */
  get behind(): boolean {
    return this.#pendingBytes > PENDING_BYTES || this.#failure !== undefined;
  }

  /** Resolves when the stream has caught up. @throws OutputClosed, or what the stream failed with. */
  async drained(): Promise<void> {
    await this.#pendingAtMost(PENDING_BYTES / 2);
  }

  /** Resolves when the stream has taken everything. @throws OutputClosed, or what the stream failed with. */
  async finish(): Promise<void> {
    this.flush();
    await this.#pendingAtMost(0);
    this.#stream.removeListener('error', this.#onError);
  }

  /** Hands what there is to the stream. */
  flush(): void {
    if (this.#end === this.#start && this.#committed === undefined) return;
    const bytes = this.#chunk.subarray(this.#start, this.#end);
    this.#start = this.#end;
    this.#send(bytes);
  }

  #send(bytes: Buffer): void {
    if (this.#failure !== undefined) return;
    const committed = this.#committed;
    this.#committed = undefined;
    this.#pendingBytes += bytes.length;
    this.#stream.write(bytes, (error) => {
      this.#pendingBytes -= bytes.length;
      if (error !== undefined && error !== null) {
        this.#fail(error);
        return;
      }
      if (committed !== undefined && this.#failure === undefined) this.#onTaken(committed.tag);
      this.#wake();
    });
  }

  #room(bytes: number): void {
    if (this.#end + bytes <= this.#chunk.length) return;
    this.flush();
    this.#chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    this.#start = 0;
    this.#end = 0;
  }

  async #pendingAtMost(bytes: number): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#pendingBytes <= bytes) return;
    await new Promise<void>((resolve, reject) => this.#waiters.push({ upTo: bytes, resolve, reject }));
  }

  #wake(): void {
    if (this.#waiters.length === 0) return;
    const waiters = this.#waiters;
    this.#waiters = waiters.filter((waiter) => waiter.upTo < this.#pendingBytes);
    for (const waiter of waiters) if (waiter.upTo >= this.#pendingBytes) waiter.resolve();
  }

  #fail(error: Error): void {
    this.#failure ??= isClosed(error) ? new OutputClosed() : cannotWriteOutput(error);
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.reject(this.#failure);
  }
}
