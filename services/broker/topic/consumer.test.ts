import { describe, expect, test } from 'vitest';
import { MagnetarError } from '../../lib/errors.ts';
import type { EntryId, Epoch, LedgerId, MessageIndex, Millis } from '../../lib/ids.ts';
import { Gate } from '../../ledger/testing/gate.ts';
import { nodeClock } from '../../runtime/node/clock.ts';
import { seededRandom } from '../../runtime/testing/seeded-random.ts';
import { Traffic } from '../metrics/traffic.ts';
import type { Ownership } from '../ownership/ownership.ts';
import { AckState } from '../protocol/ack-state.ts';
import type { AckLog, AckSubscription } from './ack-log.ts';
import { type ConsumerSink, TopicConsumer } from './consumer.ts';
import type { LogEntry } from './log-entry.ts';
import type { LogReader } from './log-reader.ts';

const ENTRIES = 10;

function entry(at: number): LogEntry {
  return {
    ledgerId: 1 as LedgerId,
    entryId: at as EntryId,
    index: at as MessageIndex,
    count: 1,
    appendTime: 1 as Millis,
    ownerEpoch: 1 as Epoch,
    blockCrc32c: 0,
    block: Buffer.alloc(10),
  };
}

/** A consumer of ten entries of one message each, over an ack log that does what `reset` says. */
function consumerWith(
  reset: (subscription: AckSubscription, to: MessageIndex) => Promise<void>,
  over: Partial<Record<keyof LogReader, unknown>> = {},
): {
  consumer: TopicConsumer;
  delivered: number[];
  closed: (MagnetarError | undefined)[];
} {
  const delivered: number[] = [];
  const closed: (MagnetarError | undefined)[] = [];
  const state = new AckState(0 as MessageIndex);
  const subscription: AckSubscription = { number: 1, name: 's', createdAt: 1 as Millis, state };
  const reader = {
    oldestIndex: 0 as MessageIndex,
    endIndex: ENTRIES as MessageIndex,
    read: (from: number, { maxEntries }: { maxEntries: number }) =>
      Array.from({ length: Math.min(maxEntries, ENTRIES - from) }, (_, i) => entry(from + i)),
    entryBytesAt: () => 10,
    notFound: async () => await Promise.resolve(new MagnetarError('POSITION_NOT_FOUND', 'not there')),
    ...over,
  };
  const sink: ConsumerSink = {
    whenRoom: ({ run, wantedBytes }) => void run(wantedBytes),
    deliver: ({ index }) => delivered.push(index),
    lost: () => undefined,
    caughtUp: () => undefined,
    closed: (error) => closed.push(error),
  };
  const consumer = new TopicConsumer(
    {
      clock: nodeClock,
      random: seededRandom(1),
      topic: 't',
      ownership: { held: true } as unknown as Ownership,
      reader: reader as unknown as LogReader,
      ackLog: { reset } as unknown as AckLog,
    },
    {
      name: 'c',
      instance: '',
      sink,
      subscription,
      start: 0 as MessageIndex,
      memory: { deliveredTo: 0 as MessageIndex, traffic: new Traffic(0) },
      onGone: () => undefined,
      onIdle: () => undefined,
    },
  );
  consumer.start();
  return { consumer, delivered, closed };
}

const nowhere = { at: 'index', index: 99 as MessageIndex } as const;
const start = { at: 'index', index: 0 as MessageIndex } as const;

async function code(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'none',
    (error: unknown) => (error as MagnetarError).code,
  );
}

describe('seeking', () => {
  test('permits that come while a seek is under way count when it fails', async () => {
    const { consumer, delivered } = consumerWith(async () => Promise.resolve());
    consumer.flow(2, 1_000);
    const seeking = code(consumer.seek(nowhere));
    consumer.flow(3, 1_000);
    expect(delivered).toEqual([0, 1]);
    expect(await seeking).toBe('POSITION_NOT_FOUND');
    expect(delivered).toEqual([0, 1, 2, 3, 4]);
  });

  test('and are void when it is done, as are those that were left', async () => {
    const durable = new Gate();
    const { consumer, delivered } = consumerWith(async ({ state }, to) => {
      state.reset(to);
      await durable.passed;
    });
    consumer.flow(2, 1_000);
    const seeking = consumer.seek({ at: 'index', index: 5 as MessageIndex });
    consumer.flow(3, 1_000);
    await Promise.resolve();
    consumer.flow(3, 1_000);
    durable.open();
    expect(await seeking).toBe(5);
    expect(delivered).toEqual([0, 1]);
    consumer.flow(1, 1_000);
    expect(delivered).toEqual([0, 1, 5]);
  });

  test('a read from before that fails is none of the consumer any more', async () => {
    let fail: ((error: MagnetarError) => void) | undefined;
    const read = (from: number): Promise<LogEntry[]> | LogEntry[] =>
      from > 0
        ? [entry(from)]
        : new Promise((_, reject) => {
            fail = reject;
          });
    const { consumer, delivered, closed } = consumerWith(
      async ({ state }, to) => {
        state.reset(to);
        return Promise.resolve();
      },
      { read },
    );
    consumer.flow(1, 1_000);
    await consumer.seek({ at: 'index', index: 5 as MessageIndex });
    fail?.(new MagnetarError('DATA_LOSS', 'the index is damaged'));
    await new Promise((resolve) => setImmediate(resolve));
    consumer.flow(1, 1_000);
    expect([delivered, closed]).toEqual([[5], []]);
  });

  test('of two seeks the one that fails gives back what came after the answer to the other', async () => {
    const { consumer, delivered } = consumerWith(async ({ state }, to) => {
      state.reset(to);
      return Promise.resolve();
    });
    const first = consumer.seek({ at: 'index', index: 5 as MessageIndex });
    const second = code(consumer.seek(nowhere));
    await first;
    consumer.flow(2, 1_000);
    expect(await second).toBe('POSITION_NOT_FOUND');
    expect(delivered).toEqual([5, 6]);
  });

  test('a seek that the ack log refuses changes nothing, also when it leads to where the subscription is', async () => {
    const { consumer, delivered } = consumerWith(async () => {
      await Promise.resolve();
      throw new MagnetarError('QUEUE_FULL', 'later');
    });
    consumer.flow(4, 25);
    expect(delivered).toEqual([0, 1, 2]);
    expect(await code(consumer.seek(start))).toBe('QUEUE_FULL');
    consumer.flow(0, 10);
    expect(delivered).toEqual([0, 1, 2, 3]);
  });

  test('a seek to where the subscription is delivers again what was not acknowledged', async () => {
    const { consumer, delivered } = consumerWith(async ({ state }, to) => {
      state.reset(to);
      return Promise.resolve();
    });
    consumer.flow(2, 1_000);
    expect(await consumer.seek(start)).toBe(0);
    consumer.flow(2, 1_000);
    expect(delivered).toEqual([0, 1, 0, 1]);
  });
});
