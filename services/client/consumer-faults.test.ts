import { getEventListeners } from 'node:events';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { MagnetarError } from '../lib/errors.ts';
import type { EntryId, Epoch, LedgerId, MessageIndex, Millis, SequenceId } from '../lib/ids.ts';
import type { Clock } from '../runtime/clock.ts';
import { nodeClock } from '../runtime/node/clock.ts';
import { BlockBuilder } from '../wire/block.ts';
import type { Delivery, SeekDone } from '../wire/frames.ts';
import { deferred } from './abort.ts';
import { Client } from './client.ts';
import type { Consumer } from './consumer.ts';
import { nodeEnvironment } from './environment.ts';
import type { Message } from './message.ts';
import { MessageId } from './message-id.ts';
import type { ConsumerOptions } from './options.ts';
import { FakeBroker } from './testing/fake-broker.ts';
import { clockWithTurns, endOf, numbered, rejection, turn } from './testing/steps.ts';

let broker: FakeBroker;
let client: Client;

beforeEach(async () => {
  broker = await new FakeBroker().listen();
  client = new Client({ serviceUrl: broker.url, operationTimeoutMs: 5_000 });
});

afterEach(async () => await endOf(client, broker));

function subscribe(options: Partial<ConsumerOptions> = {}, from = client): Promise<Consumer> {
  return from.subscribe({ topic: 't', subscription: 's', startPosition: 'earliest', ...options });
}

/** Publishes texts, each as an entry of its own. */
async function publish(texts: readonly string[]): Promise<void> {
  await using producer = await client.createProducer({ topic: 't', batchingEnabled: false });
  await Promise.all(texts.map((data) => producer.send({ data })));
}

async function take(consumer: Consumer, count: number): Promise<string[]> {
  const texts: string[] = [];
  while (texts.length < count) texts.push((await consumer.receive({ timeoutMs: 2_000 })).data.toString());
  return texts;
}

/** Has the answers to seeks get lost; resolves when a seek has come. */
function loseSeek(): Promise<void> {
  const came = deferred<void>();
  broker.hooks.answerSeek = () => {
    came.resolve();
    return false;
  };
  return came.promise;
}

function done(seekId: number): SeekDone {
  return { consumer: 1, seekId, nextIndex: 0 as MessageIndex, moves: seekId };
}

function refused(seekId: number): SeekDone {
  const error = { code: 'POSITION_NOT_FOUND', message: 'no such ledger', retryable: false, details: {} };
  return { ...done(seekId), error, moves: 0 };
}

/** Says what had become of seeks whose answers were lost. */
function answerSeeks(...seeksDone: SeekDone[]): void {
  for (const stream of broker.consumeStreams) stream.send({ seeksDone });
}

describe('a seek that comes to nothing, or too late', () => {
  const nowhere = MessageId.parse('8:0:0');

  test('costs no permits: what was taken while it was under way is given back when it is refused', async () => {
    await publish(numbered(6));
    const consumer = await subscribe({ receiverQueueSize: 2 });
    const came = loseSeek();
    const seeking = rejection(consumer.seek(nowhere));
    await came;
    expect(await take(consumer, 2)).toEqual(['m0', 'm1']);
    answerSeeks(refused(1));
    expect((await seeking).code).toBe('POSITION_NOT_FOUND');
    expect(await take(consumer, 4)).toEqual(['m2', 'm3', 'm4', 'm5']);
  });

  test('nor does one that is refused too late', async () => {
    await publish(numbered(6));
    await using impatient = new Client({ serviceUrl: broker.url, operationTimeoutMs: 500 });
    const consumer = await subscribe({ receiverQueueSize: 2 }, impatient);
    const came = loseSeek();
    const seeking = rejection(consumer.seek(nowhere));
    await came;
    expect(await take(consumer, 2)).toEqual(['m0', 'm1']);
    expect((await seeking).code).toBe('DEADLINE_EXCEEDED');
    answerSeeks(refused(1));
    expect(await take(consumer, 4)).toEqual(['m2', 'm3', 'm4', 'm5']);
  });

  test('one that is done too late gives all permits, once, whatever was taken meanwhile', async () => {
    await publish(numbered(6));
    await using impatient = new Client({ serviceUrl: broker.url, operationTimeoutMs: 500 });
    const consumer = await subscribe({ receiverQueueSize: 2 }, impatient);
    const came = loseSeek();
    const seeking = rejection(consumer.seek('earliest'));
    await came;
    expect(await take(consumer, 2)).toEqual(['m0', 'm1']);
    expect((await seeking).code).toBe('DEADLINE_EXCEEDED');
    await subscribe({ topic: 'u' }, impatient); // answered behind whatever permits would have brought
    answerSeeks(done(1));
    expect(await take(consumer, 6)).toEqual(numbered(6));
  });

  test.each([
    ['done', 'earliest' as const],
    ['refused', nowhere],
  ])(
    'one that is done while the next is under way gives them with the answer to that, if it is %s',
    async (fate, to) => {
      await publish(numbered(12));
      await using impatient = new Client({ serviceUrl: broker.url, operationTimeoutMs: 500 });
      const consumer = await subscribe({ receiverQueueSize: 2 }, impatient);
      void loseSeek();
      expect((await rejection(consumer.seek('earliest'))).code).toBe('DEADLINE_EXCEEDED');
      const came = loseSeek();
      const seeking = consumer.seek(to).catch(({ code }: MagnetarError) => code);
      await came;
      answerSeeks(done(1), fate === 'done' ? done(2) : refused(2));
      expect(await seeking).toBe(fate === 'done' ? undefined : 'POSITION_NOT_FOUND');
      await subscribe({ topic: 'u' }, impatient); // answered behind what the permits bring
      expect(await take(consumer, 12)).toEqual(numbered(12));
    },
  );

  test('when it was done but nobody said so, what lies behind the new position is given once more, not left out', async () => {
    await publish(numbered(4));
    await using impatient = new Client({ serviceUrl: broker.url, operationTimeoutMs: 500 });
    const consumer = await subscribe({}, impatient);
    expect(await take(consumer, 4)).toEqual(numbered(4));
    const came = loseSeek();
    const seeking = rejection(consumer.seek({ index: 1 }));
    await came;
    expect((await seeking).code).toBe('DEADLINE_EXCEEDED');
    await broker.restart();
    expect(await take(consumer, 3)).toEqual(['m1', 'm2', 'm3']);
  });
});

