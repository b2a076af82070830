import type { FastifyInstance } from 'fastify';
import { MagnetarError } from '../lib/errors.ts';
import { nameList } from './name-list.ts';
import type { Administration } from '../wire/administration.ts';
import { changeResponses, forceQuery, names, ok, params, responses, tenantParam } from './schemas.ts';

interface OneTenant {
  readonly Params: { readonly tenant: string };
}

interface TenantInfo {
  readonly adminRoles?: readonly string[] | null;
  readonly allowedClusters?: readonly string[] | null;
}

const tags = ['tenants'];
const tenantInfo = {
  type: 'object',
  description: 'Who may administrate the tenant, and the clusters that its namespaces may be in',
  properties: {
    adminRoles: {
      type: 'array',
      nullable: true,
      items: { type: 'string' },
      description: 'Roles of its administrators',
    },
    allowedClusters: {
      type: 'array',
      nullable: true,
      items: { type: 'string' },
      description: 'Clusters, at least one; the list of them is at /admin/v2/clusters',
    },
  },
  examples: [{ adminRoles: [], allowedClusters: ['standalone'] }],
};

/** @throws INVALID_ARGUMENT */
function settingsOf(info: TenantInfo | undefined): {
  adminRoles: readonly string[];
  allowedClusters: readonly string[];
} {
  const allowedClusters = [...new Set(info?.allowedClusters)];
  if (allowedClusters.length === 0 || allowedClusters.includes('')) {
    throw new MagnetarError('INVALID_ARGUMENT', 'allowedClusters is empty; name at least one cluster');
  }
  return { adminRoles: [...new Set(info?.adminRoles)], allowedClusters };
}

function addReads(app: FastifyInstance, administration: Administration): void {
  app.get(
    '/tenants',
    { schema: { tags, summary: 'List the tenants', response: responses(ok(names('Their names, sorted'))) } },
    async (_request, reply) => await reply.type('application/json').send(nameList(administration.tenants())),
  );
  app.get<OneTenant>(
    '/tenants/:tenant',
    {
      schema: {
        tags,
        summary: 'Get a tenant',
        params: params(tenantParam),
        response: responses(ok(tenantInfo), 404, 412),
      },
    },
    (request) => administration.tenant(request.params.tenant),
  );
}

/** /admin/v2/tenants */
export function tenantRoutes(app: FastifyInstance, administration: Administration): void {
  addReads(app, administration);
  app.put<OneTenant & { readonly Body: TenantInfo | undefined }>(
    '/tenants/:tenant',
    {
      schema: {
        tags,
        summary: 'Create a tenant',
        params: params(tenantParam),
        body: tenantInfo,
        response: changeResponses(412),
      },
    },
    async (request, reply) => {
      await administration.createTenant(request.params.tenant, settingsOf(request.body));
      return await reply.code(204).send();
    },
  );
  app.post<OneTenant & { readonly Body: TenantInfo | undefined }>(
    '/tenants/:tenant',
    {
      schema: {
        tags,
        summary: "Replace a tenant's settings",
        params: params(tenantParam),
        body: tenantInfo,
        response: changeResponses(404, 412),
      },
    },
    async (request, reply) => {
      await administration.updateTenant(request.params.tenant, settingsOf(request.body));
      return await reply.code(204).send();
    },
  );
  app.delete<OneTenant & { readonly Querystring: { readonly force: boolean } }>(
    '/tenants/:tenant',
    {
      schema: {
        tags,
        summary: 'Delete a tenant',
        params: params(tenantParam),
        querystring: forceQuery('With its namespaces and their topics; else it must have no namespace'),
        response: changeResponses(404, 412),
      },
    },
    async (request, reply) => {
      await administration.deleteTenant(request.params.tenant, request.query.force);
      return await reply.code(204).send();
    },
  );
}
