// Original file: proto/magnetar/internal/v1/records.proto

import type { Long } from '@grpc/proto-loader';

/**
 * Messages were acknowledged.
 */
export interface AckDelta {
  /**
   * Number of the subscription.
   */
  'subscription'?: (number | string | Long);
  /**
   * Everything below this index. 0: nothing.
   */
  'below'?: (number | string | Long);
  /**
   * Pairs of (first index, count).
   */
  'ranges'?: (number | string | Long)[];
}

/**
 * Messages were acknowledged.
 */
export interface AckDelta__Output {
  /**
   * Number of the subscription.
   */
  'subscription': (Long);
  /**
   * Everything below this index. 0: nothing.
   */
  'below': (Long);
  /**
   * Pairs of (first index, count).
   */
  'ranges': (Long)[];
}
