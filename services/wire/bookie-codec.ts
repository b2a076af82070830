/** Codecs of the bookie's streams (`proto/magnetar/v1/bookie.proto`). */
import { copiedBytes, ProtoReader, ProtoWriter } from '../lib/bytes.ts';
import type { EntryId, LedgerId } from '../lib/ids.ts';
import { type Codec, type PayloadCodec, payloadEncoders } from './codec.ts';
import {
  bytesSize,
  frameReader,
  integerSize,
  nextItem,
  putBool,
  putBytes,
  putInteger,
  putItems,
  putOptional,
  readClientHello,
  readCredit,
  readEntryId,
  readEntryIdOrNone,
  readError,
  readLedgerId,
  readServerHello,
  SMALL_FRAME_BYTES,
  uint32,
  withHello,
  writeClientHello,
  writeCredit,
  writeError,
  writeServerHello,
} from './common-codec.ts';
import type {
  AppendRequest,
  AppendResponse,
  AppendResult,
  ClientHello,
  Credit,
  EntriesResult,
  ReadRequest,
  ReadResponse,
  ServerHello,
  WireAppendEntry,
  WireError,
  WireLacResult,
  WireReadEntries,
  WireReadLac,
  WireStoredEntry,
} from './frames.ts';

const ENTRY_OVERHEAD_BYTES = 80; // more than numbers, tags and lengths of an entry take; the master key comes on top
const RESULT_BYTES = 8; // what the answer to a request mostly stays below
const NEGATIVE_BYTES = 11; // an int64 below 0 with its tag
const NOTHING: Buffer = Buffer.alloc(0);

function writeAppendRequest(frame: AppendRequest): ProtoWriter {
  let bytes = SMALL_FRAME_BYTES;
  for (const { payload, masterKey } of frame.entries ?? []) {
    bytes += masterKey.length + ENTRY_OVERHEAD_BYTES;
    for (const piece of payload) bytes += copiedBytes(piece);
  }
  const writer = new ProtoWriter(bytes);
  putOptional(writer, 1, frame.hello, writeClientHello);
  for (const entry of frame.entries ?? []) writeAppendEntry(writer, entry);
  return writer;
}

/** From client to bookie on the append stream. */
export const appendRequest: Codec<AppendRequest> = {
  ...payloadEncoders(writeAppendRequest),

  decode(bytes: Buffer): AppendRequest {
    const reader = frameReader(bytes);
    let hello: ClientHello | undefined;
    const entries: WireAppendEntry[] = [];
    for (let items = 0; nextItem(reader, items); items++) {
      if (reader.field === 1) hello = readClientHello(reader.message());
      else if (reader.field === 2) entries.push(readAppendEntry(reader.message()));
      else reader.skip();
    }
    return hello === undefined ? { entries } : { hello, entries };
  },
};

/** From bookie to client on the append stream. */
export const appendResponse: Codec<AppendResponse> = {
  encode(frame: AppendResponse): Buffer {
    const writer = new ProtoWriter(SMALL_FRAME_BYTES + RESULT_BYTES * (frame.results?.length ?? 0));
    putOptional(writer, 1, frame.hello, writeServerHello);
    putItems(writer, 2, frame.results, writeResult);
    putOptional(writer, 3, frame.credit, writeCredit);
    putOptional(writer, 4, frame.full, writeError);
    return writer.finish();
  },

  decode(bytes: Buffer): AppendResponse {
    const reader = new ProtoReader(bytes);
    let hello: ServerHello | undefined;
    const results: AppendResult[] = [];
    let credit: Credit | undefined;
    let full: WireError | undefined;
    while (reader.next()) {
      if (reader.field === 1) hello = readServerHello(reader.message());
      else if (reader.field === 2) results.push(readResult(reader.message()));
      else if (reader.field === 3) credit = readCredit(reader.message());
      else if (reader.field === 4) full = readError(reader.message());
      else reader.skip();
    }
    const rest = full === undefined ? { results } : { results, full };
    return hello === undefined && credit === undefined ? rest : withHello(rest, hello, credit);
  },
};

