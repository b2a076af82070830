import { describe, expect, test } from 'vitest';
import { nodeClock } from '../../runtime/node/clock.ts';
import { scrape } from '../../runtime/exposition.ts';
import { memoryBudget } from '../../runtime/memory.ts';
import { figures } from '../../runtime/testing/figures.ts';
import { ManualClock } from '../../runtime/testing/manual-clock.ts';
import { parseTopicName } from '../protocol/topic-name.ts';
import { EntryCache } from '../topic/entry-cache.ts';
import type { Topic } from '../topic/topic.ts';
import { BrokerMetrics } from './broker-metrics.ts';
import { BrokerStats } from './broker-stats.ts';
import { Traffic } from './traffic.ts';

const MiB = 1_048_576;

/** A topic, as far as metrics look at it: one producer, two subscriptions with a backlog of 3 and 5 messages. */
function topicOf(stats: BrokerStats, name: string): Topic {
  const traffic = stats.topic(parseTopicName(name));
  const subscriptions = [
    { name: 'a', backlog: 3, unacked: 1, traffic: new Traffic(0, traffic) },
    { name: 'b', backlog: 5, unacked: 0, traffic: new Traffic(0, traffic) },
  ];
  const topic = {
    name: parseTopicName(name),
    traffic,
    publisher: { size: 1 },
    consumers: { size: 2 },
    reader: { storedBytes: 1_000 },
    subscriptions: () => subscriptions,
  };
  return topic as unknown as Topic;
}

function metricsOf(topics: readonly Topic[], stats: BrokerStats, perTopic = false): BrokerMetrics {
  const observed = {
    stats,
    cache: new EntryCache(MiB, memoryBudget().share('cache'), nodeClock),
    ready: () => true,
    topics: () => topics,
    streams: () => ({ publish: 2, consume: 1 }),
    copies: 3,
  };
  return new BrokerMetrics(observed, perTopic, 0);
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

const of = (namespace: string): string => `{namespace="${namespace}"}`;

describe('the sums of a namespace', () => {
  test('add up its topics, and keep what went through those that are closed', async () => {
    const stats = new BrokerStats(new ManualClock());
    const names = ['persistent://public/default/a', 'persistent://public/default/b', 'persistent://acme/orders/a'];
    const topics = names.map((name) => topicOf(stats, name));
    for (const { traffic } of topics) traffic.stored(10, 500, 3, 0);
    topics[0]?.traffic.duplicate();
    for (const { traffic } of topics[1]?.subscriptions() ?? []) {
      traffic.delivered(4, 200, false, 0);
      traffic.delivered(4, 200, true, 0);
      traffic.acknowledged(2, 0);
    }
    const told = await figures(metricsOf(topics, stats));
    expect(told.get(`pulsar_topics_count${of('public/default')}`)).toBe(2);
    expect(told.get(`pulsar_topics_count${of('acme/orders')}`)).toBe(1);
    expect(told.get(`pulsar_producers_count${of('public/default')}`)).toBe(2);
    expect(told.get(`pulsar_consumers_count${of('public/default')}`)).toBe(4);
    expect(told.get(`pulsar_subscriptions_count${of('public/default')}`)).toBe(4);
    expect(told.get(`pulsar_msg_backlog${of('public/default')}`)).toBe(16);
    expect(told.get(`pulsar_storage_logical_size${of('public/default')}`)).toBe(2_000);
    expect(told.get(`pulsar_storage_size${of('public/default')}`)).toBe(6_000);
    expect(told.get(`pulsar_in_messages_total${of('public/default')}`)).toBe(20);
    expect(told.get(`pulsar_out_messages_total${of('public/default')}`)).toBe(16);
    expect(told.get(`pulsar_out_bytes_total${of('public/default')}`)).toBe(800);
    expect(told.get(`magnetar_acknowledged_messages_total${of('public/default')}`)).toBe(4);
    expect(told.get(`magnetar_redelivered_messages_total${of('public/default')}`)).toBe(8);
    expect(told.get(`magnetar_duplicate_batches_total${of('public/default')}`)).toBe(1);

    const closed = await figures(metricsOf([], stats));
    expect(closed.get(`pulsar_topics_count${of('public/default')}`)).toBe(0);
    expect(closed.get(`pulsar_msg_backlog${of('public/default')}`)).toBe(0);
    expect(closed.get(`pulsar_in_messages_total${of('public/default')}`)).toBe(20);
  });

  test("the write latency has Pulsar's buckets, each for itself, per minute", async () => {
    const stats = new BrokerStats(new ManualClock());
    const topic = topicOf(stats, 'orders');
    for (const ms of [0.3, 0.5, 0.7, 1.5, 4, 5, 300, 1_000, 1_001, 50_000]) topic.traffic.stored(1, 100, ms, 0);
    // Since the namespace began, 60 s ago.
    const text = [
      ...(await scrape([metricsOf([topic], stats)], { clock: { ...nodeClock, monotonic: () => 60_000 }, common: '' })),
    ];
    const bucket = (name: string): string | undefined =>
      new RegExp(`^pulsar_storage_write_latency_${name}\\{[^}]*\\} (\\S+)$`, 'm').exec(text.join(''))?.[1];
    const names = ['le_0_5', 'le_1', 'le_5', 'le_10', 'le_200', 'le_1000', 'overflow'];
    expect(names.map(bucket)).toEqual(['2', '1', '3', '0', '0', '2', '2']);
  });
});

describe('ten thousand topics', () => {
  const stats = new BrokerStats(nodeClock);
  const topics = Array.from({ length: 10_000 }, (_, n) => topicOf(stats, `topic-${n}`));

  /** CPU time of each stretch of a scrape in which nobody else could run, in ms, longest first. */
  async function stretches(perTopic: boolean): Promise<{ readonly lines: number; readonly ms: readonly number[] }> {
    const ms: number[] = [];
    let begin = cpuMs();
    const clock = {
      ...nodeClock,
      nextTurn(callback: () => void): void {
        ms.push(cpuMs() - begin);
        nodeClock.nextTurn(() => {
          begin = cpuMs();
          callback();
        });
      },
    };
    const chunks = await scrape([metricsOf(topics, stats, perTopic)], { clock, common: 'cluster="c"' });
    let lines = 0;
    for (const chunk of chunks) lines += chunk.split('\n').length - 1;
    return { lines, ms: ms.toSorted((a, b) => b - a) };
  }

  test('are told one by one without holding up the event loop', async () => {
    await stretches(true); // compiled by now
    const { lines, ms } = await stretches(true);
    expect(lines).toBeGreaterThan(300_000);
    // What the garbage collector and the compiler take comes on top; most stretches show what is ours.
    expect(ms.length).toBeGreaterThan(20);
    expect(ms[Math.floor(ms.length / 2)]).toBeLessThan(5);
  });

  test('are summed up in some milliseconds', async () => {
    const { lines } = await stretches(false);
    expect(lines).toBeLessThan(300);
  });
});
