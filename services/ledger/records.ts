/**
 * The metadata of a ledger as the value of its key.
 */
import { ledgerRecord } from '../wire/records.ts';
import type { LedgerMetadata } from './protocol/ledger-metadata.ts';

export function encodeMetadata(metadata: LedgerMetadata): Buffer {
  const { quorum, ...rest } = metadata;
  return ledgerRecord.encode({ ...rest, ...quorum });
}

/** @throws what `ledgerRecord.decode` throws */
export function decodeMetadata(value: Buffer): LedgerMetadata {
  const { ensembleSize, writeQuorum, ackQuorum, ...rest } = ledgerRecord.decode(value);
  return { quorum: { ensembleSize, writeQuorum, ackQuorum }, ...rest };
}
