// Original file: proto/magnetar/internal/v1/records.proto

import type { Long } from '@grpc/proto-loader';

/**
 * A subscription was made.
 */
export interface SubscriptionCreated {
  /**
   * Number of the subscription within the topic; never used again.
   */
  'subscription'?: (number | string | Long);
  /**
   * Its name.
   */
  'name'?: (string);
  /**
   * Everything below is acknowledged.
   */
  'markDelete'?: (number | string | Long);
  /**
   * Creation time, milliseconds since 1970-01-01 UTC.
   */
  'createdAt'?: (number | string | Long);
  /**
   * How often it was moved since.
   */
  'moves'?: (number | string | Long);
}

/**
 * A subscription was made.
 */
export interface SubscriptionCreated__Output {
  /**
   * Number of the subscription within the topic; never used again.
   */
  'subscription': (Long);
  /**
   * Its name.
   */
  'name': (string);
  /**
   * Everything below is acknowledged.
   */
  'markDelete': (Long);
  /**
   * Creation time, milliseconds since 1970-01-01 UTC.
   */
  'createdAt': (Long);
  /**
   * How often it was moved since.
   */
  'moves': (Long);
}
