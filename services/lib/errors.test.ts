import { expect, test } from 'vitest';

import { errorTable, hasCode, isErrorCode, MagnetarError, toMagnetarError } from './errors.ts';

test('every code has a gRPC status; what fences is never to be tried again', () => {
  for (const [code, traits] of Object.entries(errorTable)) {
    expect(isErrorCode(code)).toBe(true);
    expect(traits.grpcStatus).toBeGreaterThan(0);
    expect(traits.grpcStatus).toBeLessThanOrEqual(16);
    expect(traits.retryable && traits.fencing).toBe(false);
  }
  for (const name of ['NO_SUCH_CODE', 'constructor', '__proto__', '']) expect(isErrorCode(name)).toBe(false);
});

test('an error knows its traits', () => {
  const cause = new Error('why');
  const error = new MagnetarError('LEDGER_FENCED', 'm', { details: { ledger: '5' }, cause });
  expect([error.name, error.code, error.message, error.cause]).toEqual(['MagnetarError', 'LEDGER_FENCED', 'm', cause]);
  expect([error.retryable, error.fencing, error.details['ledger']]).toEqual([false, true, '5']);
  expect(new MagnetarError('UNAVAILABLE', 'm').retryable).toBe(true);
  expect('cause' in new MagnetarError('UNAVAILABLE', 'm')).toBe(false);
});

test('hasCode looks for any of the codes, or for any error of ours', () => {
  const error: unknown = new MagnetarError('NOT_OWNER', 'm');
  expect([hasCode(error, 'NOT_OWNER'), hasCode(error, 'INTERNAL', 'NOT_OWNER'), hasCode(error)]).toEqual([
    true,
    true,
    true,
  ]);
  expect([hasCode(error, 'INTERNAL'), hasCode(new Error('NOT_OWNER')), hasCode(undefined)]).toEqual([
    false,
    false,
    false,
  ]);
});

test('any thrown value becomes an error of ours, in one line', () => {
  const own = new MagnetarError('NOT_OWNER', 'm');
  expect(toMagnetarError(own)).toBe(own);
  const foreign = new TypeError('first\nsecond');
  expect(toMagnetarError(foreign)).toMatchObject({ code: 'INTERNAL', message: 'first', cause: foreign });
  expect(toMagnetarError('text').message).toBe('text');
  expect(toMagnetarError(undefined).message).toBe('undefined');
});
