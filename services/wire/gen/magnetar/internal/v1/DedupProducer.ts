// Original file: proto/magnetar/internal/v1/records.proto

import type { DedupBatch as _magnetar_internal_v1_DedupBatch, DedupBatch__Output as _magnetar_internal_v1_DedupBatch__Output } from '../../../magnetar/internal/v1/DedupBatch.ts';
import type { Long } from '@grpc/proto-loader';

/**
 * What is known of one producer name.
 */
export interface DedupProducer {
  /**
   * The producer's name.
   */
  'name'?: (string);
  /**
   * The last batches, oldest first, at least one. The last one's last sequence id is the producer's watermark.
   */
  'batches'?: (_magnetar_internal_v1_DedupBatch)[];
  /**
   * Append time of the newest batch, milliseconds since 1970-01-01 UTC.
   */
  'lastUsed'?: (number | string | Long);
}

/**
 * What is known of one producer name.
 */
export interface DedupProducer__Output {
  /**
   * The producer's name.
   */
  'name': (string);
  /**
   * The last batches, oldest first, at least one. The last one's last sequence id is the producer's watermark.
   */
  'batches': (_magnetar_internal_v1_DedupBatch__Output)[];
  /**
   * Append time of the newest batch, milliseconds since 1970-01-01 UTC.
   */
  'lastUsed': (Long);
}
