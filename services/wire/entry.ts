/**
 * What a topic stores as one ledger entry: the broker's header, then the producer's block as the producer sent it.
 *
 *   offset  bytes
 *        0      1  format version, 1
 *        1      1  kind: 0 data
 *        2      1  block format: 0 native
 *        3      1  reserved, 0
 *        4      4  count of messages
 *        8      8  index of the first message
 *       16      8  append time, milliseconds since 1970-01-01 UTC
 *       24      8  epoch of the owner that appended it
 *       32      4  CRC32C of the block
 *       36      4  length of the block
 *       40      2  length of the origin, 0
 *       42      2  length of the subset bitmap, 0
 *       44      4  CRC32C of the bytes before
 *       48      …  the block
 *
 * Integers are little-endian. Origin and subset bitmap, where they come to exist, stand between offset 44 and the checksum.
 */
import { crc32c } from '../lib/crc32c.ts';
import { MagnetarError } from '../lib/errors.ts';
import type { Epoch, MessageIndex, Millis } from '../lib/ids.ts';

/** Bytes of a header. */
export const ENTRY_HEADER_BYTES = 48;

const FORMAT_VERSION = 1;
const KIND_DATA = 0;
const BLOCK_FORMAT_NATIVE = 0;
const CRC_OFFSET = ENTRY_HEADER_BYTES - 4;
const TWO_32 = 4_294_967_296;

/** What the broker says of an entry. */
export interface EntryHeader {
  /** Index of the first message. */
  readonly baseIndex: MessageIndex;
  /** Messages of the block: they have consecutive indexes. */
  readonly count: number;
  /** The broker's clock; never decreases within a topic. */
  readonly appendTime: Millis;
  readonly ownerEpoch: Epoch;
  readonly blockCrc32c: number;
}

function write64(buffer: Buffer, value: number, at: number): void {
  buffer.writeUInt32LE(value % TWO_32, at);
  buffer.writeUInt32LE(Math.floor(value / TWO_32), at + 4);
}

function read64(buffer: Buffer, at: number): number {
  return buffer.readUInt32LE(at + 4) * TWO_32 + buffer.readUInt32LE(at);
}

/** The header of an entry whose block has `blockLength` bytes. */
export function encodeEntryHeader(header: EntryHeader, blockLength: number): Buffer {
  const buffer = Buffer.allocUnsafe(ENTRY_HEADER_BYTES);
  buffer[0] = FORMAT_VERSION;
  buffer[1] = KIND_DATA;
  buffer[2] = BLOCK_FORMAT_NATIVE;
  buffer[3] = 0;
  buffer.writeUInt32LE(header.count, 4);
  write64(buffer, header.baseIndex, 8);
  write64(buffer, header.appendTime, 16);
  write64(buffer, header.ownerEpoch, 24);
  buffer.writeUInt32LE(header.blockCrc32c, 32);
  buffer.writeUInt32LE(blockLength, 36);
  buffer.writeUInt32LE(0, 40);
  buffer.writeUInt32LE(crc32c(buffer.subarray(0, CRC_OFFSET)), CRC_OFFSET);
  return buffer;
}

function damaged(what: string): MagnetarError {
  return new MagnetarError('CHECKSUM_MISMATCH', `damaged entry: ${what}`);
}

function unsupported(what: string, value: number, allowed: string): MagnetarError {
  return new MagnetarError('UNSUPPORTED', `entry has ${what} ${value}; this version reads ${allowed}`);
}

/**
 * Takes an entry apart; the block is a view. Checks the header; the block's own checksum is left to whoever reads the block.
 *
 * @throws MagnetarError CHECKSUM_MISMATCH: cut short, or the header is damaged; UNSUPPORTED: written by a newer version.
 */
export function decodeEntry(payload: Buffer): { readonly header: EntryHeader; readonly block: Buffer } {
  if (payload.length < ENTRY_HEADER_BYTES) {
    throw damaged(`${payload.length} bytes; its header alone has ${ENTRY_HEADER_BYTES}`);
  }
  if (payload[0] !== FORMAT_VERSION) throw unsupported('format version', payload[0] ?? 0, String(FORMAT_VERSION));
  const found = crc32c(payload.subarray(0, CRC_OFFSET));
  const expected = payload.readUInt32LE(CRC_OFFSET);
  if (found !== expected) throw damaged(`header checksum ${found} instead of ${expected}`);
  if (payload[1] !== KIND_DATA) throw unsupported('kind', payload[1] ?? 0, '0 (data)');
  if (payload[2] !== BLOCK_FORMAT_NATIVE) throw unsupported('block format', payload[2] ?? 0, '0 (native)');
  const extras = payload.readUInt32LE(40);
  if (extras !== 0) throw unsupported('an origin or a subset bitmap of lengths', extras, '0');
  const block = payload.subarray(ENTRY_HEADER_BYTES);
  const blockLength = payload.readUInt32LE(36);
  if (block.length !== blockLength) throw damaged(`${block.length} bytes of block instead of ${blockLength}`);
  const [baseIndex, appendTime, ownerEpoch] = [read64(payload, 8), read64(payload, 16), read64(payload, 24)];
  if (![baseIndex, appendTime, ownerEpoch].every(Number.isSafeInteger)) throw damaged('a number above 2^53-1');
  return {
    header: {
      baseIndex: baseIndex as MessageIndex,
      count: payload.readUInt32LE(4),
      appendTime: appendTime as Millis,
      ownerEpoch: ownerEpoch as Epoch,
      blockCrc32c: payload.readUInt32LE(32),
    },
    block,
  };
}