test('a seek has its time, no more, also when it waits for acknowledgments first', async () => {
  const late: (() => void)[] = [];
  let held = false;
  const clock: Clock = {
    ...nodeClock,
    after(ms, callback, options) {
      if (!held) return nodeClock.after(ms, callback, options);
      late.push(callback);
      return { cancel() {} };
    },
  };
  await publish(['a']);
  await using patient = new Client(
    { serviceUrl: broker.url, operationTimeoutMs: 45_000 },
    { ...nodeEnvironment, clock },
  );
  const consumer = await subscribe({}, patient);
  broker.hooks.ack = () => 'confirmSilently';
  const acked = consumer.acknowledge(await consumer.receive());
  const [stream] = broker.consumeStreams;
  while (stream?.acks.length !== 1) await turn();
  held = true;
  const seeking = rejection(consumer.seek('earliest'));
  await turn();
  expect(late.length).toBe(1);
  for (let look = late.pop(); look !== undefined; look = late.pop()) look();
  held = false;
  expect((await seeking).message).toContain('was not moved within 45000 ms');
  stream.send({ ackReceipts: [{ consumer: 1, ackId: 1 }] });
  await acked;
});

test('a seek has no more time because acknowledgments it waited for were late', async () => {
  await publish(['a']);
  const clock = clockWithTurns();
  const patient = new Client({ serviceUrl: broker.url, operationTimeoutMs: 45_000 }, { ...nodeEnvironment, clock });
  const consumer = await subscribe({}, patient);
  broker.hooks.ack = () => 'confirmSilently';
  broker.hooks.answerSeek = () => {
    asked.resolve();
    return false;
  };
  const asked = deferred<void>();
  const acked = rejection(consumer.acknowledge(await consumer.receive()));
  clock.advance(1_000);
  let failure: MagnetarError | undefined;
  const seeking = rejection(consumer.seek('earliest')).then((error) => (failure = error));
  await turn();
  clock.advance(44_000);
  expect((await acked).code).toBe('DEADLINE_EXCEEDED');
  await asked.promise;
  clock.advance(999);
  await turn();
  expect(failure).toBeUndefined();
  clock.advance(1);
  expect((await seeking).message).toContain('was not moved within 45000 ms');
  broker.crash();
  await patient.close();
});

