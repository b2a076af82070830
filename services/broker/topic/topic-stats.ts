/** What an open topic tells of itself to administrators. Rates are per second, over the last minute or so. */
import type { MessageIndex } from '../../lib/ids.ts';
import type { Clock } from '../../runtime/clock.ts';
import type {
  ConsumerStats,
  CursorStats,
  EntryPlace,
  FlowStats,
  ProducerStats,
  SubscriptionStats,
  TopicInternals,
  TopicStats,
} from '../../wire/administration.ts';
import type { Traffic } from '../metrics/traffic.ts';
import type { TopicConsumer } from './consumer.ts';
import type { SubscriptionFigures, Topic } from './topic.ts';

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
