// Original file: proto/magnetar/internal/v1/records.proto

import type { Long } from '@grpc/proto-loader';

/**
 * A subscription was deleted.
 */
export interface SubscriptionDeleted {
  /**
   * Number of the subscription.
   */
  'subscription'?: (number | string | Long);
}

/**
 * A subscription was deleted.
 */
export interface SubscriptionDeleted__Output {
  /**
   * Number of the subscription.
   */
  'subscription': (Long);
}
