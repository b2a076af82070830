/** Errors as Pulsar's REST API tells them: a status, and one line in `reason`. */
import type { FastifyInstance, FastifyReply, FastifyRequest, HTTPMethods } from 'fastify';
import { type ErrorCode, type ErrorTraits, errorTable, MagnetarError } from '../lib/errors.ts';
import type { Logger } from '../runtime/logger.ts';

const INTERNAL = 500;
const TRY_AGAIN = 503;

/** Statuses that do not follow from whether trying again helps. */
const OWN_STATUS: Readonly<Partial<Record<ErrorCode, number>>> = {
  TENANT_NOT_FOUND: 404,
  NAMESPACE_NOT_FOUND: 404,
  TOPIC_NOT_FOUND: 404,
  SUBSCRIPTION_NOT_FOUND: 404,
  ALREADY_EXISTS: 409,
  NOT_EMPTY: 409,
  METADATA_CONFLICT: 409,
  INVALID_ARGUMENT: 412,
  TOPIC_NAME_INVALID: 412,
  TOPIC_BUSY: 412,
  PRODUCER_BUSY: 412,
  CONSUMER_BUSY: 412,
  POSITION_NOT_FOUND: 412,
  UNSUPPORTED: 501,
  DEADLINE_EXCEEDED: 504,
};

/** Whoever asks again after a fencing finds the one who has taken over. */
function statusOf(code: ErrorCode, { retryable, fencing }: ErrorTraits): number {
  return OWN_STATUS[code] ?? (retryable || fencing ? TRY_AGAIN : INTERNAL);
}

/** The status of every code. */
export const statuses: Readonly<Record<ErrorCode, number>> = Object.fromEntries(
  Object.entries(errorTable).map(([code, traits]) => [code, statusOf(code as ErrorCode, traits)]),
) as Record<ErrorCode, number>;

const HIDDEN = 'the server could not answer; its log says why';

/** What a request is answered with when it fails. */
interface Refusal {
  readonly status: number;
  readonly reason: string;
}

/** What fastify itself refuses, in words that say what is wanted. */
function refusedByFastify(error: Error, { headers, routeOptions }: FastifyRequest): string {
  const code = 'code' in error ? error.code : undefined;
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') return `the body has more than ${routeOptions.bodyLimit} bytes`;
  if (code !== 'FST_ERR_CTP_INVALID_MEDIA_TYPE') return error.message;
  return `content-type is ${JSON.stringify(headers['content-type'])}; it must be application/json`;
}

function refusalOf(error: unknown, request: FastifyRequest): Refusal {
  if (error instanceof MagnetarError) {
    return { status: statuses[error.code], reason: error.code === 'INTERNAL' ? HIDDEN : error.message };
  }
  // What fastify itself refuses: a body that is no JSON, a number that is none.
  if (error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number') {
    if (error.statusCode < INTERNAL) return { status: error.statusCode, reason: refusedByFastify(error, request) };
  }
  return { status: INTERNAL, reason: HIDDEN };
}

/** Has every error of these routes, and every path that none of them has, answered so. */
export function answerErrors(app: FastifyInstance, logger: Logger): void {
  app.setErrorHandler(async (error, request, reply) => {
    const { status, reason } = refusalOf(error, request);
    if (status === INTERNAL) logger.error(`${request.method} ${request.url} failed`, { error });
    return await reply.code(status).send({ reason: reason.replaceAll(/\s*\n\s*/g, ' ') });
  });
  app.setNotFoundHandler(async (request, reply) => {
    const path = request.url.split('?', 1)[0] ?? '';
    return await reply
      .code(404)
      .send({ reason: `there is nothing at ${request.method} ${path}; /docs lists what there is` });
  });
}

const METHODS: readonly HTTPMethods[] = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'];

/** Has other methods of the routes that follow answered with 405, once the function returned is called. */
export function refuseOtherMethods(app: FastifyInstance): () => void {
  const taken = new Map<string, Set<string>>();
  app.addHook('onRoute', ({ method, url, prefix }) => {
    const path = url.slice(prefix.length);
    const methods = taken.get(path) ?? new Set();
    taken.set(path, methods);
    for (const each of [method].flat()) methods.add(each);
  });
  return () => {
    for (const [url, methods] of taken) {
      const allow = [...methods].join(', ');
      const refuse = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
        const reason = `${request.method} is not what ${request.url} takes; it takes ${allow}`;
        return await reply.code(405).header('allow', allow).send({ reason });
      };
      const method = METHODS.filter((each) => !methods.has(each));
      app.route({ method, url, schema: { hide: true }, onRequest: refuse, handler: refuse });
    }
  };
}
