import { crc32c, crc32cJoined } from '../lib/crc32c.ts';
import type { EntryId, LedgerId } from '../lib/ids.ts';

const TWO_32 = 4_294_967_296;

/** What the digest of an entry is computed from. */
export interface DigestInput {
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  /** NO_ENTRY (-1) where there is none. */
  readonly lac: EntryId;
  /** Cumulative length of the ledger's payloads, in bytes. */
  readonly length: number;
  /** The payload, in pieces. */
  readonly payload: readonly Buffer[];
  /** CRC32C of the last piece, where it has just been computed from these very bytes: they are not gone through again. */
  readonly lastCrc32c?: number | undefined;
}

/** A piece from this size on takes longer to go through than its checksum to join. */
const JOINED_FROM_BYTES = 4_096;

/** CRC32C of {ledger id, entry id, lac, length}, each 8 bytes little-endian in two's complement, and the payload (LP-3). */
export function entryDigest(input: DigestInput): number {
  const numbers = Buffer.allocUnsafe(32);
  write64(numbers, input.ledgerId, 0);
  write64(numbers, input.entryId, 8);
  write64(numbers, input.lac, 16);
  write64(numbers, input.length, 24);
  let crc = crc32c(numbers);
  const { payload, lastCrc32c } = input;
  const last = payload.length - 1;
  for (const [at, piece] of payload.entries()) {
    const known = at === last && piece.length >= JOINED_FROM_BYTES ? lastCrc32c : undefined;
    crc = known === undefined ? crc32c(piece, crc) : crc32cJoined(crc, known, piece.length);
  }
  return crc;
}

function write64(buffer: Buffer, value: number, at: number): void {
  const high = Math.floor(value / TWO_32); // -1 for a value of -1
  buffer.writeUInt32LE(value - high * TWO_32, at);
  buffer.writeInt32LE(high, at + 4);
}
