// Original file: proto/magnetar/internal/v1/records.proto

import type { Long } from '@grpc/proto-loader';

/**
 * Where a batch is.
 */
export interface DedupBatch {
  'firstSequenceId'?: (number | string | Long);
  'lastSequenceId'?: (number | string | Long);
  'ledgerId'?: (number | string | Long);
  'entryId'?: (number | string | Long);
  'index'?: (number | string | Long);
  'count'?: (number);
}

/**
 * Where a batch is.
 */
export interface DedupBatch__Output {
  'firstSequenceId': (Long);
  'lastSequenceId': (Long);
  'ledgerId': (Long);
  'entryId': (Long);
  'index': (Long);
  'count': (number);
}
