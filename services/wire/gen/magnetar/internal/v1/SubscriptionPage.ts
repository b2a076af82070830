// Original file: proto/magnetar/internal/v1/records.proto

import type { SubscriptionCreated as _magnetar_internal_v1_SubscriptionCreated, SubscriptionCreated__Output as _magnetar_internal_v1_SubscriptionCreated__Output } from '../../../magnetar/internal/v1/SubscriptionCreated.ts';
import type { Long } from '@grpc/proto-loader';

/**
 * A part of a subscription's state: replaces what is known of it in [from_index, to_index).
 */
export interface SubscriptionPage {
  /**
   * The subscription, as in SubscriptionCreated; mark_delete as of now.
   */
  'subscription'?: (_magnetar_internal_v1_SubscriptionCreated | null);
  /**
   * First index that the page speaks of.
   */
  'fromIndex'?: (number | string | Long);
  /**
   * First index that it does not speak of.
   */
  'toIndex'?: (number | string | Long);
  /**
   * Acknowledged single messages: pairs of (gap since the end of the last range, count), from from_index on.
   */
  'runs'?: (number | string | Long)[];
}

/**
 * A part of a subscription's state: replaces what is known of it in [from_index, to_index).
 */
export interface SubscriptionPage__Output {
  /**
   * The subscription, as in SubscriptionCreated; mark_delete as of now.
   */
  'subscription': (_magnetar_internal_v1_SubscriptionCreated__Output | null);
  /**
   * First index that the page speaks of.
   */
  'fromIndex': (Long);
  /**
   * First index that it does not speak of.
   */
  'toIndex': (Long);
  /**
   * Acknowledged single messages: pairs of (gap since the end of the last range, count), from from_index on.
   */
  'runs': (Long)[];
}
