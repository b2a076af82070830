/** Codecs of what all frames share: `proto/magnetar/v1/common.proto`, message ids, and helpers of the frame codecs. */
import type { ProtoWriter } from '../lib/bytes.ts';
import { ProtoReader, varintSize } from '../lib/bytes.ts';
import { MagnetarError } from '../lib/errors.ts';
import type { EntryId, LedgerId, MessageIndex, SequenceId } from '../lib/ids.ts';
import type { ClientHello, Credit, ServerHello, WireError, WireMessageId } from './frames.ts';

const UINT32_MAX = 4_294_967_295;

/** Room for what a frame holds beside its payloads, in bytes; a frame that needs more grows. */
export const SMALL_FRAME_BYTES = 256;

/**
 * The items that a client may put into one frame: as many as no credit allows at once. Without a limit a frame of the largest
 * size has eight million of two bytes, which stop the process for seconds before anybody has counted them.
 */
export const FRAME_ITEMS = 16_384;
/** Its fields at any depth, and numbers of packed fields: what many small items, or a few large acknowledgments, have. */
export const FRAME_FIELDS = 262_144;

/** A reader of what a client sends, for `nextItem`. */
export function frameReader(bytes: Buffer): ProtoReader {
  return new ProtoReader(bytes, 0, bytes.length, { most: FRAME_FIELDS, left: FRAME_FIELDS });
}

/** As the reader's `next`, for the items of a frame, of which `before` were read. @throws PROTOCOL_VIOLATION for too many */
export function nextItem(reader: ProtoReader, before: number): boolean {
  if (!reader.next()) return false;
  if (before < FRAME_ITEMS) return true;
  throw violation(`a frame has more than ${FRAME_ITEMS} items; send several frames`);
}

/** Bytes of an integer field with a number below 16; none for 0, which proto3 leaves out. */
export function integerSize(value: number): number {
  if (value === 0) return 0;
  return value < 128 ? 2 : 1 + varintSize(value);
}

/** Bytes of a `bytes` field with a number below 16; none for an empty one. */
export function bytesSize(length: number): number {
  return length === 0 ? 0 : 1 + varintSize(length) + length;
}

/** An integer field, left out at 0. */
export function putInteger(writer: ProtoWriter, field: number, value: number): void {
  if (value !== 0) writer.varint(field, value);
}

/** A uint64 field of all 64 bits, left out at 0. */
export function putBigint(writer: ProtoWriter, field: number, value: bigint): void {
  if (value !== 0n) writer.bigint(field, value);
}

/** A bool field, left out when false. */
export function putBool(writer: ProtoWriter, field: number, value: boolean): void {
  if (value) writer.varint(field, 1);
}

/** A string field, left out when empty. */
export function putString(writer: ProtoWriter, field: number, value: string): void {
  if (value !== '') writer.string(field, value);
}

/** A bytes field, left out when empty. */
export function putBytes(writer: ProtoWriter, field: number, value: Uint8Array): void {
  if (value.length > 0) writer.bytes(field, value);
}

/** A repeated message field. */
export function putItems<T>(
  writer: ProtoWriter,
  field: number,
  values: readonly T[] | undefined,
  write: (writer: ProtoWriter, value: T) => void,
): void {
  if (values === undefined) return;
  for (const value of values) writer.item(field, value, write);
}

/** A message field that may be absent. */
export function putOptional<T>(
  writer: ProtoWriter,
  field: number,
  value: T | undefined,
  write: (writer: ProtoWriter, value: T) => void,
): void {
  if (value !== undefined) writer.item(field, value, write);
}

/** A uint32 field. */
export function uint32(reader: ProtoReader): number {
  return reader.varintUpTo(UINT32_MAX);
}

/** A ledger id. */
export function readLedgerId(reader: ProtoReader): LedgerId {
  return reader.varint() as LedgerId;
}

/** An entry id of a uint64 field: there is one. */
export function readEntryId(reader: ProtoReader): EntryId {
  return reader.varint() as EntryId;
}

/** An entry id of an int64 field, where -1 says that there is none. */
export function readEntryIdOrNone(reader: ProtoReader): EntryId {
  const value = reader.int64();
  if (value < -1) throw violation(`field ${reader.field} is ${value}; an entry id is an integer from -1 on`);
  return value as EntryId;
}

/** A message index. */
export function readIndex(reader: ProtoReader): MessageIndex {
  return reader.varint() as MessageIndex;
}

/** A sequence id. */
export function readSequenceId(reader: ProtoReader): SequenceId {
  return reader.bigint() as SequenceId;
}

/** What a peer that breaks the protocol is told. */
export function violation(message: string): MagnetarError {
  return new MagnetarError('PROTOCOL_VIOLATION', message);
}

/** A server's frame with those of its optional fields that came. Kept off the common path, where there are none. */
export function withHello<T extends object>(
  frame: T,
  hello: ServerHello | undefined,
  credit: Credit | undefined,
): T & { hello?: ServerHello; credit?: Credit } {
  return { ...frame, ...(hello === undefined ? {} : { hello }), ...(credit === undefined ? {} : { credit }) };
}

export function writeClientHello(writer: ProtoWriter, hello: ClientHello): void {
  putInteger(writer, 1, hello.protocolVersion);
  for (const feature of hello.features) writer.string(2, feature);
  putString(writer, 3, hello.client);
}

