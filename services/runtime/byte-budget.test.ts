import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ByteBudget, type ByteShare } from './byte-budget.ts';

const never = new AbortController().signal;
const ALL = Number.POSITIVE_INFINITY;

interface Cut {
  readonly budget: ByteBudget<'read' | 'write'>;
  readonly read: ByteShare;
  readonly write: ByteShare;
}

function newBudget({ waiters = 10, readLimit = ALL } = {}): Cut {
  const budget = new ByteBudget({
    totalBytes: 100,
    shares: { read: { reserveBytes: 30, limitBytes: readLimit }, write: { reserveBytes: 0, limitBytes: ALL } },
    waiters,
  });
  return { budget, read: budget.share('read'), write: budget.share('write') };
}

/** Lets everything that is ready run. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

test('writes cannot take what is reserved for reads, reads can take everything', () => {
  const { budget, read, write } = newBudget();
  expect([read.mostBytes, write.mostBytes]).toEqual([100, 70]);
  expect(write.tryTake(71)).toBe(false);
  expect(write.tryTake(70)).toBe(true);
  expect(write.tryTake(1)).toBe(false);
  expect([read.availableBytes, write.availableBytes]).toEqual([30, 0]);
  expect(read.tryTake(30)).toBe(true);
  expect(read.tryTake(1)).toBe(false);
  write.give(70);
  expect(read.tryTake(70)).toBe(true);
  expect([read.usedBytes, write.usedBytes, budget.usedBytes]).toEqual([100, 0, 100]);
  read.give(100);
  expect(budget.usedBytes).toBe(0);
});

test('reads get no more than their limit, however much is free', async () => {
  const { read, write } = newBudget({ readLimit: 40 });
  expect(read.mostBytes).toBe(40);
  expect(read.tryTake(41)).toBe(false);
  expect(read.tryTake(40)).toBe(true);
  expect(write.availableBytes).toBe(60);
  await expect(read.take(41, never)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
});

test('a read gets its reserve while writes wait', async () => {
  const { read, write } = newBudget();
  expect(write.tryTake(70)).toBe(true);
  const log: string[] = [];
  const first = write.take(20, never).then(() => log.push('first'));
  const second = write.take(5, never).then(() => log.push('second'));
  expect(write.waiting).toBe(2);
  await read.take(30, never);
  write.give(19);
  await settle();
  expect(log).toEqual([]);
  expect(write.tryTake(1)).toBe(false); // the large one is first
  write.give(1);
  await settle();
  expect(log).toEqual(['first']);
  write.give(5);
  await Promise.all([first, second]);
  expect(log).toEqual(['first', 'second']);
});

test('one that goes away makes room for those behind it', async () => {
  const { budget, write } = newBudget();
  expect(write.tryTake(60)).toBe(true);
  const controller = new AbortController();
  const large = write.take(50, controller.signal);
  const small = write.take(10, never);
  controller.abort(new Error('gone'));
  await expect(large).rejects.toThrow('gone');
  await small;
  expect(budget.usedBytes).toBe(70);
  await expect(write.take(1, controller.signal)).rejects.toThrow('gone');
});

test('refuses what can never fit, too many waiters, and giving back too much', async () => {
  const { read, write } = newBudget({ waiters: 1 });
  await expect(write.take(71, never)).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: '71 bytes for write: the budget allows at most 70',
  });
  expect(write.tryTake(70)).toBe(true);
  const waiting = write.take(1, never);
  await expect(write.take(1, never)).rejects.toMatchObject({ code: 'QUEUE_FULL' });
  write.give(70);
  await waiting;
  expect(() => write.give(2)).toThrow('2 bytes given back to write, of which 1 were taken');
  expect(() => read.give(1)).toThrow(/given back/);
  const shares = { a: { reserveBytes: 2, limitBytes: 2 } };
  expect(() => new ByteBudget({ totalBytes: 1, shares, waiters: 1 })).toThrow(/exceed the budget of 1/);
});

test('what can be done without is asked back before anybody waits', async () => {
  const { budget, read, write } = newBudget();
  const asked: number[] = [];
  budget.onShort((bytes) => {
    asked.push(bytes);
    if (write.usedBytes >= 10) write.give(10);
  });
  expect(write.tryTake(60)).toBe(true);
  expect(read.tryTake(45)).toBe(true);
  expect(asked).toEqual([5]);
  expect(read.tryTake(90)).toBe(false);
  expect(asked).toEqual([5, 85]);
  await settle();
  expect(budget.usedBytes).toBe(85);
});

test('what is in use already is charged above all limits, and nobody gets anything before it is given back', () => {
  const { budget, read, write } = newBudget();
  read.charge(120);
  expect([budget.usedBytes, read.availableBytes, write.availableBytes]).toEqual([120, 0, 0]);
  expect(write.tryTake(1)).toBe(false);
  read.give(60);
  expect(write.tryTake(40)).toBe(true);
  expect(write.tryTake(1)).toBe(false);
});

test('never gives out more than there is, and always leaves the reserves', () => {
  const step = fc.record({
    name: fc.constantFrom<'read' | 'write'>('read', 'write'),
    bytes: fc.integer({ min: -60, max: 60 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
      const { budget } = newBudget({ readLimit: 80 });
      const used = { read: 0, write: 0 };
      for (const { name, bytes } of steps) {
        const share = budget.share(name);
        if (bytes < 0) {
          const given = Math.min(-bytes, used[name]);
          share.give(given);
          used[name] -= given;
        } else if (share.tryTake(bytes)) {
          used[name] += bytes;
        }
        expect(share.tryTake(share.availableBytes + 1)).toBe(false);
        expect(budget.usedBytes).toBe(used.read + used.write);
        expect(used.write + Math.max(30, used.read)).toBeLessThanOrEqual(100);
        expect(used.read).toBeLessThanOrEqual(80);
      }
    }),
  );
});
