// Original file: proto/magnetar/internal/v1/records.proto

import type { TopicLedger as _magnetar_internal_v1_TopicLedger, TopicLedger__Output as _magnetar_internal_v1_TopicLedger__Output } from '../../../magnetar/internal/v1/TopicLedger.ts';

/**
 * Older ledgers of a topic.
 */
export interface TopicLedgerChunk {
  /**
   * Format version, 1.
   */
  'format'?: (number);
  /**
   * The ledgers, oldest first.
   */
  'ledgers'?: (_magnetar_internal_v1_TopicLedger)[];
}

/**
 * Older ledgers of a topic.
 */
export interface TopicLedgerChunk__Output {
  /**
   * Format version, 1.
   */
  'format': (number);
  /**
   * The ledgers, oldest first.
   */
  'ledgers': (_magnetar_internal_v1_TopicLedger__Output)[];
}
