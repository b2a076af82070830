/**
 * The producer's block (`proto/magnetar/v1/message.proto`) as brokers and consumers read it. `block-builder.ts` writes it.
 *
 * Every message of every consumer passes through `decodeMessages`: it finds the places of payload and key and checks the
 * structure of all the rest in one pass; strings, properties and views are made when somebody asks for them.
 */
import { ProtoReader } from '../lib/bytes.ts';
import { MagnetarError } from '../lib/errors.ts';
import type { SequenceId } from '../lib/ids.ts';
import { readSequenceId, uint32, violation } from './common-codec.ts';
import type { ProducerBlock } from './frames.ts';

export { BlockBuilder, type OutgoingMessage } from './block-builder.ts';

const NOTHING: Buffer = Buffer.alloc(0);

// Tags of Message: number * 8 + wire type.
const PAYLOAD = 10;
const KEY = 18;
const ORDERING_KEY = 26;
const PROPERTY = 34;
const EVENT_TIME = 40;
const SEQUENCE_DELTA = 48;
const MESSAGE = 10; // in Messages
const PROPERTY_NAME = 10; // in Property
const PROPERTY_VALUE = 18;

// What a message has beside payload and key, as bits.
const HAS_ORDERING_KEY = 1;
const HAS_PROPERTIES = 2;
const HAS_EVENT_TIME = 4;
const HAS_SEQUENCE_DELTA = 8;

/**
 * The fields of a block. That its numbers make sense together (a count of at least 1, rising sequence ids) and that the
 * payload area has `count` messages is for the caller to check.
 *
 * @throws MagnetarError PROTOCOL_VIOLATION: malformed, or the clear table has neither no row nor `count` rows.
 */
export function decodeBlock(block: Buffer): ProducerBlock {
  const reader = new ProtoReader(block);
  let [producerName, producerEpoch, count, publishTime] = ['', 0, 0, 0];
  let [firstSequenceId, lastSequenceId] = [0n as SequenceId, 0n as SequenceId];
  let [compression, uncompressedSize, clearRows, payload] = [0, 0, 0, NOTHING];
  while (reader.next()) {
    if (reader.field === 1) producerName = reader.string();
    else if (reader.field === 2) producerEpoch = reader.varint();
    else if (reader.field === 3) firstSequenceId = readSequenceId(reader);
    else if (reader.field === 4) lastSequenceId = readSequenceId(reader);
    else if (reader.field === 5) count = uint32(reader);
    else if (reader.field === 6) publishTime = reader.varint();
    else if (reader.field === 7) compression = uint32(reader);
    else if (reader.field === 8) uncompressedSize = uint32(reader);
    else if (reader.field === 9) {
      reader.message();
      clearRows += 1;
    } else if (reader.field === 15) payload = reader.bytes();
    else reader.skip();
  }
  if (clearRows !== 0 && clearRows !== count) {
    throw violation(
      `block of ${count} messages has ${clearRows} rows in its clear table; it takes none, or one a message`,
    );
  }
  return {
    producerName,
    producerEpoch,
    firstSequenceId,
    lastSequenceId,
    count,
    publishTime,
    compression,
    uncompressedSize,
    clearRows,
    payload,
  };
}

/**
 * How many messages an uncompressed payload area has. What it accepts, `decodeMessages` can read: a broker that has
 * counted a block stores nothing that its consumers stumble over.
 *
 * @throws MagnetarError PROTOCOL_VIOLATION when it, or a message in it, is malformed
 */
export function countMessages(payload: Buffer): number {
  const scanner = new Scanner(payload);
  let count = 0;
  while (scanner.at < payload.length) {
    if (payload[scanner.at] === MESSAGE) {
      scanner.at += 1;
      const length = scanner.length(payload.length); // moves `at`
      checkMessage(scanner, scanner.at + length);
      count += 1;
    } else if (scanner.skip(payload.length) === 1) throw scanner.malformed('a message of a wrong wire type');
  }
  return count;
}

function checkMessage(scanner: Scanner, end: number): void {
  while (scanner.at < end) {
    const tag = scanner.buffer[scanner.at] as number;
    if (tag === PAYLOAD || tag === KEY) {
      scanner.at += 1;
      scanner.pass(end);
    } else scanRare(scanner, tag, end);
  }
}

/** A block taken apart. */
export interface DecodedBlock {
  readonly producerName: string;
  readonly producerEpoch: number;
  readonly firstSequenceId: SequenceId;
  /** Milliseconds since 1970-01-01 UTC, by the producer's clock. */
  readonly publishTime: number;
  readonly messages: readonly DecodedMessage[];
}

