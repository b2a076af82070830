/** What a broker tells about itself when it is scraped. */
import {
  counter,
  gauge,
  labelText,
  type Metric,
  type MetricSink,
  type MetricSource,
  untyped,
  Window,
} from '../../runtime/metrics.ts';
import type { EntryCache } from '../topic/entry-cache.ts';
import type { Topic } from '../topic/topic.ts';
import type { BrokerStats } from './broker-stats.ts';
import { add, nothing, type Stand, standOf, tell } from './topic-figures.ts';
import type { NamespaceTraffic } from './traffic.ts';

const metrics = {
  topics: untyped('pulsar_topics_count', 'Topics that are open.'),
  backlog: gauge('pulsar_subscription_back_log', 'Messages that a subscription has not acknowledged.'),
  unacked: gauge('pulsar_subscription_unacked_messages', 'Messages sent to the consumer and not acknowledged.'),
  rateOut: gauge('pulsar_subscription_msg_rate_out', 'Messages sent per second, over the last minute or so.'),
  throughputOut: gauge('pulsar_subscription_msg_throughput_out', 'Bytes sent per second, over the last minute or so.'),
  ackRate: gauge('pulsar_subscription_msg_ack_rate', 'Messages acknowledged per second, over the last minute or so.'),
  redeliver: gauge('pulsar_subscription_msg_rate_redeliver', 'Messages sent again per second, over the last minute.'),
  writeLatency: {
    name: 'pulsar_storage_write_latency',
    type: 'histogram',
    help: 'Milliseconds from the moment when an entry gets its place in the log until it is stored.',
  },
  entrySize: { name: 'pulsar_entry_size', type: 'histogram', help: 'Bytes of an entry.' },
  publish: {
    name: 'magnetar_publish_duration_seconds',
    type: 'histogram',
    help: 'From the moment when a batch was received until its receipt is sent.',
  },
  errors: counter('magnetar_request_errors_total', 'What clients were refused, by operation and error code.'),
  streams: gauge('magnetar_broker_streams', 'Streams of clients that are open.'),
  ready: gauge('magnetar_broker_ready', '1 while the broker holds its lease and serves, else 0.'),
  opening: { name: 'pulsar_topic_load_times', type: 'summary', help: 'Milliseconds that opening a topic took.' },
  openFailures: counter('magnetar_topic_open_failures_total', 'Topics that could not be opened.'),
  topicsFailed: counter('magnetar_topic_failures_total', 'Topics that ended because their log or the lease was lost.'),
  cacheBytes: gauge('pulsar_ml_cache_used_size', 'Bytes that the cache of recent entries pins.'),
  cacheEntries: gauge('pulsar_ml_cache_entries', 'Entries in the cache.'),
  cacheInserted: counter('pulsar_ml_cache_inserted_entries_total', 'Entries that came into the cache.'),
  cacheEvicted: counter('pulsar_ml_cache_evicted_entries_total', 'Entries that left the cache.'),
  hits: counter('magnetar_cache_hit_entries_total', 'Entries read from the cache.'),
  hitBytes: counter('magnetar_cache_hit_bytes_total', 'Bytes read from the cache.'),
  misses: counter('magnetar_cache_missed_entries_total', 'Entries read from bookies.'),
  missBytes: counter('magnetar_cache_missed_bytes_total', 'Bytes read from bookies.'),
  hitRate: gauge('pulsar_ml_cache_hits_rate', 'Entries read from the cache per second.'),
  hitThroughput: gauge('pulsar_ml_cache_hits_throughput', 'Bytes read from the cache per second.'),
  missRate: gauge('pulsar_ml_cache_misses_rate', 'Entries read from bookies per second.'),
  missThroughput: gauge('pulsar_ml_cache_misses_throughput', 'Bytes read from bookies per second.'),
} as const satisfies Readonly<Record<string, Metric>>;

/** Pulsar's names for the buckets of the write latency, and their upper bounds in ms. */
const WRITE_LATENCIES: readonly (readonly [Metric, number])[] = [
  ...[0.5, 1, 5, 10, 20, 50, 100, 200, 1_000].map((bound): readonly [Metric, number] => {
    const name = `pulsar_storage_write_latency_le_${String(bound).replace('.', '_')}`;
    return [gauge(name, `Entries per minute that took up to ${bound} ms, and longer than the bound before.`), bound];
  }),
  [gauge('pulsar_storage_write_latency_overflow', 'Entries per minute that took longer than 1000 ms.'), Infinity],
];

/** A broker, as far as its metrics look at it. */
export interface Observed {
  readonly stats: BrokerStats;
  readonly cache: EntryCache;
  readonly ready: () => boolean;
  readonly topics: () => Iterable<Topic>;
  /** Open streams, by kind. */
  readonly streams: () => Readonly<Record<string, number>>;
  /** Copies of every entry. */
  readonly copies: number;
}

