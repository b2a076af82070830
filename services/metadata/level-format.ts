/**
 * What the level store keeps on disk. Every value begins with a CRC32C, little endian, over its key and everything behind
 * the checksum, because LevelDB returns damaged values, and loses keys, without a word.
 *
 *   m/newest, m/floor    the newest revision; the first one that is remembered
 *       0  u32 CRC | 4  u8 format (1) | 5  u64 revision
 *
 *   k/<key>              the current value of a key
 *       0  u32 CRC | 4  u8 format (1) | 5  u8 flags (1: with lease) | 6  u64 create revision | 14  u64 mod revision
 *       | 22  u64 lease, if flagged | value
 *
 *   r/<revision, 16 digits>   what a revision changed: dense from the floor to the newest
 *       0  u32 CRC | 4  protobuf: 1 format (1), 2 keys that exist after it, 3 fixed32 digest of them (the exclusive or of the CRCs
 *       of all k/ values), 4 repeated change {1 key, 2 bytes: the value as under k/; absent: the key was deleted}
 */
import { ProtoReader, ProtoWriter } from '../lib/bytes.ts';
import { crc32c } from '../lib/crc32c.ts';
import { MagnetarError } from '../lib/errors.ts';
import type { Revision } from '../lib/ids.ts';
import type { KeyValue, WatchEvent } from './store.ts';
import { keyValue } from './transaction.ts';

const FORMAT = 1;
const WITH_LEASE = 1;
const CRC_BYTES = 4;
const ITEM_HEADER_BYTES = 22;
const LEASE_BYTES = 8;
const REVISION_DIGITS = 16;

export const NEWEST_KEY = 'm/newest';
export const FLOOR_KEY = 'm/floor';

/** Under which key the current value of a key is. */
export function itemKey(key: string): string {
  return `k/${key}`;
}

/** Under which key a revision is. */
export function rowKey(revision: number): string {
  return `r/${String(revision).padStart(REVISION_DIGITS, '0')}`;
}

function damaged(key: string, what: string, cause?: unknown): MagnetarError {
  return new MagnetarError('METADATA_DAMAGED', `the metadata store is damaged: ${JSON.stringify(key)} ${what}`, {
    cause,
  });
}

/** Fills in the checksum. */
function seal(key: string, bytes: Buffer): Buffer {
  bytes.writeUInt32LE(crc32c(bytes.subarray(CRC_BYTES), crc32c(Buffer.from(key))), 0);
  return bytes;
}

function checkSeal(key: string, bytes: Buffer, leastBytes: number): void {
  if (bytes.length < leastBytes) throw damaged(key, `has ${bytes.length} bytes; it must have ${leastBytes} at least`);
  const crc = crc32c(bytes.subarray(CRC_BYTES), crc32c(Buffer.from(key)));
  if (bytes.readUInt32LE(0) !== crc) throw damaged(key, 'has a wrong checksum');
}

function checkFormat(key: string, format: number): void {
  if (format !== FORMAT) throw damaged(key, `has format ${format}; this version knows format ${FORMAT}`);
}

function readRevision(key: string, bytes: Buffer, at: number): Revision {
  const high = bytes.readUInt32LE(at + 4);
  if (high > 0x1f_ffff) throw damaged(key, `has revision ${bytes.readBigUInt64LE(at)}`);
  return (high * 4_294_967_296 + bytes.readUInt32LE(at)) as Revision;
}

/** A revision under m/. */
export function encodeMark(key: string, revision: number): Buffer {
  const bytes = Buffer.alloc(13);
  bytes.writeUInt8(FORMAT, 4);
  bytes.writeBigUInt64LE(BigInt(revision), 5);
  return seal(key, bytes);
}

/** @throws METADATA_DAMAGED */
export function decodeMark(key: string, bytes: Buffer): Revision {
  checkSeal(key, bytes, 13);
  checkFormat(key, bytes.readUInt8(4));
  return readRevision(key, bytes, 5);
}

/** An item with the CRC32C of its stored form, which is its part of the digest. */
export interface StoredItem {
  readonly item: KeyValue;
  readonly crc: number;
}

