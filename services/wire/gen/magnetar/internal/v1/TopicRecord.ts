// Original file: proto/magnetar/internal/v1/records.proto

import type { TopicLedger as _magnetar_internal_v1_TopicLedger, TopicLedger__Output as _magnetar_internal_v1_TopicLedger__Output } from '../../../magnetar/internal/v1/TopicLedger.ts';
import type { Long } from '@grpc/proto-loader';

/**
 * `topics/T/N/X`. Under `topics-deleting/T/N/X`: what is left of a topic that was deleted, whose ledgers have no tombstones
 * yet; `incarnation` is never 0 there, and the lists shrink.
 */
export interface TopicRecord {
  /**
   * Format version, 1.
   */
  'format'?: (number);
  /**
   * Which incarnation of the name this is: the metadata revision at which it was made.
   */
  'incarnation'?: (number | string | Long);
  /**
   * Epoch of the owner that serves it, or served it last.
   */
  'ownerEpoch'?: (number | string | Long);
  /**
   * The index that the next message gets when the listed ledgers hold none: the floor.
   */
  'floorIndex'?: (number | string | Long);
  /**
   * The newest data ledgers, oldest first. The last one may be open.
   */
  'ledgers'?: (_magnetar_internal_v1_TopicLedger)[];
  /**
   * How many immutable chunks of older ledgers there are, under `topics-chunks/T/N/X/<n>`.
   */
  'chunks'?: (number);
  /**
   * The ledgers of the ack log, oldest first.
   */
  'ackLedgers'?: (number | string | Long)[];
  /**
   * Creation time, milliseconds since 1970-01-01 UTC.
   */
  'createdAt'?: (number | string | Long);
}

/**
 * `topics/T/N/X`. Under `topics-deleting/T/N/X`: what is left of a topic that was deleted, whose ledgers have no tombstones
 * yet; `incarnation` is never 0 there, and the lists shrink.
 */
export interface TopicRecord__Output {
  /**
   * Format version, 1.
   */
  'format': (number);
  /**
   * Which incarnation of the name this is: the metadata revision at which it was made.
   */
  'incarnation': (Long);
  /**
   * Epoch of the owner that serves it, or served it last.
   */
  'ownerEpoch': (Long);
  /**
   * The index that the next message gets when the listed ledgers hold none: the floor.
   */
  'floorIndex': (Long);
  /**
   * The newest data ledgers, oldest first. The last one may be open.
   */
  'ledgers': (_magnetar_internal_v1_TopicLedger__Output)[];
  /**
   * How many immutable chunks of older ledgers there are, under `topics-chunks/T/N/X/<n>`.
   */
  'chunks': (number);
  /**
   * The ledgers of the ack log, oldest first.
   */
  'ackLedgers': (Long)[];
  /**
   * Creation time, milliseconds since 1970-01-01 UTC.
   */
  'createdAt': (Long);
}
