// Original file: proto/magnetar/internal/v1/records.proto

import type { DedupProducer as _magnetar_internal_v1_DedupProducer, DedupProducer__Output as _magnetar_internal_v1_DedupProducer__Output } from '../../../magnetar/internal/v1/DedupProducer.ts';
import type { Long } from '@grpc/proto-loader';

/**
 * Part of the deduplication state. The pages of one snapshot together hold all of it.
 */
export interface DedupPage {
  /**
   * The state speaks of all messages below this index, and of none from it on.
   */
  'coveredIndex'?: (number | string | Long);
  /**
   * Producers.
   */
  'producers'?: (_magnetar_internal_v1_DedupProducer)[];
}

/**
 * Part of the deduplication state. The pages of one snapshot together hold all of it.
 */
export interface DedupPage__Output {
  /**
   * The state speaks of all messages below this index, and of none from it on.
   */
  'coveredIndex': (Long);
  /**
   * Producers.
   */
  'producers': (_magnetar_internal_v1_DedupProducer__Output)[];
}
