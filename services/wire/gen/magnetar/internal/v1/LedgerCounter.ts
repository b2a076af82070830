// Original file: proto/magnetar/internal/v1/records.proto

import type { Long } from '@grpc/proto-loader';

/**
 * `ids/ledger`.
 */
export interface LedgerCounter {
  /**
   * Format version, 1.
   */
  'format'?: (number);
  /**
   * The lowest ledger id that nobody has taken.
   */
  'next'?: (number | string | Long);
}

/**
 * `ids/ledger`.
 */
export interface LedgerCounter__Output {
  /**
   * Format version, 1.
   */
  'format': (number);
  /**
   * The lowest ledger id that nobody has taken.
   */
  'next': (Long);
}
