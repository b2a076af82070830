import { AssertionError } from 'node:assert';

import { expect, test } from 'vitest';

import { assert, assertNever } from './assert.ts';

test('an invariant that holds says nothing; one that does not is an AssertionError', () => {
  assert(true, 'never seen');
  expect(() => assert(false, 'two and two')).toThrow(new AssertionError({ message: 'two and two' }));
  expect(() => assertNever('x' as never)).toThrow(/unexpected value x/);
});