/**
 * The messages of a block, as views of it: they pin the buffer behind it.
 *
 * @throws MagnetarError PROTOCOL_VIOLATION: malformed, or not as many messages as `count` says; UNSUPPORTED: compressed.
 */
export function decodeMessages(block: Buffer): DecodedBlock {
  const fields = decodeBlock(block);
  if (fields.compression !== 0) {
    throw new MagnetarError('UNSUPPORTED', `block has compression ${fields.compression}; this version reads 0 (none)`);
  }
  const { payload, firstSequenceId } = fields;
  const messages: DecodedMessage[] = [];
  const scanner = new Scanner(payload);
  while (scanner.at < payload.length) {
    if (payload[scanner.at] === MESSAGE) {
      scanner.at += 1;
      const length = scanner.length(payload.length);
      messages.push(scanMessage(scanner, scanner.at + length, firstSequenceId, messages.length));
    } else if (scanner.skip(payload.length) === 1) throw scanner.malformed('a message of a wrong wire type');
  }
  if (messages.length !== fields.count) {
    throw violation(`block has ${messages.length} messages; its count is ${fields.count}`);
  }
  const { producerName, producerEpoch, publishTime } = fields;
  return { producerName, producerEpoch, firstSequenceId, publishTime, messages };
}

function scanMessage(scanner: Scanner, end: number, first: SequenceId, position: number): DecodedMessage {
  const { buffer, at: start } = scanner;
  let [payloadAt, payloadEnd, keyAt, keyEnd, has] = [start, start, -1, -1, 0];
  while (scanner.at < end) {
    const tag = buffer[scanner.at] as number;
    if (tag === PAYLOAD) {
      scanner.at += 1;
      payloadEnd = scanner.length(end);
      payloadAt = scanner.at;
      scanner.at = payloadEnd += payloadAt;
    } else if (tag === KEY) {
      scanner.at += 1;
      keyEnd = scanner.length(end);
      keyAt = scanner.at;
      scanner.at = keyEnd += keyAt;
    } else has |= scanRare(scanner, tag, end);
  }
  return new DecodedMessage(buffer, first, position, start, end, payloadAt, payloadEnd, keyAt, keyEnd, has);
}

/** Checks a field other than payload and key; tells which it was. */
function scanRare(scanner: Scanner, tag: number, end: number): number {
  const start = scanner.at;
  scanner.at += 1;
  switch (tag) {
    case PROPERTY:
      scanner.property(scanner.length(end));
      return HAS_PROPERTIES;
    case ORDERING_KEY:
      scanner.pass(end);
      return HAS_ORDERING_KEY;
    case EVENT_TIME:
      scanner.varint(end);
      return HAS_EVENT_TIME;
    case SEQUENCE_DELTA:
      scanner.bigint(end);
      return HAS_SEQUENCE_DELTA;
    default: {
      scanner.at = start;
      const field = scanner.skip(end);
      if (field <= 6) throw scanner.malformed(`a wrong wire type for field ${field}`);
      return 0;
    }
  }
}

/** One message of a decoded block. Getters never throw; those that return views or strings make them anew at each call. */
export class DecodedMessage {
  /** Position in the block, from 0. */
  readonly position: number;
  readonly #buffer: Buffer;
  readonly #firstSequenceId: SequenceId;
  readonly #start: number;
  readonly #end: number;
  readonly #payloadAt: number;
  readonly #payloadEnd: number;
  readonly #keyAt: number; // -1: no key
  readonly #keyEnd: number;
  readonly #has: number;

  constructor(
    buffer: Buffer,
    firstSequenceId: SequenceId,
    position: number,
    start: number,
    end: number,
    payloadAt: number,
    payloadEnd: number,
    keyAt: number,
    keyEnd: number,
    has: number,
  ) {
    this.position = position;
    this.#buffer = buffer;
    this.#firstSequenceId = firstSequenceId;
    this.#start = start;
    this.#end = end;
    this.#payloadAt = payloadAt;
    this.#payloadEnd = payloadEnd;
    this.#keyAt = keyAt;
    this.#keyEnd = keyEnd;
    this.#has = has;
  }

  /** A view of the block. */
  get payload(): Buffer {
    return this.#buffer.subarray(this.#payloadAt, this.#payloadEnd);
  }

