/** /metrics of the built program: the figures are those of what was done, and Prometheus' own tool accepts them. */
import { beforeAll, describe, expect, test } from 'vitest';
import { Client, type Message, type Producer } from '../services/client/index.ts';
import { requirePackages } from './support/debian.ts';
import { complaints, differences, type Done, fallen, Scrape } from './support/metrics.ts';
import { type ServerProcess, startBookie, startStandalone } from './support/process.ts';
import { codeOf } from './support/refusal.ts';

beforeAll(requirePackages);

const NAMESPACE = 'public/default';
const MESSAGES = 600;
const ACKED = 250;

async function send(producer: Producer, count: number): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, n) => producer.send({ data: `message ${n}` })));
}

interface Worked {
  readonly scrapes: readonly Scrape[];
  readonly last: Scrape;
  readonly done: Done;
}

/**
 * Publishes, consumes and acknowledges part of it on a server, and looks at its figures now and then. At the last look one
 * producer and one consumer are connected.
 */
async function work(server: ServerProcess, client: Client, topic: string): Promise<Worked> {
  const scrapes = [await Scrape.of(server)];
  const producer = await client.createProducer({ topic, batchingMaxMessages: 50 });
  await send(producer, MESSAGES / 2);
  scrapes.push(await Scrape.of(server));
  const consumer = await client.subscribe({ topic, subscription: 's', startPosition: 'earliest' });
  await send(producer, MESSAGES / 2);
  const received: Message[] = [];
  for await (const message of consumer.messages({ untilEnd: true })) received.push(message);
  expect(received).toHaveLength(MESSAGES);
  scrapes.push(await Scrape.of(server));
  await Promise.all(received.slice(0, ACKED).map(async (message) => await consumer.acknowledge(message)));
  const last = await Scrape.of(server);
  await producer.close();
  await consumer.close();
  const done: Done = {
    namespace: NAMESPACE,
    published: MESSAGES,
    delivered: MESSAGES,
    acknowledged: ACKED,
    backlog: MESSAGES - ACKED,
    topics: 1,
    subscriptions: 1,
    producers: 1,
    consumers: 1,
  };
  return { scrapes: [...scrapes, last], last, done };
}

