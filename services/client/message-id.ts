import { ProtoReader, ProtoWriter } from '../lib/bytes.ts';
import { MagnetarError } from '../lib/errors.ts';
import { entryId as toEntryId, ledgerId as toLedgerId, messageIndex } from '../lib/ids.ts';
import { readMessageId, writeMessageId } from '../wire/common-codec.ts';
import type { WireMessageId } from '../wire/frames.ts';
import { invalid } from './check.ts';

const FORM = /^(\d{1,16}):(\d{1,16}):(\d{1,10})(?::(\d{1,10}))?$/;
const ALLOWED = '"ledger:entry:batch" or "ledger:entry:batch:partition", each a number, such as "12:0:7"';
const UINT32_MAX = 4_294_967_295;

/**
 * The place of a message. Ids of one topic (or partition) are ordered; `index`, where both have one, decides alone.
 *
 * What `send()` resolves with for a message that was stored before in a batch of which the broker no longer knows the
 * place is `MessageId.unknown`: stored, nobody can say where. A producer that only sends again what its own lost
 * connection left unconfirmed gets the original places.
 */
export class MessageId {
  /** The message is stored, but its place is not known: `known` is false, and the text is "unknown". */
  static readonly unknown: MessageId = new MessageId(-1, -1, -1);

  /** The ledger that holds the entry. */
  readonly ledgerId: number;
  /** The entry within the ledger, from 0. */
  readonly entryId: number;
  /** The message within the entry, from 0. */
  readonly batchIndex: number;
  /** The offset of the message in its topic, from 0, without gaps. Absent in an id that was parsed from text. */
  readonly index: number | undefined;
  /** The partition of a partitioned topic; absent for other topics. */
  readonly partition: number | undefined;

  constructor(ledgerId: number, entryId: number, batchIndex: number, index?: number, partition?: number) {
    this.ledgerId = ledgerId;
    this.entryId = entryId;
    this.batchIndex = batchIndex;
    this.index = index;
    this.partition = partition;
  }

  /** False: the message is stored, but its place is not known. */
  get known(): boolean {
    return this.ledgerId >= 0;
  }

  /** `ledger:entry:batch`, with `:partition` where there is one; "unknown" where the place is not known. */
  toString(): string {
    if (!this.known) return 'unknown';
    const place = `${this.ledgerId}:${this.entryId}:${this.batchIndex}`;
    return this.partition === undefined ? place : `${place}:${this.partition}`;
  }

  /** The id that `toString()` wrote; without an index. @throws MagnetarError INVALID_ARGUMENT */
  static parse(text: string): MessageId {
    const found = typeof text === 'string' ? FORM.exec(text) : null;
    if (found === null) throw invalid('message id', text, ALLOWED);
    const [ledger, entry, batch, partition] = found
      .slice(1)
      .map((part) => (part === undefined ? undefined : Number(part)));
    if (ledger === undefined || entry === undefined || batch === undefined) throw invalid('message id', text, ALLOWED);
    if (!Number.isSafeInteger(ledger) || !Number.isSafeInteger(entry) || Math.max(batch, partition ?? 0) > UINT32_MAX) {
      throw invalid('message id', text, `${ALLOWED}, within 2^53-1 (ledger, entry) and 2^32-1`);
    }
    return new MessageId(ledger, entry, batch, undefined, partition);
  }

  /**
   * The id as bytes: a serialised magnetar.v1.MessageId. @throws MagnetarError INVALID_ARGUMENT when the place is not
   * known
   */
  serialize(): Buffer {
    const writer = new ProtoWriter(48);
    writeMessageId(writer, toWire(this));
    return writer.finish();
  }

  /** The id of which these are the bytes. @throws MagnetarError INVALID_ARGUMENT */
  static deserialize(bytes: Uint8Array): MessageId {
    try {
      const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const id = readMessageId(new ProtoReader(buffer));
      return new MessageId(id.ledgerId, id.entryId, id.batchIndex, id.index, id.partition);
    } catch (cause) {
      const text = 'the bytes are no message id; they must be what MessageId.serialize() returned';
      throw new MagnetarError('INVALID_ARGUMENT', text, { cause });
    }
  }

  /**
   * Below 0 when `this` comes first, 0 when both are the same place, above 0 when `other` comes first. @throws
   * MagnetarError INVALID_ARGUMENT when a place is not known
   */
  compare(other: MessageId): number {
    if (!this.known || !other.known) throw noPlace();
    if (this.index !== undefined && other.index !== undefined) return this.index - other.index;
    if (this.ledgerId !== other.ledgerId) return this.ledgerId - other.ledgerId;
    if (this.entryId !== other.entryId) return this.entryId - other.entryId;
    return this.batchIndex - other.batchIndex;
  }

  /** True when both are the same place; a place that is not known is like no other. */
  equals(other: MessageId): boolean {
    return this.known && other.known && this.compare(other) === 0 && this.partition === other.partition;
  }
}

function noPlace(): MagnetarError {
  const text = 'message id "unknown" names no place; the message was stored long before it was sent this time';
  return new MagnetarError('INVALID_ARGUMENT', text);
}

/** The id as it travels. @throws MagnetarError INVALID_ARGUMENT when the place is not known */
export function toWire(id: MessageId): WireMessageId {
  if (!id.known) throw noPlace();
  return {
    ledgerId: toLedgerId(id.ledgerId),
    entryId: toEntryId(id.entryId),
    batchIndex: id.batchIndex,
    ...(id.partition === undefined ? {} : { partition: id.partition }),
    ...(id.index === undefined ? {} : { index: messageIndex(id.index) }),
  };
}
