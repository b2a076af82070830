// Original file: proto/magnetar/internal/v1/records.proto

import type { Long } from '@grpc/proto-loader';

/**
 * `namespaces/T/N`.
 */
export interface NamespaceRecord {
  /**
   * Format version, 1.
   */
  'format'?: (number);
  /**
   * Creation time, milliseconds since 1970-01-01 UTC.
   */
  'createdAt'?: (number | string | Long);
  /**
   * True while it is being deleted: no topic is made in it any more.
   */
  'deleting'?: (boolean);
}

/**
 * `namespaces/T/N`.
 */
export interface NamespaceRecord__Output {
  /**
   * Format version, 1.
   */
  'format': (number);
  /**
   * Creation time, milliseconds since 1970-01-01 UTC.
   */
  'createdAt': (Long);
  /**
   * True while it is being deleted: no topic is made in it any more.
   */
  'deleting': (boolean);
}
