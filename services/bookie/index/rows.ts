/**
 * Keys and values of the index. Keys are of fixed width per kind and sort by ledger, then segment. Every value ends with
 * the CRC32C of key and value, because `level` may lose or mix up rows without saying so.
 *
 *   'D' u64 segment (BE)                      what is damaged in a segment, see `../damage.ts`; empty: nothing any more
 *   'E' u64 ledger (BE) u64 segment (BE)      a ledger's part of a sealed segment, as in its footer
 *   'L' u64 ledger (BE)                       a ledger, from all sealed segments: see below
 *   'S' u64 segment (BE)                      a segment: u8 1 sealed, 0 not yet; then, when sealed: u32 ledgers, i64 end of the
 *                                             groups, u32 chain value, i64 highest ledger id
 *   value of 'L', as varints: 16 B master key; flags (1 fenced, 4 the master key is lost); lac +1; last entry id +1; count of segments;
 *   per segment: id; first entry id +1; last entry id +1 (0 and 0: a fence alone)
 */
import { ProtoReader, ProtoWriter } from '../../lib/bytes.ts';
import { crc32c } from '../../lib/crc32c.ts';
import { MagnetarError } from '../../lib/errors.ts';
import type { EntryId, LedgerId } from '../../lib/ids.ts';
import { MASTER_KEY_BYTES, readInt64, writeInt64 } from '../segments/format.ts';
import type { IndexRow } from './store.ts';

/** What a row is about. */
export type RowKind = 'damage' | 'entries' | 'ledger' | 'segment';

const LETTERS: Readonly<Record<RowKind, number>> = { damage: 0x44, entries: 0x45, ledger: 0x4c, segment: 0x53 };
const CRC_BYTES = 4;
const FENCED_FLAG = 1;
const KEY_LOST_FLAG = 4;
const NO_KEY: Buffer = Buffer.alloc(MASTER_KEY_BYTES);

function rowKey(kind: RowKind, ...ids: readonly number[]): Buffer {
  const key = Buffer.allocUnsafe(1 + 8 * ids.length);
  key[0] = LETTERS[kind];
  for (const [at, id] of ids.entries()) key.writeBigUInt64BE(BigInt(id), 1 + 8 * at);
  return key;
}

export const damageKey = (segment: number): Buffer => rowKey('damage', segment);
export const entriesKey = (ledgerId: LedgerId, segment: number): Buffer => rowKey('entries', ledgerId, segment);
export const ledgerKey = (ledgerId: LedgerId): Buffer => rowKey('ledger', ledgerId);
export const segmentKey = (segment: number): Buffer => rowKey('segment', segment);

/** Takes a key apart. Undefined when it is none of ours. */
export function parseKey(key: Buffer): { readonly kind: RowKind; readonly ids: readonly number[] } | undefined {
  const kind = (Object.keys(LETTERS) as RowKind[]).find((candidate) => LETTERS[candidate] === key[0]);
  if (kind === undefined || key.length % 8 !== 1) return undefined;
  const ids: number[] = [];
  for (let at = 1; at < key.length; at += 8) ids.push(Number(key.readBigUInt64BE(at)));
  return { kind, ids };
}

/** A row with its CRC. */
export function sealedRow(key: Buffer, value: Buffer): IndexRow {
  const sealed = Buffer.allocUnsafe(value.length + CRC_BYTES);
  value.copy(sealed);
  sealed.writeUInt32LE(crc32c(value, crc32c(key)), value.length);
  return { key, value: sealed };
}

/** The value of a row. @throws MagnetarError ENTRY_UNKNOWN when its CRC does not hold. */
export function openedRow(key: Buffer, sealed: Buffer): Buffer {
  const value = sealed.subarray(0, Math.max(0, sealed.length - CRC_BYTES));
  if (sealed.length >= CRC_BYTES && sealed.readUInt32LE(value.length) === crc32c(value, crc32c(key))) return value;
  throw new MagnetarError('ENTRY_UNKNOWN', `row ${key.toString('hex')} of the bookie's index is damaged`);
}

/** Where a ledger has entries. */
export interface LedgerSegment {
  readonly segment: number;
  /** NO_ENTRY: none, a fence alone. */
  readonly first: EntryId;
  readonly last: EntryId;
}

/** What all sealed segments together say of a ledger. */
export interface LedgerRow {
  /** Undefined: it was in records that are lost. */
  readonly masterKey: Buffer | undefined;
  readonly fenced: boolean;
  readonly lac: EntryId;
  readonly lastEntryId: EntryId;
  /** In rising order of segments. */
  readonly segments: readonly LedgerSegment[];
}

export function encodeLedgerRow(row: LedgerRow): Buffer {
  const writer = new ProtoWriter(48 + row.segments.length * 12);
  writer.raw(row.masterKey ?? NO_KEY);
  writer.rawVarint((row.fenced ? FENCED_FLAG : 0) | (row.masterKey === undefined ? KEY_LOST_FLAG : 0));
  writer.rawVarint(row.lac + 1);
  writer.rawVarint(row.lastEntryId + 1);
  writer.rawVarint(row.segments.length);
  for (const { segment, first, last } of row.segments) {
    writer.rawVarint(segment);
    writer.rawVarint(first + 1);
    writer.rawVarint(last + 1);
  }
  return writer.finish();
}

/** @throws MagnetarError PROTOCOL_VIOLATION when it is malformed. */
export function decodeLedgerRow(value: Buffer): LedgerRow {
  const reader = new ProtoReader(value, Math.min(MASTER_KEY_BYTES, value.length));
  const flags = reader.rawVarint();
  const [lac, lastEntryId] = [reader.rawVarint() - 1, reader.rawVarint() - 1];
  const segments: LedgerSegment[] = [];
  for (let left = reader.rawVarint(); left > 0; left--) {
    const segment = reader.rawVarint();
    segments.push({ segment, first: (reader.rawVarint() - 1) as EntryId, last: (reader.rawVarint() - 1) as EntryId });
  }
  return {
    masterKey: (flags & KEY_LOST_FLAG) === 0 ? Buffer.from(value.subarray(0, MASTER_KEY_BYTES)) : undefined,
    fenced: (flags & FENCED_FLAG) !== 0,
    lac: lac as EntryId,
    lastEntryId: lastEntryId as EntryId,
    segments,
  };
}

/** What the index knows of a segment. */
export type SegmentRow =
  | { readonly sealed: false }
  | {
      readonly sealed: true;
      readonly ledgers: number;
      readonly end: number;
      readonly chain: number;
      readonly highestLedgerId: number;
    };

export function encodeSegmentRow(row: SegmentRow): Buffer {
  if (!row.sealed) return Buffer.from([0]);
  const value = Buffer.alloc(25);
  value[0] = 1;
  value.writeUInt32LE(row.ledgers, 1);
  writeInt64(value, row.end, 5);
  value.writeUInt32LE(row.chain, 13);
  writeInt64(value, row.highestLedgerId, 17);
  return value;
}

export function decodeSegmentRow(value: Buffer): SegmentRow {
  if (value[0] !== 1 || value.length !== 25) return { sealed: false };
  return {
    sealed: true,
    ledgers: value.readUInt32LE(1),
    end: readInt64(value, 5),
    chain: value.readUInt32LE(13),
    highestLedgerId: readInt64(value, 17),
  };
}
