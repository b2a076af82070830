// Original file: proto/magnetar/internal/v1/records.proto

import type { AckLogRecord as _magnetar_internal_v1_AckLogRecord, AckLogRecord__Output as _magnetar_internal_v1_AckLogRecord__Output } from '../../../magnetar/internal/v1/AckLogRecord.ts';

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
}