describe('a subscription that somebody else has moved', () => {
  test('while the consumer was away begins anew there, also with what the app had been given', async () => {
    await publish(numbered(4));
    const consumer = await subscribe();
    expect(await take(consumer, 4)).toEqual(numbered(4));
    broker.crash();
    broker.topic('t').moves.set('s', 1);
    await broker.listen();
    expect(await take(consumer, 4)).toEqual(numbered(4));
  });

  test('sabotage: a broker that does not count moves leaves out what the app had been given', async () => {
    await publish(numbered(4));
    const consumer = await subscribe();
    expect(await take(consumer, 3)).toEqual(['m0', 'm1', 'm2']);
    await broker.restart();
    expect(await take(consumer, 1)).toEqual(['m3']);
  });

  test('its own seeks count, too: nothing is given twice after the next lost connection', async () => {
    await publish(numbered(4));
    const consumer = await subscribe();
    expect(await take(consumer, 3)).toEqual(['m0', 'm1', 'm2']);
    await consumer.seek('earliest');
    expect(await take(consumer, 3)).toEqual(['m0', 'm1', 'm2']);
    await broker.restart();
    expect(await take(consumer, 1)).toEqual(['m3']);
  });
});

describe('reopening', () => {
  test('a consumer that is closed again and again as soon as it is open waits longer each time', async () => {
    const waits: number[] = [];
    const enough = deferred<void>();
    const clock = {
      ...nodeClock,
      after: (...[ms, callback, options]: Parameters<typeof nodeClock.after>) => {
        if (ms >= 1_000) return nodeClock.after(ms, callback, options); // a deadline
        if (waits.push(ms) === 6) enough.resolve();
        return nodeClock.after(0, callback, options);
      },
    };
    const random = { ...nodeEnvironment.random, next: () => 0 }; // waits are as short as may be: below a second
    const environment = { ...nodeEnvironment, clock, random };
    await using own = new Client({ serviceUrl: broker.url, operationTimeoutMs: 20_000 }, environment);
    broker.hooks.subscribe = () => {
      setImmediate(() => {
        for (const stream of broker.consumeStreams) stream.closeConsumers('NOT_OWNER', true);
      });
      return undefined;
    };
    await subscribe({}, own);
    await enough.promise;
    broker.hooks.subscribe = () => undefined;
    expect(waits[0]).toBe(0);
    for (const ms of waits.slice(1)) expect(ms).toBeGreaterThan(0);
    expect(waits[5]).toBeGreaterThan(waits[1] ?? 0);
  });

  test('unsubscribe rejects when the consumer cannot be opened any more: the subscription may be there still', async () => {
    const consumer = await subscribe();
    broker.crash();
    broker.hooks.subscribe = () => ({ code: 'NAMESPACE_NOT_FOUND', retryable: false });
    const unsubscribed = rejection(consumer.unsubscribe());
    await broker.listen();
    expect((await unsubscribed).code).toBe('NAMESPACE_NOT_FOUND');
    expect(broker.topic('t').subscriptions.has('s')).toBe(true);
    await consumer.close();
  });

  test('unsubscribe rejects, too, when the consumer fails while acknowledgments are still under way', async () => {
    broker.hooks.ack = () => 'confirmSilently';
    await publish(['a']);
    const consumer = await subscribe();
    const acked = rejection(consumer.acknowledge(await consumer.receive()));
    const unsubscribed = rejection(consumer.unsubscribe());
    const [stream] = broker.consumeStreams;
    while (stream?.acks.length !== 1) await turn();
    stream.closeConsumers('CONSUMER_FENCED', false);
    expect((await acked).code).toBe('CONSUMER_FENCED');
    expect((await unsubscribed).code).toBe('CONSUMER_FENCED');
  });
});

