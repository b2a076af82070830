import { expect, test } from 'vitest';
import { unpinned } from './views.ts';

test('a view that is small beside its buffer is copied out, any other is left as it is', () => {
  const large = Buffer.alloc(1_000_000, 7);
  const small = large.subarray(500, 700);
  const own = unpinned(small);
  expect([own.equals(small), own.buffer.byteLength]).toEqual([true, 200]);
  for (const view of [large, large.subarray(0, 62_500), Buffer.alloc(4_096).subarray(0, 1)]) {
    expect(unpinned(view)).toBe(view);
  }
});
