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

/** What goes in, or out. Rates are per second, over the last minute or so. */
export interface FlowStats {
  readonly messages: number;
  readonly bytes: number;
  readonly messageRate: number;
  readonly byteRate: number;
}

/** Who is at the other end. `since`: milliseconds since 1970-01-01 UTC, as all times here. */
export interface ConnectedClient {
  readonly address: string;
  readonly version: string;
  readonly since: number;
}

interface ProducerStats {
  readonly name: string;
  readonly client: ConnectedClient | undefined;
  readonly in: FlowStats;
}

/** Times: 0 stands for never. */
export interface ConsumerStats {
  readonly name: string;
  readonly client: ConnectedClient | undefined;
  readonly out: FlowStats;
  readonly redeliveryRate: number;
  readonly ackRate: number;
  readonly permits: number;
  readonly unacked: number;
  readonly lastDelivered: number;
  readonly lastAcked: number;
  readonly lastFlow: number;
}

export interface SubscriptionStats {
  readonly name: string;
  readonly createdAt: number;
  /** Everything below this index is acknowledged, and so many messages above it. */
  readonly markDelete: number;
  readonly ackedAbove: number;
  readonly backlog: number;
  readonly backlogBytes: number;
  readonly unacked: number;
  readonly out: FlowStats;
  readonly redeliveryRate: number;
  readonly ackRate: number;
  readonly consumers: readonly ConsumerStats[];
}

export interface TopicStats {
  readonly in: FlowStats;
  readonly out: FlowStats;
  readonly storedBytes: number;
  readonly oldestIndex: number;
  readonly endIndex: number;
  readonly producers: readonly ProducerStats[];
  readonly readers: readonly ConsumerStats[];
  readonly subscriptions: readonly SubscriptionStats[];
}

/** Where an entry is; entry -1: before the first one of the ledger. Ledger -1: there is none. */
interface EntryPlace {
  readonly ledgerId: number;
  readonly entryId: number;
}

export interface TopicInternals {
  readonly incarnation: number;
  readonly ownerEpoch: number;
  readonly createdAt: number;
  readonly entriesAdded: number;
  readonly pendingEntries: number;
  readonly lastConfirmed: EntryPlace;
  readonly ledgers: readonly {
    readonly ledgerId: number;
    readonly firstIndex: number;
    readonly messages: number;
    readonly entries: number;
    readonly bytes: number;
    readonly closed: boolean;
    readonly firstAppendTime: number;
    readonly lastAppendTime: number;
  }[];
  readonly ackLedgers: readonly number[];
  readonly cursors: readonly {
    readonly name: string;
    readonly markDelete: number;
    readonly position: EntryPlace;
    readonly ackedAbove: number;
    readonly backlog: number;
    /** [first, last] */
    readonly ackedRanges: readonly (readonly [number, number])[];
  }[];
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
  topicStats(topic: string): Promise<TopicStats>;
  topicInternals(topic: string): Promise<TopicInternals>;

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