/** The value under k/. */
export function encodeItem({ key, value, createRevision, modRevision, lease }: KeyValue): Buffer {
  const header = ITEM_HEADER_BYTES + (lease === undefined ? 0 : LEASE_BYTES);
  const bytes = Buffer.allocUnsafe(header + value.length);
  bytes.writeUInt8(FORMAT, 4);
  bytes.writeUInt8(lease === undefined ? 0 : WITH_LEASE, 5);
  bytes.writeBigUInt64LE(BigInt(createRevision), 6);
  bytes.writeBigUInt64LE(BigInt(modRevision), 14);
  if (lease !== undefined) bytes.writeBigUInt64LE(lease, ITEM_HEADER_BYTES);
  bytes.set(value, header);
  return seal(itemKey(key), bytes);
}

/** @throws METADATA_DAMAGED */
export function decodeItem(key: string, bytes: Buffer): StoredItem {
  checkSeal(itemKey(key), bytes, ITEM_HEADER_BYTES);
  return parseItem(key, bytes);
}

/** An item whose checksum has been seen to, its own or the row's that it is in. */
function parseItem(key: string, bytes: Buffer): StoredItem {
  const leased = bytes.length >= ITEM_HEADER_BYTES && bytes.readUInt8(5) === WITH_LEASE;
  const header = ITEM_HEADER_BYTES + (leased ? LEASE_BYTES : 0);
  if (bytes.length < header) throw damaged(itemKey(key), `has ${bytes.length} bytes; it must have ${header} at least`);
  checkFormat(itemKey(key), bytes.readUInt8(4));
  const lease = leased ? bytes.readBigUInt64LE(ITEM_HEADER_BYTES) : undefined;
  const [created, modified] = [readRevision(key, bytes, 6), readRevision(key, bytes, 14)];
  return { item: keyValue(key, bytes.subarray(header), created, modified, lease), crc: bytes.readUInt32LE(0) };
}

/** The state of all keys in short: how many there are, and the exclusive or of their checksums. */
export interface Digest {
  readonly keys: number;
  readonly crcs: number;
}

/** What a revision changed. `items`: per event, the stored form, or undefined for a delete. */
export function encodeRow(
  revision: number,
  digest: Digest,
  events: readonly WatchEvent[],
  items: readonly (Buffer | undefined)[],
): Buffer {
  const writer = new ProtoWriter(512);
  writer.raw(Buffer.alloc(CRC_BYTES));
  writer.varint(1, FORMAT);
  writer.varint(2, digest.keys);
  writer.fixed32(3, digest.crcs);
  for (const [at, event] of events.entries()) {
    writer.message(4, (change) => {
      change.string(1, event.type === 'put' ? event.item.key : event.key);
      const item = items[at];
      if (item !== undefined) change.bytes(2, item);
    });
  }
  return seal(rowKey(revision), writer.finish());
}

/** A revision as it was stored. `crcs`: per event, that of its item; undefined for a delete. */
export interface Row {
  readonly digest: Digest;
  readonly events: readonly WatchEvent[];
  readonly crcs: readonly (number | undefined)[];
}

/** @throws METADATA_DAMAGED */
export function decodeRow(revision: Revision, bytes: Buffer): Row {
  const key = rowKey(revision);
  checkSeal(key, bytes, CRC_BYTES);
  const events: WatchEvent[] = [];
  const crcs: (number | undefined)[] = [];
  let [format, keys, digest] = [0, 0, 0];
  const reader = new ProtoReader(bytes, CRC_BYTES);
  while (reader.next()) {
    if (reader.field === 1) format = reader.varint();
    else if (reader.field === 2) keys = reader.varint();
    else if (reader.field === 3) digest = reader.fixed32();
    else if (reader.field === 4) crcs.push(readChange(reader.message(), revision, events));
    else reader.skip();
  }
  checkFormat(key, format);
  return { digest: { keys, crcs: digest }, events, crcs };
}

function readChange(reader: ProtoReader, revision: Revision, events: WatchEvent[]): number | undefined {
  let key = '';
  let stored: Buffer | undefined;
  while (reader.next()) {
    if (reader.field === 1) key = reader.string();
    else if (reader.field === 2) stored = reader.bytes();
    else reader.skip();
  }
  if (stored === undefined) {
    events.push({ type: 'delete', key, revision });
    return undefined;
  }
  const { item, crc } = parseItem(key, stored);
  events.push({ type: 'put', item });
  return crc;
}
