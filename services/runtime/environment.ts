import type { Clock } from './clock.ts';
import type { Disk } from './disk.ts';
import type { Logger } from './logger.ts';
import type { Random } from './random.ts';

/** What every role is given: the world outside, as far as it needs it. */
export interface Environment {
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly logger: Logger;
  /**
   * Called once with an error after which nothing may be acknowledged any more (a failed fsync, a failed write of the log).
   * In a program of ours it ends the process; embedded, it is the app's hook. Whoever calls it first stops acking.
   */
  fatal(error: Error): void;
}
