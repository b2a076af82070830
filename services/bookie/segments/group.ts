import { crc32c } from '../../lib/crc32c.ts';
import {
  encodeGroupHeader,
  encodeRecordHeader,
  GROUP_HEADER_BYTES,
  PAGE_BYTES,
  RECORD_HEADER_BYTES,
  type RecordHeader,
  recordBytes,
  type SegmentIdentity,
  wholePages,
} from './format.ts';

/** Payloads up to this go into the group's own buffer: a copy of so few bytes is cheaper than another piece of a writev. */
const COPIED_PAYLOAD_BYTES = 512;
const ZEROS: Buffer = Buffer.alloc(PAGE_BYTES);

/** A record on its way to the log. */
export interface GroupRecord extends RecordHeader {
  /** The payload in pieces. */
  readonly payload: readonly Buffer[];
}

/** What a group says beside its records. */
export interface GroupPlace {
  readonly identity: SegmentIdentity;
  /** Where in the segment it goes: a page boundary. */
  readonly offset: number;
  readonly committedUpTo: number;
  readonly highestLedgerId: number;
  readonly previousChain: number;
  /** Of the group before in this segment; empty: there is none. */
  readonly directory: Buffer;
}

/** A group, ready to be written. */
export interface EncodedGroup {
  /** To be written one after another from the group's offset on; whole pages. Large payloads are the pieces as given. */
  readonly buffers: Buffer[];
  /** Their length together. */
  readonly bytes: number;
  readonly chain: number;
  /** Offset in the file of each record. */
  readonly offsets: readonly number[];
}

/** Bytes that a group of these records takes in the log. */
export function groupBytes(recordsBytes: number): number {
  return wholePages(GROUP_HEADER_BYTES + recordsBytes);
}

/** Encodes a commit group. */
export function encodeGroup(place: GroupPlace, records: readonly GroupRecord[]): EncodedGroup {
  const { directory } = place;
  let [ownBytes, bodyBytes] = [GROUP_HEADER_BYTES + directory.length, 0];
  for (const { payloadBytes } of records) {
    const size = recordBytes(payloadBytes);
    bodyBytes += size;
    ownBytes += payloadBytes > COPIED_PAYLOAD_BYTES ? size - payloadBytes : size;
  }
  const own = Buffer.alloc(ownBytes);
  const buffers: Buffer[] = [];
  const offsets: number[] = [];
  let [pieceStart, at, offset, recordsCrc] = [0, GROUP_HEADER_BYTES, place.offset + GROUP_HEADER_BYTES, 0];
  for (const record of records) {
    encodeRecordHeader(own, at, offset, record, place.identity);
    recordsCrc = crc32c(own.subarray(at, at + RECORD_HEADER_BYTES), recordsCrc);
    offsets.push(offset);
    const { payload, payloadBytes } = record;
    const size = recordBytes(payloadBytes);
    const end = at + RECORD_HEADER_BYTES;
    if (payloadBytes > COPIED_PAYLOAD_BYTES) {
      buffers.push(own.subarray(pieceStart, end));
      for (const piece of payload) if (piece.length > 0) buffers.push(piece);
      pieceStart = end;
      at += size - payloadBytes;
    } else {
      let to = end;
      for (const piece of payload) to += piece.copy(own, to);
      at += size;
    }
    offset += size;
  }
  at += directory.copy(own, at);
  const length = GROUP_HEADER_BYTES + bodyBytes + directory.length;
  const padding = wholePages(length) - length;
  if (at > pieceStart) buffers.push(own.subarray(pieceStart, at));
  if (padding > 0) buffers.push(ZEROS.subarray(0, padding));
  const header = { ...place, bodyBytes, records: records.length, recordsCrc, directoryBytes: directory.length };
  const chain = encodeGroupHeader(own, place.identity, header);
  return { buffers, bytes: length + padding, chain, offsets };
}
