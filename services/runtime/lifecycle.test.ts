import { EventEmitter, once } from 'node:events';
import { describe, expect, test } from 'vitest';
import type { LogFields, Logger } from './logger.ts';
import { silentLogger } from './logger.ts';
import { Lifecycle } from './lifecycle.ts';
import { ManualClock } from './testing/manual-clock.ts';

function setUp(): {
  clock: ManualClock;
  lifecycle: Lifecycle;
  log: string[];
  step: (name: string) => () => Promise<void>;
} {
  const clock = new ManualClock();
  const log: string[] = [];
  const say = (message: string, fields?: LogFields): void => {
    log.push(fields?.['error'] instanceof Error ? `${message}: ${fields['error'].message}` : message);
  };
  const logger: Logger = { ...silentLogger, warn: say, error: say };
  const lifecycle = new Lifecycle({ clock, logger, fatal: (error) => log.push(`fatal ${error.message}`) });
  const step = (name: string) => async () => {
    await Promise.resolve();
    log.push(name);
  };
  return { clock, lifecycle, log, step };
}

async function fail(): Promise<void> {
  return await Promise.reject(new Error('broke'));
}

async function forever(): Promise<void> {
  await new Promise<void>(() => {});
}

/** Lets everything that is ready run. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

describe('Lifecycle', () => {
  test('closes in reverse order, once', async () => {
    const { lifecycle, log, step } = setUp();
    lifecycle.add('a', step('a'));
    lifecycle.add('b', step('b'));
    await Promise.all([lifecycle.close({ deadlineMs: 100 }), lifecycle.close({ deadlineMs: 100 })]);
    await lifecycle.close({ deadlineMs: 100 });
    expect(log).toEqual(['b', 'a']);
    expect(() => lifecycle.add('c', step('c'))).toThrow('c cannot be started: closing has begun');
  });

  test('a step that fails does not keep the others open', async () => {
    const { lifecycle, log, step } = setUp();
    lifecycle.add('a', step('a'));
    lifecycle.add('b', async () => await Promise.reject(new Error('b broke')));
    lifecycle.add('c', () => {
      throw new Error('c broke');
    });
    const error: unknown = await lifecycle.close({ deadlineMs: 100 }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(AggregateError);
    expect((error as AggregateError).errors.map(String)).toEqual(['Error: c broke', 'Error: b broke']);
    expect(log).toEqual(['a']);
  });

  test('a step that hangs is left behind at the deadline, the others are still closed', async () => {
    const { clock, lifecycle, log, step } = setUp();
    const door = new EventEmitter();
    lifecycle.add('a', step('a'));
    lifecycle.add('b', async () => {
      await once(door, 'open');
      throw new Error('too late');
    });
    lifecycle.add('c', step('c'));
    const closing = lifecycle.close({ deadlineMs: 100 }).catch((thrown: unknown) => thrown);
    await settle();
    expect(log).toEqual(['c']);
    clock.advance(100);
    await expect(closing).resolves.toMatchObject({
      code: 'DEADLINE_EXCEEDED',
      message: 'b was not closed within 100 ms',
    });
    expect(log).toEqual(['c', 'a']);
    expect(clock.pendingTimers).toBe(0);
    door.emit('open');
    await settle();
    expect(log).toEqual(['c', 'a', 'b failed after its deadline for closing: too late']);
  });

  test('a background task is ended and waited for in its place of the order', async () => {
    const { lifecycle, log, step } = setUp();
    lifecycle.add('disk', step('disk'));
    lifecycle.run(
      'loop',
      async (signal) => {
        await once(signal, 'abort');
        await settle();
        log.push('loop ended');
        signal.throwIfAborted();
      },
      'fatal',
    );
    lifecycle.add('socket', step('socket'));
    await lifecycle.close({ deadlineMs: 100 });
    expect(log).toEqual(['socket', 'loop ended', 'disk']);
  });

  test('a background task that fails is fatal, or logged; one that fails while closing is reported', async () => {
    const { lifecycle, log } = setUp();
    lifecycle.run('first', fail, 'fatal');
    lifecycle.run('second', fail, 'logged');
    lifecycle.run('third', async () => await Promise.resolve(), 'fatal');
    lifecycle.run(
      'fourth',
      async (signal) => {
        await once(signal, 'abort');
        throw new Error('could not finish');
      },
      'fatal',
    );
    await settle();
    expect(log).toEqual(['fatal broke', 'second failed: broke']);
    await expect(lifecycle.close({ deadlineMs: 100 })).rejects.toThrow('could not finish');
  });

  test('a background task that ignores its signal does not keep the process', async () => {
    const { clock, lifecycle } = setUp();
    lifecycle.run('deaf', forever, 'logged');
    const closing = lifecycle.close({ deadlineMs: 50 }).catch((thrown: unknown) => thrown);
    clock.advance(50);
    await expect(closing).resolves.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  });
});