describe('a standalone', () => {
  test('tells what was done to it; nothing that is counted falls; promtool accepts it at any time', async () => {
    await using server = await startStandalone();
    await using client = new Client({ serviceUrl: server.serviceUrl });
    const { scrapes, last, done } = await work(server, client, 'orders');
    expect(differences(last, done)).toEqual([]);
    for (const [n, scrape] of scrapes.entries()) {
      expect(await complaints(scrape.text)).toBe('');
      expect(fallen(scrapes[n - 1] ?? scrape, scrape)).toEqual([]);
    }

    // Bytes: in once, out once, on disk with what is put in front of each entry.
    const bytesIn = last.get('pulsar_in_bytes_total') ?? 0;
    const entries = last.get('pulsar_entry_size_count') ?? 0;
    expect(bytesIn).toBeGreaterThan(MESSAGES * 'message 0'.length);
    expect(last.get('pulsar_out_bytes_total')).toBe(bytesIn);
    expect(last.get('pulsar_entry_size_sum')).toBe(bytesIn);
    expect(last.get('pulsar_storage_logical_size')).toBe(bytesIn + entries * 48);
    expect(last.get('bookie_WRITE_BYTES')).toBeGreaterThan(bytesIn);
    expect(last.get('pulsar_storage_write_latency_count')).toBe(entries);
    expect(last.get('magnetar_publish_duration_seconds_count')).toBe(entries);
    expect(last.get('bookie_entries_count')).toBe(last.get('bookkeeper_server_ADD_ENTRY_REQUEST_count'));
    expect(last.get('magnetar_ledger_append_duration_seconds_count')).toBe(last.get('bookie_entries_count'));
    expect(last.get('bookie_journal_JOURNAL_SYNC_count')).toBe(last.get('magnetar_bookie_group_entries_count'));
    expect(last.get('magnetar_bookie_group_entries_sum')).toBe(last.get('bookie_entries_count'));
    expect(last.get('pulsar_active_connections')).toBeGreaterThanOrEqual(1);
    expect(last.get('magnetar_broker_streams', { kind: 'publish' })).toBe(1);
    expect(last.get('magnetar_broker_streams', { kind: 'consume' })).toBe(1);
    expect(last.get('magnetar_event_loop_delay_seconds_count')).toBeGreaterThan(10);

    // Refusals and duplicates.
    await using holder = await client.subscribe({ topic: 'orders', subscription: 's' });
    expect(await codeOf(client.subscribe({ topic: 'orders', subscription: 's' }))).toBe('CONSUMER_BUSY');
    for (let twice = 0; twice < 2; twice++) {
      await using again = await client.createProducer({ topic: 'orders', producerName: 'again' });
      await again.send({ data: 'x', sequenceId: 7n });
    }
    for await (const message of holder.messages({ untilEnd: true })) await holder.acknowledgeCumulative(message);
    const end = await Scrape.of(server);
    expect(end.get('magnetar_request_errors_total', { operation: 'subscribe', code: 'CONSUMER_BUSY' })).toBe(1);
    expect(end.get('magnetar_duplicate_batches_total')).toBe(1);
    expect(end.get('pulsar_in_messages_total')).toBe(MESSAGES + 1);
    expect(end.get('magnetar_redelivered_messages_total')).toBe(MESSAGES - ACKED);
    expect(end.get('pulsar_msg_backlog')).toBe(0);
    expect(fallen(last, end)).toEqual([]);
    expect(await complaints(end.text)).toBe('');
  });

  test('sabotage: metrics that forget are found out', async () => {
    await using server = await startStandalone({ program: 'chaos/sabotage/forgetful-metrics.js' });
    await using client = new Client({ serviceUrl: server.serviceUrl });
    const { last, done } = await work(server, client, 'orders');
    const names = differences(last, done).map((difference) => difference.split(' ', 1)[0]);
    expect(names).toEqual(['pulsar_in_messages_total', 'magnetar_acknowledged_messages_total']);
  });

  test('after a restart it counts anew; what is stored is told again once somebody opens the topic', async () => {
    await using server = await startStandalone();
    await using client = new Client({ serviceUrl: server.serviceUrl });
    const { last } = await work(server, client, 'orders');
    await server.kill();
    await server.start();
    await using reader = await client.createReader({ topic: 'orders', startPosition: 'latest' });
    const again = await Scrape.of(server);
    expect(again.get('pulsar_msg_backlog')).toBe(MESSAGES - ACKED);
    expect(again.get('pulsar_storage_logical_size')).toBe(last.get('pulsar_storage_logical_size'));
    expect(again.get('bookie_ledgers_count')).toBe(last.get('bookie_ledgers_count'));
    expect(again.get('bookie_entries_count')).toBeGreaterThanOrEqual(last.get('bookie_entries_count') ?? Infinity);
    expect(again.get('magnetar_ledger_recovery_duration_seconds_count')).toBeGreaterThanOrEqual(1);
    expect(again.get('pulsar_topic_load_times_count')).toBe(1);
    // The very check that holds elsewhere notices that another process counts.
    expect(fallen(last, again).length).toBeGreaterThan(10);
    expect(reader.topic).toContain('orders');
  });

  test('with --topic-metrics, topics and subscriptions stand in the place of sums, whatever they are called', async () => {
    await using server = await startStandalone({ args: ['--topic-metrics'] });
    await using client = new Client({ serviceUrl: server.serviceUrl });
    const names = ['plain', 'a "quoted" \\ name', 'ünï⭐'];
    for (const [n, topic] of names.entries()) {
      await using producer = await client.createProducer({ topic });
      await using consumer = await client.subscribe({ topic, subscription: `s "${n}"`, startPosition: 'earliest' });
      await send(producer, n + 1);
      await consumer.acknowledge(await consumer.receive());
    }
    const scrape = await Scrape.of(server);
    expect(await complaints(scrape.text)).toBe('');
    const inbound = [...scrape.series].filter(([series]) => series.startsWith('pulsar_in_messages_total{'));
    const place = `cluster="standalone",namespace="${NAMESPACE}",topic="persistent://${NAMESPACE}/`;
    expect(new Map(inbound)).toEqual(
      new Map([
        [`pulsar_in_messages_total{${place}plain"}`, 1],
        [`pulsar_in_messages_total{${place}a \\"quoted\\" \\\\ name"}`, 2],
        [`pulsar_in_messages_total{${place}ünï⭐"}`, 3],
      ]),
    );
    expect(scrape.series.get(`pulsar_subscription_back_log{${place}ünï⭐",subscription="s \\"2\\""}`)).toBe(2);
    expect(scrape.get('pulsar_topics_count', { namespace: NAMESPACE })).toBe(3);
  });

  test('a thousand topics: a scrape takes a moment, and tells of all of them', async () => {
    const topics = 1_000;
    await using server = await startStandalone({ args: ['--topic-metrics'] });
    await using client = new Client({ serviceUrl: server.serviceUrl });
    await Promise.all(
      Array.from(
        { length: topics },
        async (_, n) => await client.createReader({ topic: `t-${n}`, startPosition: 'latest' }),
      ),
    );
    await Scrape.of(server); // loads what it takes
    const scrape = await Scrape.of(server);
    expect(scrape.get('pulsar_topics_count')).toBe(topics);
    expect(scrape.get('pulsar_consumers_count')).toBe(topics);
    expect(scrape.tookMs).toBeLessThan(2_000);
    expect(await complaints(scrape.text)).toBe('');
  });
});

