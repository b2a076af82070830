// Original file: proto/magnetar/internal/v1/records.proto

import type { Long } from '@grpc/proto-loader';

/**
 * `tenants/T`.
 */
export interface TenantRecord {
  /**
   * Format version, 1.
   */
  'format'?: (number);
  /**
   * Creation time, milliseconds since 1970-01-01 UTC.
   */
  'createdAt'?: (number | string | Long);
  /**
   * Who may administrate it.
   */
  'adminRoles'?: (string)[];
  /**
   * The clusters that its namespaces may be in. None: this one.
   */
  'allowedClusters'?: (string)[];
}

/**
 * `tenants/T`.
 */
export interface TenantRecord__Output {
  /**
   * Format version, 1.
   */
  'format': (number);
  /**
   * Creation time, milliseconds since 1970-01-01 UTC.
   */
  'createdAt': (Long);
  /**
   * Who may administrate it.
   */
  'adminRoles': (string)[];
  /**
   * The clusters that its namespaces may be in. None: this one.
   */
  'allowedClusters': (string)[];
}
