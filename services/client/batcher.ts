import type { Millis, SequenceId } from '../lib/ids.ts';
import type { BlockBuilderOptions, OutgoingRest } from '../wire/block.ts';
import { BlockBuilder } from '../wire/block.ts';
import { Batch } from './batch.ts';
import { Outcome } from './outcome.ts';

/** The batch that a producer is filling: messages are encoded as they come, straight into what is sent. */
export class Batcher {
  readonly #builder: BlockBuilder;
  #outcome = new Outcome();
  #deadline = Number.POSITIVE_INFINITY;

  constructor(options: BlockBuilderOptions) {
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

  /**
   * Encodes a message, whose fate is the batch's: `outcome` tells it. Without a sequence id it gets the one after the
   * last message's. The deadline is the batch's if it is the first message. @throws MagnetarError INVALID_ARGUMENT
   */
  append(
    payload: Uint8Array,
    rest: OutgoingRest | undefined,
    sequenceId: SequenceId | undefined,
    deadline: number,
  ): Outcome {
    const builder = this.#builder;
    if (builder.count === 0) this.#deadline = deadline;
    builder.appendParts(payload, rest, sequenceId);
    return this.#outcome;
  }

  /** The finished batch. There has to be at least one message. */
  cut(publishTime: Millis): Batch {
    const { count, firstSequenceId, lastSequenceId, bytes } = this.#builder;
    const { block, crc32c } = this.#builder.finish(publishTime);
    const outcome = this.#outcome;
    this.#outcome = new Outcome();
    const fields = { block, crc32c, firstSequenceId, lastSequenceId, bytes, deadline: this.#deadline };
    return new Batch({ ...fields, outcome, part: outcome.close(count) });
  }

  /** Gives its messages up. */
  reject(publishTime: Millis, error: Error): void {
    if (this.count > 0) this.cut(publishTime).reject(error);
  }
}
