import { createServer, type Server } from 'node:http';
import { MagnetarError } from '../lib/errors.ts';
import type { Logger } from '../runtime/logger.ts';
import { type HttpPart, LazyPart, nothingAt, refuseMethod, sendJson } from './http-part.ts';

const HOST = '127.0.0.1';
const CLOSE_MS = 2_000;
/** How long a client may take to send a request. */
const REQUEST_MS = 30_000;
const MAX_CONNECTIONS = 1_024;

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
  /** Why requests cannot be taken at the moment; undefined: they are. */
  readonly unready: () => string | undefined;
  readonly logger: Logger;
  /** What is served beside health and version. */
  readonly parts: readonly HttpPart[];
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

function readiness(unready: string | undefined): Answer {
  return unready === undefined ? [200, { status: 'ready' }] : [503, { status: `not ready: ${unready}` }];
}

/**
 * Serves GET /healthz (the process lives), /readyz (it takes requests; else 503 and why not) and /version, all JSON, and the
 * parts.
 *
 * @throws PORT_IN_USE
 */
export async function startHttp(options: HttpOptions): Promise<HttpServer> {
  const { port, about, unready, logger } = options;
  const probes: ReadonlyMap<string, () => Answer> = new Map<string, () => Answer>([
    ['/healthz', () => [200, { status: 'ok' }]],
    ['/readyz', () => readiness(unready())],
    ['/version', () => [200, { ...about, node: process.version }]],
  ]);
  const parts = options.parts.map((part) => new LazyPart(part, logger));
  const server = createServer({ requestTimeout: REQUEST_MS }, (request, response) => {
    const path = request.url?.split('?', 1)[0] ?? '';
    const probe = probes.get(path);
    const isRead = request.method === 'GET' || request.method === 'HEAD';
    const part = parts.find((each) => each.serves(path));
    if (probe !== undefined && isRead) sendJson(response, ...probe());
    else if (probe !== undefined) refuseMethod(request, response);
    else if (part !== undefined) void part.answer(request, response);
    else sendJson(response, 404, nothingAt(request));
  });
  server.maxConnections = MAX_CONNECTIONS;
  const bound = await listen(server, port);
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    await shutDown(server);
    await Promise.all(parts.map(async (part) => await part.close()));
  };
  return { port: bound, close: async () => await (closing ??= close()) };
}
