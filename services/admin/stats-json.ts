/** Figures of a topic under the names that Pulsar's REST API gives them. */
import type {
  ConnectedClient,
  ConsumerStats,
  FlowStats,
  SubscriptionStats,
  TopicInternals,
  TopicStats,
} from '../wire/administration.ts';

/** A time as ISO 8601 has it. `time`: milliseconds since 1970-01-01 UTC. */
export type IsoTime = (time: number) => string;

type Json = Readonly<Record<string, unknown>>;

function connection(client: ConnectedClient | undefined, isoTime: IsoTime): Json {
  if (client === undefined) return {};
  return { address: client.address, connectedSince: isoTime(client.since), clientVersion: client.version };
}

function outJson(out: FlowStats): Json {
  return {
    msgRateOut: out.messageRate,
    msgThroughputOut: out.byteRate,
    msgOutCounter: out.messages,
    bytesOutCounter: out.bytes,
  };
}

function consumerJson(consumer: ConsumerStats, isoTime: IsoTime): Json {
  return {
    consumerName: consumer.name,
    ...outJson(consumer.out),
    msgRateRedeliver: consumer.redeliveryRate,
    messageAckRate: consumer.ackRate,
    availablePermits: consumer.permits,
    unackedMessages: consumer.unacked,
    blockedConsumerOnUnackedMsgs: false,
    lastConsumedTimestamp: consumer.lastDelivered,
    lastAckedTimestamp: consumer.lastAcked,
    lastConsumedFlowTimestamp: consumer.lastFlow,
    ...connection(consumer.client, isoTime),
  };
}

/** Bytes of a message. */
function average({ messages, bytes }: FlowStats): number {
  return messages === 0 ? 0 : bytes / messages;
}

/** The latest of some times. */
function latest(consumers: readonly ConsumerStats[], time: (consumer: ConsumerStats) => number): number {
  return consumers.reduce((last, consumer) => Math.max(last, time(consumer)), 0);
}

function subscriptionJson(subscription: SubscriptionStats, isoTime: IsoTime): Json {
  const { consumers } = subscription;
  return {
    ...outJson(subscription.out),
    msgRateRedeliver: subscription.redeliveryRate,
    messageAckRate: subscription.ackRate,
    msgBacklog: subscription.backlog,
    msgBacklogNoDelayed: subscription.backlog,
    backlogSize: subscription.backlogBytes,
    msgDelayed: 0,
    unackedMessages: subscription.unacked,
    blockedSubscriptionOnUnackedMsgs: false,
    type: 'Exclusive',
    activeConsumerName: consumers[0]?.name ?? null,
    lastConsumedTimestamp: latest(consumers, (consumer) => consumer.lastDelivered),
    lastAckedTimestamp: latest(consumers, (consumer) => consumer.lastAcked),
    lastConsumedFlowTimestamp: latest(consumers, (consumer) => consumer.lastFlow),
    creationTime: subscription.createdAt,
    markDeleteIndex: subscription.markDelete,
    ackedAboveMarkDelete: subscription.ackedAbove,
    consumers: consumers.map((consumer) => consumerJson(consumer, isoTime)),
    isDurable: true,
    isReplicated: false,
  };
}

/** A reader is a subscription that is not durable, as Pulsar has it. */
function readerJson(reader: ConsumerStats, isoTime: IsoTime): Json {
  return {
    ...outJson(reader.out),
    msgRateRedeliver: 0,
    messageAckRate: 0,
    msgBacklog: 0,
    unackedMessages: 0,
    type: 'Exclusive',
    activeConsumerName: reader.name,
    consumers: [consumerJson(reader, isoTime)],
    isDurable: false,
    isReplicated: false,
  };
}

/** GET …/stats */
export function topicStatsJson(stats: TopicStats, isoTime: IsoTime): Json {
  const { producers, readers, subscriptions } = stats;
  return {
    msgRateIn: stats.in.messageRate,
    msgThroughputIn: stats.in.byteRate,
    msgInCounter: stats.in.messages,
    bytesInCounter: stats.in.bytes,
    ...outJson(stats.out),
    averageMsgSize: average(stats.in),
    storageSize: stats.storedBytes,
    offloadedStorageSize: 0,
    backlogSize: subscriptions.reduce((most, { backlogBytes }) => Math.max(most, backlogBytes), 0),
    oldestIndex: stats.oldestIndex,
    endIndex: stats.endIndex,
    deduplicationStatus: 'Enabled',
    publishers: producers.map((producer, at) => ({
      accessMode: 'Shared',
      producerId: at,
      producerName: producer.name,
      msgRateIn: producer.in.messageRate,
      msgThroughputIn: producer.in.byteRate,
      msgInCounter: producer.in.messages,
      bytesInCounter: producer.in.bytes,
      averageMsgSize: average(producer.in),
      ...connection(producer.client, isoTime),
    })),
    waitingPublishers: 0,
    subscriptions: Object.fromEntries([
      ...readers.map((reader) => [`reader-${reader.name}`, readerJson(reader, isoTime)]),
      ...subscriptions.map((subscription) => [subscription.name, subscriptionJson(subscription, isoTime)]),
    ]) as Json,
    replication: {},
  };
}

function place({ ledgerId, entryId }: TopicInternals['lastConfirmed']): string {
  return `${ledgerId}:${entryId}`;
}

/** GET …/internalStats */
export function topicInternalsJson(internals: TopicInternals, isoTime: IsoTime): Json {
  const { ledgers, cursors, lastConfirmed } = internals;
  const last = ledgers.at(-1);
  const current = last?.closed === false ? last : undefined;
  const sum = (of: (ledger: (typeof ledgers)[number]) => number): number =>
    ledgers.reduce((total, ledger) => total + of(ledger), 0);
  return {
    entriesAddedCounter: internals.entriesAdded,
    numberOfEntries: sum(({ entries }) => entries),
    totalSize: sum(({ bytes }) => bytes),
    currentLedgerEntries: current?.entries ?? 0,
    currentLedgerSize: current?.bytes ?? 0,
    pendingAddEntriesCount: internals.pendingEntries,
    lastConfirmedEntry: place(lastConfirmed),
    state: current === undefined ? 'ClosedLedger' : 'LedgerOpened',
    incarnation: internals.incarnation,
    ownerEpoch: internals.ownerEpoch,
    creationTime: isoTime(internals.createdAt),
    ledgers: ledgers.map(
      ({ ledgerId, entries, bytes, closed, firstIndex, messages, firstAppendTime, lastAppendTime }) => ({
        ledgerId,
        entries,
        size: bytes,
        offloaded: false,
        closed,
        firstIndex,
        messages,
        firstAppendTime,
        lastAppendTime,
      }),
    ),
    ackLedgers: internals.ackLedgers,
    cursors: Object.fromEntries(
      cursors.map(({ name, markDelete, position, ackedAbove, backlog, ackedRanges }) => [
        name,
        {
          markDeletePosition: place(position),
          markDeleteIndex: markDelete,
          ackedAboveMarkDelete: ackedAbove,
          numberOfEntriesSinceFirstNotAckedMessage: backlog,
          individuallyDeletedMessages: `[${ackedRanges.map(([from, to]) => `${from}..${to}`).join(', ')}]`,
          state: 'Open',
        },
      ]),
    ),
  };
}
