import { assert } from '../lib/assert.ts';
import type { Epoch, Millis, SequenceId } from '../lib/ids.ts';
import type { OutgoingMessage } from '../wire/block.ts';
import { BlockBuilder, decodeBlock, decodeMessages } from '../wire/block.ts';
import { MessageId } from './message-id.ts';
import type { Sequenced } from './protocol/in-flight.ts';

/** Settles the promise of one message: with its id, or with a rejected promise. */
export type Settle = (id: MessageId | PromiseLike<MessageId>) => void;

/** Where a batch was stored, as its receipt says. */
export interface Place {
  readonly ledgerId: number;
  readonly entryId: number;
  readonly index: number;
  readonly count: number;
}

interface BatchFields {
  readonly block: Buffer;
  readonly crc32c: number;
  readonly firstSequenceId: SequenceId;
  readonly lastSequenceId: SequenceId;
  /** What it counts for against the limit of pending bytes. */
  readonly bytes: number;
  /** On the monotonic clock; Infinity: none. */
  readonly deadline: number;
  readonly settles: readonly Settle[];
}

/** A finished batch, kept as it is sent until its receipt has come: it may have to be sent again. */
export class Batch implements Sequenced {
  readonly block: Buffer;
  readonly crc32c: number;
  readonly firstSequenceId: SequenceId;
  readonly lastSequenceId: SequenceId;
  readonly bytes: number;
  readonly deadline: number;
  readonly settles: readonly Settle[];
  /** True once it was given to a stream: it may be stored although nobody said so. */
  attempted = false;

  constructor(fields: BatchFields) {
    this.block = fields.block;
    this.crc32c = fields.crc32c;
    this.firstSequenceId = fields.firstSequenceId;
    this.lastSequenceId = fields.lastSequenceId;
    this.bytes = fields.bytes;
    this.deadline = fields.deadline;
    this.settles = fields.settles;
  }

  get count(): number {
    return this.settles.length;
  }

  /** Resolves the promises of its messages. A place of another count is not this batch's: then the place is unknown. */
  resolve(place: Place): void {
    const { settles } = this;
    if (place.count !== settles.length) {
      for (const settle of settles) settle(MessageId.unknown);
      return;
    }
    const { ledgerId, entryId, index } = place;
    for (let i = 0; i < settles.length; i++) {
      (settles[i] as Settle)(new MessageId(ledgerId, entryId, i, index + i));
    }
  }

  /** Rejects the promises of its messages. */
  reject(error: Error): void {
    rejectAll(this.settles, error);
  }

  /** The batch as two: messages with sequence ids up to `watermark`, and those above. There have to be both. */
  cutAt(watermark: SequenceId): readonly [Batch, Batch] {
    const decoded = decodeMessages(this.block);
    const above = decoded.messages.findIndex((message) => message.sequenceId > watermark);
    assert(above > 0, 'a batch is cut between two of its messages');
    return [this.#part(0, above), this.#part(above, this.count)];
  }

  #part(from: number, to: number): Batch {
    const { producerName, producerEpoch, publishTime } = decodeBlock(this.block);
    const options = { producerName, epoch: producerEpoch as Epoch, capacityBytes: this.block.length };
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
    const settles = this.settles.slice(from, to);
    const part = new Batch({ block, crc32c, firstSequenceId, lastSequenceId, bytes, deadline: this.deadline, settles });
    part.attempted = this.attempted;
    return part;
  }
}

/** Settles promises with one rejection. */
export function rejectAll(settles: readonly Settle[], error: Error): void {
  const rejected = Promise.reject<MessageId>(error);
  rejected.catch(() => {});
  for (const settle of settles) settle(rejected);
}
