import type { Clock } from '../runtime/clock.ts';
import type { Logger } from '../runtime/logger.ts';
import { silentLogger } from '../runtime/logger.ts';
import { nodeClock } from '../runtime/node/clock.ts';
import { nodeRandom } from '../runtime/node/random.ts';
import type { Random } from '../runtime/random.ts';

/** What the SDK uses of the world outside, beside the network. */
export interface ClientEnvironment {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Aborts when there will be no broker any more; its reason is a MagnetarError. Absent: there always may be one again. */
  readonly brokerGone?: AbortSignal;
}

/** This machine's; says nothing. */
export const nodeEnvironment: ClientEnvironment = { clock: nodeClock, random: nodeRandom, logger: silentLogger };