describe('iterations', () => {
  test('a loop that is left leaves the consumer as it is: nothing is taken that the loop did not see', async () => {
    await publish(numbered(9));
    const consumer = await subscribe();
    const seen: string[] = [];
    for await (const message of consumer) {
      seen.push(message.data.toString());
      if (seen.length === 2) break;
    }
    const failed = async (): Promise<void> => {
      for await (const message of consumer.messages({ untilEnd: true })) {
        seen.push(message.data.toString());
        throw new Error('of the app');
      }
    };
    await expect(failed()).rejects.toThrow('of the app');
    seen.push(...(await take(consumer, 2)));
    const iteration = consumer.messages();
    seen.push((await iteration.next()).value?.data.toString() ?? '');
    await iteration.return?.();
    expect(await iteration.next()).toEqual({ done: true, value: undefined });
    for await (const message of consumer.messages({ untilEnd: true })) seen.push(message.data.toString());
    expect(seen).toEqual(numbered(9));
  });

  test('a loop ends when the consumer begins to close, whatever comes before that is through', async () => {
    await publish(['a']);
    const [consumer, other] = [await subscribe(), await subscribe({ subscription: 'other' })];
    const iteration = consumer.messages();
    const { value } = await iteration.next();
    broker.hooks.ack = () => 'confirmSilently';
    const acked = consumer.acknowledge(value as Message);
    const closing = consumer.close();
    await publish(['late']);
    expect(await take(other, 2)).toEqual(['a', 'late']); // those of the first come before
    expect(await iteration.next()).toEqual({ done: true, value: undefined });
    for (const stream of broker.consumeStreams) stream.send({ ackReceipts: [{ consumer: 1, ackId: 1 }] });
    await Promise.all([acked, closing]);
  });

  test('a loop to the end can be aborted while the end is looked for', async () => {
    const consumer = await subscribe();
    broker.crash();
    const abort = new AbortController();
    const step = consumer.messages({ untilEnd: true, signal: abort.signal }).next();
    abort.abort(new Error('enough'));
    await expect(step).rejects.toThrow('enough');
  });

  test('no listener is left on a signal', async () => {
    const consumer = await subscribe();
    const { signal } = new AbortController();
    const iteration = consumer.messages({ signal });
    const step = iteration.next();
    const received = consumer.receive({ signal });
    await turn();
    expect(getEventListeners(signal, 'abort').length).toBe(2);
    await publish(numbered(2));
    await Promise.all([step, received]);
    const p = await client.createProducer({ topic: 't' }, { signal });
    const messages = [await p.send({ data: 'x' }, { signal }), (await step).value?.messageId];
    for (const id of messages) if (id !== undefined) await consumer.acknowledge(id, { signal });
    await p.flush({ signal });
    await rejection(consumer.receive({ signal, timeoutMs: 0 }).then(() => consumer.receive({ signal, timeoutMs: 0 })));
    await consumer.close({ signal });
    expect(getEventListeners(signal, 'abort').length).toBe(0);
  });
});

describe('what an app gets wrong', () => {
  test('is told whether a message is there or not', async () => {
    await publish(['a']);
    const consumer = await subscribe();
    await turn();
    const error = await rejection(consumer.receive({ timeoutMs: -1 }));
    expect(error.message).toBe('timeoutMs is -1; it must be an integer from 0 to 86400000');
    expect(await take(consumer, 1)).toEqual(['a']);
  });
});

/** A delivery of one message. */
function delivery(consumer: number, bytes: number): Delivery {
  const builder = new BlockBuilder({ producerName: 'p', epoch: 0 as Epoch, capacityBytes: bytes });
  builder.append({ payload: Buffer.alloc(bytes) }, 0n as SequenceId);
  const place = { ledgerId: 7 as LedgerId, entryId: 0 as EntryId, index: 0 as MessageIndex, appendTime: 1 as Millis };
  return { consumer, ...place, skip: Buffer.alloc(0), redeliveries: 0, ...builder.finish(1 as Millis) };
}

describe('memory', () => {
  test('a small entry in a frame with entries of other consumers does not keep the frame', async () => {
    const [large, small] = [await subscribe(), await subscribe({ topic: 'u' })];
    const frame = { deliveries: [delivery(1, 100_000), delivery(2, 100)] };
    for (const stream of broker.consumeStreams) stream.send(frame);
    expect((await large.receive()).data.buffer.byteLength).toBeGreaterThan(100_000);
    expect((await small.receive()).data.buffer.byteLength).toBeLessThan(300);
  });

  test.each([
    ['messages', { receiverQueueSize: 3 }, 10, 3],
    ['bytes', { receiverQueueBytes: 65_536 }, 40_000, 2],
  ])(
    'of a broker that delivers more %s than it may no more is taken than one entry above',
    async (_, options, bytes, most) => {
      const [consumer, other] = [await subscribe(options), await subscribe({ topic: 'u' })];
      const at = (index: number): Delivery => ({ ...delivery(1, bytes), index: index as MessageIndex });
      for (const stream of broker.consumeStreams) {
        stream.send({ deliveries: Array.from({ length: most }, (_none, n) => at(n)) });
        stream.send({ deliveries: [at(most), delivery(2, 1)] });
      }
      await other.receive(); // it comes last
      const error = await rejection(consumer.receive());
      expect(error.code).toBe('CREDIT_EXCEEDED');
      expect(error.message).toMatch(
        /the broker delivers more than it may: \d messages of \d+ bytes of .* are here, where \d+ of/,
      );
    },
  );
});

test('a broker that says no hello is given up while those who wait still have time for another try', async () => {
  const opened = deferred<void>();
  let hellos = 0;
  broker.hooks.greet = () => {
    opened.resolve();
    return ++hellos > 1;
  };
  const clock = clockWithTurns();
  const patient = new Client({ serviceUrl: broker.url, operationTimeoutMs: 45_000 }, { ...nodeEnvironment, clock });
  const subscribing = subscribe({}, patient);
  await opened.promise;
  clock.advance(10_000);
  await subscribing;
  expect(hellos).toBe(2);
  await patient.close();
});
