/**
 * What the REST API needs of a broker. Names are as administrators write them; whoever implements this checks them. Errors
 * are those of `lib/errors.ts`.
 */

/** Names, a page at a time. */
type NamePages = AsyncIterable<readonly string[]>;

interface TenantSettings {
  readonly adminRoles: readonly string[];
  readonly allowedClusters: readonly string[];
}

/** Where to go in a topic. A message without `batchIndex` stands for all of its entry. */
export type AdminPosition =
  | { readonly at: 'earliest' | 'latest' }
  /** Milliseconds since 1970-01-01 UTC. */
  | { readonly at: 'time'; readonly time: number }
  | {
      readonly at: 'message';
      readonly ledgerId: number;
      readonly entryId: number;
      readonly batchIndex: number | undefined;
      /** The position behind it is meant. */
      readonly excluded: boolean;
    };

export interface PeekedMessage {
  readonly ledgerId: number;
  readonly entryId: number;
  readonly batchIndex: number;
  readonly index: number;
  readonly producerName: string;
  readonly key: string | undefined;
  readonly properties: readonly (readonly [string, string])[];
  /** Milliseconds since 1970-01-01 UTC. */
  readonly publishTime: number;
  readonly payload: Buffer;
}

export interface Administration {
  readonly healthy: boolean;
  readonly clusters: readonly string[];

  tenants(): NamePages;
  tenant(tenant: string): Promise<TenantSettings>;
  createTenant(tenant: string, settings: TenantSettings): Promise<void>;
  updateTenant(tenant: string, settings: TenantSettings): Promise<void>;
  /** `force`: with its namespaces and their topics. */
  deleteTenant(tenant: string, force: boolean): Promise<void>;

  namespaces(tenant: string): Promise<NamePages>;
  namespace(tenant: string, namespace: string): Promise<{ readonly deleting: boolean }>;
  createNamespace(tenant: string, namespace: string, clusters: readonly string[]): Promise<void>;
  /** `force`: with its topics. */
  deleteNamespace(tenant: string, namespace: string, force: boolean): Promise<void>;

  /** Full names. */
  topics(tenant: string, namespace: string): Promise<NamePages>;
  createTopic(topic: string): Promise<void>;
  /** `force`: also when somebody is connected. */
  deleteTopic(topic: string, force: boolean): Promise<void>;
  unloadTopic(topic: string): Promise<void>;

  subscriptions(topic: string): Promise<readonly string[]>;
  /** Makes the topic, too, where there is none. */
  createSubscription(topic: string, subscription: string, position: AdminPosition): Promise<void>;
  /** `force`: also when a consumer is connected. */
  deleteSubscription(topic: string, subscription: string, force: boolean): Promise<void>;
  skipMessages(topic: string, subscription: string, messages: number): Promise<void>;
  resetCursor(topic: string, subscription: string, position: AdminPosition): Promise<void>;
  /** The `nth` message that is not acknowledged, from 1 on. */
  peekMessage(topic: string, subscription: string, nth: number): Promise<PeekedMessage>;
}
