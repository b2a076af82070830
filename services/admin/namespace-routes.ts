import type { FastifyInstance } from 'fastify';
import { MagnetarError } from '../lib/errors.ts';
import { nameList } from './name-list.ts';
import { addTopicList } from './topic-list.ts';
import type { Administration } from '../wire/administration.ts';
import { changeResponses, forceQuery, names, namespaceParams, ok, params, responses, tenantParam } from './schemas.ts';

interface OneNamespace {
  readonly Params: { readonly tenant: string; readonly namespace: string };
}

interface Policies {
  readonly [policy: string]: unknown;
  readonly replication_clusters?: readonly string[] | null;
}

const tags = ['namespaces'];
const policies = {
  type: 'object',
  description: 'The policies of the namespace',
  properties: {
    replication_clusters: { type: 'array', items: { type: 'string' }, description: 'The clusters that it is in' },
    bundles: {
      type: 'object',
      description: 'How its topics are distributed over brokers',
      properties: { boundaries: { type: 'array', items: { type: 'string' } }, numBundles: { type: 'integer' } },
    },
    deduplicationEnabled: { type: 'boolean', description: 'Always on' },
    retention_policies: {
      type: 'object',
      description: 'How long messages are kept that nobody needs any more; -1: for ever',
      properties: { retentionTimeInMinutes: { type: 'integer' }, retentionSizeInMB: { type: 'integer' } },
    },
    deleted: { type: 'boolean', description: 'Its deletion has begun, and did not come to its end: repeat it' },
  },
};

const newPolicies = {
  type: 'object',
  nullable: true,
  description: 'The policies of the namespace; none has to be given',
  properties: {
    replication_clusters: {
      type: 'array',
      nullable: true,
      items: { type: 'string' },
      description: 'As in its policies',
    },
  },
  examples: [{}],
};

/** Values by which Pulsar's clients say that a policy is not set. */
const NOT_SET: readonly unknown[] = [null, false, 0, -1, '', 'UNDEFINED', 'None', 'Full'];
/** What may be given beside those. */
const ACCEPTED: readonly string[] = ['replication_clusters', 'bundles', 'deduplicationEnabled'];

function isSet(value: unknown): boolean {
  if (typeof value === 'object' && value !== null) return Object.values(value).some(isSet);
  return !NOT_SET.includes(value);
}

/** The clusters that policies name. A policy that would have no effect is refused. @throws INVALID_ARGUMENT */
function clustersOf(given: Policies): readonly string[] {
  const unsupported = Object.keys(given).find((name) => !ACCEPTED.includes(name) && isSet(given[name]));
  if (unsupported !== undefined) {
    throw new MagnetarError('INVALID_ARGUMENT', `policy ${unsupported} is not supported; leave it out`);
  }
  return given.replication_clusters ?? [];
}

function addReads(app: FastifyInstance, administration: Administration): void {
  app.get<{ Params: { tenant: string } }>(
    '/namespaces/:tenant',
    {
      schema: {
        tags,
        summary: 'List the namespaces of a tenant',
        params: params(tenantParam),
        response: responses(ok(names('As tenant/namespace, sorted')), 404, 412),
      },
    },
    async (request, reply) => {
      const { tenant } = request.params;
      const pages = await administration.namespaces(tenant);
      return await reply.type('application/json').send(nameList(withTenant(tenant, pages)));
    },
  );
  app.get<OneNamespace>(
    '/namespaces/:tenant/:namespace',
    {
      schema: {
        tags,
        summary: 'Get the policies of a namespace',
        params: params(namespaceParams),
        response: responses(ok(policies), 404, 412),
      },
    },
    async ({ params: { tenant, namespace } }) => {
      const { deleting } = await administration.namespace(tenant, namespace);
      return policiesOf(administration.clusters, deleting);
    },
  );
  addTopicList(app, administration, { url: '/namespaces/:tenant/:namespace/topics', tags });
}

/** /admin/v2/namespaces */
export function namespaceRoutes(app: FastifyInstance, administration: Administration): void {
  addReads(app, administration);
  app.put<OneNamespace & { readonly Body: Policies | null | undefined }>(
    '/namespaces/:tenant/:namespace',
    {
      schema: {
        tags,
        summary: 'Create a namespace',
        params: params(namespaceParams),
        body: newPolicies,
        response: changeResponses(404, 412),
      },
    },
    async ({ params: { tenant, namespace }, body }, reply) => {
      await administration.createNamespace(tenant, namespace, clustersOf(body ?? {}));
      return await reply.code(204).send();
    },
  );
  app.delete<OneNamespace & { readonly Querystring: { readonly force: boolean } }>(
    '/namespaces/:tenant/:namespace',
    {
      schema: {
        tags,
        summary: 'Delete a namespace',
        params: params(namespaceParams),
        querystring: forceQuery('With its topics, whoever is connected to them; else it must have no topic'),
        response: changeResponses(404, 412),
      },
    },
    async ({ params: { tenant, namespace }, query }, reply) => {
      await administration.deleteNamespace(tenant, namespace, query.force);
      return await reply.code(204).send();
    },
  );
}

function policiesOf(clusters: readonly string[], deleted: boolean): Policies {
  return {
    auth_policies: { namespace_auth: {}, destination_auth: {}, subscription_auth_roles: {} },
    replication_clusters: clusters,
    bundles: { boundaries: ['0x00000000', '0xffffffff'], numBundles: 1 },
    backlog_quota_map: {},
    deduplicationEnabled: true,
    retention_policies: { retentionTimeInMinutes: -1, retentionSizeInMB: -1 },
    deleted,
  };
}

async function* withTenant(
  tenant: string,
  pages: AsyncIterable<readonly string[]>,
): AsyncGenerator<readonly string[], void, undefined> {
  for await (const page of pages) yield page.map((namespace) => `${tenant}/${namespace}`);
}
