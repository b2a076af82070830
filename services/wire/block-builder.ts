/** Writes a producer's block: the hot path of every producer. */
import { assert } from '../lib/assert.ts';
import { ProtoReader, varintSize } from '../lib/bytes.ts';
import { crc32c } from '../lib/crc32c.ts';
import { MagnetarError } from '../lib/errors.ts';
import type { Epoch, Millis, SequenceId } from '../lib/ids.ts';
import { type Compression, MAX_AREA_BYTES } from './compression.ts';

/** What a message has besides its payload. Byte fields are borrowed while they are appended. */
export interface OutgoingRest {
  readonly key?: string;
  readonly orderingKey?: Uint8Array;
  readonly properties?: readonly (readonly [string, string])[];
  /** Milliseconds since 1970-01-01 UTC. */
  readonly eventTime?: number;
}

/** A message as an app gives it. */
export interface OutgoingMessage extends OutgoingRest {
  readonly payload: Uint8Array;
}

export interface BlockBuilderOptions {
  readonly producerName: string;
  readonly epoch: Epoch;
  /** The size of batches that are considered full, for which a buffer is kept ready at most. */
  readonly capacityBytes: number;
  /** How to compress blocks, those that shrink by it. */
  readonly compression?: Compression | undefined;
}

const NOTHING: Buffer = Buffer.alloc(0);
const FIRST_BUFFER_BYTES = 1_024;
const HEADER_BYTES = 80; // more than the fields before the payload area take, without the producer's name
const SHORT_STRING = 48; // up to here a loop beats the call into the platform
const SHORT_BYTES = 24;
const ROW_BYTES = 16; // what a row of the clear table takes at most, without its key
const COMPRESS_FROM_BYTES = 128; // a smaller payload area hardly shrinks
const COMPRESSION_BYTES = 8; // what the two fields of the compression take at most

// Tags: number * 8 + wire type. Of ProducerBlock:
const PRODUCER_NAME = 10;
const PRODUCER_EPOCH = 16;
const FIRST_SEQUENCE_ID = 24;
const LAST_SEQUENCE_ID = 32;
const COUNT = 40;
const PUBLISH_TIME = 48;
const COMPRESSION = 56;
const UNCOMPRESSED_SIZE = 64;
const CLEAR = 74;
const PAYLOAD_AREA = 122;
// Of Messages and Message:
const MESSAGE = 10;
const PAYLOAD = 10;
const KEY = 18;
const ORDERING_KEY = 26;
const PROPERTY = 34;
const EVENT_TIME = 40;
const SEQUENCE_DELTA = 48;
// Of ClearRow and Property:
const ROW_SIZE = 8;
const ROW_KEY = 18;
const PROPERTY_NAME = 10;
const PROPERTY_VALUE = 18;

/**
 * Encodes messages one after another into the buffer that is sent: the payload area grows behind room for the fields
 * before it, and the clear table, where there is one, follows it. After `finish` the builder is empty and takes the next
 * batch; it holds no buffer while it is empty.
 */
export class BlockBuilder {
  readonly #name: Buffer;
  readonly #epoch: Epoch;
  readonly #capacity: number;
  readonly #compression: Compression | undefined;
  readonly #start: number; // where the payload area begins
  #buffer: Buffer = NOTHING;
  #at: number;
  #nextBytes = FIRST_BUFFER_BYTES; // size of the next batch's first buffer: as the last batch had it
  #count = 0;
  #first = 0n as SequenceId;
  #last = 0n as SequenceId; // out of date while `#dense`
  #dense = true; // every sequence id is the first one and the position in the batch
  #keyed = false; // a message has a key or an ordering key: there will be a clear table
  #keyBytes = 0; // of the keys in it

  constructor(options: BlockBuilderOptions) {
    this.#name = Buffer.from(options.producerName);
    this.#epoch = options.epoch;
    this.#compression = options.compression;
    this.#start = HEADER_BYTES + this.#name.length;
    this.#at = this.#start;
    this.#capacity = options.capacityBytes + this.#start;
  }

  /** Messages appended. */
  get count(): number {
    return this.#count;
  }

  /** Bytes of the payload area. */
  get bytes(): number {
    return this.#at - this.#start;
  }

  /** No less than the bytes of the block that `finish` would give. */
  get blockBytes(): number {
    return this.#at + ROW_BYTES * this.#count + this.#keyBytes;
  }

