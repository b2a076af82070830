import { describe, expect, test } from 'vitest';
import { silentLogger } from '../runtime/logger.ts';
import { RunningClock } from '../runtime/running-clock.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { seededRandom } from '../runtime/testing/seeded-random.ts';
import { AckSender } from './ack-sender.ts';

const TIMEOUT_MS = 10_000;

interface Fixture {
  readonly clock: ManualClock;
  readonly acks: AckSender;
  /** What has become of acknowledgments, by index. */
  readonly outcomes: Map<number, string>;
  readonly ack: (index: number) => void;
  readonly advance: (ms: number) => Promise<void>;
}

const standing = (): string => 'the consumer is not open: no such luck';

function fixture(): Fixture {
  const clock = new ManualClock();
  const environment = { clock: new RunningClock(clock), random: seededRandom(1), logger: silentLogger };
  const acks = new AckSender({ environment, timeoutMs: TIMEOUT_MS, subscription: 's', ready: () => {}, standing });
  const outcomes = new Map<number, string>();
  return {
    clock,
    acks,
    outcomes,
    ack: (index) => {
      acks.add(index).then(
        () => outcomes.set(index, 'confirmed'),
        (error: Error) => outcomes.set(index, error.message),
      );
    },
    advance: async (ms) => {
      clock.advance(ms);
      await Promise.resolve();
      await Promise.resolve();
    },
  };
}

test('who waits for what was acknowledged so far does not wait for what comes later', async () => {
  const { acks, outcomes, ack } = fixture();
  for (const index of [1, 3]) {
    ack(index);
    acks.next();
  }
  ack(5);
  const settled = acks.settled().then(() => [...outcomes.keys()]);
  acks.next();
  const error = { code: 'NOT_ENOUGH_BOOKIES', message: 'not now', retryable: true, details: {} };
  acks.receipt({ consumer: 1, ackId: 1, error }); // it comes again, behind the others
  ack(7);
  for (let i = 0; i < 3; i++) acks.next();
  acks.receipt({ consumer: 1, ackId: 3 });
  ack(9);
  acks.receipt({ consumer: 1, ackId: 4 });
  expect(await settled).toEqual([3, 5, 1]);
});

describe('an acknowledgment that is not confirmed', () => {
  test('fails when its time is over, not earlier, and says how far it has come', async () => {
    const { acks, outcomes, ack, advance } = fixture();
    ack(1);
    acks.next();
    ack(3);
    await advance(TIMEOUT_MS - 1);
    expect(outcomes.size).toBe(0);
    await advance(1);
    expect(outcomes.get(1)).toBe(
      'acknowledging on subscription s was not confirmed within operationTimeoutMs, 10000 ms (1 of 2 Acks are sent; the consumer is not open: no such luck)',
    );
    expect([...outcomes.keys()]).toEqual([1, 3]);
    expect(acks.ready).toBe(false);
  });

  test('has all of its time, also when it came while others had long waited for a connection', async () => {
    const { outcomes, ack, advance } = fixture();
    ack(1);
    await advance(8_000);
    ack(2);
    await advance(2_000);
    expect([...outcomes.keys()]).toEqual([1]);
    await advance(7_999);
    expect([...outcomes.keys()]).toEqual([1]);
    await advance(1);
    expect([...outcomes.keys()]).toEqual([1, 2]);
  });

  test('has all of its time although the process stood still: then receipts lie in its socket', async () => {
    const { clock, acks, outcomes, ack, advance } = fixture();
    ack(1);
    acks.next();
    await advance(5_000);
    clock.stall(60_000);
    await advance(3_000);
    expect(outcomes.size).toBe(0);
    acks.receipt({ consumer: 1, ackId: 1 });
    ack(5);
    acks.next();
    await advance(TIMEOUT_MS - 1);
    expect([...outcomes]).toEqual([[1, 'confirmed']]);
    await advance(1);
    expect([...outcomes.keys()]).toEqual([1, 5]);
  });
});
