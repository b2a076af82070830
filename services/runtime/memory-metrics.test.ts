import { expect, test } from 'vitest';
import { memoryBudget } from './memory.ts';
import { MemoryMetrics } from './memory-metrics.ts';
import { figures } from './testing/figures.ts';

test('tells of every use what it has, may have, and who waits for it', async () => {
  const budget = memoryBudget(64 * 1_048_576);
  const write = budget.share('write');
  const all = write.availableBytes;
  expect(write.tryTake(all)).toBe(true);
  const waiting = write.take(1, AbortSignal.timeout(60_000));
  const metrics = new MemoryMetrics(budget);
  const told = await figures(metrics);
  expect(told.get('magnetar_memory_budget_bytes')).toBe(67_108_864);
  expect(told.get('magnetar_memory_used_bytes{use="write"}')).toBe(all);
  expect(told.get('magnetar_memory_limit_bytes{use="write"}')).toBe(33_554_432);
  expect(told.get('magnetar_memory_waiters{use="write"}')).toBe(1);
  expect(told.get('magnetar_memory_used_bytes{use="read"}')).toBe(0);
  write.give(1);
  await waiting;
  expect((await figures(metrics)).get('magnetar_memory_waiters{use="write"}')).toBe(0);
});
