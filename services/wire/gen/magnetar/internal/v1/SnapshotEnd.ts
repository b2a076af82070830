// Original file: proto/magnetar/internal/v1/records.proto

import type { Long } from '@grpc/proto-loader';

/**
 * A snapshot is complete.
 */
export interface SnapshotEnd {
  /**
   * Number of the snapshot.
   */
  'snapshot'?: (number | string | Long);
}

/**
 * A snapshot is complete.
 */
export interface SnapshotEnd__Output {
  /**
   * Number of the snapshot.
   */
  'snapshot': (Long);
}
