// Original file: proto/magnetar/internal/v1/records.proto

import type { LedgerState as _magnetar_internal_v1_LedgerState, LedgerState__Output as _magnetar_internal_v1_LedgerState__Output } from '../../../magnetar/internal/v1/LedgerState.ts';
import type { Fragment as _magnetar_internal_v1_Fragment, Fragment__Output as _magnetar_internal_v1_Fragment__Output } from '../../../magnetar/internal/v1/Fragment.ts';
import type { Long } from '@grpc/proto-loader';

/**
 * `ledgers/<20 digits>` (LP-1).
 */
export interface LedgerRecord {
  /**
   * Format version, 1.
   */
  'format'?: (number);
  /**
   * E.
   */
  'ensembleSize'?: (number);
  /**
   * Qw.
   */
  'writeQuorum'?: (number);
  /**
   * Qa.
   */
  'ackQuorum'?: (number);
  /**
   * Where the ledger is in its life.
   */
  'state'?: (_magnetar_internal_v1_LedgerState);
  /**
   * Last entry; -1: none. Meaningful when closed.
   */
  'lastEntryId'?: (number | string | Long);
  /**
   * Cumulative length in bytes. Meaningful when closed.
   */
  'length'?: (number | string | Long);
  /**
   * 16 random bytes.
   */
  'masterKey'?: (Buffer | Uint8Array | string);
  /**
   * Fragments in order of their first entry.
   */
  'fragments'?: (_magnetar_internal_v1_Fragment)[];
  /**
   * Creation time, milliseconds since 1970-01-01 UTC.
   */
  'createdAt'?: (number | string | Long);
  /**
   * True: entries behind the last one may have been confirmed, and are lost (LP-32). Meaningful when closed.
   */
  'lostTail'?: (boolean);
}

/**
 * `ledgers/<20 digits>` (LP-1).
 */
export interface LedgerRecord__Output {
  /**
   * Format version, 1.
   */
  'format': (number);
  /**
   * E.
   */
  'ensembleSize': (number);
  /**
   * Qw.
   */
  'writeQuorum': (number);
  /**
   * Qa.
   */
  'ackQuorum': (number);
  /**
   * Where the ledger is in its life.
   */
  'state': (_magnetar_internal_v1_LedgerState__Output);
  /**
   * Last entry; -1: none. Meaningful when closed.
   */
  'lastEntryId': (Long);
  /**
   * Cumulative length in bytes. Meaningful when closed.
   */
  'length': (Long);
  /**
   * 16 random bytes.
   */
  'masterKey': (Buffer);
  /**
   * Fragments in order of their first entry.
   */
  'fragments': (_magnetar_internal_v1_Fragment__Output)[];
  /**
   * Creation time, milliseconds since 1970-01-01 UTC.
   */
  'createdAt': (Long);
  /**
   * True: entries behind the last one may have been confirmed, and are lost (LP-32). Meaningful when closed.
   */
  'lostTail': (boolean);
}