/** From client to bookie on the read stream. */
export const readRequest: Codec<ReadRequest> = {
  encode(frame: ReadRequest): Buffer {
    const writer = new ProtoWriter(SMALL_FRAME_BYTES);
    putOptional(writer, 1, frame.hello, writeClientHello);
    putItems(writer, 2, frame.reads, writeReadEntries);
    putItems(writer, 3, frame.lacs, writeReadLac);
    return writer.finish();
  },

  decode(bytes: Buffer): ReadRequest {
    const reader = frameReader(bytes);
    let hello: ClientHello | undefined;
    const reads: WireReadEntries[] = [];
    const lacs: WireReadLac[] = [];
    for (let items = 0; nextItem(reader, items); items++) {
      if (reader.field === 1) hello = readClientHello(reader.message());
      else if (reader.field === 2) reads.push(readReadEntries(reader.message()));
      else if (reader.field === 3) lacs.push(readReadLac(reader.message()));
      else reader.skip();
    }
    return hello === undefined ? { reads, lacs } : { hello, reads, lacs };
  },
};

function writeReadResponse(frame: ReadResponse): ProtoWriter {
  let bytes = SMALL_FRAME_BYTES;
  for (const result of frame.entries ?? []) {
    for (const entry of result.entries ?? []) bytes += copiedBytes(entry.payload) + ENTRY_OVERHEAD_BYTES;
  }
  const writer = new ProtoWriter(bytes);
  putOptional(writer, 1, frame.hello, writeServerHello);
  for (const result of frame.entries ?? []) writeEntriesResult(writer, result);
  putItems(writer, 3, frame.lacs, writeLacResult);
  putOptional(writer, 4, frame.credit, writeCredit);
  return writer;
}

/** From bookie to client on the read stream. */
export const readResponse: PayloadCodec<ReadResponse> = {
  ...payloadEncoders(writeReadResponse),

  decode(bytes: Buffer): ReadResponse {
    const reader = new ProtoReader(bytes);
    let hello: ServerHello | undefined;
    const entries: EntriesResult[] = [];
    const lacs: WireLacResult[] = [];
    let credit: Credit | undefined;
    while (reader.next()) {
      if (reader.field === 1) hello = readServerHello(reader.message());
      else if (reader.field === 2) entries.push(readEntriesResult(reader.message()));
      else if (reader.field === 3) lacs.push(readLacResult(reader.message()));
      else if (reader.field === 4) credit = readCredit(reader.message());
      else reader.skip();
    }
    const frame = { entries, lacs };
    return hello === undefined && credit === undefined ? frame : withHello(frame, hello, credit);
  },
};

function signedSize(value: number): number {
  return value < 0 ? NEGATIVE_BYTES : integerSize(value);
}

function putSigned(writer: ProtoWriter, field: number, value: number): void {
  if (value !== 0) writer.int64(field, value);
}

function digestSize(value: number): number {
  return value === 0 ? 0 : 5;
}

function putDigest(writer: ProtoWriter, field: number, value: number): void {
  if (value !== 0) writer.fixed32(field, value);
}

function writeAppendEntry(writer: ProtoWriter, entry: WireAppendEntry): void {
  const size =
    integerSize(entry.request) +
    integerSize(entry.ledgerId) +
    integerSize(entry.entryId) +
    signedSize(entry.lac) +
    integerSize(entry.length) +
    digestSize(entry.digest) +
    bytesSize(entry.masterKey.length) +
    (entry.recovery ? 2 : 0) +
    bytesSize(entry.payloadBytes);
  writer.messageHeader(2, size);
  putInteger(writer, 1, entry.request);
  putInteger(writer, 2, entry.ledgerId);
  putInteger(writer, 3, entry.entryId);
  putSigned(writer, 4, entry.lac);
  putInteger(writer, 5, entry.length);
  putDigest(writer, 6, entry.digest);
  putBytes(writer, 7, entry.masterKey);
  putBool(writer, 8, entry.recovery);
  if (entry.payloadBytes > 0) {
    writer.messageHeader(9, entry.payloadBytes);
    for (const piece of entry.payload) writer.raw(piece);
  }
}

