import { expect, test } from 'vitest';
import { MessageId } from './message-id.ts';
import { Outcome, type Tally } from './outcome.ts';

const place = { ledgerId: 3, entryId: 4, index: 100 };

test('each message gets its place, in the order of sending', async () => {
  const outcome = new Outcome();
  const order: number[] = [];
  const ids = [0, 1, 2].map(async (i) => {
    const id = await outcome.promise();
    order.push(i);
    return id;
  });
  outcome.settle(outcome.close(3), { ...place, count: 3 });
  expect(await Promise.all(ids)).toEqual([0, 1, 2].map((i) => new MessageId(3, 4, i, 100 + i)));
  expect(order).toEqual([0, 1, 2]);
});

test('whoever has a promise already is told in the same order', async () => {
  const outcome = new Outcome();
  const told: string[] = [];
  const first = outcome.promise().then((id) => told.push(String(id)));
  outcome.tell(
    (id) => told.push(String(id)),
    () => told.push('rejected'),
  );
  const last = outcome.promise().then((id) => told.push(String(id)));
  outcome.settle(outcome.close(3), { ...place, count: 3 });
  await Promise.all([first, last]);
  expect(told).toEqual(['3:4:1', '3:4:0', '3:4:2']);
});

test('a place of another count is nobody’s; an error is everybody’s', async () => {
  const stored = new Outcome();
  const ids = [stored.promise(), stored.promise()];
  stored.settle(stored.close(2), { ...place, count: 3 });
  expect(await Promise.all(ids)).toEqual([MessageId.unknown, MessageId.unknown]);
  const lost = new Outcome();
  const rejected: unknown[] = [];
  lost.tell(
    () => {},
    (error) => rejected.push(error),
  );
  const both = Promise.allSettled([lost.promise(), lost.promise()]);
  const error = new Error('lost');
  lost.settle(lost.close(3), error);
  expect((await both).map((each) => (each.status === 'rejected' ? each.reason : each.value) as unknown)).toEqual([
    error,
    error,
  ]);
  expect(rejected).toEqual([error]);
});

test('parts have fates of their own, told when all are settled', async () => {
  const outcome = new Outcome();
  const sends = Promise.allSettled(Array.from({ length: 5 }, async () => outcome.promise()));
  const [first, rest] = outcome.split(outcome.close(5), 2);
  const [second, third] = outcome.split(rest, 1);
  outcome.settle(first, { ...place, count: 2 });
  outcome.settle(third, { ...place, entryId: 9, count: 2 });
  outcome.settle(second, new Error('lost'));
  const fates = (await sends).map((each) => (each.status === 'fulfilled' ? String(each.value) : each.status));
  expect(fates).toEqual(['3:4:0', '3:4:1', 'rejected', '3:9:0', '3:9:1']);
});

/** Notes what a tally is told. */
function noting(name: string, told: string[]): Tally {
  return {
    stored: (count) => told.push(`${name} ${count} stored`),
    failed: (count, error) => told.push(`${name} ${count} failed: ${error.message}`),
  };
}

test('tallies are told in order, between those who have promises, each part apart', async () => {
  const outcome = new Outcome();
  const told: string[] = [];
  const [a, b] = [noting('a', told), noting('b', told)];
  outcome.tally(a);
  outcome.tally(a);
  outcome.tally(b);
  const sent = outcome.promise().then((id) => told.push(String(id)));
  for (let i = 0; i < 4; i++) outcome.tally(b);
  const [first, second] = outcome.split(outcome.close(8), 6);
  outcome.settle(first, { ...place, count: 6 });
  outcome.settle(second, new Error('lost'));
  await sent;
  await Promise.resolve();
  expect(told.filter((line) => !line.startsWith('3'))).toEqual([
    'a 2 stored',
    'b 1 stored',
    'b 2 stored',
    'b 2 failed: lost',
  ]);
  expect(told).toContain('3:4:3');
});
