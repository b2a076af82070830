/** The REST API under /admin/v2, and its documentation under /docs. */
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance, FastifyPluginAsync, FastifyRequest } from 'fastify';
import type { Logger } from '../runtime/logger.ts';
import { clusterRoutes } from './cluster-routes.ts';
import { answerErrors, refuseOtherMethods } from './errors.ts';
import { namespaceRoutes } from './namespace-routes.ts';
import type { Administration } from '../wire/administration.ts';
import { type IsoTime } from './stats-json.ts';
import { statsRoutes } from './stats-routes.ts';
import { subscriptionRoutes } from './subscription-routes.ts';
import { tenantRoutes } from './tenant-routes.ts';
import { topicRoutes } from './topic-routes.ts';

const PREFIX = '/admin/v2';
const DOCS = '/docs';

/** The page takes everything from the server itself. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'self'",
  "img-src 'self' data:",
  "style-src 'self' 'unsafe-inline'",
  "object-src 'none'",
  "frame-ancestors 'none'",
  "base-uri 'self'",
].join('; ');

export interface AdminOptions {
  readonly administration: Administration;
  readonly logger: Logger;
  /** Of the program, for the document. */
  readonly version: string;
  readonly isoTime: IsoTime;
}

/** A page of another site may make a browser send a request; it must not change anything here. */
function isForeign({ headers: { origin, host } }: FastifyRequest): boolean {
  return origin !== undefined && origin !== `http://${host}` && origin !== `https://${host}`;
}

function refuseForeign(app: FastifyInstance): void {
  app.addHook('onRequest', async (request, reply) => {
    if (request.method === 'GET' || request.method === 'HEAD' || !isForeign(request)) return undefined;
    const reason = `a page of ${request.headers.origin} may not change anything here`;
    return await reply.code(403).send({ reason });
  });
}

/** An empty body counts as none, also when it says that it is JSON: Pulsar's clients send that. */
function acceptEmptyBodies(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeContentTypeParser('application/json');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body: string, done) => {
    if (body === '') done(null, undefined);
    else void parse(request, body, done);
  });
}

async function addDocs(app: FastifyInstance, version: string): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.0.3',
      info: {
        title: 'Magnetar administration',
        description: "Tenants, namespaces, topics and subscriptions. Paths and JSON are those of Pulsar's REST API.",
        version,
      },
      tags: [
        { name: 'tenants', description: 'Who shares the system' },
        { name: 'namespaces', description: 'Groups of topics within a tenant' },
        { name: 'persistent topics', description: 'Topics as a whole' },
        { name: 'subscriptions', description: 'Subscriptions of a topic, and where they are' },
        { name: 'clusters' },
        { name: 'brokers' },
      ],
    },
    hideUntagged: true,
  });
  await app.register(swaggerUi, {
    routePrefix: DOCS,
    staticCSP: CONTENT_SECURITY_POLICY,
    theme: { title: 'Magnetar administration' },
    uiConfig: { docExpansion: 'list', validatorUrl: null, tryItOutEnabled: true },
  });
}

/** The plugin. What it imports is loaded with it: import it when it is needed. */
export function adminPlugin({ administration, logger, version, isoTime }: AdminOptions): FastifyPluginAsync {
  return async (app) => {
    await addDocs(app, version);
    await app.register(
      async (api) => {
        answerErrors(api, logger);
        refuseForeign(api);
        acceptEmptyBodies(api);
        // The schemas of answers are for the document; compiling serializers of them would cost more than it gains.
        api.setSerializerCompiler(() => (data) => JSON.stringify(data));
        const refuseOthers = refuseOtherMethods(api);
        tenantRoutes(api, administration);
        namespaceRoutes(api, administration);
        topicRoutes(api, administration);
        statsRoutes(api, administration, isoTime);
        subscriptionRoutes(api, administration);
        clusterRoutes(api, administration);
        refuseOthers();
      },
      { prefix: PREFIX },
    );
  };
}
