/** The codec of a segment's footer and seal. The diagram is in `format.ts`. */
import { ProtoReader, ProtoWriter } from '../../lib/bytes.ts';
import { crc32c } from '../../lib/crc32c.ts';
import type { EntryId, LedgerId } from '../../lib/ids.ts';
import { EntryTable, RECORD_ALIGNMENT } from './entry-table.ts';
import {
  FORMAT_VERSION,
  MASTER_KEY_BYTES,
  readInt64,
  recordBytes,
  type SegmentIdentity,
  writeInt64,
} from './format.ts';

export const SEAL_BYTES = 64;
const SEAL_MAGIC = 0x444e454d;
const SEAL_CRC_AT = 60;
const FENCED_FLAG = 1;
const KEY_LOST_FLAG = 4;

const NO_KEY: Buffer = Buffer.alloc(MASTER_KEY_BYTES);

/** What one segment holds of one ledger. */
export interface LedgerPart {
  readonly ledgerId: LedgerId;
  /** Undefined: it was in records that are lost. */
  readonly masterKey: Buffer | undefined;
  /** As of the sealing. */
  readonly fenced: boolean;
  /** Highest of the entries in this segment, or beyond. */
  readonly lac: EntryId;
  readonly lastEntryId: EntryId;
  readonly entries: EntryTable;
}

/** Encodes a part: for the footer, and as the value of the index. */
export function encodeLedgerPart(part: LedgerPart): Buffer {
  const { entries } = part;
  const writer = new ProtoWriter(64 + entries.count * 5);
  writer.rawVarint(part.ledgerId);
  writer.raw(part.masterKey ?? NO_KEY);
  writer.rawVarint((part.fenced ? FENCED_FLAG : 0) | (part.masterKey === undefined ? KEY_LOST_FLAG : 0));
  writer.rawVarint(part.lac + 1);
  writer.rawVarint(part.lastEntryId + 1);
  writer.rawVarint(entries.count);
  let [previousId, recordEnd] = [-1, 0];
  for (let at = 0; at < entries.count; at++) {
    const [id, offset, length] = [entries.idAt(at), entries.offsetAt(at), entries.lengthAt(at)];
    writer.rawVarint(id - previousId - 1);
    const delta = (offset - recordEnd) / RECORD_ALIGNMENT;
    writer.rawVarint(delta >= 0 ? delta * 2 : -delta * 2 - 1);
    writer.rawVarint(length);
    previousId = id;
    recordEnd = offset + recordBytes(length);
  }
  return writer.finish();
}

/** Decodes a part. @throws MagnetarError PROTOCOL_VIOLATION when it is malformed. */
export function decodeLedgerPart(bytes: Buffer): LedgerPart {
  const reader = new ProtoReader(bytes);
  const ledgerId = reader.rawVarint() as LedgerId;
  const keyAt = reader.position;
  const masterKey = Buffer.from(bytes.subarray(keyAt, keyAt + MASTER_KEY_BYTES));
  const rest = new ProtoReader(bytes, keyAt + MASTER_KEY_BYTES);
  const flags = rest.rawVarint();
  const lac = (rest.rawVarint() - 1) as EntryId;
  const lastEntryId = (rest.rawVarint() - 1) as EntryId;
  const count = rest.rawVarint();
  const entries = EntryTable.withRoomFor(Math.min(count, bytes.length));
  let [previousId, recordEnd] = [-1, 0];
  for (let at = 0; at < count; at++) {
    const id = previousId + rest.rawVarint() + 1;
    const zigzag = rest.rawVarint();
    const delta = zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2;
    const offset = recordEnd + delta * RECORD_ALIGNMENT;
    const length = rest.rawVarint();
    entries.put(id as EntryId, offset, length);
    previousId = id;
    recordEnd = offset + recordBytes(length);
  }
  return {
    ledgerId,
    masterKey: (flags & KEY_LOST_FLAG) === 0 ? masterKey : undefined,
    fenced: (flags & FENCED_FLAG) !== 0,
    lac,
    lastEntryId,
    entries,
  };
}

