import { afterEach, describe, expect, test } from 'vitest';
import { MagnetarError } from '../lib/errors.ts';
import type { EntryId, LedgerId, MessageIndex, SequenceId } from '../lib/ids.ts';
import type { Ledgers } from '../ledger/ledgers.ts';
import { Gate } from '../ledger/testing/gate.ts';
import { THREE } from '../ledger/testing/memory-cluster.ts';
import { keys } from '../metadata/keys.ts';
import type { MetadataStore } from '../metadata/store.ts';
import type { Receipt } from '../wire/frames.ts';
import { topicRecord } from '../wire/records.ts';
import { batch, BrokerWorld, HELLO, type RunningTestBroker, subscribe } from './testing/broker-world.ts';
import { acked, consumer, opened, producer, publish, received, receipts, subscribed, TOPIC } from './testing/steps.ts';
import { until } from '../runtime/testing/until.ts';

let world: BrokerWorld;

async function startWorld(...args: Parameters<BrokerWorld['start']>): Promise<RunningTestBroker> {
  world = new BrokerWorld();
  return world.start(...args);
}

afterEach(async () => {
  await world.close();
});

describe('restart', () => {
  test('a killed broker loses nothing: data, indexes, deduplication', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    const before = await publish(stream, 0, ['a', 'b']);
    broker.kill();
    const next = await world.start();
    const again = await producer(next);
    expect((await opened(again, 1)).lastSequenceId).toBe(1n as SequenceId);
    expect(await publish(again, 0, ['a', 'b'])).toEqual({ ...before, duplicate: true });
    expect(await publish(again, 2, ['c'])).toMatchObject({ index: 2, entryId: 0 });
    const { stream: reader } = await consumer(next, { subscription: '' });
    expect(await received(reader, 3)).toEqual(['a', 'b', 'c']);
  });

  test('a broker that has been replaced stores nothing more', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    await publish(stream, 0, ['a']);
    const next = await producer(await world.start());
    await publish(next, 1, ['b']);
    const late = await publish(stream, 2, ['late']);
    expect(late.error).toMatchObject({ code: 'NOT_OWNER', retryable: true });
    const closed = await stream.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]);
    expect(closed.error).toMatchObject({ code: 'NOT_OWNER', retryable: true });
  });

  test('a broker that is stopped answers what is under way and tells its clients to come again', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    stream.send({ batches: [batch(1, 'p', 0, ['a'])] });
    await stream.until((frames) => (frames.length > 0 ? true : undefined));
    await receipts(stream, 1);
    await broker.broker.close();
    expect(await stream.untilEnded()).toMatchObject({ code: 'UNAVAILABLE', retryable: true });
    const refused = broker.publish();
    refused.send({ hello: HELLO });
    expect((await refused.untilEnded())?.code).toBe('UNAVAILABLE');
    const next = await world.start();
    const { stream: reader } = await consumer(next, { subscription: '' });
    expect(await received(reader, 1)).toEqual(['a']);
  });

  test('ledgers roll, and everything is read over all of them, by index and by place', async () => {
    const broker = await startWorld({ ledger: { rollEntries: 3 }, cacheBytes: 0 });
    const stream = await producer(broker);
    stream.send({ batches: Array.from({ length: 20 }, (_, n) => batch(1, 'p', n * 2, [`${n}a`, `${n}b`])) });
    const got = await receipts(stream, 20);
    expect(got.map((r) => r.index)).toEqual(Array.from({ length: 20 }, (_, n) => n * 2));
    const ledgers = new Set(got.map((r) => r.ledgerId));
    expect(ledgers.size).toBeGreaterThanOrEqual(7);
    const last = got[13] as Receipt;
    broker.kill();
    const next = await world.start({ cacheBytes: 0 });
    const { stream: all } = await consumer(next, { subscription: '' });
    expect(await received(all, 40)).toEqual(Array.from({ length: 20 }, (_, n) => [`${n}a`, `${n}b`]).flat());
    const id = { ledgerId: last.ledgerId, entryId: last.entryId, batchIndex: 1 };
    const { subscribed: answer } = await consumer(next, { subscription: '', start: { at: 'messageId', id } });
    expect(answer.nextIndex).toBe(27 as MessageIndex);
  });

  test('sabotage: with a recovery that does not fence, the replaced broker would confirm what nobody can read', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    await publish(stream, 0, ['a']);
    const next = await world.start({}, { ledgers: unfenced });
    const other = await producer(next, 'q');
    const late = await publish(stream, 1, ['late']);
    expect(late.error).toBeUndefined();
    await publish(other, 0, ['b'], 'q');
    const { stream: reader } = await consumer(next, { subscription: '' });
    expect(await received(reader, 2)).toEqual(['a', 'b']);
  });

  test('a topic whose ledgers fail for long is closed with an error to come again after, and then goes on', async () => {
    const broker = await startWorld({ ledger: { replaceMs: 50, retryFirstMs: 5, retryHighestMs: 10 } });
    const stream = await producer(broker);
    const { stream: out } = await consumer(broker);
    await publish(stream, 0, ['a']);
    const [bookie] = world.cluster.bookies;
    if (bookie !== undefined) {
      bookie.before = (call) => {
        if (call.type === 'append') throw new MagnetarError('UNAVAILABLE', 'the bookie is away');
      };
    }
    const failed = await publish(stream, 1, ['b']);
    expect(failed.error).toMatchObject({ code: 'NOT_ENOUGH_BOOKIES', retryable: true });
    const closed = await stream.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]);
    expect(closed.error?.retryable).toBe(true);
    expect((await out.until((frames) => frames.flatMap((f) => f.closed ?? [])[0])).error?.retryable).toBe(true);
    if (bookie !== undefined) bookie.before = undefined;
    const again = await producer(broker);
    expect((await publish(again, 1, ['b'])).error).toBeUndefined();
    const { stream: reader } = await consumer(broker, { subscription: '' });
    expect(await received(reader, 2)).toEqual(['a', 'b']);
  });

  test('a broker whose lease is lost closes its topics, registers anew and goes on under a later epoch', async () => {
    const expire: (() => void)[] = [];
    const broker = await startWorld({}, { store: (store) => withLease(store, (lose) => expire.push(lose)) });
    const stream = await producer(broker);
    await publish(stream, 0, ['a']);
    const owner = async (): Promise<number | undefined> => {
      return (await broker.store.get(['brokers/broker-0'])).items[0]?.createRevision;
    };
    const before = await owner();
    expire[0]?.();
    expect(broker.broker.ready).toBe(false);
    const closed = await stream.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]);
    expect(closed.error).toMatchObject({ code: 'NOT_OWNER', retryable: true });
    await until(() => broker.broker.ready);
    expect(await owner()).toBeGreaterThan(before ?? 0);
    expect((await publish(await producer(broker), 1, ['b'])).index).toBe(1);
  });

  test('a seek whose consumer has been replaced by the time that its position is found moves nothing', async () => {
    const broker = await startWorld({ cacheBytes: 0 });
    const stream = await producer(broker);
    for (let n = 0; n < 3; n++) await publish(stream, n, ['a']);
    const instance = Buffer.from('i');
    const { stream: first } = await consumer(broker, { instance });
    await received(first, 3);
    const [bookie] = world.cluster.bookies;
    const [looking, goOn] = [new Gate(), new Gate()];
    let held = false;
    if (bookie !== undefined) {
      bookie.before = async ({ type }) => {
        if (type !== 'read' || held) return;
        held = true;
        looking.open();
        await goOn.passed;
      };
    }
    const id = { ledgerId: 0 as LedgerId, entryId: 0 as EntryId, batchIndex: 0 };
    first.send({ seeks: [{ consumer: 1, seekId: 1, to: { at: 'messageId', id } }] });
    await looking.passed;
    const { stream: second } = await consumer(broker, { instance });
    await received(second, 3);
    second.send({ acks: [{ consumer: 1, ackId: 1, below: 3 as MessageIndex, ranges: [] }] });
    await acked(second, 1);
    goOn.open();
    await publish(stream, 3, ['b']);
    second.send({ acks: [{ consumer: 1, ackId: 2, below: 0 as MessageIndex, ranges: [3, 1] }] });
    await acked(second, 2);
    broker.kill();
    expect((await consumer(await world.start())).subscribed.nextIndex).toBe(4);
  });

  test('a reader that looks for its start while the topic fails is told to come again, and never left behind', async () => {
    const broker = await startWorld({ cacheBytes: 0 });
    const stream = await producer(broker);
    for (let n = 0; n < 3; n++) await publish(stream, n, ['a']);
    const [bookie] = world.cluster.bookies;
    const [looking, goOn] = [new Gate(), new Gate()];
    if (bookie !== undefined) {
      bookie.before = async (call) => {
        if (call.type !== 'read' || call.request.fence !== undefined) return;
        looking.open();
        await goOn.passed;
      };
    }
    const reader = broker.consume();
    const at = { at: 'messageId', id: { ledgerId: 0 as LedgerId, entryId: 1 as EntryId, batchIndex: 0 } } as const;
    reader.send({ hello: HELLO, subscribes: [subscribe(1, TOPIC, { subscription: '', start: at })] });
    await looking.passed;
    await world.cluster.client().ledgers.recover(0 as LedgerId);
    expect((await publish(stream, 3, ['b'])).error?.code).toBe('NOT_OWNER');
    goOn.open();
    expect((await subscribed(reader, 1)).error).toMatchObject({ code: 'NOT_OWNER', retryable: true });
  });

  test('of three copies one may be lost at any time, and a restart finds everything', async () => {
    world = new BrokerWorld({ bookies: 3, quorum: THREE });
    const broker = await world.start();
    const stream = await producer(broker);
    const lines: string[] = [];
    for (const [n, bookie] of world.cluster.bookies.entries()) {
      bookie.before = () => {
        throw new MagnetarError('UNAVAILABLE', 'the bookie is away');
      };
      expect((await publish(stream, n, [`line ${n}`])).error).toBeUndefined();
      lines.push(`line ${n}`);
      bookie.before = undefined;
    }
    broker.kill();
    const { stream: reader } = await consumer(await world.start({ cacheBytes: 0 }), { subscription: '' });
    expect(await received(reader, 3)).toEqual(lines);
  });

  test('idle topics are closed, and open again when they are needed', async () => {
    const broker = await startWorld({ idleTopicMs: 20 });
    const stream = await producer(broker);
    await publish(stream, 0, ['a']);
    stream.send({ closes: [{ producer: 1 }] });
    await stream.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]);
    const key = keys.topic('public', 'default', 'orders');
    for (let closed = false; !closed; ) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      const [item] = (await broker.store.get([key])).items;
      closed = item !== undefined && topicRecord.decode(item.value).ledgers.at(-1)?.closed === true;
    }
    const again = await producer(broker);
    expect((await publish(again, 1, ['b'])).index).toBe(1);
  });
});

