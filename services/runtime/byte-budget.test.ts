import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ByteBudget } from './byte-budget.ts';

const never = new AbortController().signal;

function newBudget(waiters = 10): ByteBudget<'read' | 'publish'> {
  return new ByteBudget({ totalBytes: 100, reserves: { read: 30, publish: 0 }, waiters });
}

/** Lets everything that is ready run. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

test('publishes cannot take what is reserved for reads, reads can take everything', () => {
  const budget = newBudget();
  expect(budget.tryTake(71, 'publish')).toBe(false);
  expect(budget.tryTake(70, 'publish')).toBe(true);
  expect(budget.tryTake(1, 'publish')).toBe(false);
  expect(budget.tryTake(30, 'read')).toBe(true);
  expect(budget.tryTake(1, 'read')).toBe(false);
  budget.give(70, 'publish');
  expect(budget.tryTake(70, 'read')).toBe(true);
  budget.give(100, 'read');
  expect(budget.usedBytes).toBe(0);
});

test('a read gets its reserve while publishes wait', async () => {
  const budget = newBudget();
  expect(budget.tryTake(70, 'publish')).toBe(true);
  const log: string[] = [];
  const first = budget.take(20, 'publish', never).then(() => log.push('first'));
  const second = budget.take(5, 'publish', never).then(() => log.push('second'));
  await budget.take(30, 'read', never);
  budget.give(19, 'publish');
  await settle();
  expect(log).toEqual([]);
  expect(budget.tryTake(1, 'publish')).toBe(false);
  budget.give(1, 'publish');
  await settle();
  expect(log).toEqual(['first']);
  budget.give(5, 'publish');
  await Promise.all([first, second]);
  expect(log).toEqual(['first', 'second']);
});

test('one that goes away makes room for those behind it', async () => {
  const budget = newBudget();
  expect(budget.tryTake(60, 'publish')).toBe(true);
  const controller = new AbortController();
  const large = budget.take(50, 'publish', controller.signal);
  const small = budget.take(10, 'publish', never);
  controller.abort(new Error('gone'));
  await expect(large).rejects.toThrow('gone');
  await small;
  expect(budget.usedBytes).toBe(70);
  await expect(budget.take(1, 'publish', controller.signal)).rejects.toThrow('gone');
});

test('refuses what can never fit, too many waiters, and giving back too much', async () => {
  const budget = newBudget(1);
  await expect(budget.take(71, 'publish', never)).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: '71 bytes for publish: the budget allows at most 70',
  });
  expect(budget.tryTake(70, 'publish')).toBe(true);
  const waiting = budget.take(1, 'publish', never);
  await expect(budget.take(1, 'publish', never)).rejects.toMatchObject({ code: 'QUEUE_FULL' });
  budget.give(70, 'publish');
  await waiting;
  expect(() => budget.give(2, 'publish')).toThrow('2 bytes given back to publish, of which 1 were taken');
  expect(() => newBudget().give(1, 'read')).toThrow(/given back/);
  expect(() => new ByteBudget({ totalBytes: 1, reserves: { a: 2 }, waiters: 1 })).toThrow(/exceed the budget of 1/);
});

test('never gives out more than there is, and always leaves the reserves', () => {
  const step = fc.record({
    name: fc.constantFrom<'read' | 'publish'>('read', 'publish'),
    bytes: fc.integer({ min: -60, max: 60 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
      const budget = newBudget();
      const used = { read: 0, publish: 0 };
      for (const { name, bytes } of steps) {
        if (bytes < 0) {
          const given = Math.min(-bytes, used[name]);
          budget.give(given, name);
          used[name] -= given;
        } else if (budget.tryTake(bytes, name)) {
          used[name] += bytes;
        }
        expect(budget.usedBytes).toBe(used.read + used.publish);
        expect(used.publish + Math.max(30, used.read)).toBeLessThanOrEqual(100);
      }
    }),
  );
});
