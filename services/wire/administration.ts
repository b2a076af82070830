/**
 * What administrators ask of a broker, and are told: the REST API asks, the broker answers. Names are as administrators write
 * them; whoever implements this checks them. Errors are those of `lib/errors.ts`. Times are milliseconds since 1970-01-01 UTC.
 */

import type { MagnetarError } from '../lib/errors.ts';

/** Names, a page at a time. */
export type NamePages = AsyncIterable<readonly string[]>;

interface TenantSettings {
  readonly adminRoles: readonly string[];
  readonly allowedClusters: readonly string[];
}

/** Where to go in a topic. A message without `batchIndex` stands for all of its entry. */
export type AdminPosition =
  | { readonly at: 'earliest' | 'latest' }
  | { readonly at: 'time'; readonly time: number }
  | {
      readonly at: 'message';
      readonly ledgerId: number;
      readonly entryId: number;
      readonly batchIndex: number | undefined;
      /** The position behind it is meant. */
      readonly excluded: boolean;
    };

/** A message as an administrator looks at it. */
export interface PeekedMessage {
  readonly ledgerId: number;
  readonly entryId: number;
  readonly batchIndex: number;
  readonly index: number;
  readonly producerName: string;
  readonly key: string | undefined;
  readonly properties: readonly (readonly [string, string])[];
  readonly publishTime: number;
  readonly payload: Buffer;
}

/** What goes in, or out. Bytes are those of producers' blocks; rates are per second, over the last minute or so. */
export interface FlowStats {
  readonly messages: number;
  readonly bytes: number;
  readonly messageRate: number;
  readonly byteRate: number;
}

/** Who is at the other end of a stream. */
export interface ConnectedClient {
  /** As host:port, or what stands for it. */
  readonly address: string;
  /** What the client says of itself: name and version. */
  readonly version: string;
  /** When the producer or consumer connected. */
  readonly since: number;
}

export interface ProducerStats {
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
  /** Messages that it may still be sent. */
  readonly permits: number;
  /** Messages that it was sent and has not acknowledged. */
  readonly unacked: number;
  readonly lastDelivered: number;
  readonly lastAcked: number;
  readonly lastFlow: number;
}

export interface SubscriptionStats {
  readonly name: string;
  readonly createdAt: number;
  /** Everything below this index is acknowledged. */
  readonly markDelete: number;
  /** So many messages above it are, too. */
  readonly ackedAbove: number;
  /** Messages that are stored and not acknowledged. */
  readonly backlog: number;
  /** From the first of them on, about. */
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
  /** Index of the oldest message, and of the next one. */
  readonly oldestIndex: number;
  readonly endIndex: number;
  readonly producers: readonly ProducerStats[];
  readonly readers: readonly ConsumerStats[];
  readonly subscriptions: readonly SubscriptionStats[];
}

/** Where an entry is; entry -1: before the first one of the ledger. Ledger -1: there is none. */
export interface EntryPlace {
  readonly ledgerId: number;
  readonly entryId: number;
}

export interface CursorStats {
  readonly name: string;
  readonly markDelete: number;
  /** The last entry of which everything, and of those before it, is acknowledged. */
  readonly position: EntryPlace;
  readonly ackedAbove: number;
  readonly backlog: number;
  /** The first runs of acknowledged messages above `markDelete`, as [first, last]. */
  readonly ackedRanges: readonly (readonly [number, number])[];
}

export interface TopicInternals {
  readonly incarnation: number;
  readonly ownerEpoch: number;
  readonly createdAt: number;
  /** Since it was opened here. */
  readonly entriesAdded: number;
  readonly pendingEntries: number;
  readonly lastConfirmed: EntryPlace;
  /** The newest ones, oldest first. */
  readonly ledgers: readonly {
    readonly ledgerId: number;
    readonly firstIndex: number;
    readonly messages: number;
    readonly entries: number;
    readonly bytes: number;
    readonly closed: boolean;
    /** Of its first entry; 0: it has none. */
    readonly firstAppendTime: number;
    readonly lastAppendTime: number;
  }[];
  readonly ackLedgers: readonly number[];
  readonly cursors: readonly CursorStats[];
}

/** The broker, to its administrators. */
export interface Administration {
  /** UNAVAILABLE with the reason while the broker cannot store messages. */
  readonly unready: MagnetarError | undefined;
  /** The clusters that it knows: its own. */
  readonly clusters: readonly string[];

  tenants(): NamePages;
  tenant(tenant: string): Promise<TenantSettings>;
  createTenant(tenant: string, settings: TenantSettings): Promise<void>;
  updateTenant(tenant: string, settings: TenantSettings): Promise<void>;
  /** `force`: with its namespaces and their topics. */
  deleteTenant(tenant: string, force: boolean): Promise<void>;

  namespaces(tenant: string): Promise<NamePages>;
  /** `deleting`: its deletion has begun, and is to be repeated. */
  namespace(tenant: string, namespace: string): Promise<{ readonly deleting: boolean }>;
  createNamespace(tenant: string, namespace: string, clusters: readonly string[]): Promise<void>;
  /** `force`: with its topics, whoever is connected to them. */
  deleteNamespace(tenant: string, namespace: string, force: boolean): Promise<void>;

  /** Full names. */
  topics(tenant: string, namespace: string): Promise<NamePages>;
  createTopic(topic: string): Promise<void>;
  /** `force`: also when somebody is connected. */
  deleteTopic(topic: string, force: boolean): Promise<void>;
  unloadTopic(topic: string): Promise<void>;
  /** What goes on in it, since it was opened here; an idle topic is closed after a while, and begins anew. */
  topicStats(topic: string): Promise<TopicStats>;
  topicInternals(topic: string): Promise<TopicInternals>;

  subscriptions(topic: string): Promise<readonly string[]>;
  /** Makes the topic, too, where there is none. */
  createSubscription(topic: string, subscription: string, position: AdminPosition): Promise<void>;
  /** `force`: also when a consumer is connected. */
  deleteSubscription(topic: string, subscription: string, force: boolean): Promise<void>;
  /** Counts the next messages that are not acknowledged as acknowledged. */
  skipMessages(topic: string, subscription: string, messages: number): Promise<void>;
  /** Moves a subscription: exactly what lies before the position counts as acknowledged. */
  resetCursor(topic: string, subscription: string, position: AdminPosition): Promise<void>;
  /** The `nth` message that is not acknowledged, from 1 on. */
  peekMessage(topic: string, subscription: string, nth: number): Promise<PeekedMessage>;
}
