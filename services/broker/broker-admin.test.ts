/** What administrators do, while apps are connected and while they are not. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Client, type Consumer } from '../client/index.ts';
import { Gate } from '../ledger/testing/gate.ts';
import { keys } from '../metadata/keys.ts';
import { BrokerWorld, type RunningTestBroker } from './testing/broker-world.ts';

const TOPIC = 'persistent://public/default/orders';
const BUSY = {
  code: 'TOPIC_BUSY',
  message: `topic ${TOPIC} has 1 producers and 1 consumers connected; close them, or force it`,
};
const DELETED = { code: 'TOPIC_NOT_FOUND', message: `topic ${TOPIC} was deleted` };

let world: BrokerWorld;
const clients: Client[] = [];

beforeEach(() => {
  world = new BrokerWorld();
});

afterEach(async () => {
  await world.close();
  for (const client of clients.splice(0)) await client.close();
});

function connect(broker: RunningTestBroker): Client {
  const client = new Client({ serviceUrl: `grpc://127.0.0.1:${broker.port}`, operationTimeoutMs: 5_000 });
  clients.push(client);
  return client;
}

async function publish(client: Client, texts: readonly string[], producerName = 'p'): Promise<string[]> {
  await using producer = await client.createProducer({ topic: TOPIC, producerName, batchingEnabled: false });
  const ids = await Promise.all(texts.map((data) => producer.send({ data })));
  return ids.map(String);
}

async function subscribe(client: Client, subscription = 's'): Promise<Consumer> {
  return client.subscribe({ topic: TOPIC, subscription, startPosition: 'earliest' });
}

async function take(consumer: Consumer, count: number): Promise<string[]> {
  const texts: string[] = [];
  while (texts.length < count) texts.push((await consumer.receive({ timeoutMs: 5_000 })).data.toString());
  return texts;
}

/** What comes from a message of this text on; what had been fetched before may come first. */
async function takeFrom(consumer: Consumer, first: string, count: number): Promise<string[]> {
  let [text] = await take(consumer, 1);
  while (text !== first) [text] = await take(consumer, 1);
  return [first, ...(await take(consumer, count - 1))];
}

/** What a subscription gets from where it is to the end, without acknowledging anything. */
async function rest(client: Client, subscription = 's'): Promise<string[]> {
  await using consumer = await subscribe(client, subscription);
  const texts: string[] = [];
  for await (const message of consumer.messages({ untilEnd: true })) texts.push(message.data.toString());
  return texts;
}

async function error(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => new Error('it did not reject'),
    (reason: unknown) => reason,
  );
}

async function all(pages: AsyncIterable<readonly string[]>): Promise<string[]> {
  const found: string[] = [];
  for await (const page of pages) found.push(...page);
  return found;
}