/** Protocol version 0 is read as 1. */
export function readClientHello(reader: ProtoReader): ClientHello {
  let protocolVersion = 0;
  const features: string[] = [];
  let client = '';
  while (reader.next()) {
    if (reader.field === 1) protocolVersion = uint32(reader);
    else if (reader.field === 2) features.push(reader.string());
    else if (reader.field === 3) client = reader.string();
    else reader.skip();
  }
  return { protocolVersion: protocolVersion === 0 ? 1 : protocolVersion, features, client };
}

export function writeServerHello(writer: ProtoWriter, hello: ServerHello): void {
  putInteger(writer, 1, hello.protocolVersion);
  for (const feature of hello.features) writer.string(2, feature);
  putString(writer, 3, hello.server);
  putInteger(writer, 4, hello.maxMessageBytes);
  putInteger(writer, 5, hello.maxFrameBytes);
  putOptional(writer, 6, hello.credit, writeCredit);
  if (hello.instance !== undefined) putBytes(writer, 7, hello.instance);
}

export function readServerHello(reader: ProtoReader): ServerHello {
  let [protocolVersion, maxMessageBytes, maxFrameBytes, server] = [0, 0, 0, ''];
  const features: string[] = [];
  let [credit, instance]: [Credit | undefined, Buffer | undefined] = [undefined, undefined];
  while (reader.next()) {
    if (reader.field === 1) protocolVersion = uint32(reader);
    else if (reader.field === 2) features.push(reader.string());
    else if (reader.field === 3) server = reader.string();
    else if (reader.field === 4) maxMessageBytes = uint32(reader);
    else if (reader.field === 5) maxFrameBytes = uint32(reader);
    else if (reader.field === 6) credit = readCredit(reader.message());
    else if (reader.field === 7) instance = Buffer.from(reader.bytes());
    else reader.skip();
  }
  return {
    protocolVersion,
    features,
    server,
    maxMessageBytes,
    maxFrameBytes,
    ...(credit === undefined ? {} : { credit }),
    ...(instance === undefined || instance.length === 0 ? {} : { instance }),
  };
}

export function writeCredit(writer: ProtoWriter, credit: Credit): void {
  putInteger(writer, 1, credit.items);
  putInteger(writer, 2, credit.bytes);
}

export function readCredit(reader: ProtoReader): Credit {
  let [items, bytes] = [0, 0];
  while (reader.next()) {
    if (reader.field === 1) items = uint32(reader);
    else if (reader.field === 2) bytes = reader.varint();
    else reader.skip();
  }
  return { items, bytes };
}

export function writeError(writer: ProtoWriter, error: WireError): void {
  putString(writer, 1, error.code);
  putString(writer, 2, error.message);
  putBool(writer, 3, error.retryable);
  writeStringMap(writer, 4, error.details);
}

export function readError(reader: ProtoReader): WireError {
  let [code, message, retryable] = ['', '', false];
  const details = new Map<string, string>();
  while (reader.next()) {
    if (reader.field === 1) code = reader.string();
    else if (reader.field === 2) message = reader.string();
    else if (reader.field === 3) retryable = reader.bool();
    else if (reader.field === 4) readMapEntry(reader.message(), details);
    else reader.skip();
  }
  return { code, message, retryable, details: Object.fromEntries(details) };
}

/** A map<string, string> field. */
export function writeStringMap(writer: ProtoWriter, field: number, map: Readonly<Record<string, string>>): void {
  for (const entry of Object.entries(map)) writer.item(field, entry, writeMapEntry);
}

function writeMapEntry(writer: ProtoWriter, [key, value]: readonly [string, string]): void {
  writer.string(1, key);
  writer.string(2, value);
}

/** One entry of a map<string, string> field, put into `map`. */
export function readMapEntry(reader: ProtoReader, map: Map<string, string>): void {
  let [key, value] = ['', ''];
  while (reader.next()) {
    if (reader.field === 1) key = reader.string();
    else if (reader.field === 2) value = reader.string();
    else reader.skip();
  }
  map.set(key, value);
}

export function writeMessageId(writer: ProtoWriter, id: WireMessageId): void {
  putInteger(writer, 1, id.ledgerId);
  putInteger(writer, 2, id.entryId);
  putInteger(writer, 3, id.batchIndex);
  if (id.partition !== undefined) writer.varint(4, id.partition);
  if (id.index !== undefined) writer.varint(5, id.index);
}

export function readMessageId(reader: ProtoReader): WireMessageId {
  let [ledgerId, entryId, batchIndex] = [0 as LedgerId, 0 as EntryId, 0];
  let partition: number | undefined;
  let index: MessageIndex | undefined;
  while (reader.next()) {
    if (reader.field === 1) ledgerId = readLedgerId(reader);
    else if (reader.field === 2) entryId = readEntryId(reader);
    else if (reader.field === 3) batchIndex = uint32(reader);
    else if (reader.field === 4) partition = uint32(reader);
    else if (reader.field === 5) index = readIndex(reader);
    else reader.skip();
  }
  return {
    ledgerId,
    entryId,
    batchIndex,
    ...(partition === undefined ? {} : { partition }),
    ...(index === undefined ? {} : { index }),
  };
}
