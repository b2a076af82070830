// Original file: proto/magnetar/internal/v1/records.proto

import type { Long } from '@grpc/proto-loader';

/**
 * A snapshot begins. Whatever stands before it is not needed when the snapshot has its end.
 */
export interface SnapshotBegin {
  /**
   * Number of the snapshot, rising.
   */
  'snapshot'?: (number | string | Long);
  /**
   * Subscriptions may have been lost that had messages below this index to come. 0: none.
   */
  'missingBelow'?: (number | string | Long);
}

/**
 * A snapshot begins. Whatever stands before it is not needed when the snapshot has its end.
 */
export interface SnapshotBegin__Output {
  /**
   * Number of the snapshot, rising.
   */
  'snapshot': (Long);
  /**
   * Subscriptions may have been lost that had messages below this index to come. 0: none.
   */
  'missingBelow': (Long);
}
