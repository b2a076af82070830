/** A sample of the damage matrix; `npm run chaos -- --full` runs 200 cases of it. */
import { afterAll, expect, test } from 'vitest';
import { caseOf, DamageMatrix, describeCase } from './support/damage-matrix.ts';

const RUN = 1;
const CASES = 32;

const matrix = new DamageMatrix();
afterAll(async () => {
  await matrix[Symbol.asyncDispose]();
});

const cases = Array.from({ length: CASES }, (_, n) => caseOf(RUN, n, ['one bookie', 'three bookies']));

test.each(cases.map((one) => [describeCase(one), one] as const))('%s', async (_, one) => {
  expect((await matrix.run(one)).kind).toMatch(/running|refused/);
});
