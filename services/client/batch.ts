import { assert } from '../lib/assert.ts';
import type { Epoch, Millis, SequenceId } from '../lib/ids.ts';
import type { OutgoingMessage } from '../wire/block.ts';
import { BlockBuilder, decodeBlock, decodeMessages } from '../wire/block.ts';
import { compressions } from '../wire/compression.ts';
import type { Outcome, OutcomePart, Place } from './outcome.ts';
import type { Sequenced } from './protocol/in-flight.ts';

interface BatchFields {
  readonly block: Buffer;
  readonly crc32c: number;
  readonly firstSequenceId: SequenceId;
  readonly lastSequenceId: SequenceId;
  /** What it counts for against the limit of pending bytes. */
  readonly bytes: number;
  /** On the monotonic clock; Infinity: none. */
  readonly deadline: number;
  /** Of its messages. */
  readonly outcome: Outcome;
  /** Which of them are in it. */
  readonly part: OutcomePart;
}

/** A finished batch, kept as it is sent until its receipt has come: it may have to be sent again. */
export class Batch implements Sequenced {
  readonly block: Buffer;
  readonly crc32c: number;
  readonly firstSequenceId: SequenceId;
  readonly lastSequenceId: SequenceId;
  readonly bytes: number;
  readonly deadline: number;
  readonly #outcome: Outcome;
  readonly #part: OutcomePart;
  /** True once it was given to a stream: it may be stored although nobody said so. */
  attempted = false;

  constructor(fields: BatchFields) {
    this.block = fields.block;
    this.crc32c = fields.crc32c;
    this.firstSequenceId = fields.firstSequenceId;
    this.lastSequenceId = fields.lastSequenceId;
    this.bytes = fields.bytes;
    this.deadline = fields.deadline;
    this.#outcome = fields.outcome;
    this.#part = fields.part;
  }

  get count(): number {
    return this.#part.count;
  }

  /** Resolves the promises of its messages. */
  resolve(place: Place): void {
    this.#outcome.settle(this.#part, place);
  }

  /** Rejects the promises of its messages. */
  reject(error: Error): void {
    this.#outcome.settle(this.#part, error);
  }

  /** The batch as two: messages with sequence ids up to `watermark`, and those above. There have to be both. */
  cutAt(watermark: SequenceId): readonly [Batch, Batch] {
    const decoded = decodeMessages(this.block);
    const above = decoded.messages.findIndex((message) => message.sequenceId > watermark);
    assert(above > 0, 'a batch is cut between two of its messages');
    const [below, rest] = this.#outcome.split(this.#part, above);
    return [this.#cut(0, below), this.#cut(above, rest)];
  }

  #cut(from: number, part: OutcomePart): Batch {
    const to = from + part.count;
    const { producerName, producerEpoch, publishTime, compression: number } = decodeBlock(this.block);
    const compression = compressions.numbered(number);
    const options = { producerName, epoch: producerEpoch as Epoch, capacityBytes: this.bytes, compression };
    const builder = new BlockBuilder(options);
    for (const message of decodeMessages(this.block).messages.slice(from, to)) {
      const { payload, key, orderingKey, eventTime, properties } = message;
      const outgoing: OutgoingMessage = {
        payload,
        ...(key === undefined ? {} : { key }),
        ...(orderingKey === undefined ? {} : { orderingKey }),
        ...(eventTime === undefined ? {} : { eventTime }),
        ...(properties.length === 0 ? {} : { properties }),
      };
      builder.append(outgoing, message.sequenceId);
    }
    const { firstSequenceId, lastSequenceId } = builder;
    const bytes = Math.floor((this.bytes * to) / this.count) - Math.floor((this.bytes * from) / this.count);
    const { block, crc32c } = builder.finish(publishTime as Millis);
    const { deadline } = this;
    const fields = { block, crc32c, firstSequenceId, lastSequenceId, bytes, deadline };
    const batch = new Batch({ ...fields, outcome: this.#outcome, part });
    batch.attempted = this.attempted;
    return batch;
  }
}