/** What the end of a sealed segment says. */
export interface Seal {
  readonly footerOffset: number;
  readonly footerBytes: number;
  readonly ledgers: number;
  readonly chain: number;
  readonly highestLedgerId: number;
  readonly limboUpTo: number;
  readonly footerCrc: number;
}

/** What a seal says beside what follows from the footer. */
export interface SealFacts extends Pick<Seal, 'footerOffset' | 'chain' | 'highestLedgerId' | 'limboUpTo'> {
  /** The encoded damages that the segment had when it was sealed; empty: none. */
  readonly damages: Buffer;
}

/** The footer of encoded parts (in order of ledger ids), and the seal, in pieces to be written one after another. */
export function encodeFooter(
  identity: SegmentIdentity,
  parts: readonly Buffer[],
  facts: SealFacts,
): { readonly buffers: Buffer[]; readonly bytes: number } {
  const buffers: Buffer[] = [];
  let [footerBytes, footerCrc] = [0, 0];
  for (const part of facts.damages.length === 0 ? parts : [...parts, facts.damages]) {
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32LE(part.length);
    footerCrc = crc32c(part, crc32c(length, footerCrc));
    footerBytes += length.length + part.length;
    buffers.push(length, part);
  }
  const seal = Buffer.alloc(SEAL_BYTES);
  seal.writeUInt32LE(SEAL_MAGIC, 0);
  seal.writeUInt32LE(FORMAT_VERSION, 4);
  writeInt64(seal, identity.id, 8);
  writeInt64(seal, facts.footerOffset, 16);
  writeInt64(seal, footerBytes, 24);
  seal.writeUInt32LE(parts.length, 32);
  seal.writeUInt32LE(facts.chain, 36);
  writeInt64(seal, facts.highestLedgerId, 40);
  writeInt64(seal, facts.limboUpTo, 48);
  seal.writeUInt32LE(footerCrc, 56);
  seal.writeUInt32LE(crc32c(seal.subarray(0, SEAL_CRC_AT), identity.seed), SEAL_CRC_AT);
  return { buffers: [...buffers, seal], bytes: footerBytes + SEAL_BYTES };
}

/** Decodes the last 64 bytes of a segment of `fileBytes`. Undefined when the segment is not sealed, or the seal is damaged. */
export function decodeSeal(bytes: Buffer, fileBytes: number, identity: SegmentIdentity): Seal | undefined {
  if (bytes.length !== SEAL_BYTES || bytes.readUInt32LE(0) !== SEAL_MAGIC) return undefined;
  if (bytes.readUInt32LE(SEAL_CRC_AT) !== crc32c(bytes.subarray(0, SEAL_CRC_AT), identity.seed)) return undefined;
  const [footerOffset, footerBytes] = [readInt64(bytes, 16), readInt64(bytes, 24)];
  if (readInt64(bytes, 8) !== identity.id || footerOffset + footerBytes + SEAL_BYTES !== fileBytes) return undefined;
  return {
    footerOffset,
    footerBytes,
    ledgers: bytes.readUInt32LE(32),
    chain: bytes.readUInt32LE(36),
    highestLedgerId: readInt64(bytes, 40),
    limboUpTo: readInt64(bytes, 48),
    footerCrc: bytes.readUInt32LE(56),
  };
}

/** What a footer holds, encoded. */
export interface Footer {
  readonly parts: readonly Buffer[];
  /** Undefined: the segment had none when it was sealed. */
  readonly damages: Buffer | undefined;
}

/** Takes a footer apart. Undefined when it is damaged. */
export function splitFooter(footer: Buffer, seal: Seal): Footer | undefined {
  if (footer.length !== seal.footerBytes || crc32c(footer) !== seal.footerCrc) return undefined;
  const parts: Buffer[] = [];
  for (let at = 0; at + 4 <= footer.length; ) {
    const length = footer.readUInt32LE(at);
    parts.push(footer.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  if (parts.length !== seal.ledgers && parts.length !== seal.ledgers + 1) return undefined;
  return { parts: parts.slice(0, seal.ledgers), damages: parts[seal.ledgers] };
}
