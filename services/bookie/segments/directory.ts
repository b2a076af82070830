/**
 * What a group says of the records of the group before it, so that they can be named when that one is damaged. Integers are
 * base-128 varints:
 *   offset of that group / 4,096; count of records; per record: ledger id; entry id +1 (0: a fence); length of the payload;
 *   then u32 salted CRC of all that.
 */
import { ProtoReader, ProtoWriter } from '../../lib/bytes.ts';
import { crc32c } from '../../lib/crc32c.ts';
import type { EntryId, LedgerId } from '../../lib/ids.ts';
import { GROUP_HEADER_BYTES, PAGE_BYTES, recordBytes, type SegmentIdentity } from './format.ts';

const CRC_BYTES = 4;

/** Which record it was, and where. */
export interface RecordPlace {
  readonly ledgerId: LedgerId;
  /** NO_ENTRY: a fence. */
  readonly entryId: EntryId;
  readonly payloadBytes: number;
  /** Of the record in the file. */
  readonly offset: number;
}

/** What is known of a group from elsewhere. */
export interface GroupDirectory {
  /** Of the group. */
  readonly offset: number;
  readonly records: readonly RecordPlace[];
}

/** Encodes the directory of a group at `offset`. */
export function encodeDirectory(
  identity: SegmentIdentity,
  offset: number,
  records: readonly { readonly ledgerId: LedgerId; readonly entryId: EntryId; readonly payloadBytes: number }[],
): Buffer {
  const writer = new ProtoWriter(16 + records.length * 10);
  writer.rawVarint(offset / PAGE_BYTES);
  writer.rawVarint(records.length);
  for (const { ledgerId, entryId, payloadBytes } of records) {
    writer.rawVarint(ledgerId);
    writer.rawVarint(entryId + 1);
    writer.rawVarint(payloadBytes);
  }
  const crc = Buffer.allocUnsafe(CRC_BYTES);
  const body = writer.finish();
  crc.writeUInt32LE(crc32c(body, identity.seed));
  return Buffer.concat([body, crc]);
}

/** Decodes a directory. Undefined when it is damaged, or none. */
export function decodeDirectory(bytes: Buffer, identity: SegmentIdentity): GroupDirectory | undefined {
  const end = bytes.length - CRC_BYTES;
  if (end <= 0 || bytes.readUInt32LE(end) !== crc32c(bytes.subarray(0, end), identity.seed)) return undefined;
  const reader = new ProtoReader(bytes);
  const offset = reader.rawVarint() * PAGE_BYTES;
  const records: RecordPlace[] = [];
  let at = offset + GROUP_HEADER_BYTES;
  for (let left = reader.rawVarint(); left > 0; left--) {
    const ledgerId = reader.rawVarint() as LedgerId;
    const entryId = (reader.rawVarint() - 1) as EntryId;
    const payloadBytes = reader.rawVarint();
    records.push({ ledgerId, entryId, payloadBytes, offset: at });
    at += recordBytes(payloadBytes);
  }
  return { offset, records };
}
