import { describe, expect, test } from 'vitest';
import type { MagnetarError } from '../../lib/errors.ts';
import type { LedgerId } from '../../lib/ids.ts';
import { ackLogEntry } from '../../wire/records.ts';
import { at, dedupAt, done, honest, newLog, Owner, SMALL } from './testing/ack-log-owner.ts';

const noError = undefined;

describe('an ack log', () => {
  test('asks for no ledger until something is written, and none of an owner that wrote nothing is left', async () => {
    const { world, log } = await newLog();
    await done(world, log.close());
    expect(world.ledgersMade).toBe(0);
  });

  test('writes what comes in one turn as one entry, and what comes during an append as the next', async () => {
    const { world, log } = await newLog({ ...SMALL, entryBytes: 262_144, rollEntries: 1e6, rollBytes: 1e9 });
    const subscription = await done(world, log.create('s', at(0)));
    const before = world.appended;
    const answers: (MagnetarError | undefined)[] = [];
    const ack = (n: number): void => log.acknowledge(subscription, at(0), [n, 1], (error) => answers.push(error));
    for (let n = 0; n < 1_000; n++) ack(n);
    await world.settle(() => world.appended > before);
    for (let n = 2_000; n < 3_000; n++) ack(n);
    expect(answers).toEqual([]);
    await world.settle();
    expect(world.appended - before).toBe(2);
    expect(answers).toEqual(Array.from({ length: 2_000 }, () => noError));
    const last = world.ledger(
      log.failure === undefined ? (world.record.ackLedgers.at(-1) as LedgerId) : (0 as LedgerId),
    );
    const records = last.entries.slice(-2).map((payload) => ackLogEntry.decode(payload).records);
    expect(records).toEqual([
      [{ type: 'delta', subscription: 1, below: 1_000, ranges: [] }],
      [{ type: 'delta', subscription: 1, below: 0, ranges: [2_000, 1_000] }],
    ]);
  });

  test('an acknowledgment of what is under way waits for it', async () => {
    const { world, log } = await newLog();
    const subscription = await done(world, log.create('s', at(0)));
    const order: string[] = [];
    log.acknowledge(subscription, at(5), [], () => order.push('first'));
    await world.settle(() => world.appended === 2);
    log.acknowledge(subscription, at(5), [], () => order.push('again'));
    expect(subscription.state.markDelete).toBe(5);
    expect(order).toEqual([]);
    await world.settle();
    expect(order).toEqual(['first', 'again']);
    log.acknowledge(subscription, at(5), [], () => order.push('late'));
    expect(order).toHaveLength(2);
    await world.settle();
    expect(order).toEqual(['first', 'again', 'late']);
    expect(world.appended).toBe(2);
  });

  test('keeps the order of a reset and the acknowledgments around it within one entry', async () => {
    const { world, log } = await newLog({ ...SMALL, entryBytes: 10_000 });
    const subscription = await done(world, log.create('s', at(0)));
    const before = world.appended;
    log.acknowledge(subscription, at(20), [30, 5], () => {});
    const reset = log.reset(subscription, at(4));
    log.acknowledge(subscription, at(0), [6, 2], () => {});
    await done(world, reset);
    expect(world.appended - before).toBe(1);
    const { subscriptions } = await new Owner(world).open(honest);
    const { state } = subscriptions.get('s') ?? subscription;
    expect(state).not.toBe(subscription.state);
    expect([state.markDelete, state.page(at(0), 10).runs]).toEqual([4, [6, 2]]);
  });

  test('refuses what is malformed, of a deleted subscription, and too much', async () => {
    const { world, log } = await newLog({ ...SMALL, waitingItems: 3 });
    const subscription = await done(world, log.create('s', at(0)));
    const codes: (string | undefined)[] = [];
    const ack = (ranges: number[]): void =>
      log.acknowledge(subscription, at(0), ranges, (error) => codes.push(error?.code));
    ack([5]);
    ack([5, 0]);
    await world.settle();
    expect(codes.splice(0)).toEqual(['INVALID_ARGUMENT', 'INVALID_ARGUMENT']);
    for (let n = 0; n < 5; n++) ack([10 + 2 * n, 1]);
    expect(subscription.state.ackedAbove).toBe(3);
    await expect(log.reset(subscription, at(0))).rejects.toMatchObject({ code: 'QUEUE_FULL' });
    await world.settle();
    expect(codes.splice(0)).toEqual(['QUEUE_FULL', 'QUEUE_FULL', noError, noError, noError]);
    await done(world, log.delete(subscription));
    ack([50, 1]);
    await world.settle();
    expect(codes).toEqual(['SUBSCRIPTION_NOT_FOUND']);
    await expect(log.reset(subscription, at(0))).rejects.toMatchObject({ code: 'SUBSCRIPTION_NOT_FOUND' });
  });

  test('two that make the same subscription get one, when it is durable', async () => {
    const { world, log } = await newLog();
    const first = log.create('s', at(3));
    let secondThere = false;
    const second = log.create('s', at(9)).then((subscription) => {
      secondThere = true;
      return subscription;
    });
    await world.settle(() => world.appended === 1);
    expect(secondThere).toBe(false);
    expect(await done(world, second)).toBe(await first);
    expect((await first).state.markDelete).toBe(3);
  });

  test('a number is not given again, also when a snapshot is all that is left of the log', async () => {
    const { world, log } = await newLog();
    await done(world, log.create('a', at(0)));
    const gone = await done(world, log.create('b', at(0)));
    await done(world, log.delete(gone));
    await done(world, log.close());
    const next = await new Owner(world).open(honest);
    await done(world, next.create('c', at(0)));
    await world.settle();
    expect(world.record.ackLedgers).toHaveLength(1);
    await done(world, next.close());
    const last = await new Owner(world).open(honest);
    expect([...last.subscriptions.values()].map(({ number, name }) => [number, name])).toEqual([
      [1, 'a'],
      [gone.number + 1, 'c'],
    ]);
  });

  test('a snapshot says how far it covers the data, once it is durable', async () => {
    const { world, owner, log } = await newLog();
    owner.covered = 20;
    log.requestSnapshot();
    expect(log.coveredIndex).toBe(0);
    await world.settle();
    expect(log.coveredIndex).toBe(20);
    world.crash(owner.number);
    const next = await new Owner(world).open(honest);
    expect(next.recovered.dedup).toEqual(dedupAt(20));
    expect(next.coveredIndex).toBe(20);
  });

  test('rolls while acknowledgments go on, and lets go of the old ledger', async () => {
    const { world, log } = await newLog({ ...SMALL, rollEntries: 5, rollBytes: 1e9 });
    const subscription = await done(world, log.create('s', at(0)));
    for (let n = 0; n < 100; n++) {
      await done(
        world,
        new Promise<void>((resolve) => log.acknowledge(subscription, at(0), [2 * n + 1, 1], () => resolve())),
      );
    }
    await world.settle();
    expect(world.ledgersMade).toBeGreaterThan(3);
    expect(world.ledgers.size).toBe(1);
  });

  test('an owner that was replaced fails everything once, and says so once', async () => {
    const { world, owner, log } = await newLog();
    const subscription = await done(world, log.create('s', at(0)));
    const codes: (string | undefined)[] = [];
    await new Owner(world).open(honest);
    for (let n = 1; n < 4; n++) log.acknowledge(subscription, at(n), [], (error) => codes.push(error?.code));
    const creating = log.create('t', at(0));
    await expect(done(world, creating)).rejects.toMatchObject({ code: 'LEDGER_FENCED' });
    expect(codes).toEqual(['LEDGER_FENCED', 'LEDGER_FENCED', 'LEDGER_FENCED']);
    log.acknowledge(subscription, at(9), [], (error) => codes.push(error?.code));
    await done(world, log.close());
    expect(codes).toHaveLength(4);
    expect(owner.failures.map(({ code }) => code)).toEqual(['LEDGER_FENCED']);
  });

  test('fails when no ledger can be made in time', async () => {
    const { world, owner, log } = await newLog({ ...SMALL, ledgerDeadlineMs: 100 });
    world.chances.unavailable = 1;
    await expect(done(world, log.create('s', at(0)))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(owner.failures).toHaveLength(1);
    await done(world, log.close());
  });

  test('close waits for what is under way, and takes nothing more in', async () => {
    const { world, owner, log } = await newLog();
    const subscription = await done(world, log.create('s', at(0)));
    let acked = false;
    log.acknowledge(subscription, at(7), [], (error) => {
      acked = error === undefined;
    });
    const closing = log.close();
    await expect(log.create('t', at(0))).rejects.toMatchObject({ code: 'ALREADY_CLOSED' });
    await done(world, closing);
    expect(acked).toBe(true);
    await log.close();
    expect(owner.failures).toEqual([]);
    expect(world.pending).toBe(0);
    expect(world.ledger(world.record.ackLedgers[0] as LedgerId).closed).toBe(true);
  });

  test('a log that begins in the middle is refused', async () => {
    const { world, log } = await newLog();
    const subscription = await done(world, log.create('s', at(0)));
    log.acknowledge(subscription, at(7), [], () => {});
    await world.settle();
    const ledger = world.ledger(world.record.ackLedgers[0] as LedgerId);
    ledger.entries.shift();
    ledger.durable--;
    await expect(new Owner(world).open(honest)).rejects.toMatchObject({ code: 'DATA_LOSS' });
  });
});
