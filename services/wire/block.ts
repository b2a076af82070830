/**
 * The producer's block (`proto/magnetar/v1/message.proto`) as brokers and consumers read it. `block-builder.ts` writes it.
 *
 * Every message of every consumer passes through `scanMessages`: it finds the places of payload and key and checks the
 * structure of all the rest in one pass; strings, properties and views are made when somebody asks for them.
 */
import { ProtoReader } from '../lib/bytes.ts';
import type { MagnetarError } from '../lib/errors.ts';
import type { SequenceId } from '../lib/ids.ts';
import { readSequenceId, uint32, violation } from './common-codec.ts';
import { payloadArea } from './compression.ts';
import type { ProducerBlock } from './frames.ts';

export { BlockBuilder, type BlockBuilderOptions, type OutgoingMessage, type OutgoingRest } from './block-builder.ts';

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

// What is noted of each message: places in the payload area (-1: no key), and what it has beside payload and key.
const STRIDE = 7;
const START = 0;
const END = 1;
const PAYLOAD_AT = 2;
const PAYLOAD_END = 3;
const KEY_AT = 4;
const KEY_END = 5;
const HAS = 6;
/** Tag and length of a message that is empty. */
export const LEAST_MESSAGE_BYTES = 2;

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
  let [compression, uncompressedSize, clearRows, delayed, payload] = [0, 0, 0, false, NOTHING];
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
      delayed = isDelayed(reader.message()) || delayed;
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
    delayed,
    payload,
  };
}

/** Whether a row of the clear table asks for a later delivery. */
function isDelayed(row: ProtoReader): boolean {
  let delayed = false;
  while (row.next()) {
    if (row.field === 3) delayed = row.bool();
    else row.skip();
  }
  return delayed;
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
 * The messages of a block, as views of it, or of its decompressed payload area: they pin the buffer behind it.
 *
 * @throws MagnetarError PROTOCOL_VIOLATION: malformed, or not as many messages as `count` says; UNSUPPORTED: of a
 *   compression that this process cannot read
 */
export function decodeMessages(block: Buffer): DecodedBlock {
  const fields = decodeBlock(block);
  const { producerName, producerEpoch, firstSequenceId, publishTime } = fields;
  const table = scanMessages(fields);
  const messages = Array.from({ length: table.length }, (_, at) => new DecodedMessage(table, at));
  return { producerName, producerEpoch, firstSequenceId, publishTime, messages };
}

/** As `decodeMessages`, without an object a message, of a block whose fields are decoded. */
export function scanMessages(fields: ProducerBlock): MessageTable {
  const payload = payloadArea(fields);
  const { firstSequenceId, count } = fields;
  const mismatch = (): MagnetarError => {
    return violation(`block has ${countMessages(payload)} messages; its count is ${count}`);
  };
  if (count * LEAST_MESSAGE_BYTES > payload.length) throw mismatch();
  const places = new Int32Array(count * STRIDE);
  const scanner = new Scanner(payload);
  let found = 0;
  while (scanner.at < payload.length) {
    if (payload[scanner.at] === MESSAGE) {
      if (found === count) throw mismatch();
      scanner.at += 1;
      const length = scanner.length(payload.length);
      scanMessage(scanner, scanner.at + length, places, found * STRIDE);
      found += 1;
    } else if (scanner.skip(payload.length) === 1) throw scanner.malformed('a message of a wrong wire type');
  }
  if (found !== count) throw mismatch();
  return new MessageTable(payload, firstSequenceId, places);
}

/** Notes where the fields of a message are. */
function scanMessage(scanner: Scanner, end: number, places: Int32Array, row: number): void {
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
  places[row + START] = start;
  places[row + END] = end;
  places[row + PAYLOAD_AT] = payloadAt;
  places[row + PAYLOAD_END] = payloadEnd;
  places[row + KEY_AT] = keyAt;
  places[row + KEY_END] = keyEnd;
  places[row + HAS] = has;
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

/**
 * The messages of a block by position, from 0: where their fields are, in one array for all. Nothing here throws for a
 * position that there is; strings, properties and views are made anew at each call.
 */
export class MessageTable {
  readonly #buffer: Buffer;
  readonly #firstSequenceId: SequenceId;
  readonly #places: Int32Array;

  constructor(buffer: Buffer, firstSequenceId: SequenceId, places: Int32Array) {
    this.#buffer = buffer;
    this.#firstSequenceId = firstSequenceId;
    this.#places = places;
  }

  /** How many there are. */
  get length(): number {
    return this.#places.length / STRIDE;
  }

  #place(position: number, field: number): number {
    return this.#places[position * STRIDE + field] as number;
  }

  /** A view of the block. */
  payload(position: number): Buffer {
    return this.#buffer.subarray(this.#place(position, PAYLOAD_AT), this.#place(position, PAYLOAD_END));
  }

  /** Length of the payload in bytes, without making a view. */
  payloadBytes(position: number): number {
    return this.#place(position, PAYLOAD_END) - this.#place(position, PAYLOAD_AT);
  }

  key(position: number): string | undefined {
    const at = this.#place(position, KEY_AT);
    return at === -1 ? undefined : this.#buffer.toString('utf8', at, this.#place(position, KEY_END));
  }

  /** A view of the block. */
  orderingKey(position: number): Buffer | undefined {
    return this.#has(position, HAS_ORDERING_KEY) ? this.#last(position, 3).bytes() : undefined;
  }

  /** Names and values in the order given; names may repeat. */
  properties(position: number): readonly (readonly [string, string])[] {
    if (!this.#has(position, HAS_PROPERTIES)) return [];
    return readProperties(this.#buffer, this.#place(position, START), this.#place(position, END));
  }

  /** Milliseconds since 1970-01-01 UTC. */
  eventTime(position: number): number | undefined {
    return this.#has(position, HAS_EVENT_TIME) ? this.#last(position, 5).varint() : undefined;
  }

  sequenceId(position: number): SequenceId {
    const delta = this.#has(position, HAS_SEQUENCE_DELTA) ? this.#last(position, 6).bigint() : BigInt(position);
    return BigInt.asUintN(64, this.#firstSequenceId + delta) as SequenceId;
  }

  #has(position: number, what: number): boolean {
    return (this.#place(position, HAS) & what) !== 0;
  }

  /** A reader at the last occurrence of a field that is known to be there. */
  #last(position: number, field: number): ProtoReader {
    const [start, end] = [this.#place(position, START), this.#place(position, END)];
    const reader = new ProtoReader(this.#buffer, start, end);
    let found = start;
    for (let at = start; reader.next(); at = reader.position) {
      if (reader.field === field) found = at;
      reader.skip();
    }
    const result = new ProtoReader(this.#buffer, found, end);
    result.next();
    return result;
  }
}

/** One message of a decoded block, as MessageTable tells it. */
class DecodedMessage {
  /** Position in the block, from 0. */
  readonly position: number;
  readonly #table: MessageTable;

  constructor(table: MessageTable, position: number) {
    this.#table = table;
    this.position = position;
  }

  get payload(): Buffer {
    return this.#table.payload(this.position);
  }

  get payloadBytes(): number {
    return this.#table.payloadBytes(this.position);
  }

  get key(): string | undefined {
    return this.#table.key(this.position);
  }

  get orderingKey(): Buffer | undefined {
    return this.#table.orderingKey(this.position);
  }

  get properties(): readonly (readonly [string, string])[] {
    return this.#table.properties(this.position);
  }

  get eventTime(): number | undefined {
    return this.#table.eventTime(this.position);
  }

  get sequenceId(): SequenceId {
    return this.#table.sequenceId(this.position);
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