export class BrokerMetrics implements MetricSource {
  readonly #observed: Observed;
  readonly #perTopic: boolean;
  readonly #cacheWindow: Window;

  /** @param perTopic tells of every topic and subscription in the place of the namespaces' sums */
  constructor(observed: Observed, perTopic: boolean, now: number) {
    this.#observed = observed;
    this.#perTopic = perTopic;
    this.#cacheWindow = new Window(now, 4);
  }

  *collect(sink: MetricSink): Generator<void> {
    yield* this.#namespaces(sink);
    this.#requests(sink);
    this.#cache(sink);
  }

  *#namespaces(sink: MetricSink): Generator<void> {
    const stands = new Map<string, Stand>();
    for (const topic of this.#observed.topics()) {
      const { tenant, namespace } = topic.name;
      const name = `${tenant}/${namespace}`;
      const sum = stands.get(name) ?? nothing();
      stands.set(name, sum);
      const stand = standOf(topic);
      add(sum, stand);
      if (this.#perTopic) this.#topic(sink, topic, stand);
      yield;
    }
    for (const [name, traffic] of this.#observed.stats.namespaces) {
      this.#namespace(sink, name, stands.get(name) ?? nothing(), traffic);
      yield;
    }
  }

  #topic(sink: MetricSink, topic: Topic, stand: Stand): void {
    const { tenant, namespace, full } = topic.name;
    const labels = labelText({ namespace: `${tenant}/${namespace}`, topic: full });
    tell(sink, labels, { stand, traffic: topic.traffic, copies: this.#observed.copies });
    for (const { name, backlog, unacked, traffic } of topic.subscriptions()) {
      const each = `${labels},${labelText({ subscription: name })}`;
      const rates = traffic.rates(sink.now);
      sink.value(metrics.backlog, each, backlog);
      sink.value(metrics.unacked, each, unacked);
      sink.value(metrics.rateOut, each, rates.messagesOut);
      sink.value(metrics.throughputOut, each, rates.bytesOut);
      sink.value(metrics.ackRate, each, rates.acked);
      sink.value(metrics.redeliver, each, rates.redelivered);
    }
  }

  #namespace(sink: MetricSink, name: string, stand: Stand, traffic: NamespaceTraffic): void {
    const labels = labelText({ namespace: name });
    sink.value(metrics.topics, labels, stand.topics);
    if (!this.#perTopic) tell(sink, labels, { stand, traffic, copies: this.#observed.copies });
    const { writeLatency, entrySize } = traffic;
    sink.histogram(metrics.writeLatency, labels, writeLatency);
    sink.histogram(metrics.entrySize, labels, entrySize);
    const { added, seconds } = writeLatency.recent(sink.now);
    let place = 0;
    for (const [metric, bound] of WRITE_LATENCIES) {
      let count = 0;
      while (place < added.length && (writeLatency.bounds[place] ?? Infinity) <= bound)
        count += added[place++] as number;
      sink.value(metric, labels, (count / seconds) * 60);
    }
  }

  #requests(sink: MetricSink): void {
    const { stats, ready, streams } = this.#observed;
    sink.value(metrics.ready, '', ready() ? 1 : 0);
    for (const [kind, count] of Object.entries(streams())) sink.value(metrics.streams, labelText({ kind }), count);
    sink.histogram(metrics.publish, '', stats.publishLatency, 1_000);
    stats.errors.collect(sink, metrics.errors);
    sink.summary(metrics.opening, '', stats.topicOpening);
    sink.value(metrics.openFailures, '', stats.topicOpenFailures);
    sink.value(metrics.topicsFailed, '', stats.topicsFailed);
  }

  #cache(sink: MetricSink): void {
    const { cache } = this.#observed;
    const { hits, hitBytes, misses, missBytes, inserted, evicted } = cache.stats;
    sink.value(metrics.cacheBytes, '', cache.bytes);
    sink.value(metrics.cacheEntries, '', inserted - evicted);
    sink.value(metrics.cacheInserted, '', inserted);
    sink.value(metrics.cacheEvicted, '', evicted);
    const totals = [
      [metrics.hits, hits, metrics.hitRate],
      [metrics.hitBytes, hitBytes, metrics.hitThroughput],
      [metrics.misses, misses, metrics.missRate],
      [metrics.missBytes, missBytes, metrics.missThroughput],
    ] as const;
    const { added, seconds } = this.#cacheWindow.changes([hits, hitBytes, misses, missBytes], sink.now);
    for (const [place, [total, value, rate]] of totals.entries()) {
      sink.value(total, '', value);
      sink.value(rate, '', (added[place] as number) / seconds);
    }
  }
}
