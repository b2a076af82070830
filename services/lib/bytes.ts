/**
 * Reading and writing protobuf's wire format over Buffer, for the hot paths and the internal records.
 *
 * Numbers are safe integers: a 64-bit field above 2^53-1 is refused when read as a number. Fields that may use all
 * 64 bits are read as bigint.
 */
import { MagnetarError } from './errors.ts';
import { byteLength } from './views.ts';

/** Wire types of protobuf. */
export const VARINT = 0;
export const FIXED64 = 1;
export const BYTES = 2;
export const FIXED32 = 5;

const TWO_32 = 4_294_967_296;
const HIGHEST_SAFE = BigInt(Number.MAX_SAFE_INTEGER);

/** Bytes that `value` (a safe integer, not negative) takes as a varint. */
export function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) size++;
  return size;
}

/** A byte field from this size on is not copied into the buffer of its writer. */
const KEPT_FROM_BYTES = 8_192;

/** How many bytes of a byte field a writer takes into its buffer. */
export function copiedBytes(bytes: Uint8Array): number {
  return bytes.length < KEPT_FROM_BYTES ? bytes.length : 0;
}

/** Bytes that stand in the message at `at` of the buffer. */
interface Kept {
  at: number;
  readonly bytes: Uint8Array;
}

/** A message in pieces, which are put together in the place where it is wanted. */
export class PiecedMessage {
  /** In bytes. */
  readonly length: number;
  readonly #buffer: Buffer;
  readonly #kept: readonly Kept[];

  constructor(buffer: Buffer, kept: readonly Kept[], length: number) {
    this.length = length;
    this.#buffer = buffer;
    this.#kept = kept;
  }

  get byteLength(): number {
    return this.length;
  }

