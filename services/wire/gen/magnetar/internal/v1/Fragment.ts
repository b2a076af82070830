// Original file: proto/magnetar/internal/v1/records.proto

import type { Long } from '@grpc/proto-loader';

/**
 * The bookies that hold the entries from one on.
 */
export interface Fragment {
  /**
   * The first entry of the fragment.
   */
  'firstEntryId'?: (number | string | Long);
  /**
   * One bookie id per slot.
   */
  'bookies'?: (string)[];
}

/**
 * The bookies that hold the entries from one on.
 */
export interface Fragment__Output {
  /**
   * The first entry of the fragment.
   */
  'firstEntryId': (Long);
  /**
   * One bookie id per slot.
   */
  'bookies': (string)[];
}
