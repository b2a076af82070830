/**
 * The ledger's metadata values as bytes (`magnetar.internal.v1`).
 */
import { ProtoReader, ProtoWriter } from '../lib/bytes.ts';
import { MagnetarError } from '../lib/errors.ts';
import type { Millis } from '../lib/ids.ts';
import { ledgerRecord } from '../wire/records.ts';
import type { LedgerMetadata } from './protocol/ledger-metadata.ts';

const FORMAT = 1;

export function encodeMetadata(metadata: LedgerMetadata): Buffer {
  const { quorum, ...rest } = metadata;
  return ledgerRecord.encode({ ...rest, ...quorum });
}

/** @throws METADATA_DAMAGED, UNSUPPORTED (a newer format) */
export function decodeMetadata(value: Buffer): LedgerMetadata {
  const { ensembleSize, writeQuorum, ackQuorum, ...rest } = ledgerRecord.decode(value);
  return { quorum: { ensembleSize, writeQuorum, ackQuorum }, ...rest };
}

/** `ids/ledger`: the lowest ledger id that nobody has taken. */
export function encodeCounter(next: number): Buffer {
  return encodeNumber(next);
}

/** @throws METADATA_DAMAGED */
export function decodeCounter(value: Buffer): number {
  try {
    const reader = new ProtoReader(value);
    let [format, next] = [0, 0];
    while (reader.next()) {
      if (reader.field === 1) format = reader.varint();
      else if (reader.field === 2) next = reader.varint();
      else reader.skip();
    }
    if (format === FORMAT) return next;
    throw new MagnetarError(
      'METADATA_DAMAGED',
      `the ledger id counter has format ${format}; this program knows ${FORMAT}`,
    );
  } catch (cause) {
    if (cause instanceof MagnetarError && cause.code === 'METADATA_DAMAGED') throw cause;
    throw new MagnetarError('METADATA_DAMAGED', 'the ledger id counter is not readable', { cause });
  }
}

/** `deleted/<ledger>`: since when a ledger is gone. */
export function encodeTombstone(deletedAt: Millis): Buffer {
  return encodeNumber(deletedAt);
}

function encodeNumber(value: number): Buffer {
  const writer = new ProtoWriter(16);
  writer.varint(1, FORMAT);
  writer.varint(2, value);
  return writer.finish();
}
