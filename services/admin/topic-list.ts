import type { FastifyInstance } from 'fastify';
import type { Administration } from '../wire/administration.ts';
import { nameList } from './name-list.ts';
import { names, namespaceParams, ok, params, responses } from './schemas.ts';

/** The topics of a namespace, which Pulsar lists in two places. */
export function addTopicList(
  app: FastifyInstance,
  administration: Administration,
  place: { readonly url: string; readonly tags: readonly string[] },
): void {
  app.get<{ Params: { readonly tenant: string; readonly namespace: string } }>(
    place.url,
    {
      schema: {
        tags: place.tags,
        summary: 'List the topics of a namespace',
        params: params(namespaceParams),
        response: responses(ok(names('Their full names, sorted')), 404, 412),
      },
    },
    async ({ params: { tenant, namespace } }, reply) =>
      await reply.type('application/json').send(nameList(await administration.topics(tenant, namespace))),
  );
}
