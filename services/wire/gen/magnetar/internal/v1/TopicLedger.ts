// Original file: proto/magnetar/internal/v1/records.proto

import type { Long } from '@grpc/proto-loader';

/**
 * One data ledger of a topic.
 */
export interface TopicLedger {
  /**
   * The ledger.
   */
  'ledgerId'?: (number | string | Long);
  /**
   * Index of its first message.
   */
  'firstIndex'?: (number | string | Long);
  /**
   * True when the following numbers are final.
   */
  'closed'?: (boolean);
  /**
   * Messages.
   */
  'messages'?: (number | string | Long);
  /**
   * Entries.
   */
  'entries'?: (number | string | Long);
  /**
   * Bytes.
   */
  'bytes'?: (number | string | Long);
  /**
   * Append time of the first entry, milliseconds since 1970-01-01 UTC; 0 when empty.
   */
  'firstAppendTime'?: (number | string | Long);
  /**
   * Append time of the last entry.
   */
  'lastAppendTime'?: (number | string | Long);
}

/**
 * One data ledger of a topic.
 */
export interface TopicLedger__Output {
  /**
   * The ledger.
   */
  'ledgerId': (Long);
  /**
   * Index of its first message.
   */
  'firstIndex': (Long);
  /**
   * True when the following numbers are final.
   */
  'closed': (boolean);
  /**
   * Messages.
   */
  'messages': (Long);
  /**
   * Entries.
   */
  'entries': (Long);
  /**
   * Bytes.
   */
  'bytes': (Long);
  /**
   * Append time of the first entry, milliseconds since 1970-01-01 UTC; 0 when empty.
   */
  'firstAppendTime': (Long);
  /**
   * Append time of the last entry.
   */
  'lastAppendTime': (Long);
}
