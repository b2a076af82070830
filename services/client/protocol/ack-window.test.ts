import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AckWindow } from './ack-window.ts';
import { Credits } from './credits.ts';

function window(): AckWindow<number> {
  let waiters = 0;
  return new AckWindow(() => waiters++);
}

describe('the acknowledgments of a consumer', () => {
  test('what is gathered goes out as merged ranges, above the cumulative index', () => {
    const acks = window();
    for (const index of [12, 10, 11, 3, 30, 12, 5]) acks.add(index);
    acks.addBelow(5);
    expect(acks.next()).toEqual({ ackId: 1, below: 5, ranges: [5, 1, 10, 3, 30, 1], waiter: 0 });
    expect([acks.ready, acks.size, acks.next()]).toEqual([false, 1, undefined]);
  });

  test('receipts are cumulative; a refusal is for one alone', () => {
    const acks = window();
    for (let i = 0; i < 4; i++) {
      acks.add(i * 2);
      acks.next();
    }
    expect(acks.refused(2)?.waiter).toBe(1);
    expect(acks.refused(2)).toBeUndefined();
    expect(acks.confirmed(3).map((ack) => ack.ackId)).toEqual([1, 3]);
    expect(acks.confirmed(9).map((ack) => ack.ackId)).toEqual([4]);
    expect(acks.size).toBe(0);
  });

  test('what is not confirmed is given again to the next stream, in order; what was refused, under a new id', () => {
    const acks = window();
    for (let i = 0; i < 3; i++) {
      acks.add(i * 2);
      acks.next();
    }
    acks.confirmed(1);
    acks.restart();
    expect([acks.next()?.ackId, acks.next()?.ackId, acks.next()]).toEqual([2, 3, undefined]);
    const refused = acks.refused(2);
    if (refused === undefined) throw new Error('it was there');
    acks.again(refused);
    expect(acks.next()).toEqual({ ...refused, ackId: 4 });
  });

  test('gives up what is late, gathered or sent', () => {
    const acks = window();
    acks.add(1);
    acks.next();
    acks.add(3);
    expect(acks.giveUp((waiter) => waiter < 1)).toEqual([0]);
    expect(acks.oldest).toBe(1);
    expect(acks.confirmed(1)).toEqual([]);
    expect(acks.giveUp(() => true)).toEqual([1]);
    expect(acks.size).toBe(0);
  });

  test('of more ranges than an Ack has, each is in the Ack that its waiter waits for', () => {
    const acks = window();
    const waiters = Array.from({ length: 20_000 }, (_, i) => acks.addRange(4 * i, 4 * i + 2));
    const inAcks: number[] = [];
    for (let ack = acks.next(); ack !== undefined; ack = acks.next()) {
      for (let i = 0; i < ack.ranges.length; i += 2) inAcks.push(ack.waiter);
    }
    expect(inAcks).toEqual(waiters);
    expect(new Set(waiters).size).toBe(2);
  });

  test('whatever is acknowledged is in the Acks, and nothing else', () => {
    const call = fc.oneof(
      fc.nat(300),
      fc.constant('next' as const),
      fc.nat(200).map((below) => ({ below })),
    );
    fc.assert(
      fc.property(fc.array(call, { maxLength: 200 }), (calls) => {
        const acks = window();
        const expected = new Set<number>();
        const got = new Set<number>();
        const takeAll = (): void => {
          for (let ack = acks.next(); ack !== undefined; ack = acks.next()) {
            for (let i = 0; i < ack.below; i++) got.add(i);
            let before = ack.below - 1;
            for (let i = 0; i < ack.ranges.length; i += 2) {
              const [from = 0, count = 0] = ack.ranges.slice(i, i + 2);
              expect(from).toBeGreaterThan(i === 0 ? before : before + 1);
              for (let index = from; index < from + count; index++) got.add(index);
              before = from + count - 1;
            }
          }
        };
        for (const each of calls) {
          if (each === 'next') takeAll();
          else if (typeof each === 'number') {
            acks.add(each);
            expected.add(each);
          } else {
            acks.addBelow(each.below);
            for (let i = 0; i < each.below; i++) expected.add(i);
          }
        }
        takeAll();
        expect([...got].toSorted((a, b) => a - b)).toEqual([...expected].toSorted((a, b) => a - b));
      }),
    );
  });

  test('an Ack never grows beyond a frame', () => {
    const acks = window();
    for (let i = 0; i < 50_000; i++) acks.add(i * 2);
    let ranges = 0;
    for (let ack = acks.next(); ack !== undefined; ack = acks.next()) {
      expect(ack.ranges.length).toBeLessThanOrEqual(2 * 16_385);
      ranges += ack.ranges.length / 2;
    }
    expect(ranges).toBe(50_000);
  });
});

test('credits are taken together or not at all', () => {
  const credits = new Credits();
  credits.grant(2, 100);
  expect([credits.take(1, 101), credits.take(3, 1), credits.take(1, 60), credits.take(1, 60)]).toEqual([
    false,
    false,
    true,
    false,
  ]);
  expect([credits.items, credits.bytes]).toEqual([1, 40]);
  credits.reset();
  expect(credits.take(1, 0)).toBe(false);
});
