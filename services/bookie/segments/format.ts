/**
 * The file format of a segment: diagrams of everything, and the codecs of its fixed parts (the footer's are in `footer.ts`).
 *
 * All integers are little-endian; offsets are bytes from the start of the file; a page is 4,096 bytes. CRCs are CRC32C;
 * "salted" ones are seeded with the segment's seed, the CRC of its salt, so that bytes of another segment, or a payload that
 * is a copy of one, never pass for this segment's own.
 *
 *   page 0       segment header
 *   page 1, 2    commit marks, written in turn; the one with the higher sequence counts
 *   page 3 ...   commit groups, each from a page boundary on, zeros up to the next one
 *   then         zeros (space filled ahead, so that a sync changes no metadata), or, once sealed, the footer and the end
 *
 * Segment header, and commit mark (each repeats the identity, so that a damaged page 0 loses nothing):
 *   0   u32  magic "MSEG" | "MMRK"
 *   4   u32  format version
 *   8   u64  segment id
 *   16  u32  generation: how often the file was in use before, and once more
 *   20  16 B salt, random
 *   36  u32  0                | sequence, rising by one a mark
 *   40  u64  0                | committed up to: everything below this offset has been synced
 *   48  i64  0                | highest ledger id that the log has seen, all segments; -1: none
 *   56  u32  0                | chain value behind the last group below "committed up to"
 *   60  u32  CRC of bytes 0 to 59
 *   64  u32  0                | length of the directory (see `directory.ts`) of that group; 0: none, it would not fit into the page
 *   68       0                | the directory
 *
 * Group header. Its CRC is the chain value of the group. One group is written and synced at a time: so whatever is followed
 * by a good header, or lies below the "committed up to" of one or of a mark, had been synced.
 *   0   u32  magic "MGRP"
 *   4   u32  generation
 *   8   u64  own offset
 *   16  u64  committed up to
 *   24  i64  highest ledger id that the log has seen, with this group
 *   32  u32  length of the body: the records
 *   36  u32  how many records
 *   40  u32  chain value of the group before, also across segments; 0 in the very first
 *   44  u32  CRC of the record headers, one after another
 *   48  u32  length of the directory of the group before, which follows the records; 0: none (the first group of a segment)
 *   52  u32  salted CRC of bytes 0 to 51
 *
 * Record: header, payload, zeros up to a multiple of 8. An entry's digest (LP-3) covers its numbers and its payload.
 *   0   u32  magic "MREC"
 *   4   u8   type: 1 entry, 2 fence (entry id -1, no payload)
 *   5   u8   flags: 1 a rewrite of recovery
 *   6   u16  0
 *   8   u64  own offset
 *   16  u64  ledger id
 *   24  i64  entry id
 *   32  i64  last-add-confirmed; -1: none
 *   40  u64  cumulative length
 *   48  u32  digest
 *   52  u32  length of the payload
 *   56  16 B master key
 *   72  u32  0
 *   76  u32  salted CRC of bytes 0 to 75
 *
 * Footer: one part per ledger, in order of ledger ids: u32 length, then that many bytes (integers as base-128 varints, as in
 * protobuf; "+1" and "zigzag" as said):
 *   ledger id; 16 B master key; flags (1 fenced, 4 the master key is lost); lac +1; last entry id +1; count of entries; then per
 *   entry, in order of ids: id (the first one absolute, then the difference to the one before, less one); offset / 8 as zigzag
 *   difference to where the record of the entry before ended; length of the payload.
 * Behind the ledgers, where records had been lost before the segment was sealed, one more part: what was (see `../damage.ts`).
 * The last 64 bytes of a sealed file, its seal:
 *   0   u32  magic "MEND"
 *   4   u32  format version
 *   8   u64  segment id
 *   16  u64  offset of the footer
 *   24  u64  length of the footer
 *   32  u32  how many ledgers
 *   36  u32  chain value behind the last group
 *   40  i64  highest ledger id that the log has seen
 *   48  i64  ledgers up to this id may have lost records in this segment, nobody can say which; -1: none
 *   56  u32  CRC of the footer
 *   60  u32  salted CRC of bytes 0 to 59
 */
import { crc32c } from '../../lib/crc32c.ts';
import { type EntryId, type LedgerId, NO_ENTRY } from '../../lib/ids.ts';
import { entryDigest } from '../../wire/digest.ts';