function readAppendEntry(reader: ProtoReader): WireAppendEntry {
  let [request, length, digest, recovery] = [0, 0, 0, false];
  let [ledgerId, entryId, lac] = [0 as LedgerId, 0 as EntryId, 0 as EntryId];
  let [masterKey, payload] = [NOTHING, NOTHING];
  while (reader.next()) {
    if (reader.field === 1) request = uint32(reader);
    else if (reader.field === 2) ledgerId = readLedgerId(reader);
    else if (reader.field === 3) entryId = readEntryId(reader);
    else if (reader.field === 4) lac = readEntryIdOrNone(reader);
    else if (reader.field === 5) length = reader.varint();
    else if (reader.field === 6) digest = reader.fixed32();
    else if (reader.field === 7) masterKey = reader.bytes();
    else if (reader.field === 8) recovery = reader.bool();
    else if (reader.field === 9) payload = reader.bytes();
    else reader.skip();
  }
  return {
    request,
    ledgerId,
    entryId,
    lac,
    length,
    digest,
    masterKey,
    recovery,
    payload: [payload],
    payloadBytes: payload.length,
  };
}

function writeResult(writer: ProtoWriter, result: AppendResult): void {
  putInteger(writer, 1, result.request);
  putOptional(writer, 2, result.error, writeError);
}

function readResult(reader: ProtoReader): AppendResult {
  let request = 0;
  let error: WireError | undefined;
  while (reader.next()) {
    if (reader.field === 1) request = uint32(reader);
    else if (reader.field === 2) error = readError(reader.message());
    else reader.skip();
  }
  return error === undefined ? { request } : { request, error };
}

function writeReadEntries(writer: ProtoWriter, read: WireReadEntries): void {
  putInteger(writer, 1, read.request);
  putInteger(writer, 2, read.ledgerId);
  putInteger(writer, 3, read.firstEntryId);
  putInteger(writer, 4, read.maxEntries);
  putInteger(writer, 5, read.maxBytes);
  putBool(writer, 6, read.fence);
  putBytes(writer, 7, read.masterKey);
}

function readReadEntries(reader: ProtoReader): WireReadEntries {
  let [request, maxEntries, maxBytes, fence] = [0, 0, 0, false];
  let [ledgerId, firstEntryId, masterKey] = [0 as LedgerId, 0 as EntryId, NOTHING];
  while (reader.next()) {
    if (reader.field === 1) request = uint32(reader);
    else if (reader.field === 2) ledgerId = readLedgerId(reader);
    else if (reader.field === 3) firstEntryId = readEntryId(reader);
    else if (reader.field === 4) maxEntries = uint32(reader);
    else if (reader.field === 5) maxBytes = uint32(reader);
    else if (reader.field === 6) fence = reader.bool();
    else if (reader.field === 7) masterKey = reader.bytes();
    else reader.skip();
  }
  return { request, ledgerId, firstEntryId, maxEntries, maxBytes, fence, masterKey };
}

function writeReadLac(writer: ProtoWriter, read: WireReadLac): void {
  putInteger(writer, 1, read.request);
  putInteger(writer, 2, read.ledgerId);
  putBool(writer, 3, read.fence);
  putBytes(writer, 4, read.masterKey);
}

function readReadLac(reader: ProtoReader): WireReadLac {
  let [request, ledgerId, fence, masterKey] = [0, 0 as LedgerId, false, NOTHING];
  while (reader.next()) {
    if (reader.field === 1) request = uint32(reader);
    else if (reader.field === 2) ledgerId = readLedgerId(reader);
    else if (reader.field === 3) fence = reader.bool();
    else if (reader.field === 4) masterKey = reader.bytes();
    else reader.skip();
  }
  return { request, ledgerId, fence, masterKey };
}

