import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MagnetarError } from '../lib/errors.ts';
import type { MessageIndex } from '../lib/ids.ts';
import type { Loss } from '../wire/frames.ts';
import { Client } from './client.ts';
import type { Consumer } from './consumer.ts';
import { lostMessages } from './lost-messages.ts';
import { FakeBroker } from './testing/fake-broker.ts';
import { endOf, numbered, rejection } from './testing/steps.ts';

let broker: FakeBroker;
let client: Client;

beforeEach(async () => {
  broker = await new FakeBroker().listen();
  client = new Client({ serviceUrl: broker.url, operationTimeoutMs: 5_000 });
});

afterEach(async () => await endOf(client, broker));

/** Publishes m0, m1, …, each as an entry of its own, of which some are then lost. */
async function publish(count: number, lost: readonly number[]): Promise<void> {
  await using producer = await client.createProducer({ topic: 't', batchingEnabled: false });
  await Promise.all(numbered(count).map((data) => producer.send({ data })));
  for (const entry of lost) {
    const stored = broker.topic('t').entries[entry];
    if (stored !== undefined) stored.lost = true;
  }
}

function subscribe(): Promise<Consumer> {
  return client.subscribe({ topic: 't', subscription: 's', startPosition: 'earliest', receiverQueueSize: 3 });
}

/** What comes until the end: texts, and losses as "lost 3-4". */
async function all(source: Consumer, acknowledge = false): Promise<string[]> {
  const seen: string[] = [];
  for (;;) {
    try {
      for await (const message of source.messages({ untilEnd: true })) seen.push(message.data.toString());
      return seen;
    } catch (error) {
      const lost = lostMessages(error);
      if (lost === undefined) throw error;
      seen.push(`lost ${lost.firstIndex}-${lost.lastIndex}`);
      if (acknowledge) await source.acknowledgeLost(error);
    }
  }
}

const SEEN = ['m0', 'lost 1-1', 'm2', 'm3', 'lost 4-4', 'lost 5-5', 'm6', 'm7', 'm8', 'lost 9-9'];

describe('messages that are lost', () => {
  test('reject one receive each, with DATA_LOSS; the next one goes on behind', async () => {
    await publish(3, [1]);
    const consumer = await subscribe();
    expect((await consumer.receive()).data.toString()).toBe('m0');
    const error = await rejection(consumer.receive());
    expect(error).toMatchObject({ code: 'DATA_LOSS', details: { firstIndex: '1', lastIndex: '1' } });
    expect((await consumer.receive()).data.toString()).toBe('m2');
  });

  test('reject a receive that waits', async () => {
    await publish(1, [0]);
    const consumer = await subscribe();
    const waiting = rejection(consumer.receive());
    expect((await waiting).code).toBe('DATA_LOSS');
    await publish(1, []);
    expect((await consumer.receive()).index).toBe(1);
  });

  test('end an iteration; a new one goes on behind', async () => {
    await publish(10, [1, 4, 5, 9]);
    expect(await all(await subscribe())).toEqual(SEEN);
  });

  test('the same for a reader', async () => {
    await publish(3, [0]);
    const reader = await client.createReader({ topic: 't', startPosition: 'earliest' });
    expect(await reader.hasNext()).toBe(true);
    expect((await rejection(reader.readNext())).code).toBe('DATA_LOSS');
    expect((await reader.readNext()).index).toBe(1);
  });

  test('come again to who connects later, until they are acknowledged', async () => {
    await publish(10, [1, 4, 5, 9]);
    for (let round = 0; round < 2; round++) {
      const consumer = await subscribe();
      expect(await all(consumer)).toEqual(SEEN);
      await consumer.close();
    }
    const consumer = await subscribe();
    await all(consumer, true);
    await consumer.close();
    const rest = await all(await subscribe());
    expect(rest).toEqual(SEEN.filter((text) => !text.startsWith('lost')));
  });

  test('are acknowledged along with everything before a later message', async () => {
    await publish(10, [1, 4, 5, 9]);
    const consumer = await subscribe();
    await all(consumer);
    const later = await client.createReader({ topic: 't', startPosition: { index: 7 } });
    await consumer.acknowledgeCumulative(await later.readNext());
    await consumer.close();
    expect(await all(await subscribe())).toEqual(['m8', 'lost 9-9']);
  });

  test('are not told twice to a consumer that has lost its connection', async () => {
    await publish(10, [1, 4, 5, 9]);
    const consumer = await subscribe();
    expect((await consumer.receive()).index).toBe(0);
    await rejection(consumer.receive());
    await broker.restart();
    expect(await all(consumer)).toEqual(SEEN.slice(2));
  });

  test('of one frame stand between its deliveries, by their indexes', async () => {
    await publish(3, []);
    const consumer = await subscribe();
    expect((await consumer.receive()).index).toBe(0);
    const error = {
      code: 'DATA_LOSS',
      message: 'lost',
      retryable: false,
      details: { firstIndex: '10', lastIndex: '19' },
    };
    const loss = { consumer: 1, firstIndex: 10 as MessageIndex, lastIndex: 19 as MessageIndex, error };
    const place = { ledgerId: 1, firstEntryId: 5 } as Pick<Loss, 'ledgerId' | 'firstEntryId'>;
    const [entry] = broker.topic('t').entries;
    if (entry === undefined) throw new Error('nothing was published');
    const { ledgerId, entryId, block, crc32c } = entry;
    const common = {
      consumer: 1,
      ledgerId,
      entryId,
      block,
      crc32c,
      appendTime: 1,
      skip: Buffer.alloc(0),
      redeliveries: 0,
    };
    const deliveries = ([9, 20] as MessageIndex[]).map((index) => ({ ...common, index }));
    for (const stream of broker.consumeStreams) stream.send({ deliveries, losses: [{ ...loss, ...place }] });
    const seen: (number | string)[] = [];
    while (seen.length < 5) {
      const next = await consumer.receive().catch((failure: unknown) => failure);
      seen.push(next instanceof MagnetarError ? next.code : (next as { index: number }).index);
    }
    expect(seen).toEqual([1, 2, 9, 'DATA_LOSS', 20]);
  });

  test('another error cannot be acknowledged', async () => {
    await publish(1, []);
    const consumer = await subscribe();
    for (const error of [new MagnetarError('UNAVAILABLE', 'x'), new MagnetarError('DATA_LOSS', 'x'), undefined]) {
      expect((await rejection(consumer.acknowledgeLost(error))).code).toBe('INVALID_ARGUMENT');
    }
  });
});
