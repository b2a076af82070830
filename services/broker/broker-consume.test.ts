import { afterEach, describe, expect, test } from 'vitest';
import { memoryBudget } from '../runtime/memory.ts';
import { until } from '../runtime/testing/until.ts';
import type { ConsumeRequest, Receipt } from '../wire/frames.ts';
import { defaultBrokerOptions } from './options.ts';
import { BrokerWorld, HELLO, index, place, type RunningTestBroker, subscribe, texts } from './testing/broker-world.ts';
import {
  ackError,
  acked,
  consumer,
  deliveriesOf,
  holdAppends,
  PLENTY,
  producer,
  publish,
  received,
  subscribed,
  TOPIC,
} from './testing/steps.ts';

let world: BrokerWorld;

async function startWorld(...args: Parameters<BrokerWorld['start']>): Promise<RunningTestBroker> {
  world = new BrokerWorld();
  return world.start(...args);
}

afterEach(async () => {
  await world.close();
});

function close(number: number): ConsumeRequest {
  return { closes: [{ consumer: number, unsubscribe: false }] };
}

describe('consuming', () => {
  test('an exclusive subscription gets everything in order, is told when it has caught up, and then what is new', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    await publish(stream, 0, ['a', 'b']);
    const { stream: out, subscribed: answer } = await consumer(broker);
    expect(answer).toMatchObject({ nextIndex: 0, endIndex: 2 });
    expect(await received(out, 2)).toEqual(['a', 'b']);
    await out.until((frames) => frames.flatMap((f) => f.caughtUp ?? []).find((c) => c.index === 2));
    await publish(stream, 2, ['c']);
    expect(await received(out, 3)).toEqual(['a', 'b', 'c']);
    await out.until((frames) => frames.flatMap((f) => f.caughtUp ?? []).find((c) => c.index === 3));
  });

  test('permits in messages and in bytes are kept, but for one entry', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    for (let n = 0; n < 6; n++) await publish(stream, n * 2, [`${n}a`, `${n}b`]);
    const out = broker.consume();
    out.send({
      hello: HELLO,
      subscribes: [subscribe(1, TOPIC)],
      flows: [{ consumer: 1, messages: 3, bytes: 1_000_000 }],
    });
    await received(out, 4);
    out.send({ flows: [{ consumer: 1, messages: 3, bytes: 0 }] });
    expect(await received(out, 6)).toHaveLength(6);
    const readers = [2, 3].map((n) => subscribe(n, TOPIC, { subscription: '' }));
    const few = { consumer: 2, messages: 1_000, bytes: 1 };
    out.send({ subscribes: readers, flows: [few, { consumer: 3, ...PLENTY }] });
    // What is read for one consumer of a stream comes before what another one asks for later.
    await out.until((frames) => frames.flatMap((f) => f.caughtUp ?? []).find((c) => c.consumer === 3));
    const to = (n: number): string[] => texts(deliveriesOf(out).filter(({ consumer: number }) => number === n));
    expect([1, 2, 3].map((n) => to(n).length)).toEqual([6, 2, 12]);
  });

  test('acks are durable over a restart, and only what is not acked comes again', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    await publish(stream, 0, ['a', 'b', 'c', 'd', 'e']);
    const { stream: out } = await consumer(broker);
    await received(out, 5);
    out.send({
      acks: [
        { consumer: 1, ackId: 1, below: index(2), ranges: [] },
        { consumer: 1, ackId: 2, below: index(0), ranges: [3, 1] },
      ],
    });
    await acked(out, 2);
    broker.kill();
    const { stream: again, subscribed: answer } = await consumer(await world.start());
    expect(answer.nextIndex).toBe(2);
    expect(await received(again, 2)).toEqual(['c', 'e']);
    again.send({ acks: [{ consumer: 1, ackId: 1, below: index(5), ranges: [] }] });
    await acked(again, 1);
    await again.until((frames) => frames.flatMap((f) => f.caughtUp ?? []).find((c) => c.index === 5));
  });

  test('acks behind the end, and acks of a reader, are refused; other acks go on', async () => {
    const broker = await startWorld();
    await publish(await producer(broker), 0, ['a']);
    const { stream: out } = await consumer(broker);
    out.send({
      acks: [
        { consumer: 1, ackId: 1, below: index(2), ranges: [] },
        { consumer: 1, ackId: 2, below: index(0), ranges: [0, 5] },
        { consumer: 1, ackId: 3, below: index(1), ranges: [] },
      ],
    });
    expect([await ackError(out, 1), await ackError(out, 2)]).toEqual(['INVALID_ARGUMENT', 'INVALID_ARGUMENT']);
    await acked(out, 3);
    const { stream: reader } = await consumer(broker, { subscription: '' });
    reader.send({ acks: [{ consumer: 1, ackId: 1, below: index(1), ranges: [] }] });
    expect(await ackError(reader, 1)).toBe('INVALID_ARGUMENT');
  });

  test('acks that come before the consumer is open are bounded in ranges', async () => {
    const broker = await startWorld();
    const out = broker.consume();
    const ranges = Array.from({ length: 80_000 }, (_, n) => (n % 2 === 0 ? index(n) : index(1)));
    const acks = [1, 2].map((ackId) => ({ consumer: 1, ackId, below: index(0), ranges }));
    out.send({ hello: HELLO, subscribes: [subscribe(1, TOPIC)], acks });
    expect([await ackError(out, 1), await ackError(out, 2)]).toEqual(['INVALID_ARGUMENT', 'QUEUE_FULL']);
    expect((await subscribed(out, 1)).error).toBeUndefined();
  });

  test('a second consumer is refused, naming the first; the same instance takes over; what had been delivered is marked', async () => {
    const broker = await startWorld();
    await publish(await producer(broker), 0, ['a']);
    const { stream: first } = await consumer(broker, { name: 'one', instance: Buffer.from('me') });
    await received(first, 1);
    const second = broker.consume();
    second.send({ hello: HELLO, subscribes: [subscribe(1, TOPIC, { instance: Buffer.from('you') })] });
    const refused = await subscribed(second, 1);
    expect(refused.error).toMatchObject({ code: 'CONSUMER_BUSY', details: { subscription: 's', consumer: 'one' } });
    expect(refused.error?.message).toMatch(/persistent:\/\/public\/default\/orders/);
    const { stream: again } = await consumer(broker, { instance: Buffer.from('me') });
    expect((await first.until((frames) => frames.flatMap((f) => f.closed ?? [])[0])).error?.code).toBe(
      'CONSUMER_FENCED',
    );
    await received(again, 1);
    expect(deliveriesOf(again)[0]?.redeliveries).toBe(1);
  });

  test('a subscription is free for who comes behind the close of a consumer that is not open yet', async () => {
    const broker = await startWorld();
    await producer(broker);
    const { underWay, stored } = holdAppends(world.cluster);
    const out = broker.consume();
    out.send({ hello: HELLO, subscribes: [subscribe(1, TOPIC, { instance: Buffer.from('me') })], ...close(1) });
    out.send({ subscribes: [subscribe(2, TOPIC, { instance: Buffer.from('you') })] });
    await underWay.passed; // the subscription is being made
    out.send(close(2));
    const reader = subscribe(4, TOPIC, { subscription: '' });
    out.send({ subscribes: [subscribe(3, TOPIC, { instance: Buffer.from('they') }), reader] });
    expect((await subscribed(out, 4)).error).toBeUndefined();
    stored.open();
    expect((await subscribed(out, 3)).error).toBeUndefined();
    expect(out.frames.flatMap((f) => f.closed ?? [])).toEqual([{ consumer: 1 }, { consumer: 2 }]);
  });

  test('seek: by index, by place, by time, and to what is not there', async () => {
    const broker = await startWorld();
    const stream = await producer(broker);
    const stored = [];
    for (let n = 0; n < 5; n++) stored.push(await publish(stream, n * 2, [`${n}a`, `${n}b`]));
    const { stream: out } = await consumer(broker);
    await received(out, 10);
    let seekId = 0;
    const seek = async (to: Parameters<typeof out.send>[0]['seeks']) => {
      const [one] = to ?? [];
      seekId++;
      out.send({ seeks: one === undefined ? [] : [{ ...one, seekId }] });
      return out.until((frames) => frames.flatMap((f) => f.seeksDone ?? []).find((done) => done.seekId === seekId));
    };
    expect((await seek([{ consumer: 1, seekId: 0, to: { at: 'index', index: index(7) } }])).nextIndex).toBe(7);
    const before = deliveriesOf(out).length;
    out.send({ flows: [{ consumer: 1, ...PLENTY }] });
    expect((await received(out, 13)).slice(10)).toEqual(['3b', '4a', '4b']);
    expect(deliveriesOf(out)[before]).toMatchObject({ index: 6 });
    const { ledgerId, entryId } = stored[2] as Receipt;
    const place2 = { at: 'messageId', id: { ledgerId, entryId, batchIndex: 1 } } as const;
    expect((await seek([{ consumer: 1, seekId: 0, to: place2 }])).nextIndex).toBe(5);
    expect((await seek([{ consumer: 1, seekId: 0, to: { at: 'time', time: Date.now() + 3_600_000 } }])).nextIndex).toBe(
      10,
    );
    expect((await seek([{ consumer: 1, seekId: 0, to: { at: 'time', time: 1_000 } }])).nextIndex).toBe(0);
    const nowhere = { at: 'messageId', id: { ...place(ledgerId, 99), batchIndex: 0 } } as const;
    const missing = await seek([{ consumer: 1, seekId: 0, to: nowhere }]);
    expect(missing.error).toMatchObject({ code: 'POSITION_NOT_FOUND' });
    expect(missing.error?.message).toContain(`${ledgerId}:0:0 (index 0) to ${ledgerId}:4:1 (index 9)`);
    const beyond = await seek([{ consumer: 1, seekId: 0, to: { at: 'index', index: index(11) } }]);
    expect(beyond.error?.code).toBe('POSITION_NOT_FOUND');
    expect((await seek([{ consumer: 1, seekId: 0, to: { at: 'index', index: index(10) } }])).nextIndex).toBe(10);
  });

  test('a seek is durable, and the caught-up notice of the new position follows the next permits', async () => {
    const broker = await startWorld();
    await publish(await producer(broker), 0, ['a', 'b', 'c']);
    const { stream: out } = await consumer(broker);
    await received(out, 3);
    out.send({ acks: [{ consumer: 1, ackId: 1, below: index(3), ranges: [] }] });
    await acked(out, 1);
    out.send({ seeks: [{ consumer: 1, seekId: 1, to: { at: 'latest' } }] });
    await out.until((frames) => frames.flatMap((f) => f.seeksDone ?? [])[0]);
    const soFar = out.frames.length;
    out.send({ flows: [{ consumer: 1, ...PLENTY }] });
    await out.until((frames) => frames.slice(soFar).flatMap((f) => f.caughtUp ?? [])[0]);
    out.send({ seeks: [{ consumer: 1, seekId: 2, to: { at: 'index', index: index(1) } }] });
    await out.until((frames) => frames.flatMap((f) => f.seeksDone ?? []).find((done) => done.seekId === 2));
    broker.kill();
    const { stream: again } = await consumer(await world.start());
    expect(await received(again, 2)).toEqual(['b', 'c']);
  });

  test('unsubscribe deletes the subscription; closing alone does not', async () => {
    const broker = await startWorld();
    await publish(await producer(broker), 0, ['a', 'b']);
    const { stream: out } = await consumer(broker);
    await received(out, 2);
    out.send({
      acks: [{ consumer: 1, ackId: 1, below: index(1), ranges: [] }],
      closes: [{ consumer: 1, unsubscribe: false }],
    });
    await out.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]);
    await acked(out, 1);
    const { stream: again, subscribed: answer } = await consumer(broker);
    expect(answer.nextIndex).toBe(1);
    again.send({ closes: [{ consumer: 1, unsubscribe: true }] });
    await again.until((frames) => frames.flatMap((f) => f.closed ?? [])[0]);
    expect((await consumer(broker)).subscribed.nextIndex).toBe(0);
  });

  test('a new subscription begins at the end unless told otherwise; a start that is not there is refused', async () => {
    const broker = await startWorld();
    await publish(await producer(broker), 0, ['a', 'b']);
    const out = broker.consume();
    const { start, ...latest } = subscribe(1, TOPIC);
    expect(start).toBeDefined();
    const beyond = subscribe(2, TOPIC, { subscription: 't', start: { at: 'index', index: index(3) } });
    const type = subscribe(3, TOPIC, { subscription: 'u', type: { unknown: 7 } });
    out.send({ hello: HELLO, subscribes: [latest, beyond, type] });
    expect((await subscribed(out, 1)).nextIndex).toBe(2);
    expect((await subscribed(out, 2)).error?.code).toBe('POSITION_NOT_FOUND');
    expect((await subscribed(out, 3)).error?.code).toBe('UNSUPPORTED');
  });

  test('a client that does not read holds few bytes of the server, and gets everything later', {
    timeout: 60_000,
  }, async () => {
    const memory = memoryBudget();
    const held = (): number => memory.share('read').usedBytes + memory.share('firstRead').usedBytes;
    const broker = await startWorld({}, { memory });
    const stream = await producer(broker);
    const large = 'x'.repeat(500_000);
    for (let n = 0; n < 60; n++) await publish(stream, n, [large]);
    const { stream: out } = await consumer(broker, { subscription: '' });
    out.pause();
    await until(() => held() > 0);
    // Nothing more is read for it when as much as a whole read by another client has changed nothing.
    for (let before = 0; before !== held(); ) {
      before = held();
      const { stream: other } = await consumer(broker, { subscription: '' });
      await other.until((frames) => frames.flatMap((f) => f.caughtUp ?? [])[0]);
      other.halfClose();
      expect(await other.untilEnded()).toBeUndefined(); // by now the server has given back what it held for it
    }
    expect(held()).toBeGreaterThan(0);
    expect(held()).toBeLessThan(defaultBrokerOptions.deliveryWindowBytes + 2 * large.length);
    out.resume();
    await out.until(() => (deliveriesOf(out).length >= 60 ? true : undefined));
    expect(texts(deliveriesOf(out))).toEqual(Array.from({ length: 60 }, () => large));
  });
});