export const FORMAT_VERSION = 1;
export const PAGE_BYTES = 4_096;
export const DATA_START: number = 3 * PAGE_BYTES;
const HEADER_BYTES = 64;
export const GROUP_HEADER_BYTES = 56;
export const RECORD_HEADER_BYTES = 80;
export const SALT_BYTES = 16;
export const MASTER_KEY_BYTES = 16;

const SEGMENT_MAGIC = 0x4745534d;
const MARK_MAGIC = 0x4b524d4d;
const GROUP_MAGIC = 0x5052474d;
/** First word of a record. */
export const RECORD_MAGIC = 0x4345524d;
const TWO_32 = 4_294_967_296;
const HEADER_CRC_AT = 60;
const MARK_DIRECTORY_AT = 68;
const GROUP_CRC_AT = 52;
const RECORD_CRC_AT = 76;
const RECOVERY_FLAG = 1;

/** `bytes`, rounded up to whole pages. */
export function wholePages(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}

/** Bytes of a record with its padding. */
export function recordBytes(payloadBytes: number): number {
  return (RECORD_HEADER_BYTES + payloadBytes + 7) & ~7;
}

/** Writes a safe integer as 64 bits, two's complement. */
export function writeInt64(buffer: Buffer, value: number, at: number): void {
  const high = Math.floor(value / TWO_32);
  buffer.writeUInt32LE(value - high * TWO_32, at);
  buffer.writeInt32LE(high, at + 4);
}

/** Reads 64 bits, two's complement. Not a safe integer when the bytes are not one. */
export function readInt64(buffer: Buffer, at: number): number {
  return buffer.readInt32LE(at + 4) * TWO_32 + buffer.readUInt32LE(at);
}

/** What makes a segment this one. */
export interface SegmentIdentity {
  readonly id: number;
  readonly generation: number;
  readonly salt: Buffer;
  /** CRC of the salt: what salted CRCs are seeded with. */
  readonly seed: number;
}

/** A segment's identity. `salt`: 16 bytes. */
export function segmentIdentity(id: number, generation: number, salt: Buffer): SegmentIdentity {
  return { id, generation, salt, seed: crc32c(salt) };
}

/** What a commit mark says. */
export interface CommitMark {
  readonly sequence: number;
  readonly committedUpTo: number;
  readonly highestLedgerId: number;
  readonly chain: number;
  /** The encoded directory of the last group; empty: none. One that does not fit into the page is left out. */
  readonly directory: Buffer;
}

function encodeIdentity(magic: number, identity: SegmentIdentity, mark: Omit<CommitMark, 'directory'>): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.writeUInt32LE(magic, 0);
  bytes.writeUInt32LE(FORMAT_VERSION, 4);
  writeInt64(bytes, identity.id, 8);
  bytes.writeUInt32LE(identity.generation, 16);
  identity.salt.copy(bytes, 20);
  bytes.writeUInt32LE(mark.sequence, 36);
  writeInt64(bytes, mark.committedUpTo, 40);
  writeInt64(bytes, mark.highestLedgerId, 48);
  bytes.writeUInt32LE(mark.chain, 56);
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, HEADER_CRC_AT)), HEADER_CRC_AT);
  return bytes;
}

/** 64 bytes for the start of page 0. */
export function encodeSegmentHeader(identity: SegmentIdentity): Buffer {
  return encodeIdentity(SEGMENT_MAGIC, identity, { sequence: 0, committedUpTo: 0, highestLedgerId: 0, chain: 0 });
}

/** Page 1 or 2. */
export function encodeCommitMark(identity: SegmentIdentity, mark: CommitMark): Buffer {
  const page = Buffer.alloc(PAGE_BYTES);
  encodeIdentity(MARK_MAGIC, identity, mark).copy(page);
  if (MARK_DIRECTORY_AT + mark.directory.length > PAGE_BYTES) return page;
  page.writeUInt32LE(mark.directory.length, HEADER_BYTES);
  mark.directory.copy(page, MARK_DIRECTORY_AT);
  return page;
}

/** Where the mark with this sequence goes. */
export function commitMarkOffset(sequence: number): number {
  return PAGE_BYTES * (1 + (sequence % 2));
}

/** What the first three pages of a segment say. */
export interface SegmentHead {
  readonly identity: SegmentIdentity;
  readonly mark: CommitMark | undefined;
  /** What either mark says of the group that was the last one then, encoded. */
  readonly directories: readonly Buffer[];
  /** The first page is unreadable. The marks repeat it. */
  readonly headerDamaged: boolean;
}

