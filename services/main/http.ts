import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { FastifyInstance, FastifyPluginAsync } from 'fastify';
import { MagnetarError } from '../lib/errors.ts';
import type { Logger } from '../runtime/logger.ts';

const HOST = '127.0.0.1';
const CLOSE_MS = 2_000;
/** How long a client may take to send a request. */
const REQUEST_MS = 30_000;
const MAX_CONNECTIONS = 1_024;
/** A name of 255 characters, each of them percent-encoded UTF-8, fits into a path. */
const MAX_PARAMETER_CHARACTERS = 4_096;

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

export interface HttpOptions {
  /** 0 takes a free one. */
  readonly port: number;
  readonly about: About;
  readonly isReady: () => boolean;
  readonly logger: Logger;
  /**
   * What is served beside health and version. They are registered in this order at the first request that needs them: what
   * they import, they import then, so that neither the start nor a probe pays for it.
   */
  readonly plugins: readonly FastifyPluginAsync[];
}

type Answer = readonly [status: number, body: unknown];

function listenError(error: NodeJS.ErrnoException, port: number): Error {
  const { code } = error;
  if (code !== 'EADDRINUSE' && code !== 'EACCES') return error;
  const why = code === 'EACCES' ? 'may not be used by this user' : 'is in use';
  const text = `port ${port} of ${HOST} ${why}; name another one with --http-port`;
  return new MagnetarError('PORT_IN_USE', text, { details: { port: String(port), flag: '--http-port' }, cause: error });
}

async function listen(server: Server, port: number): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenError(error, port)));
    server.listen({ host: HOST, port }, resolve);
  });
  const address = server.address();
  return address === null || typeof address === 'string' ? port : address.port;
}

async function shutDown(server: Server): Promise<void> {
  const late = setTimeout(() => server.closeAllConnections(), CLOSE_MS);
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  clearTimeout(late);
}

async function buildApp({ plugins, logger }: HttpOptions): Promise<FastifyInstance> {
  const { fastify } = await import('fastify');
  const app = fastify({ logger: false, routerOptions: { maxParamLength: MAX_PARAMETER_CHARACTERS } });
  app.setNotFoundHandler(async (request, reply) => {
    await reply.code(404).send({ code: 'NOT_FOUND', message: `there is nothing at ${request.method} ${request.url}` });
  });
  app.setErrorHandler(async (error: { statusCode?: number; message: string }, request, reply) => {
    const { statusCode = 500, message } = error;
    if (statusCode < 500) return await reply.code(statusCode).send({ code: 'INVALID_ARGUMENT', message });
    logger.error(`${request.method} ${request.url} failed`, { error });
    return await reply
      .code(statusCode)
      .send({ code: 'INTERNAL', message: 'the server could not answer; its log says why' });
  });
  for (const plugin of plugins) await app.register(plugin);
  await app.ready();
  return app;
}

function send(response: ServerResponse, [status, body]: Answer): void {
  const text = JSON.stringify(body);
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
  });
  response.end(text);
}

/**
 * Serves GET /healthz (the process lives), /readyz (it takes requests; else 503) and /version, all JSON, and what the
 * plugins add.
 *
 * @throws PORT_IN_USE
 */
export async function startHttp(options: HttpOptions): Promise<HttpServer> {
  const { port, about, isReady, logger } = options;
  let app: Promise<FastifyInstance> | undefined;
  const probes: ReadonlyMap<string | undefined, () => Answer> = new Map<string | undefined, () => Answer>([
    ['/healthz', () => [200, { status: 'ok' }]],
    ['/readyz', () => (isReady() ? [200, { status: 'ready' }] : [503, { status: 'not ready' }])],
    ['/version', () => [200, { ...about, node: process.version }]],
  ]);
  const route = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    app ??= buildApp(options);
    try {
      (await app).routing(request, response);
    } catch (error) {
      logger.error('the HTTP side could not be loaded', { error });
      send(response, [500, { code: 'INTERNAL', message: 'the server could not answer; its log says why' }]);
    }
  };
  const server = createServer({ requestTimeout: REQUEST_MS }, (request, response) => {
    const probe = probes.get(request.url?.split('?', 1)[0]);
    if (probe !== undefined && (request.method === 'GET' || request.method === 'HEAD')) send(response, probe());
    else void route(request, response);
  });
  server.maxConnections = MAX_CONNECTIONS;
  const bound = await listen(server, port);
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    await shutDown(server);
    const loaded = await app?.catch(() => undefined);
    await loaded?.close();
  };
  return { port: bound, close: async () => await (closing ??= close()) };
}
