import type { Server } from '@grpc/grpc-js';
import { hasCode, MagnetarError } from '../lib/errors.ts';
import type { Clock } from '../runtime/clock.ts';
import type { MemoryBudget } from '../runtime/memory.ts';
import { StallGuard } from '../runtime/stall-guard.ts';
import { Connections } from '../wire/connections.ts';
import type { RoleContext } from './role-context.ts';
import type { IntakeMemory } from '../wire/intake.ts';
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

/** How long those who have never sent much may stand still while others like them wait for memory. */
const FIRST_INTAKE_PATIENCE_MS = 2_000;

function intakeMemory(clock: Clock, budget: MemoryBudget): IntakeMemory {
  return {
    intake: new StallGuard(clock, budget.share('intake')),
    firstIntake: new StallGuard(clock, budget.share('firstIntake'), FIRST_INTAKE_PATIENCE_MS),
  };
}

/** Makes a server, with memory for what comes in, that closes with the lifecycle: after everything that is added to it later. */
export function openGrpcServer(
  { environment: { clock }, lifecycle }: RoleContext,
  of: 'broker' | 'bookie',
  budget: MemoryBudget,
): GrpcServer {
  const memory = intakeMemory(clock, budget);
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
