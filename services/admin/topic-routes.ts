import type { FastifyInstance } from 'fastify';
import { addTopicList } from './topic-list.ts';
import type { Administration } from '../wire/administration.ts';
import { changeResponses, forceQuery, params, topicParams } from './schemas.ts';

export interface TopicParams {
  readonly tenant: string;
  readonly namespace: string;
  readonly topic: string;
}

export interface OneTopic {
  readonly Params: TopicParams;
}

const tags = ['persistent topics'];

/** The full name of the topic that a path names. */
export function topicName({ tenant, namespace, topic }: TopicParams): string {
  return `persistent://${tenant}/${namespace}/${topic}`;
}

/** /admin/v2/persistent: topics as a whole. */
export function topicRoutes(app: FastifyInstance, administration: Administration): void {
  addTopicList(app, administration, { url: '/persistent/:tenant/:namespace', tags });
  app.put<OneTopic>(
    '/persistent/:tenant/:namespace/:topic',
    {
      schema: {
        tags,
        summary: 'Create a topic',
        description: 'Topics are made on first use, too.',
        params: params(topicParams),
        response: changeResponses(404, 412),
      },
    },
    async (request, reply) => {
      await administration.createTopic(topicName(request.params));
      return await reply.code(204).send();
    },
  );
  app.delete<OneTopic & { readonly Querystring: { readonly force: boolean } }>(
    '/persistent/:tenant/:namespace/:topic',
    {
      schema: {
        tags,
        summary: 'Delete a topic',
        description: 'With its messages and subscriptions. A topic that is made under its name later is another one.',
        params: params(topicParams),
        querystring: forceQuery('Closes producers and consumers; else there must be none'),
        response: changeResponses(404, 412),
      },
    },
    async (request, reply) => {
      await administration.deleteTopic(topicName(request.params), request.query.force);
      return await reply.code(204).send();
    },
  );
  app.put<OneTopic>(
    '/persistent/:tenant/:namespace/:topic/unload',
    {
      schema: {
        tags,
        summary: 'Unload a topic',
        description: 'Producers and consumers connect again, and the topic is opened anew.',
        params: params(topicParams),
        response: changeResponses(404, 412),
      },
    },
    async (request, reply) => {
      await administration.unloadTopic(topicName(request.params));
      return await reply.code(204).send();
    },
  );
}
