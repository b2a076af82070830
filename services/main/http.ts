import { fastify } from 'fastify';
import { MagnetarError } from '../lib/errors.ts';

const HOST = '127.0.0.1';
const CLOSE_MS = 2_000;

/** What a process tells about itself. */
export interface About {
  readonly version: string;
  readonly role: string;
}

/** The HTTP side of a process. */
export interface HttpServer {
  readonly port: number;
  /** Idempotent. Answers what is under way, within two seconds. */
  close(): Promise<void>;
}

function listenError(error: unknown, port: number): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code !== 'EADDRINUSE' && code !== 'EACCES') return error;
  const why = code === 'EACCES' ? 'may not be used by this user' : 'is in use';
  const text = `port ${port} of ${HOST} ${why}; name another one with --http-port`;
  return new MagnetarError('PORT_IN_USE', text, { details: { port: String(port), flag: '--http-port' }, cause: error });
}

/**
 * Serves GET /healthz (the process lives), /readyz (it takes requests; else 503) and /version, all JSON.
 *
 * @throws PORT_IN_USE
 */
export async function startHttp({
  port,
  about,
  isReady,
}: {
  port: number;
  about: About;
  isReady: () => boolean;
}): Promise<HttpServer> {
  const app = fastify({ logger: false, forceCloseConnections: true });
  app.get('/healthz', () => ({ status: 'ok' }));
  app.get('/readyz', async (_request, reply) => {
    const ready = isReady();
    await reply.code(ready ? 200 : 503).send({ status: ready ? 'ready' : 'not ready' });
  });
  app.get('/version', () => ({ ...about, node: process.version }));
  app.setNotFoundHandler(async (request, reply) => {
    await reply.code(404).send({ code: 'NOT_FOUND', message: `there is nothing at ${request.method} ${request.url}` });
  });
  try {
    await app.listen({ host: HOST, port });
  } catch (error) {
    throw listenError(error, port);
  }
  const address = app.server.address();
  const bound = address === null || typeof address === 'string' ? port : address.port;
  let closing: Promise<void> | undefined;
  return {
    port: bound,
    close: async () => {
      closing ??= Promise.race([
        app.close().then(() => {}),
        new Promise<void>((resolve) => {
          setTimeout(resolve, CLOSE_MS).unref();
        }),
      ]);
      await closing;
    },
  };
}
