import type { Clock, Timer } from './clock.ts';

/** The outcome of `work`, or a rejection with what `late` makes after `ms`. The work itself goes on. */
export async function withDeadline<T>(clock: Clock, ms: number, work: Promise<T>, late: () => Error): Promise<T> {
  let timer: Timer | undefined;
  const expired = new Promise<never>((_, reject) => {
    timer = clock.after(ms, () => reject(late()));
  });
  try {
    return await Promise.race([work, expired]);
  } finally {
    timer?.cancel();
  }
}
