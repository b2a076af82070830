/** What every role has in common as a process: its environment, its log, its end. */
import { EXIT_DONE, EXIT_FAILED, type Shell } from '../cli/shell.ts';
import { oneLine } from '../cli/text.ts';
import { toMagnetarError } from '../lib/errors.ts';
import type { Environment } from '../runtime/environment.ts';
import { Lifecycle } from '../runtime/lifecycle.ts';
import type { LogFields, Logger } from '../runtime/logger.ts';
import { nodeClock } from '../runtime/node/clock.ts';
import { nodeDisk } from '../runtime/node/disk.ts';
import { createLogger, type LogLevel } from '../runtime/node/logger.ts';
import { nodeRandom } from '../runtime/node/random.ts';
import { collectGarbage, IdleCollector } from './idle-collector.ts';
import type { RoleContext } from './role-context.ts';

const CLOSE_MS = 15_000;

/** The outside world, for the roles of this process. An error after which nothing may be acknowledged ends it. */
function nodeEnvironment(logger: Logger): Environment {
  return {
    clock: nodeClock,
    random: nodeRandom,
    disk: nodeDisk,
    logger,
    fatal(error) {
      logger.error(`ending at once: ${oneLine(error.message)}`, { error });
      process.exit(EXIT_FAILED);
    },
  };
}

/**
 * Runs a role until it is asked to end: `start` opens everything and returns what to print on stdout when it is ready.
 * Whatever `start` fails with is thrown once what it had opened is closed. Resolves with the exit code.
 */
export async function runRole(
  shell: Shell,
  options: { readonly role: string; readonly logLevel: LogLevel },
  start: (context: RoleContext) => Promise<{ readonly banner: string; readonly facts: LogFields }>,
): Promise<number> {
  const logger = createLogger({ level: options.logLevel });
  const environment = nodeEnvironment(logger);
  const lifecycle = new Lifecycle(environment);
  try {
    const { banner, facts } = await start({ environment, lifecycle });
    shell.stdout.write(banner);
    logger.info(`${options.role} is ready`, { ...facts, readyMs: Math.round(performance.now()) });
    const collector = new IdleCollector({ clock: nodeClock, activeMs, collect: collectGarbage });
    await interrupted(shell.interrupted);
    collector.close();
    logger.info(`${options.role} is closing`);
  } catch (error) {
    await lifecycle.close({ deadlineMs: CLOSE_MS }).catch(() => {}); // the first error is the one to report
    throw error;
  }
  try {
    await lifecycle.close({ deadlineMs: CLOSE_MS });
  } catch (error) {
    const errors: readonly unknown[] = error instanceof AggregateError ? error.errors : [error];
    const reasons = errors.map((each) => oneLine(toMagnetarError(each).message)).join('; ');
    logger.error(`${options.role} could not close in order: ${reasons}`);
    return EXIT_FAILED;
  }
  logger.info(`${options.role} is closed`);
  return EXIT_DONE;
}

function activeMs(): number {
  return performance.eventLoopUtilization().active;
}

async function interrupted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const keepAlive = setInterval(() => {}, 2_147_483_647);
  await new Promise((resolve) => {
    signal.addEventListener('abort', resolve, { once: true });
  });
  clearInterval(keepAlive);
}