/** A store whose leases can be made to expire. */
function withLease(store: MetadataStore, onGrant: (lose: () => void) => unknown): MetadataStore {
  return {
    get: async (wanted) => store.get(wanted),
    range: async (query) => store.range(query),
    transact: async (compares, writes) => store.transact(compares, writes),
    watch: (options) => store.watch(options),
    compact: async (below) => store.compact(below),
    close: async () => store.close(),
    grantLease: async (ttl) => {
      const lease = await store.grantLease(ttl);
      let held = true;
      const lost = new Promise<void>((resolve) => {
        onGrant(() => {
          held = false;
          resolve();
        });
      });
      return {
        id: lease.id,
        lost,
        revoke: async () => lease.revoke(),
        get heldUntil() {
          return held ? lease.heldUntil : 0;
        },
      };
    },
  };
}

/** Ledgers whose recovery looks where a ledger ends and leaves it to its writer. */
function unfenced(ledgers: Ledgers): Ledgers {
  return {
    copies: ledgers.copies,
    unwritable: ledgers.unwritable,
    create: async (linkedAs) => ledgers.create(linkedAs),
    reader: async (id, upTo) => ledgers.reader(id, upTo),
    deletion: (ids) => ledgers.deletion(ids),
    close: async () => ledgers.close(),
    recover: async (id) => {
      const entries = world.cluster.bookies[0]?.entries(id).size ?? 0;
      return { ledgerId: id, lastEntryId: (entries - 1) as EntryId, length: 0, lostTail: false };
    },
  };
}
