import type { Server } from '@grpc/grpc-js';
import { hasCode, MagnetarError } from '../lib/errors.ts';
import type { Lifecycle } from '../runtime/lifecycle.ts';
import type { StallGuard } from '../runtime/stall-guard.ts';
import { Connections } from '../wire/connections.ts';
import { bindWithWideWindows, createServer } from '../wire/server.ts';

/** Until authentication is there, everything is served to this machine alone. */
export const HOST = '127.0.0.1';
const SHUTDOWN_MS = 2_000;

/** A gRPC server of this process. */
export interface GrpcServer {
  readonly server: Server;
  readonly connections: Connections;
  /**
   * Begins to serve what was added, on a port of this machine (0: a free one) or a socket in the file system; resolves with
   * the port. @throws PORT_IN_USE naming the flag
   */
  readonly bind: (at: number | { readonly socket: string }) => Promise<number>;
}

async function shutDown(server: Server): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(() => {
      server.forceShutdown();
      resolve();
    }, SHUTDOWN_MS);
    server.tryShutdown(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** Makes a server, with memory for what comes in, that closes with the lifecycle: after everything that is added to it later. */
export function openGrpcServer(lifecycle: Lifecycle, of: 'broker' | 'bookie', memory: StallGuard): GrpcServer {
  const connections = new Connections(of);
  const server = createServer();
  lifecycle.add('gRPC server', async () => await shutDown(server));
  return {
    server,
    connections,
    async bind(at) {
      if (typeof at === 'object')
        return await bindWithWideWindows(server, `unix:${at.socket}`, { connections, memory });
      try {
        return await bindWithWideWindows(server, `${HOST}:${at}`, { connections, memory });
      } catch (error) {
        if (!hasCode(error, 'PORT_IN_USE')) throw error;
        const text = `port ${at} of ${HOST} is in use; name another one with --port`;
        throw new MagnetarError('PORT_IN_USE', text, { details: { port: String(at), flag: '--port' }, cause: error });
      }
    },
  };
}