function intact(bytes: Buffer, magic: number): boolean {
  return (
    bytes.length >= HEADER_BYTES &&
    bytes.readUInt32LE(0) === magic &&
    bytes.readUInt32LE(HEADER_CRC_AT) === crc32c(bytes.subarray(0, HEADER_CRC_AT))
  );
}

function decodeMark(bytes: Buffer): CommitMark | undefined {
  if (!intact(bytes, MARK_MAGIC)) return undefined;
  return {
    sequence: bytes.readUInt32LE(36),
    committedUpTo: readInt64(bytes, 40),
    highestLedgerId: readInt64(bytes, 48),
    chain: bytes.readUInt32LE(56),
    directory: markDirectory(bytes),
  };
}

function markDirectory(page: Buffer): Buffer {
  const length = page.length < MARK_DIRECTORY_AT ? 0 : page.readUInt32LE(HEADER_BYTES);
  return Buffer.from(page.subarray(MARK_DIRECTORY_AT, MARK_DIRECTORY_AT + length));
}

/** Decodes the first three pages. Undefined when none of them says what the segment is; `version` then helps to say why. */
export function decodeSegmentHead(pages: Buffer): SegmentHead | { readonly version: number } | undefined {
  const [header, first, second] = [0, 1, 2].map((page) => pages.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES));
  if (header === undefined || first === undefined || second === undefined) return undefined;
  const readable = [header, first, second].find((page, at) => intact(page, at === 0 ? SEGMENT_MAGIC : MARK_MAGIC));
  if (readable === undefined) return undefined;
  const version = readable.readUInt32LE(4);
  if (version !== FORMAT_VERSION) return { version };
  const id = readInt64(readable, 8);
  const identity = segmentIdentity(id, readable.readUInt32LE(16), Buffer.from(readable.subarray(20, 20 + SALT_BYTES)));
  const marks = [decodeMark(first), decodeMark(second)].filter((mark) => mark !== undefined);
  const mark = marks.toSorted((a, b) => b.sequence - a.sequence)[0];
  const directories = marks.map(({ directory }) => directory);
  return { identity, mark, directories, headerDamaged: readable !== header };
}

/** The header of a commit group. */
export interface GroupHeader {
  readonly offset: number;
  readonly committedUpTo: number;
  readonly highestLedgerId: number;
  readonly bodyBytes: number;
  readonly records: number;
  readonly previousChain: number;
  readonly recordsCrc: number;
  /** Of what it says of the group before; behind the records. */
  readonly directoryBytes: number;
  /** Its own CRC. */
  readonly chain: number;
  /** Where the next group begins. */
  readonly end: number;
}

/** Writes a group header at the start of `into`; returns the chain value. */
export function encodeGroupHeader(
  into: Buffer,
  identity: SegmentIdentity,
  group: Omit<GroupHeader, 'chain' | 'end'>,
): number {
  into.writeUInt32LE(GROUP_MAGIC, 0);
  into.writeUInt32LE(identity.generation, 4);
  writeInt64(into, group.offset, 8);
  writeInt64(into, group.committedUpTo, 16);
  writeInt64(into, group.highestLedgerId, 24);
  into.writeUInt32LE(group.bodyBytes, 32);
  into.writeUInt32LE(group.records, 36);
  into.writeUInt32LE(group.previousChain, 40);
  into.writeUInt32LE(group.recordsCrc, 44);
  into.writeUInt32LE(group.directoryBytes, 48);
  const chain = crc32c(into.subarray(0, GROUP_CRC_AT), identity.seed);
  into.writeUInt32LE(chain, GROUP_CRC_AT);
  return chain;
}

/** The group header that begins at `at` of `bytes`, which is at `offset` of the file. Undefined when there is no good one. */
export function decodeGroupHeader(
  bytes: Buffer,
  at: number,
  offset: number,
  identity: SegmentIdentity,
): GroupHeader | undefined {
  if (bytes.length - at < GROUP_HEADER_BYTES || bytes.readUInt32LE(at) !== GROUP_MAGIC) return undefined;
  const chain = crc32c(bytes.subarray(at, at + GROUP_CRC_AT), identity.seed);
  if (bytes.readUInt32LE(at + GROUP_CRC_AT) !== chain) return undefined;
  if (bytes.readUInt32LE(at + 4) !== identity.generation || readInt64(bytes, at + 8) !== offset) return undefined;
  const [bodyBytes, directoryBytes] = [bytes.readUInt32LE(at + 32), bytes.readUInt32LE(at + 48)];
  return {
    offset,
    committedUpTo: readInt64(bytes, at + 16),
    highestLedgerId: readInt64(bytes, at + 24),
    bodyBytes,
    records: bytes.readUInt32LE(at + 36),
    previousChain: bytes.readUInt32LE(at + 40),
    recordsCrc: bytes.readUInt32LE(at + 44),
    directoryBytes,
    chain,
    end: offset + wholePages(GROUP_HEADER_BYTES + bodyBytes + directoryBytes),
  };
}

