import { randomBytes } from 'node:crypto';
import type { Random } from '../random.ts';

/** The randomness of this machine: `bytes` is fit for keys, `next` is not. */
export const nodeRandom: Random = {
  next: () => Math.random(),
  bytes: (length) => randomBytes(length),
};
