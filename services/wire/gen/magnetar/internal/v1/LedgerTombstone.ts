// Original file: proto/magnetar/internal/v1/records.proto

import type { Long } from '@grpc/proto-loader';

/**
 * `deleted/<20 digits>`: the ledger is gone; bookies may drop what they have of it.
 */
export interface LedgerTombstone {
  /**
   * Format version, 1.
   */
  'format'?: (number);
  /**
   * When it was deleted, milliseconds since 1970-01-01 UTC.
   */
  'deletedAt'?: (number | string | Long);
}

/**
 * `deleted/<20 digits>`: the ledger is gone; bookies may drop what they have of it.
 */
export interface LedgerTombstone__Output {
  /**
   * Format version, 1.
   */
  'format': (number);
  /**
   * When it was deleted, milliseconds since 1970-01-01 UTC.
   */
  'deletedAt': (Long);
}