/** The header of a record. */
export interface RecordHeader {
  readonly type: 'entry' | 'fence';
  readonly recovery: boolean;
  readonly ledgerId: LedgerId;
  /** NO_ENTRY for a fence. */
  readonly entryId: EntryId;
  readonly lac: EntryId;
  readonly length: number;
  readonly digest: number;
  readonly masterKey: Buffer;
  readonly payloadBytes: number;
}

/** Writes a record header at `at` of `into`; `offset` is where that is in the file. */
export function encodeRecordHeader(
  into: Buffer,
  at: number,
  offset: number,
  record: RecordHeader,
  identity: SegmentIdentity,
): void {
  into.writeUInt32LE(RECORD_MAGIC, at);
  into[at + 4] = record.type === 'entry' ? 1 : 2;
  into[at + 5] = record.recovery ? RECOVERY_FLAG : 0;
  into.writeUInt16LE(0, at + 6);
  writeInt64(into, offset, at + 8);
  writeInt64(into, record.ledgerId, at + 16);
  writeInt64(into, record.entryId, at + 24);
  writeInt64(into, record.lac, at + 32);
  writeInt64(into, record.length, at + 40);
  into.writeUInt32LE(record.digest, at + 48);
  into.writeUInt32LE(record.payloadBytes, at + 52);
  record.masterKey.copy(into, at + 56);
  into.writeUInt32LE(0, at + 72);
  into.writeUInt32LE(crc32c(into.subarray(at, at + RECORD_CRC_AT), identity.seed), at + RECORD_CRC_AT);
}

/** The record header at `at` of `bytes`, which is at `offset` of the file. Undefined when there is no good one. */
export function decodeRecordHeader(
  bytes: Buffer,
  at: number,
  offset: number,
  identity: SegmentIdentity,
): RecordHeader | undefined {
  if (bytes.length - at < RECORD_HEADER_BYTES || bytes.readUInt32LE(at) !== RECORD_MAGIC) return undefined;
  const crc = crc32c(bytes.subarray(at, at + RECORD_CRC_AT), identity.seed);
  if (bytes.readUInt32LE(at + RECORD_CRC_AT) !== crc || readInt64(bytes, at + 8) !== offset) return undefined;
  const type = bytes[at + 4];
  if (type !== 1 && type !== 2) return undefined;
  const record: RecordHeader = {
    type: type === 1 ? 'entry' : 'fence',
    recovery: ((bytes[at + 5] ?? 0) & RECOVERY_FLAG) !== 0,
    ledgerId: readInt64(bytes, at + 16) as LedgerId,
    entryId: readInt64(bytes, at + 24) as EntryId,
    lac: readInt64(bytes, at + 32) as EntryId,
    length: readInt64(bytes, at + 40),
    digest: bytes.readUInt32LE(at + 48),
    payloadBytes: bytes.readUInt32LE(at + 52),
    masterKey: Buffer.from(bytes.subarray(at + 56, at + 56 + MASTER_KEY_BYTES)),
  };
  const lowest = record.type === 'entry' ? 0 : NO_ENTRY;
  const plausible =
    Number.isSafeInteger(record.ledgerId) &&
    record.ledgerId >= 0 &&
    Number.isSafeInteger(record.entryId) &&
    record.entryId >= lowest &&
    Number.isSafeInteger(record.lac) &&
    record.lac >= NO_ENTRY &&
    Number.isSafeInteger(record.length) &&
    record.length >= 0;
  return plausible ? record : undefined;
}

/** True when the payload is the one that the record's digest speaks of. A fence has neither. */
export function digestHolds(record: RecordHeader, payload: Buffer): boolean {
  if (record.type === 'fence') return true;
  const { ledgerId, entryId, lac, length } = record;
  return entryDigest({ ledgerId, entryId, lac, length, payload: [payload] }) === record.digest;
}
