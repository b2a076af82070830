// Original file: proto/magnetar/internal/v1/records.proto

import type { AckLogRecord as _magnetar_internal_v1_AckLogRecord, AckLogRecord__Output as _magnetar_internal_v1_AckLogRecord__Output } from '../../../magnetar/internal/v1/AckLogRecord.ts';
import type { Long } from '@grpc/proto-loader';

/**
 * One entry of an ack log: what became durable together. Applied in order.
 */
export interface AckLogEntry {
  /**
   * Format version, 1.
   */
  'format'?: (number);
  /**
   * The records, in order.
   */
  'records'?: (_magnetar_internal_v1_AckLogRecord)[];
  /**
   * 1 + how many subscriptions were made, deleted or moved by the log up to and with this entry: tells whether one of those is
   * missing where an entry before this one is lost. 0: not known.
   */
  'structure'?: (number | string | Long);
}

/**
 * One entry of an ack log: what became durable together. Applied in order.
 */
export interface AckLogEntry__Output {
  /**
   * Format version, 1.
   */
  'format': (number);
  /**
   * The records, in order.
   */
  'records': (_magnetar_internal_v1_AckLogRecord__Output)[];
  /**
   * 1 + how many subscriptions were made, deleted or moved by the log up to and with this entry: tells whether one of those is
   * missing where an entry before this one is lost. 0: not known.
   */
  'structure': (Long);
}
