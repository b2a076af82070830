// Original file: proto/magnetar/internal/v1/records.proto

import type { Long } from '@grpc/proto-loader';

/**
 * A subscription was moved: exactly the messages below are acknowledged.
 */
export interface SubscriptionReset {
  /**
   * Number of the subscription.
   */
  'subscription'?: (number | string | Long);
  /**
   * Everything below this index.
   */
  'markDelete'?: (number | string | Long);
}

/**
 * A subscription was moved: exactly the messages below are acknowledged.
 */
export interface SubscriptionReset__Output {
  /**
   * Number of the subscription.
   */
  'subscription': (Long);
  /**
   * Everything below this index.
   */
  'markDelete': (Long);
}
