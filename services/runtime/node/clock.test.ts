import { expect, test, vi } from 'vitest';
import { nodeClock } from './clock.ts';
import { nodeRandom } from './random.ts';

test('time goes on, timers fire, turns come after microtasks', async () => {
  const [wall, start] = [nodeClock.now(), nodeClock.monotonic()];
  expect(Number.isInteger(wall)).toBe(true);
  await new Promise<void>((resolve) => nodeClock.after(5, resolve));
  expect(nodeClock.monotonic() - start).toBeGreaterThanOrEqual(4);
  const log: string[] = [];
  await new Promise<void>((resolve) => {
    nodeClock.nextTurn(() => {
      log.push('turn');
      resolve();
    });
    void Promise.resolve().then(() => log.push('microtask'));
  });
  expect(log).toEqual(['microtask', 'turn']);
  nodeClock.after(0, () => log.push('cancelled')).cancel();
  await new Promise<void>((resolve) => nodeClock.after(5, resolve));
  expect(log).not.toContain('cancelled');
});

test('a span beyond what the platform’s timers take does not fire at once', () => {
  vi.useFakeTimers();
  try {
    const days40 = 40 * 86_400_000;
    let fired = 0;
    nodeClock.after(days40, () => fired++);
    vi.advanceTimersByTime(days40 - 1);
    expect(fired).toBe(0);
    vi.advanceTimersByTime(1);
    expect(fired).toBe(1);
    nodeClock.after(days40, () => fired++, { unref: true }).cancel();
    vi.advanceTimersByTime(2 * days40);
    expect(fired).toBe(1);
  } finally {
    vi.useRealTimers();
  }
});

test('random bytes differ', () => {
  expect(nodeRandom.bytes(16)).toHaveLength(16);
  expect(nodeRandom.bytes(16)).not.toEqual(nodeRandom.bytes(16));
  expect(nodeRandom.next()).toBeLessThan(1);
});
