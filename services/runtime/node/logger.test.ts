import { expect, test } from 'vitest';
import { MagnetarError } from '../../lib/errors.ts';
import { createLogger, type LogLevel } from './logger.ts';

function capture(level: LogLevel, pretty = false): { lines: string[]; log: ReturnType<typeof createLogger> } {
  const lines: string[] = [];
  return { lines, log: createLogger({ level, pretty, target: { write: (line) => void lines.push(line) } }) };
}

test('a line is JSON with level, time, message and fields', () => {
  const { lines, log } = capture('info');
  log.child({ component: 'bookie' }).info('segment sealed', { segment: 7 });
  log.debug('not wanted');
  expect(lines).toHaveLength(1);
  const line = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
  expect(line).toMatchObject({ level: 'info', msg: 'segment sealed', component: 'bookie', segment: 7 });
  expect(line['time']).toMatch(/^\d{4}-\d\d-\d\dT.*Z$/);
});

test('an error shows code, details and cause; its stack at debug level alone', () => {
  const error = new MagnetarError('STORE_FAILED', 'the log failed', {
    details: { file: 'x' },
    cause: new Error('EIO'),
  });
  const info = capture('info');
  info.log.error('stopping', { error });
  expect(JSON.parse(info.lines[0] ?? '')).toMatchObject({
    level: 'error',
    error: {
      name: 'MagnetarError',
      code: 'STORE_FAILED',
      message: 'the log failed',
      details: { file: 'x' },
      cause: { message: 'EIO' },
    },
  });
  expect(info.lines[0]).not.toContain('stack');
  const debug = capture('debug');
  debug.log.warn('stopping', { error: 'a string' });
  debug.log.error('stopping', { error });
  expect(debug.lines[0]).toContain('"error":"a string"');
  expect(debug.lines[1]).toContain('logger.test.ts');
});

test('for people, a line is text', () => {
  const { lines, log } = capture('info', true);
  log.warn('disk nearly full', { freeBytes: 5 });
  expect(lines.join('')).toContain('disk nearly full');
  expect(lines.join('')).toContain('freeBytes: 5');
  expect(lines.join('')).not.toContain('{"level"');
});