describe('bookies in processes of their own', () => {
  test('tell what they hold and whether they live, and the broker tells which of them is away', async () => {
    await using b1 = await startBookie();
    await using b2 = await startBookie();
    await using b3 = await startBookie();
    const bookies = [b1, b2, b3];
    const ids = bookies.map(({ port }) => `127.0.0.1:${port}`);
    await using server = await startStandalone({ args: ids.flatMap((id) => ['--bookie', id]) });
    await using client = new Client({ serviceUrl: server.serviceUrl });
    await using producer = await client.createProducer({ topic: 'copies', batchingEnabled: false });
    await send(producer, 100);
    const scrape = await Scrape.of(server);
    expect(await complaints(scrape.text)).toBe('');
    expect(scrape.get('pulsar_storage_size')).toBe(3 * (scrape.get('pulsar_storage_logical_size') ?? 0));
    for (const [n, bookie] of bookies.entries()) {
      const own = await Scrape.of(bookie);
      expect(await complaints(own.text)).toBe('');
      expect(own.get('bookie_SERVER_STATUS')).toBe(1);
      // The third copy is not waited for.
      expect(own.get('bookie_entries_count')).toBeGreaterThan(0);
      expect(own.get('magnetar_bookie_connections')).toBe(1);
      expect((await fetch(`${bookie.adminUrl}/readyz`)).status).toBe(200);
      expect(await (await fetch(`${bookie.adminUrl}/version`)).json()).toMatchObject({ role: 'bookie' });
      expect(scrape.get('magnetar_bookie_available', { bookie: ids[n] ?? '' })).toBe(1);
    }
    await b3.kill();
    await send(producer, 10);
    const after = await Scrape.of(server);
    expect(ids.map((id) => after.get('magnetar_bookie_available', { bookie: id }))).toEqual([1, 1, 0]);
    expect(after.get('pulsar_in_messages_total')).toBe(110);
  });
});

test('sabotage: promtool does not accept just anything', async () => {
  expect(await complaints('# HELP orders_count Orders.\n# TYPE orders_count gauge\norders_count 1\n')).toContain(
    '_count',
  );
  expect(await complaints('not metrics at all\n')).toContain('parsing error');
});