describe('deleting a topic', () => {
  test('that is in use is refused, and harms nobody; by force, everybody is told', async () => {
    const broker = await world.start();
    const { administration } = broker.broker;
    const client = connect(broker);
    const producer = await client.createProducer({ topic: TOPIC, producerName: 'p' });
    const consumer = await subscribe(client);
    await producer.send({ data: 'old' });
    expect(await take(consumer, 1)).toEqual(['old']);
    await expect(administration.deleteTopic(TOPIC, false)).rejects.toMatchObject(BUSY);
    await producer.send({ data: 'still there' });
    expect(await take(consumer, 1)).toEqual(['still there']);

    const receiving = error(consumer.receive({ timeoutMs: 5_000 }));
    await administration.deleteTopic(TOPIC, true);
    expect(await receiving).toMatchObject(DELETED);
    expect(await error(producer.send({ data: 'late' }))).toMatchObject(DELETED);
    await expect(administration.deleteTopic(TOPIC, true)).rejects.toMatchObject({ code: 'TOPIC_NOT_FOUND' });
    expect(await all(await administration.topics('public', 'default'))).toEqual([]);
  });

  test('makes room for another incarnation: no message, subscription or sequence id of the old one is left', async () => {
    const broker = await world.start();
    const { administration } = broker.broker;
    const client = connect(broker);
    const [oldId] = await publish(client, ['old 1', 'old 2']);
    await rest(client);
    await administration.deleteTopic(TOPIC, false);
    const ids = await publish(client, ['new']); // same producer name, same sequence ids
    expect(ids).not.toContain(oldId);
    expect(await administration.subscriptions(TOPIC)).toEqual([]);
    expect(await rest(client)).toEqual(['new']);
    const { items } = await broker.store.range({ prefix: keys.deletedLedgers });
    expect(items).toHaveLength(2); // data and acknowledgments
  });

  test.each([
    ['there is another one of its name', ['new 0', 'new 1', 'new 2']],
    ['there is none', []],
  ])(
    'while its consumer and its reader are away: they are told, and miss nothing unasked, where %s',
    async (_, texts) => {
      const first = await world.start();
      const client = connect(first);
      await publish(client, ['old 0', 'old 1']);
      const consumer = await subscribe(client);
      const reader = await client.createReader({ topic: TOPIC, startPosition: 'earliest' });
      expect(await take(consumer, 2)).toEqual(['old 0', 'old 1']);
      for (let i = 0; i < 2; i++) await reader.readNext();
      const { port } = first;
      first.kill();
      const between = await world.start();
      await between.broker.administration.deleteTopic(TOPIC, true);
      if (texts.length > 0) await publish(connect(between), texts);
      await between.stop();
      const last = await world.start({}, { port });
      const told = { code: 'TOPIC_NOT_FOUND', message: /was deleted; there is another one|does not exist/ };
      expect(await error(consumer.receive({ timeoutMs: 5_000 }))).toMatchObject(told);
      expect(await error(reader.readNext({ timeoutMs: 5_000 }))).toMatchObject(told);
      const topics = await all(await last.broker.administration.topics('public', 'default'));
      expect(topics).toHaveLength(Math.min(1, texts.length)); // none is made by those who come back
      expect(await rest(client)).toEqual(texts);
    },
  );

  test('while messages are under way: they are lost with it, and nobody makes it again unasked', async () => {
    const broker = await world.start();
    const producer = await connect(broker).createProducer({ topic: TOPIC, batchingEnabled: false });
    await producer.send({ data: 'first' });
    const [bookie] = world.cluster.bookies;
    if (bookie === undefined) throw new Error('there is a bookie');
    const answer = new Gate();
    bookie.after = async () => answer.passed;
    const sending = Array.from({ length: 20 }, (_, i) => error(producer.send({ data: `m${i}` })));
    await broker.broker.administration.deleteTopic(TOPIC, true);
    for (const outcome of await Promise.all(sending)) expect(outcome).toMatchObject(DELETED);
    answer.open();
    expect(await all(await broker.broker.administration.topics('public', 'default'))).toEqual([]);
  });

  test('that is not open, and after a restart', async () => {
    const first = await world.start();
    await publish(connect(first), ['a']);
    await first.stop();
    const broker = await world.start();
    await broker.broker.administration.deleteTopic(TOPIC, false);
    expect(await rest(connect(broker))).toEqual([]);
  });

  test('that is deleted by several at once is deleted once', async () => {
    const broker = await world.start();
    await publish(connect(broker), ['a']);
    const { administration } = broker.broker;
    const results = await Promise.allSettled([1, 2, 3].map(() => administration.deleteTopic(TOPIC, true)));
    expect(results.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected', 'rejected']);
  });

  test('whoever opens it meanwhile gets another one', async () => {
    const broker = await world.start();
    const client = connect(broker);
    await publish(client, ['old']);
    const deleting = broker.broker.administration.deleteTopic(TOPIC, true);
    await publish(client, ['new']);
    await deleting;
    expect(await rest(client)).toEqual(['new']);
  });
});

describe('a subscription', () => {
  test('is made where it is asked for, once; the topic with it', async () => {
    const broker = await world.start();
    const { administration } = broker.broker;
    await administration.createSubscription(TOPIC, 'first', { at: 'latest' });
    const client = connect(broker);
    const ids = await publish(client, ['m0', 'm1', 'm2', 'm3']);
    const [ledgerId = 0, entryId = 0] = (ids[2] ?? '').split(':').map(Number);
    const message = { at: 'message', ledgerId, entryId, batchIndex: undefined } as const;
    await administration.createSubscription(TOPIC, 'earliest', { at: 'earliest' });
    await administration.createSubscription(TOPIC, 'latest', { at: 'latest' });
    await administration.createSubscription(TOPIC, 'there', { ...message, excluded: false });
    await administration.createSubscription(TOPIC, 'behind', { ...message, excluded: true });
    await expect(administration.createSubscription(TOPIC, 'there', { at: 'latest' })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
    });
    const nowhere = { ...message, entryId: 99, excluded: false };
    await expect(administration.createSubscription(TOPIC, 'x', nowhere)).rejects.toMatchObject({
      code: 'POSITION_NOT_FOUND',
    });
    await expect(administration.createSubscription(TOPIC, 'a\nb', { at: 'latest' })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    expect(await administration.subscriptions(TOPIC)).toEqual(['first', 'earliest', 'latest', 'there', 'behind']);
    const lengths = [];
    for (const name of ['first', 'earliest', 'latest', 'there', 'behind'])
      lengths.push((await rest(client, name)).length);
    expect(lengths).toEqual([4, 4, 0, 2, 1]);
  });

  test('is deleted when nobody is connected, or by force; its consumer is told', async () => {
    const broker = await world.start();
    const { administration } = broker.broker;
    const client = connect(broker);
    const consumer = await subscribe(client);
    await expect(administration.deleteSubscription(TOPIC, 's', false)).rejects.toMatchObject({
      code: 'CONSUMER_BUSY',
      message: expect.stringContaining('close it, or force it') as string,
    });
    const receiving = error(consumer.receive({ timeoutMs: 5_000 }));
    await administration.deleteSubscription(TOPIC, 's', true);
    expect(await receiving).toMatchObject({
      code: 'SUBSCRIPTION_NOT_FOUND',
      message: `subscription "s" of topic ${TOPIC} was deleted`,
    });
    await expect(administration.deleteSubscription(TOPIC, 's', true)).rejects.toMatchObject({
      code: 'SUBSCRIPTION_NOT_FOUND',
      message: `subscription "s" of topic ${TOPIC} does not exist`,
    });
  });

  test('is skipped, cleared and moved without a consumer, durably', async () => {
    const first = await world.start();
    await publish(connect(first), ['m0', 'm1', 'm2', 'm3', 'm4']);
    const before = first.broker.administration;
    for (const name of ['skipped', 'cleared', 'moved'])
      await before.createSubscription(TOPIC, name, { at: 'earliest' });
    await before.skipMessages(TOPIC, 'skipped', 2);
    await before.resetCursor(TOPIC, 'cleared', { at: 'latest' });
    await before.resetCursor(TOPIC, 'moved', { at: 'latest' });
    await before.resetCursor(TOPIC, 'moved', { at: 'time', time: 0 });
    await before.skipMessages(TOPIC, 'moved', 1);
    first.kill();
    const broker = await world.start();
    const client = connect(broker);
    expect(await rest(client, 'skipped')).toEqual(['m2', 'm3', 'm4']);
    expect(await rest(client, 'cleared')).toEqual([]);
    expect(await rest(client, 'moved')).toEqual(['m1', 'm2', 'm3', 'm4']);
  });

  test('skipping counts what is not acknowledged, and ends at the end', async () => {
    const broker = await world.start();
    const client = connect(broker);
    await publish(client, ['m0', 'm1', 'm2', 'm3', 'm4']);
    const consumer = await subscribe(client);
    for (const _ of [0, 1, 2, 3, 4]) {
      const message = await consumer.receive({ timeoutMs: 5_000 });
      if (message.index === 1 || message.index === 2) await consumer.acknowledge(message);
    }
    await consumer.close();
    await broker.broker.administration.skipMessages(TOPIC, 's', 2);
    expect(await rest(client)).toEqual(['m4']);
    await broker.broker.administration.skipMessages(TOPIC, 's', 1_000);
    await publish(client, ['m5'], 'q');
    expect(await rest(client)).toEqual(['m5']);
  });

  test('that is moved back under its consumer gives everything again, once', async () => {
    const broker = await world.start();
    const client = connect(broker);
    await publish(client, ['m0', 'm1', 'm2', 'm3']);
    const consumer = await subscribe(client);
    expect(await take(consumer, 3)).toEqual(['m0', 'm1', 'm2']); // nothing is acknowledged
    await broker.broker.administration.resetCursor(TOPIC, 's', { at: 'earliest' });
    expect(await takeFrom(consumer, 'm0', 4)).toEqual(['m0', 'm1', 'm2', 'm3']);
    await publish(client, ['m4'], 'q');
    expect(await take(consumer, 1)).toEqual(['m4']);
  });

  test('that is moved while its consumer is away is begun anew there; one that was not moved, not', async () => {
    const first = await world.start();
    const client = connect(first);
    await publish(client, ['m0', 'm1', 'm2']);
    const [moved, stayed] = [await subscribe(client, 'moved'), await subscribe(client, 'stayed')];
    for (const consumer of [moved, stayed]) expect(await take(consumer, 2)).toEqual(['m0', 'm1']);
    const { port } = first;
    first.kill();
    const between = await world.start();
    await between.broker.administration.resetCursor(TOPIC, 'moved', { at: 'earliest' });
    await between.stop();
    await world.start({}, { port });
    expect(await take(moved, 3)).toEqual(['m0', 'm1', 'm2']);
    expect(await take(stayed, 1)).toEqual(['m2']);
  });

  test('that is made anew while its consumer is away is another one: everything that it has comes', async () => {
    const first = await world.start();
    const client = connect(first);
    await publish(client, ['m0', 'm1']);
    const consumer = await subscribe(client);
    for (let i = 0; i < 2; i++) await consumer.acknowledge(await consumer.receive());
    const { port } = first;
    first.kill();
    const between = await world.start();
    const { administration } = between.broker;
    await administration.deleteSubscription(TOPIC, 's', true);
    await administration.createSubscription(TOPIC, 's', { at: 'earliest' });
    await between.stop();
    await world.start({}, { port });
    expect(await take(consumer, 2)).toEqual(['m0', 'm1']);
  });

  test('that is cleared under its consumer goes on with what is published next', async () => {
    const broker = await world.start();
    const client = connect(broker);
    await publish(
      client,
      Array.from({ length: 100 }, (_, i) => `m${i}`),
    );
    const consumer = await subscribe(client);
    expect(await take(consumer, 1)).toEqual(['m0']);
    await broker.broker.administration.resetCursor(TOPIC, 's', { at: 'latest' });
    await publish(client, ['new'], 'q');
    expect(await takeFrom(consumer, 'new', 1)).toEqual(['new']);
    expect(await error(consumer.receive({ timeoutMs: 100 }))).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  });

  test('shows what it has not acknowledged, and acknowledges nothing', async () => {
    const broker = await world.start();
    const { administration } = broker.broker;
    const client = connect(broker);
    await using producer = await client.createProducer({ topic: TOPIC, producerName: 'p' });
    await Promise.all([
      producer.send({ data: 'm0' }),
      producer.send({ data: 'm1', key: 'k', properties: { a: 'b' } }),
      producer.send({ data: 'm2' }),
    ]);
    await administration.createSubscription(TOPIC, 's', { at: 'earliest' });
    await administration.skipMessages(TOPIC, 's', 1);
    const message = await administration.peekMessage(TOPIC, 's', 1);
    expect({ ...message, payload: message.payload.toString() }).toMatchObject({
      entryId: 0,
      batchIndex: 1,
      index: 1,
      producerName: 'p',
      key: 'k',
      properties: [['a', 'b']],
      payload: 'm1',
    });
    expect((await administration.peekMessage(TOPIC, 's', 2)).payload.toString()).toBe('m2');
    await expect(administration.peekMessage(TOPIC, 's', 3)).rejects.toMatchObject({
      code: 'POSITION_NOT_FOUND',
      message: expect.stringContaining('has 2 messages that are not acknowledged; there is no number 3') as string,
    });
    expect(await rest(client)).toEqual(['m1', 'm2']);
  });
});

describe('topics that do not exist', () => {
  test('are not made by looking at them', async () => {
    const { administration } = (await world.start()).broker;
    const missing = { code: 'TOPIC_NOT_FOUND', message: `topic ${TOPIC} does not exist` };
    await expect(administration.subscriptions(TOPIC)).rejects.toMatchObject(missing);
    await expect(administration.resetCursor(TOPIC, 's', { at: 'earliest' })).rejects.toMatchObject(missing);
    await expect(administration.skipMessages(TOPIC, 's', 1)).rejects.toMatchObject(missing);
    await expect(administration.unloadTopic(TOPIC)).rejects.toMatchObject(missing);
    expect(await all(await administration.topics('public', 'default'))).toEqual([]);
    await administration.createTopic(TOPIC);
    await expect(administration.createTopic(TOPIC)).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    expect(await all(await administration.topics('public', 'default'))).toEqual([TOPIC]);
    expect(await administration.subscriptions(TOPIC)).toEqual([]);
  });

  test('a namespace is deleted with its topics by force, although apps go on publishing', async () => {
    const broker = await world.start();
    const { administration } = broker.broker;
    await administration.createTenant('acme', { adminRoles: [], allowedClusters: ['standalone'] });
    await administration.createNamespace('acme', 'n', []);
    const client = connect(broker);
    const producer = await client.createProducer({ topic: 'acme/n/a' });
    await producer.send({ data: 'x' });
    await administration.createTopic('acme/n/b');
    await expect(administration.deleteNamespace('acme', 'n', false)).rejects.toMatchObject({ code: 'NOT_EMPTY' });
    await producer.send({ data: 'y' });
    await administration.deleteNamespace('acme', 'n', true);
    expect(await error(producer.send({ data: 'z' }))).toMatchObject({ code: 'TOPIC_NOT_FOUND' });
    expect(await error(client.createProducer({ topic: 'acme/n/a' }))).toMatchObject({ code: 'NAMESPACE_NOT_FOUND' });
    await administration.deleteTenant('acme', false);
    expect(await all(administration.tenants())).toEqual(['public']);
  });
});
