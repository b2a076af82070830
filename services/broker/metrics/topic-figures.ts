/** The figures that topics have, and their sums over namespaces: Pulsar's names, which are the same for both. */
import { counter, gauge, type LabelText, type MetricSink, untyped } from '../../runtime/metrics.ts';
import type { Topic } from '../topic/topic.ts';
import type { Traffic } from './traffic.ts';

const metrics = {
  subscriptions: untyped('pulsar_subscriptions_count', 'Subscriptions of open topics.'),
  producers: untyped('pulsar_producers_count', 'Producers that are connected.'),
  consumers: untyped('pulsar_consumers_count', 'Consumers and readers that are connected.'),
  backlog: gauge('pulsar_msg_backlog', 'Messages that subscriptions of open topics have not acknowledged.'),
  storage: gauge('pulsar_storage_size', 'Bytes of the logs of open topics, with all copies.'),
  logicalStorage: gauge('pulsar_storage_logical_size', 'Bytes of the logs of open topics, without copies.'),
  rateIn: gauge('pulsar_rate_in', 'Messages stored per second, over the last minute or so.'),
  rateOut: gauge('pulsar_rate_out', 'Messages sent to consumers per second, over the last minute or so.'),
  throughputIn: gauge('pulsar_throughput_in', 'Bytes stored per second, over the last minute or so.'),
  throughputOut: gauge('pulsar_throughput_out', 'Bytes sent to consumers per second, over the last minute or so.'),
  ackRate: gauge('pulsar_consumer_msg_ack_rate', 'Messages acknowledged per second, over the last minute or so.'),
  writeRate: gauge('pulsar_storage_write_rate', 'Entries stored per second, over the last minute or so.'),
  messagesIn: counter('pulsar_in_messages_total', 'Messages stored.'),
  bytesIn: counter('pulsar_in_bytes_total', 'Bytes of batches stored.'),
  messagesOut: counter('pulsar_out_messages_total', 'Messages sent to consumers.'),
  bytesOut: counter('pulsar_out_bytes_total', 'Bytes of batches sent to consumers.'),
  acked: counter('magnetar_acknowledged_messages_total', 'Messages acknowledged for the first time, by subscriptions.'),
  redelivered: counter('magnetar_redelivered_messages_total', 'Messages sent to consumers again.'),
  duplicates: counter(
    'magnetar_duplicate_batches_total',
    'Batches that had been stored before and were not stored again.',
  ),
} as const;

/** What is as it is now; the rest is counted by `Traffic`. */
export interface Stand {
  topics: number;
  subscriptions: number;
  producers: number;
  consumers: number;
  backlog: number;
  /** Without copies. */
  bytes: number;
}

export function nothing(): Stand {
  return { topics: 0, subscriptions: 0, producers: 0, consumers: 0, backlog: 0, bytes: 0 };
}

/** Adds up. */
export function add(sum: Stand, more: Stand): void {
  sum.topics += more.topics;
  sum.subscriptions += more.subscriptions;
  sum.producers += more.producers;
  sum.consumers += more.consumers;
  sum.backlog += more.backlog;
  sum.bytes += more.bytes;
}

/** How an open topic stands. */
export function standOf(topic: Topic): Stand {
  const stand = nothing();
  stand.topics = 1;
  stand.producers = topic.publisher.size;
  stand.consumers = topic.consumers.size;
  stand.bytes = topic.reader.storedBytes;
  for (const { backlog } of topic.subscriptions()) {
    stand.subscriptions++;
    stand.backlog += backlog;
  }
  return stand;
}

/** Tells of a topic or a namespace. `copies`: how many there are of every entry. */
export function tell(
  sink: MetricSink,
  labels: LabelText,
  { stand, traffic, copies }: { readonly stand: Stand; readonly traffic: Traffic; readonly copies: number },
): void {
  const rates = traffic.rates(sink.now);
  sink.value(metrics.subscriptions, labels, stand.subscriptions);
  sink.value(metrics.producers, labels, stand.producers);
  sink.value(metrics.consumers, labels, stand.consumers);
  sink.value(metrics.backlog, labels, stand.backlog);
  sink.value(metrics.storage, labels, stand.bytes * copies);
  sink.value(metrics.logicalStorage, labels, stand.bytes);
  sink.value(metrics.rateIn, labels, rates.messagesIn);
  sink.value(metrics.rateOut, labels, rates.messagesOut);
  sink.value(metrics.throughputIn, labels, rates.bytesIn);
  sink.value(metrics.throughputOut, labels, rates.bytesOut);
  sink.value(metrics.ackRate, labels, rates.acked);
  sink.value(metrics.writeRate, labels, rates.entriesIn);
  sink.value(metrics.messagesIn, labels, traffic.messagesIn);
  sink.value(metrics.bytesIn, labels, traffic.bytesIn);
  sink.value(metrics.messagesOut, labels, traffic.messagesOut);
  sink.value(metrics.bytesOut, labels, traffic.bytesOut);
  sink.value(metrics.acked, labels, traffic.acked);
  sink.value(metrics.redelivered, labels, traffic.redelivered);
  sink.value(metrics.duplicates, labels, traffic.duplicates);
}
