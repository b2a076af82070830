/** The gRPC service `magnetar.v1.Bookie` over any bookie. */
import type { Server } from '@grpc/grpc-js';
import type { Bookie } from '../../ledger/bookie.ts';
import type { MagnetarError } from '../../lib/errors.ts';
import type { Environment } from '../../runtime/environment.ts';
import { type MemoryBudget, memoryBudget } from '../../runtime/memory.ts';
import { StallGuard } from '../../runtime/stall-guard.ts';
import type { Credit } from '../../wire/frames.ts';
import { readResponse } from '../../wire/bookie-codec.ts';
import { sendInPieces } from '../../wire/pieces.ts';
import { readOneByOne } from '../../wire/server.ts';
import { type BookieHandlers, bookieService } from '../../wire/services.ts';
import { serveAppends } from './append-stream.ts';
import { statusError } from './bookie-stream.ts';
import { serveReads } from './read-stream.ts';

/** How the service is offered. */
export interface BookieServiceOptions {
  readonly environment: Environment;
  /** For clients' logs: name and version. */
  readonly serverName: string;
  /** The memory of the process. One of its own when not given. */
  readonly memory?: MemoryBudget;
  /** What one client may have under way on its append stream. 8,192 entries of 33,554,432 bytes. */
  readonly appendCredit?: Credit;
  /** What one client may have under way on its read stream, in reads. 1,024. */
  readonly readCredit?: Credit;
}

/** The service on a server. */
export interface BookieService {
  /** Ends every stream with this error, and refuses new ones. Idempotent. */
  stop(error: MagnetarError): void;
}

const APPEND_CREDIT: Credit = { items: 8_192, bytes: 33_554_432 };
const READ_CREDIT: Credit = { items: 1_024, bytes: 0 };

/** Adds the service to a gRPC server (which the caller binds, and shuts down). */
export function addBookieService(server: Server, bookie: Bookie, options: BookieServiceOptions): BookieService {
  const { environment, serverName, appendCredit = APPEND_CREDIT, readCredit = READ_CREDIT } = options;
  const { instance } = bookie;
  const { memory: budget = memoryBudget() } = options;
  const memory = { write: budget.share('write'), read: new StallGuard(environment.clock, budget.share('read')) };
  const streams = new Set<{ fail(error: MagnetarError): void }>();
  let stopped: MagnetarError | undefined;
  const handlers: BookieHandlers = {
    Append(call) {
      if (stopped !== undefined) {
        call.emit('error', statusError(stopped));
        return;
      }
      readOneByOne(call);
      const gone = (): void => void streams.delete(stream);
      const stream = serveAppends(call, bookie, {
        environment,
        memory,
        serverName,
        instance,
        credit: appendCredit,
        gone,
      });
      streams.add(stream);
    },
    Read(call) {
      if (stopped !== undefined) {
        call.emit('error', statusError(stopped));
        return;
      }
      readOneByOne(call);
      sendInPieces(call, readResponse.encodePieced);
      const gone = (): void => void streams.delete(stream);
      const stream = serveReads(call, bookie, { environment, memory, serverName, instance, credit: readCredit, gone });
      streams.add(stream);
    },
  };
  server.addService(bookieService, handlers);
  return {
    stop(error) {
      stopped ??= error;
      for (const stream of streams) stream.fail(error);
    },
  };
}
