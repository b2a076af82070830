/** Parts of what is served over HTTP, each loaded with the first request for it. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { FastifyInstance, FastifyPluginAsync } from 'fastify';
import type { Logger } from '../runtime/logger.ts';

/** A name of 255 characters, each of them percent-encoded UTF-8, fits into a path. */
const MAX_PARAMETER_CHARACTERS = 4_096;
const READS = 'GET, HEAD';
const INTERNAL = { code: 'INTERNAL', message: 'the server could not answer; its log says why' };

/** Part of what is served, beside the probes. */
export interface HttpPart {
  /** What it serves: these paths, and all that is below them. */
  readonly paths: readonly string[];
  /**
   * Registered at the first request for one of the paths: what it imports, it imports then, so that neither the start, nor a
   * probe, nor another part pays for it, or fails with it.
   */
  readonly plugin: FastifyPluginAsync;
}

/** Answers with JSON. */
export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  const text = JSON.stringify(body);
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
  });
  response.end(text);
}

/** What is said of a path that nothing is at. */
export function nothingAt({ method, url }: Pick<IncomingMessage, 'method' | 'url'>): unknown {
  return { code: 'NOT_FOUND', message: `there is nothing at ${method} ${url}` };
}

/** Answers a request whose method is not one that a read-only path takes. */
export function refuseMethod({ method, url }: IncomingMessage, response: ServerResponse): void {
  response.setHeader('allow', READS);
  const message = `${method} is not what ${url} takes; it takes ${READS}`;
  sendJson(response, 405, { code: 'INVALID_ARGUMENT', message });
}

/** A part that is loaded when it is needed. */
export class LazyPart {
  readonly #part: HttpPart;
  readonly #logger: Logger;
  #app: Promise<FastifyInstance> | undefined;

  constructor(part: HttpPart, logger: Logger) {
    this.#part = part;
    this.#logger = logger;
  }

  serves(path: string): boolean {
    return this.#part.paths.some((own) => path === own || path.startsWith(`${own}/`));
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#app ??= this.#load();
    try {
      (await this.#app).routing(request, response);
    } catch (error) {
      this.#logger.error(`what is served at ${this.#part.paths.join(', ')} could not be loaded`, { error });
      sendJson(response, 500, INTERNAL);
    }
  }

  async close(): Promise<void> {
    const app = await this.#app?.catch(() => undefined);
    await app?.close();
  }

  async #load(): Promise<FastifyInstance> {
    const { fastify } = await import('fastify');
    const app = fastify({
      logger: false,
      // A path that cannot be decoded does not come to a part, whose errors may have either shape.
      frameworkErrors: ({ statusCode = 400, message }, _request, reply) => {
        sendJson(reply.raw, statusCode, { code: 'INVALID_ARGUMENT', message, reason: message });
      },
      routerOptions: { maxParamLength: MAX_PARAMETER_CHARACTERS },
      ajv: { customOptions: { keywords: ['example'] } }, // in schemas that OpenAPI shows, too
    });
    app.setNotFoundHandler(async (request, reply) => await reply.code(404).send(nothingAt(request)));
    app.setErrorHandler(async (error: { statusCode?: number; message: string }, request, reply) => {
      const { statusCode = 500, message } = error;
      if (statusCode < 500) return await reply.code(statusCode).send({ code: 'INVALID_ARGUMENT', message });
      this.#logger.error(`${request.method} ${request.url} failed`, { error });
      return await reply.code(statusCode).send(INTERNAL);
    });
    await app.register(this.#part.plugin);
    await app.ready();
    return app;
  }
}
