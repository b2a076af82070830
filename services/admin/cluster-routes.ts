import type { FastifyInstance } from 'fastify';
import type { Administration } from '../wire/administration.ts';
import { names, ok, responses } from './schemas.ts';

/** /admin/v2/clusters and /admin/v2/brokers */
export function clusterRoutes(app: FastifyInstance, administration: Administration): void {
  app.get(
    '/clusters',
    { schema: { tags: ['clusters'], summary: 'List the clusters', response: responses(ok(names('Their names'))) } },
    () => administration.clusters,
  );
  app.get(
    '/brokers/health',
    {
      schema: {
        tags: ['brokers'],
        summary: 'Ask whether the broker serves and messages can be stored',
        response: responses(ok({ description: 'It does', content: { 'text/plain': { schema: { const: 'ok' } } } })),
      },
    },
    async (_request, reply) => {
      const { unready } = administration;
      if (unready !== undefined) throw unready;
      return await reply.type('text/plain').send('ok');
    },
  );
}
