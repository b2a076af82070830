/** `magnetar standalone`: a whole system in one process. */
import type { Shell } from '../cli/shell.ts';
import type { LogLevel } from '../runtime/node/logger.ts';
import { standaloneBanner } from './banner.ts';
import { type OpenStandalone, openStandalone } from './open-standalone.ts';
import type { RoleContext } from './role-context.ts';
import { runRole } from './server-process.ts';

export interface StandaloneOptions extends OpenStandalone {
  readonly httpPort: number;
  readonly logLevel: LogLevel;
}

async function start(context: RoleContext, options: StandaloneOptions): ReturnType<Parameters<typeof runRole>[2]> {
  const { version, remoteBookies, data } = options;
  const { folder, port, httpPort = options.httpPort, bookies } = await openStandalone(context, options);
  const what =
    remoteBookies.length > 0
      ? `${bookies === 1 ? 'bookie' : 'bookies'} ${remoteBookies.join(', ')}`
      : `${bookies} ${bookies === 1 ? 'bookie' : 'bookies'}`;
  return {
    banner: standaloneBanner({ version, bookies: what, data, port, httpPort, readyMs: performance.now() }),
    facts: { port, httpPort, data: folder, bookies, remoteBookies },
  };
}

/** Runs it until it is interrupted. Resolves with the exit code. */
export async function runStandalone(shell: Shell, options: StandaloneOptions): Promise<number> {
  const { logLevel } = options;
  return await runRole(shell, { role: 'standalone', logLevel }, async (context) => await start(context, options));
}