  /** Sequence id of the first message; meaningful when there is one. */
  get firstSequenceId(): SequenceId {
    return this.#first;
  }

  /** Sequence id of the last message; meaningful when there is one. */
  get lastSequenceId(): SequenceId {
    return this.#dense ? ((this.#first + BigInt(this.#count - 1)) as SequenceId) : this.#last;
  }

  /**
   * Adds a message. Without a sequence id it gets the one after the last message's; the first message needs one.
   *
   * @throws MagnetarError INVALID_ARGUMENT: the sequence id is not above the last one, or a bad event time.
   */
  append(message: OutgoingMessage, sequenceId?: SequenceId): void {
    this.appendParts(message.payload, message, sequenceId);
  }

  /** As `append`. A message that is all payload has no `rest`. @throws MagnetarError INVALID_ARGUMENT */
  appendParts(payload: Uint8Array, rest: OutgoingRest | undefined, sequenceId?: SequenceId): void {
    const id = sequenceId ?? this.#following();
    const delta = id === undefined ? -1n : this.#delta(id);
    const key = rest?.key;
    const keyBytes = key === undefined ? 0 : utf8Length(key);
    let size = payload.length === 0 ? 0 : 1 + sizeOf(payload.length) + payload.length;
    if (key !== undefined) size += 1 + sizeOf(keyBytes) + keyBytes;
    if (rest !== undefined) size += rareSize(rest);
    if (delta !== -1n) size += 1 + bigintSize(delta);

    this.#reserve(size + 8);
    const buffer = this.#buffer;
    let at = this.#at;
    buffer[at++] = MESSAGE;
    at = putVarint(buffer, at, size);
    if (payload.length > 0) {
      buffer[at++] = PAYLOAD;
      at = putVarint(buffer, at, payload.length);
      at = putBytes(buffer, at, payload);
    }
    if (key !== undefined) at = putString(buffer, at, KEY, key, keyBytes);
    if (rest !== undefined) at = putRare(buffer, at, rest);
    if (delta !== -1n) {
      buffer[at++] = SEQUENCE_DELTA;
      at = putBigint(buffer, at, delta);
    }
    this.#at = at;
    if (delta !== -1n) this.#dense = false;
    if (id !== undefined) {
      this.#last = id;
      if (this.#count === 0) this.#first = id;
    }
    if (key !== undefined || rest?.orderingKey !== undefined) {
      this.#keyed = true;
      this.#keyBytes += rest?.orderingKey?.length ?? keyBytes;
    }
    this.#count += 1;
  }

  /**
   * The block, and its CRC32C. Empties the builder. The block is the caller's.
   * There has to be at least one message.
   */
  finish(publishTime: Millis): { readonly block: Buffer; readonly crc32c: number } {
    assert(this.#count > 0, 'a block has at least one message');
    const areaEnd = this.#at;
    if (this.#keyed) this.#writeClearTable(areaEnd);
    this.#nextBytes = Math.max(FIRST_BUFFER_BYTES, Math.min(this.#capacity, this.#at + (this.#at >>> 3)));
    const sentBytes = this.#compress(areaEnd);
    const start = this.#writeHeader(publishTime, areaEnd - this.#start, sentBytes);
    let block = this.#buffer.subarray(start, this.#at);
    if (block.length * 2 < this.#buffer.length) block = Buffer.from(block); // a small survivor pins no large buffer
    this.#buffer = NOTHING;
    this.#at = this.#start;
    this.#count = 0;
    this.#keyed = false;
    this.#keyBytes = 0;
    this.#dense = true;
    return { block, crc32c: crc32c(block) };
  }

  /** The sequence id after the last one; undefined, which costs nothing, while all of them are dense. */
  #following(): SequenceId | undefined {
    assert(this.#count > 0, 'the first message of a batch has a sequence id');
    return this.#dense ? undefined : ((this.#last + 1n) as SequenceId);
  }

  /** The sequence id less the first, where that is not the position in the batch; else -1. */
  #delta(sequenceId: SequenceId): bigint {
    if (this.#count === 0) return -1n;
    const last = this.lastSequenceId;
    if (sequenceId <= last) {
      const text = `sequence id ${sequenceId} follows ${last}; sequence ids of a producer rise strictly`;
      throw new MagnetarError('INVALID_ARGUMENT', text);
    }
    const delta = sequenceId - this.#first;
    return Number(delta) === this.#count ? -1n : delta;
  }

  #reserve(bytes: number): void {
    const needed = this.#at + bytes;
    const { length } = this.#buffer;
    if (needed <= length) return;
    const grown = Buffer.allocUnsafe(length === 0 ? Math.max(this.#nextBytes, needed) : Math.max(length * 2, needed));
    if (length > 0) this.#buffer.copy(grown, this.#start, this.#start, this.#at);
    this.#buffer = grown;
  }

  /** Has the payload area take less room, if it can; returns how much it takes. What follows it moves up. */
  #compress(areaEnd: number): number {
    const areaBytes = areaEnd - this.#start;
    if (this.#compression === undefined || areaBytes < COMPRESS_FROM_BYTES || areaBytes > MAX_AREA_BYTES) {
      return areaBytes;
    }
    const compressed = this.#compression.compress(this.#buffer.subarray(this.#start, areaEnd));
    if (compressed.length + COMPRESSION_BYTES >= areaBytes) return areaBytes;
    compressed.copy(this.#buffer, this.#start);
    const end = this.#start + compressed.length;
    this.#buffer.copyWithin(end, areaEnd, this.#at);
    this.#at += end - areaEnd;
    return compressed.length;
  }

  /** Writes the fields before the payload area so that they end where it begins; returns where they begin. */
  #writeHeader(publishTime: Millis, areaBytes: number, sentBytes: number): number {
    const name = this.#name;
    const compression = sentBytes === areaBytes ? 0 : (this.#compression?.number ?? 0);
    let size = 1 + sizeOf(sentBytes);
    if (compression > 0) size += 2 + 1 + sizeOf(areaBytes);
    if (name.length > 0) size += 1 + sizeOf(name.length) + name.length;
    if (this.#epoch > 0) size += 1 + sizeOf(this.#epoch);
    if (this.#first > 0n) size += 1 + bigintSize(this.#first);
    const last = this.lastSequenceId;
    if (last > 0n) size += 1 + bigintSize(last);
    size += 1 + sizeOf(this.#count);
    if (publishTime > 0) size += 1 + sizeOf(publishTime);

    const buffer = this.#buffer;
    const start = this.#start - size;
    let at = start;
    if (name.length > 0) {
      buffer[at++] = PRODUCER_NAME;
      at = putVarint(buffer, at, name.length);
      at = putBytes(buffer, at, name);
    }
    if (this.#epoch > 0) at = putInteger(buffer, at, PRODUCER_EPOCH, this.#epoch);
    if (this.#first > 0n) {
      buffer[at++] = FIRST_SEQUENCE_ID;
      at = putBigint(buffer, at, this.#first);
    }
    if (last > 0n) {
      buffer[at++] = LAST_SEQUENCE_ID;
      at = putBigint(buffer, at, last);
    }
    at = putInteger(buffer, at, COUNT, this.#count);
    if (publishTime > 0) at = putInteger(buffer, at, PUBLISH_TIME, publishTime);
    if (compression > 0) {
      at = putInteger(buffer, at, COMPRESSION, compression);
      at = putInteger(buffer, at, UNCOMPRESSED_SIZE, areaBytes);
    }
    buffer[at++] = PAYLOAD_AREA;
    putVarint(buffer, at, sentBytes);
    return start;
  }

  /** Writes one row per message behind the payload area: its size, and its ordering key or else its key. */
  #writeClearTable(areaEnd: number): void {
    const messages = new ProtoReader(this.#buffer, this.#start, areaEnd);
    while (messages.next()) {
      const fields = messages.message();
      let [payloadBytes, keyAt, keyEnd] = [0, -1, -1];
      while (fields.next() && fields.field <= 3) {
        const from = fields.message().position;
        if (fields.field === 1) payloadBytes = fields.position - from;
        else [keyAt, keyEnd] = [from, fields.position]; // the ordering key comes after the key
      }
      const keyBytes = keyEnd - keyAt;
      let size = payloadBytes === 0 ? 0 : 1 + sizeOf(payloadBytes);
      if (keyAt >= 0) size += 1 + sizeOf(keyBytes) + keyBytes;
      this.#reserve(size + 8);
      const buffer = this.#buffer;
      buffer[this.#at++] = CLEAR;
      this.#at = putVarint(buffer, this.#at, size);
      if (payloadBytes > 0) this.#at = putInteger(buffer, this.#at, ROW_SIZE, payloadBytes);
      if (keyAt >= 0) {
        this.#at = putInteger(buffer, this.#at, ROW_KEY, keyBytes);
        buffer.copyWithin(this.#at, keyAt, keyEnd);
        this.#at += keyBytes;
      }
    }
  }
}

function sizeOf(value: number): number {
  if (value < 128) return 1;
  return value < 16_384 ? 2 : varintSize(value);
}

function bigintSize(value: bigint): number {
  let size = 1;
  for (let rest = value >> 7n; rest > 0n; rest >>= 7n) size++;
  return size;
}

function putVarint(buffer: Buffer, at: number, value: number): number {
  if (value < 128) {
    buffer[at] = value;
    return at + 1;
  }
  if (value < 16_384) {
    buffer[at] = (value & 127) | 128;
    buffer[at + 1] = value >>> 7;
    return at + 2;
  }
  let to = at;
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) buffer[to++] = (rest % 128) | 128;
  buffer[to++] = rest;
  return to;
}

function putBigint(buffer: Buffer, at: number, value: bigint): number {
  let to = at;
  let rest = value;
  for (; rest >= 128n; rest >>= 7n) buffer[to++] = Number(rest & 127n) | 128;
  buffer[to++] = Number(rest);
  return to;
}

function putInteger(buffer: Buffer, at: number, tag: number, value: number): number {
  buffer[at] = tag;
  return putVarint(buffer, at + 1, value);
}

function putBytes(buffer: Buffer, at: number, bytes: Uint8Array): number {
  const { length } = bytes;
  if (length <= SHORT_BYTES) {
    for (let i = 0; i < length; i++) buffer[at + i] = bytes[i] as number;
  } else buffer.set(bytes, at);
  return at + length;
}

function utf8Length(text: string): number {
  if (text.length > SHORT_STRING) return Buffer.byteLength(text);
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 127) return Buffer.byteLength(text);
  return text.length;
}

/** A string field whose UTF-8 has `bytes` bytes. */
function putString(buffer: Buffer, at: number, tag: number, text: string, bytes: number): number {
  const from = putInteger(buffer, at, tag, bytes);
  if (bytes === text.length && bytes <= SHORT_STRING) {
    for (let i = 0; i < bytes; i++) buffer[from + i] = text.charCodeAt(i);
  } else buffer.write(text, from);
  return from + bytes;
}

/** Bytes of the fields that most messages do not have. */
function rareSize({ orderingKey, properties, eventTime }: OutgoingRest): number {
  if (eventTime !== undefined && !(Number.isSafeInteger(eventTime) && eventTime >= 0)) {
    const text = `event time is ${eventTime}; it must be an integer of milliseconds from 0 to 2^53-1`;
    throw new MagnetarError('INVALID_ARGUMENT', text);
  }
  let size = 0;
  if (orderingKey !== undefined) size += 1 + sizeOf(orderingKey.length) + orderingKey.length;
  for (const [name, value] of properties ?? []) {
    const length = propertySize(utf8Length(name), utf8Length(value));
    size += 1 + sizeOf(length) + length;
  }
  return eventTime === undefined ? size : size + 1 + sizeOf(eventTime);
}

function propertySize(nameBytes: number, valueBytes: number): number {
  const name = nameBytes === 0 ? 0 : 1 + sizeOf(nameBytes) + nameBytes;
  return valueBytes === 0 ? name : name + 1 + sizeOf(valueBytes) + valueBytes;
}

function putRare(buffer: Buffer, at: number, { orderingKey, properties, eventTime }: OutgoingRest): number {
  let to = at;
  if (orderingKey !== undefined) {
    to = putInteger(buffer, to, ORDERING_KEY, orderingKey.length);
    to = putBytes(buffer, to, orderingKey);
  }
  for (const [name, value] of properties ?? []) {
    const [nameBytes, valueBytes] = [utf8Length(name), utf8Length(value)];
    to = putInteger(buffer, to, PROPERTY, propertySize(nameBytes, valueBytes));
    if (nameBytes > 0) to = putString(buffer, to, PROPERTY_NAME, name, nameBytes);
    if (valueBytes > 0) to = putString(buffer, to, PROPERTY_VALUE, value, valueBytes);
  }
  return eventTime === undefined ? to : putInteger(buffer, to, EVENT_TIME, eventTime);
}
