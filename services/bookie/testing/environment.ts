import type { Disk } from '../../runtime/disk.ts';
import type { Environment } from '../../runtime/environment.ts';
import { silentLogger } from '../../runtime/logger.ts';
import { nodeClock } from '../../runtime/node/clock.ts';
import { nodeDisk } from '../../runtime/node/disk.ts';
import { seededRandom } from '../../runtime/testing/seeded-random.ts';

/** Real time, a quiet logger, and the disk given; what `fatal` is called with is collected. */
export function testEnvironment(disk: Disk = nodeDisk, fatal: Error[] = []): Environment {
  return {
    clock: nodeClock,
    random: seededRandom(1),
    disk,
    logger: silentLogger,
    fatal: (error) => void fatal.push(error),
  };
}
