import { expect } from 'vitest';

/** A topic that has lost nothing: what is read, what a subscription is given, and that it can be written to. */
export const RIGHT = { read: { kind: 'right' }, consumed: { kind: 'right' }, written: 'right' } as const;

/** What a look at damaged data says when nothing was lost; what was noticed may be in the log. */
export const ALL_RIGHT: Readonly<Record<string, unknown>> = {
  kind: 'running',
  topics: { first: RIGHT, second: RIGHT },
  errors: expect.any(Number),
};
