import type { FastifyInstance } from 'fastify';
import { MagnetarError } from '../lib/errors.ts';
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
        summary: 'Ask whether the broker serves',
        response: responses(ok({ description: 'It does', content: { 'text/plain': { schema: { const: 'ok' } } } })),
      },
    },
    async (_request, reply) => {
      if (!administration.healthy) throw new MagnetarError('UNAVAILABLE', 'the broker does not serve at the moment');
      return await reply.type('text/plain').send('ok');
    },
  );
}
