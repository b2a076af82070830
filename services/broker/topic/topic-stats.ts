/** What an open topic tells of itself to administrators. Rates are per second, over the last minute or so. */
import type { MessageIndex } from '../../lib/ids.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Traffic } from '../metrics/traffic.ts';
import type { ConnectedClient } from './connected-client.ts';
import type { TopicConsumer } from './consumer.ts';
import type { SubscriptionFigures, Topic } from './topic.ts';

/** What goes in, or out. Bytes are those of producers' blocks. */
interface FlowStats {
  readonly messages: number;
  readonly bytes: number;
  readonly messageRate: number;
  readonly byteRate: number;
}

interface ProducerStats {
  readonly name: string;
  readonly client: ConnectedClient | undefined;
  readonly in: FlowStats;
}

/** Times are milliseconds since 1970-01-01 UTC; 0: never. */
interface ConsumerStats {
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

interface SubscriptionStats {
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
interface EntryPlace {
  readonly ledgerId: number;
  readonly entryId: number;
}

interface CursorStats {
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

/** So many are looked at in one turn of the event loop. */
const PER_TURN = 200;
/** So many ledgers, and runs of a subscription, are told. */
const MOST_LEDGERS = 10_000;
const MOST_RANGES = 100;

function flowIn(traffic: Traffic, now: number): FlowStats {
  const { messagesIn, bytesIn } = traffic.rates(now);
  return { messages: traffic.messagesIn, bytes: traffic.bytesIn, messageRate: messagesIn, byteRate: bytesIn };
}

function flowOut(traffic: Traffic, now: number): FlowStats {
  const { messagesOut, bytesOut } = traffic.rates(now);
  return { messages: traffic.messagesOut, bytes: traffic.bytesOut, messageRate: messagesOut, byteRate: bytesOut };
}

/** Gives the event loop a turn now and then. */
class Pace {
  readonly #clock: Clock;
  #count = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async step(): Promise<void> {
    if (++this.#count % PER_TURN === 0) await new Promise<void>((resolve) => this.#clock.nextTurn(resolve));
  }
}

function consumerStats(consumer: TopicConsumer, clock: Clock): ConsumerStats {
  const { name, client, traffic, permits, unacked, deliveredAt, ackedAt, flowAt } = consumer;
  const now = clock.monotonic();
  const { redelivered, acked } = traffic.rates(now);
  const wallTime = (at: number | undefined): number => (at === undefined ? 0 : Math.round(clock.now() - (now - at)));
  return {
    name,
    client,
    out: flowOut(traffic, now),
    redeliveryRate: redelivered,
    ackRate: acked,
    permits,
    unacked,
    lastDelivered: wallTime(deliveredAt),
    lastAcked: wallTime(ackedAt),
    lastFlow: wallTime(flowAt),
  };
}

function subscriptionStats(topic: Topic, figures: SubscriptionFigures, clock: Clock): SubscriptionStats {
  const { name, subscription, consumer, backlog, unacked, traffic } = figures;
  const { markDelete, ackedAbove } = subscription.state;
  const now = clock.monotonic();
  const { redelivered, acked } = traffic.rates(now);
  return {
    name,
    createdAt: subscription.createdAt,
    markDelete,
    ackedAbove,
    backlog,
    backlogBytes: topic.reader.storedBytesFrom(markDelete),
    unacked,
    out: flowOut(traffic, now),
    redeliveryRate: redelivered,
    ackRate: acked,
    consumers: consumer === undefined ? [] : [consumerStats(consumer, clock)],
  };
}

/** What goes on in a topic. */
export async function topicStats(topic: Topic, clock: Clock): Promise<TopicStats> {
  const pace = new Pace(clock);
  const now = clock.monotonic();
  const { reader, traffic } = topic;
  const producers: ProducerStats[] = [];
  for (const producer of topic.publisher.producers) {
    producers.push({ name: producer.name, client: producer.client, in: flowIn(producer.traffic, now) });
    await pace.step();
  }
  const readers: ConsumerStats[] = [];
  for (const consumer of topic.consumers.readers) {
    readers.push(consumerStats(consumer, clock));
    await pace.step();
  }
  const subscriptions: SubscriptionStats[] = [];
  for (const figures of topic.subscriptions()) {
    subscriptions.push(subscriptionStats(topic, figures, clock));
    await pace.step();
  }
  return {
    in: flowIn(traffic, now),
    out: flowOut(traffic, now),
    storedBytes: reader.storedBytes,
    oldestIndex: reader.oldestIndex,
    endIndex: reader.endIndex,
    producers,
    readers,
    subscriptions,
  };
}

/** What a topic is made of. @throws what reading throws */
export async function topicInternals(topic: Topic, clock: Clock): Promise<TopicInternals> {
  const pace = new Pace(clock);
  const { reader, record, traffic, pendingEntries } = topic;
  const last = reader.spans.at(-1);
  const places = new Map<MessageIndex, EntryPlace>();
  const cursors: CursorStats[] = [];
  for (const { name, subscription, backlog } of topic.subscriptions()) {
    const { state } = subscription;
    const { markDelete, ackedAbove } = state;
    const position = places.get(markDelete) ?? (await topic.control.placeBefore(markDelete));
    places.set(markDelete, position);
    cursors.push({ name, markDelete, position, ackedAbove, backlog, ackedRanges: state.firstRanges(MOST_RANGES) });
    await pace.step();
  }
  const ledgers: TopicInternals['ledgers'][number][] = [];
  for (const span of reader.spans.slice(-MOST_LEDGERS)) {
    ledgers.push(span.toRecord());
    await pace.step();
  }
  const { incarnation, ownerEpoch, createdAt, ackLedgers } = record;
  return {
    incarnation,
    ownerEpoch,
    createdAt,
    entriesAdded: traffic.entriesIn,
    pendingEntries,
    lastConfirmed: { ledgerId: last?.ledgerId ?? -1, entryId: last?.lastEntryId ?? -1 },
    ledgers,
    ackLedgers,
    cursors,
  };
}
