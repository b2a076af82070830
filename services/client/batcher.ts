import type { Epoch, Millis, SequenceId } from '../lib/ids.ts';
import type { OutgoingMessage } from '../wire/block.ts';
import { BlockBuilder } from '../wire/block.ts';
import type { Settle } from './batch.ts';
import { Batch, rejectAll } from './batch.ts';
import type { MessageId } from './message-id.ts';

/** The batch that a producer is filling: messages are encoded as they come, straight into what is sent. */
export class Batcher {
  readonly #builder: BlockBuilder;
  #settles: Settle[] = [];
  #deadline = Number.POSITIVE_INFINITY;

  constructor(options: { readonly producerName: string; readonly epoch: Epoch; readonly capacityBytes: number }) {
    this.#builder = new BlockBuilder(options);
  }

  get count(): number {
    return this.#builder.count;
  }

  /** Encoded bytes. */
  get bytes(): number {
    return this.#builder.bytes;
  }

  /** No less than the bytes of the block that it would become. */
  get blockBytes(): number {
    return this.#builder.blockBytes;
  }

  get firstSequenceId(): SequenceId {
    return this.#builder.firstSequenceId;
  }

  get lastSequenceId(): SequenceId {
    return this.#builder.lastSequenceId;
  }

  /** Of the oldest message, on the monotonic clock. */
  get deadline(): number {
    return this.#deadline;
  }

  // One executor for all promises: it keeps the end that settles the promise, and that is all a message costs.
  readonly #keep = (settle: Settle): void => {
    this.#settles.push(settle);
  };

  /**
   * Encodes a message; the promise is settled with its batch. Without a sequence id it gets the one after the last
   * message's. The deadline is the batch's if it is the first message. @throws MagnetarError INVALID_ARGUMENT
   */
  append(message: OutgoingMessage, sequenceId: SequenceId | undefined, deadline: number): Promise<MessageId> {
    if (this.#settles.length === 0) this.#deadline = deadline;
    this.#builder.append(message, sequenceId);
    return new Promise(this.#keep);
  }

  /** As `append`, for a message for which there is a promise. @throws MagnetarError INVALID_ARGUMENT */
  appendFor(settle: Settle, message: OutgoingMessage, sequenceId: SequenceId | undefined, deadline: number): void {
    if (this.#settles.length === 0) this.#deadline = deadline;
    this.#builder.append(message, sequenceId);
    this.#settles.push(settle);
  }

  /** The finished batch. There has to be at least one message. */
  cut(publishTime: Millis): Batch {
    const { firstSequenceId, lastSequenceId, bytes } = this.#builder;
    const { block, crc32c } = this.#builder.finish(publishTime);
    const settles = this.#settles;
    this.#settles = [];
    return new Batch({ block, crc32c, firstSequenceId, lastSequenceId, bytes, deadline: this.#deadline, settles });
  }

  /** Gives its messages up. */
  reject(publishTime: Millis, error: Error): void {
    if (this.count === 0) return;
    this.#builder.finish(publishTime);
    const settles = this.#settles;
    this.#settles = [];
    rejectAll(settles, error);
  }
}