  /** The pieces, in order. None is empty. */
  pieces(): Uint8Array[] {
    const pieces: Uint8Array[] = [];
    let from = 0;
    for (const { at, bytes } of this.#kept) {
      if (at > from) pieces.push(this.#buffer.subarray(from, at));
      pieces.push(bytes);
      from = at;
    }
    if (from < this.#buffer.length) pieces.push(this.#buffer.subarray(from));
    return pieces;
  }

  /** Copies all of it to `target`, which has room for it from `start` on. */
  copy(target: Buffer, start = 0): void {
    let to = start;
    for (const piece of this.pieces()) {
      target.set(piece, to);
      to += piece.length;
    }
  }
}

function callWith(writer: ProtoWriter, write: (writer: ProtoWriter) => void): void {
  write(writer);
}

/**
 * Appends fields to a buffer that grows. `finish()` hands the written part out; the writer is then used up. Large byte fields
 * are borrowed until then: they are copied once, to where they go.
 * Fields with protobuf's default value (0, empty) are the caller's to leave out.
 */
export class ProtoWriter {
  #buffer: Buffer;
  #at = 0;
  #kept: Kept[] | undefined;
  #keptBytes = 0;

  /** `initialBytes`: about what it takes without large byte fields. */
  constructor(initialBytes = 256) {
    this.#buffer = Buffer.allocUnsafe(initialBytes);
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#at + this.#keptBytes;
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#at + bytes));
    this.#buffer.copy(grown, 0, 0, this.#at);
    this.#buffer = grown;
  }

  /** A bare varint: a safe integer, not negative. */
  rawVarint(value: number): void {
    this.#room(10);
    let rest = value;
    while (rest >= TWO_32) {
      this.#buffer[this.#at++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    rest >>>= 0;
    while (rest > 127) {
      this.#buffer[this.#at++] = (rest & 127) | 128;
      rest >>>= 7;
    }
    this.#buffer[this.#at++] = rest;
  }

  tag(field: number, wireType: number): void {
    this.rawVarint(field * 8 + wireType);
  }

  /** An integer field: uint32, uint64, bool as 0 or 1, enum. Not negative. */
  varint(field: number, value: number): void {
    this.tag(field, VARINT);
    this.rawVarint(value);
  }

  /** A uint64 field that may use all 64 bits. */
  bigint(field: number, value: bigint): void {
    if (value <= HIGHEST_SAFE) {
      this.varint(field, Number(value));
      return;
    }
    this.tag(field, VARINT);
    this.#room(10);
    let rest = value;
    while (rest > 127n) {
      this.#buffer[this.#at++] = Number(rest & 127n) | 128;
      rest >>= 7n;
    }
    this.#buffer[this.#at++] = Number(rest);
  }

  /** An int64 field: a safe integer, negative ones as ten bytes. */
  int64(field: number, value: number): void {
    if (value >= 0) this.varint(field, value);
    else this.bigint(field, BigInt.asUintN(64, BigInt(value)));
  }

  /** A sint64 field (zigzag): a safe integer down to -2^52. */
  sint64(field: number, value: number): void {
    this.varint(field, value >= 0 ? value * 2 : -value * 2 - 1);
  }

  /** A fixed32 field. */
  fixed32(field: number, value: number): void {
    this.tag(field, FIXED32);
    this.#room(4);
    this.#at = this.#buffer.writeUInt32LE(value, this.#at);
  }

  /** A bytes field: the parts, one after another. */
  bytes(field: number, ...parts: readonly Uint8Array[]): void {
    this.tag(field, BYTES);
    this.rawVarint(byteLength(parts));
    for (const part of parts) this.raw(part);
  }

  /** Bytes as they are, without a tag. */
  raw(bytes: Uint8Array): void {
    if (copiedBytes(bytes) < bytes.length) {
      (this.#kept ??= []).push({ at: this.#at, bytes });
      this.#keptBytes += bytes.length;
      return;
    }
    this.#room(bytes.length);
    this.#buffer.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  /** A string field. */
  string(field: number, value: string): void {
    const length = Buffer.byteLength(value);
    this.tag(field, BYTES);
    this.rawVarint(length);
    this.#room(length);
    this.#at += this.#buffer.write(value, this.#at);
  }

  /** A message field whose encoded size is known. The caller writes exactly `length` bytes next. */
  messageHeader(field: number, length: number): void {
    this.tag(field, BYTES);
    this.rawVarint(length);
  }

  /** A message field: `write` fills it. For messages that are small or rare: the content is moved once. */
  message(field: number, write: (writer: ProtoWriter) => void): void {
    this.item(field, write, callWith);
  }

  /** A message field: `write(writer, value)` fills it. As `message`, without a closure per item. */
  item<T>(field: number, value: T, write: (writer: ProtoWriter, value: T) => void): void {
    this.tag(field, BYTES);
    const lengthAt = this.#at;
    const [keptBefore, start] = [this.#kept?.length ?? 0, this.length + 1];
    this.#room(1);
    this.#at += 1;
    write(this, value);
    const length = this.length - start;
    const extra = varintSize(length) - 1;
    if (extra > 0) {
      this.#room(extra);
      this.#buffer.copyWithin(lengthAt + 1 + extra, lengthAt + 1, this.#at);
      for (const kept of this.#kept?.slice(keptBefore) ?? []) kept.at += extra;
    }
    const end = this.#at + extra;
    this.#at = lengthAt;
    this.rawVarint(length);
    this.#at = end;
  }

  /** A packed repeated field of integers that are not negative. */
  packed(field: number, values: Iterable<number>): void {
    this.message(field, (writer) => {
      for (const value of values) writer.rawVarint(value);
    });
  }

  /** What was written, in one piece. Perhaps a view: the writer must not be used any more. */
  finish(): Buffer {
    if (this.#kept === undefined) return this.#buffer.subarray(0, this.#at);
    const whole = Buffer.allocUnsafe(this.length);
    this.finishPieced().copy(whole);
    return whole;
  }

  /** What was written, in pieces: large byte fields as they were given. */
  finishPieced(): PiecedMessage {
    return new PiecedMessage(this.#buffer.subarray(0, this.#at), this.#kept ?? [], this.length);
  }
}

/** How many fields a message may have, with those of its submessages and each number of packed ones. */
export interface FieldLimit {
  readonly most: number;
  /** How many more may be read. */
  left: number;
}

/**
 * Reads fields of a message: `while (reader.next()) switch (reader.field) { … default: reader.skip(); }`.
 * Byte fields are views of the buffer. Whatever is malformed throws PROTOCOL_VIOLATION.
 */
export class ProtoReader {
  /** Number of the field that `next()` found. */
  field = 0;
  /** Its wire type. */
  wireType = 0;
  readonly #buffer: Buffer;
  #at: number;
  readonly #end: number;
  readonly #limit: FieldLimit | undefined;

  /** `limit`: for what others send; readers of submessages share it. */
  constructor(buffer: Buffer, start = 0, end: number = buffer.length, limit?: FieldLimit) {
    this.#buffer = buffer;
    this.#at = start;
    this.#end = end;
    this.#limit = limit;
  }

  /** Offset of the next byte to read, in the buffer. */
  get position(): number {
    return this.#at;
  }

  get done(): boolean {
    return this.#at >= this.#end;
  }

  #malformed(what: string): MagnetarError {
    return new MagnetarError('PROTOCOL_VIOLATION', `malformed protobuf: ${what} at byte ${this.#at}`);
  }

  /** Reads the next tag. False at the end of the message. */
  next(): boolean {
    if (this.#at >= this.#end) return false;
    const limit = this.#limit;
    if (limit !== undefined && --limit.left < 0) throw tooManyFields(limit);
    const tag = this.rawVarint();
    if (tag < 128 && tag > 7) {
      this.wireType = tag & 7;
      this.field = tag >>> 3;
      return true;
    }
    this.wireType = tag % 8;
    this.field = Math.floor(tag / 8);
    if (this.field === 0 || tag >= TWO_32) throw this.#malformed('an illegal field number');
    return true;
  }

  /** A bare varint as a number. */
  rawVarint(): number {
    const buffer = this.#buffer;
    const first = this.#at < this.#end ? (buffer[this.#at++] as number) : this.#cut();
    if (first < 128) return first;
    let value = first & 127;
    for (let scale = 128; ; scale *= 128) {
      const byte = this.#at < this.#end ? (buffer[this.#at++] as number) : this.#cut();
      value += (byte & 127) * scale;
      if (byte < 128) break;
      if (scale > 2 ** 56) throw this.#malformed('a varint of more than ten bytes');
    }
    if (!Number.isSafeInteger(value)) throw this.#malformed('a number above 2^53-1');
    return value;
  }

  #cut(): never {
    throw this.#malformed('an unexpected end');
  }

  #expect(wireType: number): void {
    if (this.wireType !== wireType) throw this.#malformed(`wire type ${this.wireType} for field ${this.field}`);
  }

  /** An integer field up to 2^53-1. */
  varint(): number {
    this.#expect(VARINT);
    return this.rawVarint();
  }

  /** An integer field up to `highest`. */
  varintUpTo(highest: number): number {
    const value = this.varint();
    if (value > highest) throw this.#malformed(`${value} for field ${this.field}, which takes at most ${highest}`);
    return value;
  }

  /** A bool field: any bit set is true. */
  bool(): boolean {
    this.#expect(VARINT);
    for (let bits = 0, length = 1; ; length++) {
      const byte = this.#at < this.#end ? (this.#buffer[this.#at++] as number) : this.#cut();
      bits |= byte & 127;
      if (byte < 128) return bits !== 0;
      if (length === 10) throw this.#malformed('a varint of more than ten bytes');
    }
  }

  /** A field that may use all 64 bits, unsigned. */
  bigint(): bigint {
    this.#expect(VARINT);
    let low = 0; // up to 49 bits without a bigint
    for (let scale = 1; scale < 2 ** 49; scale *= 128) {
      const byte = this.#at < this.#end ? (this.#buffer[this.#at++] as number) : this.#cut();
      low += (byte & 127) * scale;
      if (byte < 128) return BigInt(low);
    }
    let value = BigInt(low);
    for (let shift = 49n; ; shift += 7n) {
      const byte = this.#at < this.#end ? (this.#buffer[this.#at++] as number) : this.#cut();
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asUintN(64, value);
      if (shift >= 63n) throw this.#malformed('a varint of more than ten bytes');
    }
  }

  /** An int64 field within the safe integers. */
  int64(): number {
    this.#expect(VARINT);
    const start = this.#at;
    let low = 0; // up to 49 bits without a bigint
    for (let scale = 1; scale < 2 ** 49; scale *= 128) {
      const byte = this.#at < this.#end ? (this.#buffer[this.#at++] as number) : this.#cut();
      low += (byte & 127) * scale;
      if (byte < 128) return low;
    }
    this.#at = start;
    const value = Number(BigInt.asIntN(64, this.bigint()));
    if (!Number.isSafeInteger(value)) throw this.#malformed('a number beyond 2^53-1');
    return value;
  }

  /** A sint64 field (zigzag). */
  sint64(): number {
    const value = this.varint();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  fixed32(): number {
    this.#expect(FIXED32);
    if (this.#at + 4 > this.#end) this.#cut();
    const value = this.#buffer.readUInt32LE(this.#at);
    this.#at += 4;
    return value;
  }

  /** A bytes field, as a view. */
  bytes(): Buffer {
    this.#expect(BYTES);
    const length = this.rawVarint();
    if (length > this.#end - this.#at) this.#cut();
    const start = this.#at;
    this.#at += length;
    return this.#buffer.subarray(start, this.#at);
  }

  /** A string field. What is not UTF-8 in it comes out as U+FFFD. */
  string(): string {
    return this.bytes().toString('utf8');
  }

  /** A string field that has to be UTF-8: a name, which must not become another one. */
  text(): string {
    const bytes = this.bytes();
    const text = bytes.toString('utf8');
    if (text.includes('\u{fffd}') && !Buffer.from(text).equals(bytes)) {
      throw this.#malformed(`text that is not UTF-8 in field ${this.field}`);
    }
    return text;
  }

  /** A message field, as a reader of its own. */
  message(): ProtoReader {
    this.#expect(BYTES);
    const length = this.rawVarint();
    if (length > this.#end - this.#at) this.#cut();
    const start = this.#at;
    this.#at += length;
    return new ProtoReader(this.#buffer, start, this.#at, this.#limit);
  }

  /** Integers of a repeated field, packed or not, appended to `into`. */
  packed(into: number[]): void {
    if (this.wireType === VARINT) {
      into.push(this.rawVarint());
      return;
    }
    const reader = this.message();
    const limit = this.#limit;
    while (!reader.done) {
      if (limit !== undefined && --limit.left < 0) throw tooManyFields(limit);
      into.push(reader.rawVarint());
    }
  }

  /** Passes over the field. */
  skip(): void {
    switch (this.wireType) {
      case VARINT:
        this.bool();
        return;
      case FIXED64:
        this.#at += 8;
        break;
      case BYTES: {
        const length = this.rawVarint();
        if (length > this.#end - this.#at) this.#cut();
        this.#at += length;
        return;
      }
      case FIXED32:
        this.#at += 4;
        break;
      default:
        throw this.#malformed(`wire type ${this.wireType}`);
    }
    if (this.#at > this.#end) this.#cut();
  }
}

function tooManyFields({ most }: FieldLimit): MagnetarError {
  return new MagnetarError('PROTOCOL_VIOLATION', `a message has more than ${most} fields and numbers`);
}