/** Sized before it is written, so that its payloads are copied once. The size of a rare error is found by encoding it. */
function writeEntriesResult(writer: ProtoWriter, result: EntriesResult): void {
  let error: Buffer | undefined;
  if (result.error !== undefined) {
    const scratch = new ProtoWriter();
    writeError(scratch, result.error);
    error = scratch.finish();
  }
  let size = integerSize(result.request) + (error === undefined ? 0 : Math.max(2, bytesSize(error.length)));
  const sizes = (result.entries ?? []).map(storedEntrySize);
  for (const entrySize of sizes) size += entrySize === 0 ? 2 : bytesSize(entrySize);
  writer.messageHeader(2, size);
  putInteger(writer, 1, result.request);
  if (error !== undefined) writer.bytes(2, error);
  for (const [at, entry] of (result.entries ?? []).entries()) writeStoredEntry(writer, entry, sizes[at] ?? 0);
}

function readEntriesResult(reader: ProtoReader): EntriesResult {
  let request = 0;
  let error: WireError | undefined;
  const entries: WireStoredEntry[] = [];
  while (reader.next()) {
    if (reader.field === 1) request = uint32(reader);
    else if (reader.field === 2) error = readError(reader.message());
    else if (reader.field === 3) entries.push(readStoredEntry(reader.message()));
    else reader.skip();
  }
  return error === undefined ? { request, entries } : { request, error, entries };
}

function storedEntrySize(entry: WireStoredEntry): number {
  return (
    integerSize(entry.entryId) +
    signedSize(entry.lac) +
    integerSize(entry.length) +
    digestSize(entry.digest) +
    bytesSize(entry.payload.length)
  );
}

function writeStoredEntry(writer: ProtoWriter, entry: WireStoredEntry, size: number): void {
  writer.messageHeader(3, size);
  putInteger(writer, 1, entry.entryId);
  putSigned(writer, 2, entry.lac);
  putInteger(writer, 3, entry.length);
  putDigest(writer, 4, entry.digest);
  putBytes(writer, 5, entry.payload);
}

function readStoredEntry(reader: ProtoReader): WireStoredEntry {
  let [entryId, lac, length, digest, payload] = [0 as EntryId, 0 as EntryId, 0, 0, NOTHING];
  while (reader.next()) {
    if (reader.field === 1) entryId = readEntryId(reader);
    else if (reader.field === 2) lac = readEntryIdOrNone(reader);
    else if (reader.field === 3) length = reader.varint();
    else if (reader.field === 4) digest = reader.fixed32();
    else if (reader.field === 5) payload = reader.bytes();
    else reader.skip();
  }
  return { entryId, lac, length, digest, payload };
}

function writeLacResult(writer: ProtoWriter, result: WireLacResult): void {
  putInteger(writer, 1, result.request);
  putOptional(writer, 2, result.error, writeError);
  putSigned(writer, 3, result.lac);
  putSigned(writer, 4, result.lastEntryId);
  putBool(writer, 5, result.unsure === true);
}

function readLacResult(reader: ProtoReader): WireLacResult {
  let [request, lac, lastEntryId, unsure] = [0, 0 as EntryId, 0 as EntryId, false];
  let error: WireError | undefined;
  while (reader.next()) {
    if (reader.field === 1) request = uint32(reader);
    else if (reader.field === 2) error = readError(reader.message());
    else if (reader.field === 3) lac = readEntryIdOrNone(reader);
    else if (reader.field === 4) lastEntryId = readEntryIdOrNone(reader);
    else if (reader.field === 5) unsure = reader.bool();
    else reader.skip();
  }
  const result = { request, lac, lastEntryId, ...(unsure ? { unsure } : {}) };
  return error === undefined ? result : { ...result, error };
}
