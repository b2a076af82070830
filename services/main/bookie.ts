/** A bookie in a process of its own. It knows no metadata. */
import path from 'node:path';
import { openBookie } from '../bookie/bookie.ts';
import type { MeasuredBookie } from '../bookie/measured-bookie.ts';
import { addBookieService } from '../bookie/server/server.ts';
import type { Shell } from '../cli/shell.ts';
import { MagnetarError } from '../lib/errors.ts';
import { memoryBudget } from '../runtime/memory.ts';
import { MemoryMetrics } from '../runtime/memory-metrics.ts';
import type { MetricSource } from '../runtime/metrics.ts';
import type { LogLevel } from '../runtime/node/logger.ts';
import { bookieBanner } from './banner.ts';
import { folderError, openDataFolder } from './data-folder.ts';
import { HOST, openGrpcServer } from './grpc-server.ts';
import type { RoleContext } from './role-context.ts';
import { runRole } from './server-process.ts';

export interface BookieOptions {
  readonly data: string;
  readonly port: number;
  /** Bytes that the process may have in buffers. */
  readonly memoryBudgetBytes: number;
  /** 0: a free one. */
  readonly httpPort: number;
  readonly logLevel: LogLevel;
  readonly version: string;
}

async function start(context: RoleContext, options: BookieOptions): ReturnType<Parameters<typeof runRole>[2]> {
  const { environment, lifecycle } = context;
  const { version } = options;
  const { folder, bookieFolder } = await openDataFolder(environment.disk, path.resolve(options.data));
  const address = `${HOST}:${options.port}`;
  let bookie: MeasuredBookie;
  let sources: readonly MetricSource[];
  try {
    bookie = await openBookie({ environment, folder: bookieFolder(0), id: address });
    lifecycle.add('bookie', async () => await bookie.close());
    const memory = memoryBudget(options.memoryBudgetBytes);
    const grpc = openGrpcServer(context, 'bookie', memory);
    sources = [bookie.metrics, new MemoryMetrics(memory), grpc.connections];
    const serverName = `magnetar bookie ${version}`;
    const service = addBookieService(grpc.server, bookie, { environment, serverName, memory });
    lifecycle.add('bookie service', async () => {
      service.stop(new MagnetarError('UNAVAILABLE', `bookie ${address} is closing`));
    });
    await grpc.bind(options.port);
  } catch (error) {
    throw folderError(folder, error);
  }
  // Brokers are served from here on: what HTTP needs is loaded after that.
  const { openHttpSide } = await import('./http-side.ts');
  const httpPort = await openHttpSide(context, {
    port: options.httpPort,
    about: { version, role: 'bookie' },
    // A full one serves reads.
    unready: () =>
      bookie.available || bookie.full !== undefined ? undefined : 'the bookie does not serve at the moment',
    sources,
    common: '',
    parts: [],
  });
  const readyMs = performance.now();
  return {
    banner: bookieBanner({ version, data: options.data, address, httpPort, readyMs }),
    facts: { address, httpPort, data: folder },
  };
}

/** `magnetar bookie`. Resolves with the exit code. */
export async function runBookie(shell: Shell, options: BookieOptions): Promise<number> {
  const { logLevel } = options;
  return await runRole(shell, { role: 'bookie', logLevel }, async (context) => await start(context, options));
}
