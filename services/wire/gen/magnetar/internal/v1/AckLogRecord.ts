// Original file: proto/magnetar/internal/v1/records.proto

import type { SubscriptionCreated as _magnetar_internal_v1_SubscriptionCreated, SubscriptionCreated__Output as _magnetar_internal_v1_SubscriptionCreated__Output } from '../../../magnetar/internal/v1/SubscriptionCreated.ts';
import type { SubscriptionDeleted as _magnetar_internal_v1_SubscriptionDeleted, SubscriptionDeleted__Output as _magnetar_internal_v1_SubscriptionDeleted__Output } from '../../../magnetar/internal/v1/SubscriptionDeleted.ts';
import type { AckDelta as _magnetar_internal_v1_AckDelta, AckDelta__Output as _magnetar_internal_v1_AckDelta__Output } from '../../../magnetar/internal/v1/AckDelta.ts';
import type { SubscriptionReset as _magnetar_internal_v1_SubscriptionReset, SubscriptionReset__Output as _magnetar_internal_v1_SubscriptionReset__Output } from '../../../magnetar/internal/v1/SubscriptionReset.ts';
import type { SnapshotBegin as _magnetar_internal_v1_SnapshotBegin, SnapshotBegin__Output as _magnetar_internal_v1_SnapshotBegin__Output } from '../../../magnetar/internal/v1/SnapshotBegin.ts';
import type { SubscriptionPage as _magnetar_internal_v1_SubscriptionPage, SubscriptionPage__Output as _magnetar_internal_v1_SubscriptionPage__Output } from '../../../magnetar/internal/v1/SubscriptionPage.ts';
import type { DedupPage as _magnetar_internal_v1_DedupPage, DedupPage__Output as _magnetar_internal_v1_DedupPage__Output } from '../../../magnetar/internal/v1/DedupPage.ts';
import type { SnapshotEnd as _magnetar_internal_v1_SnapshotEnd, SnapshotEnd__Output as _magnetar_internal_v1_SnapshotEnd__Output } from '../../../magnetar/internal/v1/SnapshotEnd.ts';

export interface AckLogRecord {
  'created'?: (_magnetar_internal_v1_SubscriptionCreated | null);
  'deleted'?: (_magnetar_internal_v1_SubscriptionDeleted | null);
  'delta'?: (_magnetar_internal_v1_AckDelta | null);
  'reset'?: (_magnetar_internal_v1_SubscriptionReset | null);
  'snapshotBegin'?: (_magnetar_internal_v1_SnapshotBegin | null);
  'page'?: (_magnetar_internal_v1_SubscriptionPage | null);
  'dedup'?: (_magnetar_internal_v1_DedupPage | null);
  'snapshotEnd'?: (_magnetar_internal_v1_SnapshotEnd | null);
  'record'?: "created"|"deleted"|"delta"|"reset"|"snapshotBegin"|"page"|"dedup"|"snapshotEnd";
}

export interface AckLogRecord__Output {
  'created'?: (_magnetar_internal_v1_SubscriptionCreated__Output | null);
  'deleted'?: (_magnetar_internal_v1_SubscriptionDeleted__Output | null);
  'delta'?: (_magnetar_internal_v1_AckDelta__Output | null);
  'reset'?: (_magnetar_internal_v1_SubscriptionReset__Output | null);
  'snapshotBegin'?: (_magnetar_internal_v1_SnapshotBegin__Output | null);
  'page'?: (_magnetar_internal_v1_SubscriptionPage__Output | null);
  'dedup'?: (_magnetar_internal_v1_DedupPage__Output | null);
  'snapshotEnd'?: (_magnetar_internal_v1_SnapshotEnd__Output | null);
  'record'?: "created"|"deleted"|"delta"|"reset"|"snapshotBegin"|"page"|"dedup"|"snapshotEnd";
}