  /** Length of the payload in bytes, without making a view. */
  get payloadBytes(): number {
    return this.#payloadEnd - this.#payloadAt;
  }

  get key(): string | undefined {
    return this.#keyAt === -1 ? undefined : this.#buffer.toString('utf8', this.#keyAt, this.#keyEnd);
  }

  /** A view of the block. */
  get orderingKey(): Buffer | undefined {
    return (this.#has & HAS_ORDERING_KEY) === 0 ? undefined : this.#last(3).bytes();
  }

  /** Names and values in the order given; names may repeat. */
  get properties(): readonly (readonly [string, string])[] {
    return (this.#has & HAS_PROPERTIES) === 0 ? [] : readProperties(this.#buffer, this.#start, this.#end);
  }

  /** Milliseconds since 1970-01-01 UTC. */
  get eventTime(): number | undefined {
    return (this.#has & HAS_EVENT_TIME) === 0 ? undefined : this.#last(5).varint();
  }

  get sequenceId(): SequenceId {
    const delta = (this.#has & HAS_SEQUENCE_DELTA) === 0 ? BigInt(this.position) : this.#last(6).bigint();
    return BigInt.asUintN(64, this.#firstSequenceId + delta) as SequenceId;
  }

  /** A reader at the last occurrence of a field that is known to be there. */
  #last(field: number): ProtoReader {
    const reader = new ProtoReader(this.#buffer, this.#start, this.#end);
    let found = this.#start;
    for (let at = this.#start; reader.next(); at = reader.position) {
      if (reader.field === field) found = at;
      reader.skip();
    }
    const result = new ProtoReader(this.#buffer, found, this.#end);
    result.next();
    return result;
  }
}

function readProperties(buffer: Buffer, start: number, end: number): [string, string][] {
  const properties: [string, string][] = [];
  const message = new ProtoReader(buffer, start, end);
  while (message.next()) {
    if (message.field !== 4) {
      message.skip();
      continue;
    }
    const property = message.message();
    let [name, value] = ['', ''];
    while (property.next()) {
      if (property.field === 1) name = property.string();
      else if (property.field === 2) value = property.string();
      else property.skip();
    }
    properties.push([name, value]);
  }
  return properties;
}

/** A place in a payload area. What is common is read here; whatever is rare is left to a ProtoReader. */
class Scanner {
  readonly buffer: Buffer;
  at = 0;

  constructor(buffer: Buffer) {
    this.buffer = buffer;
  }

  malformed(what: string): MagnetarError {
    return violation(`malformed block: ${what} at byte ${this.at} of its payload area`);
  }

  /** Reads the length of a field that has to end at or before `end`. */
  length(end: number): number {
    const { buffer, at } = this;
    const first = buffer[at] as number; // undefined behind the end of the buffer: not below 128
    if (first < 128) {
      this.at = at + 1;
      if (first > end - at - 1) throw this.malformed('an unexpected end');
      return first;
    }
    const second = buffer[at + 1] as number;
    if (second < 128) {
      this.at = at + 2;
      const length = (first & 127) | (second << 7);
      if (length > end - at - 2) throw this.malformed('an unexpected end');
      return length;
    }
    const length = this.varint(end);
    if (length > end - this.at) throw this.malformed('an unexpected end');
    return length;
  }

  /** Passes over a length and as many bytes. */
  pass(end: number): void {
    const length = this.length(end); // moves `at`
    this.at += length;
  }

  /** Reads a varint up to 2^53-1. */
  varint(end: number): number {
    const reader = new ProtoReader(this.buffer, this.at, end);
    const value = reader.rawVarint();
    this.at = reader.position;
    return value;
  }

  /** Passes over a varint of 64 bits. */
  bigint(end: number): void {
    this.at -= 1; // back to the tag, which a ProtoReader wants to see
    this.skip(end);
  }

  /** Passes over a field; tells its number. */
  skip(end: number): number {
    const reader = new ProtoReader(this.buffer, this.at, end);
    reader.next();
    const { field } = reader;
    reader.skip();
    this.at = reader.position;
    return field;
  }

  /** Checks a Property of `length` bytes. */
  property(length: number): void {
    const end = this.at + length;
    while (this.at < end) {
      const tag = this.buffer[this.at];
      if (tag === PROPERTY_NAME || tag === PROPERTY_VALUE) {
        this.at += 1;
        this.pass(end);
      } else if (this.skip(end) <= 2) throw this.malformed('a wrong wire type in a property');
    }
  }
}
