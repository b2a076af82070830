import type { FastifyInstance } from 'fastify';
import { hasCode } from '../lib/errors.ts';
import { optionalPositionSchema, type PositionJson, positionOf, positionSchema } from './message-id.ts';
import { peekHeaders } from './peek.ts';
import type { Administration } from '../wire/administration.ts';
import {
  changeResponses,
  forceQuery,
  names,
  ok,
  params,
  responses,
  subscriptionParams,
  topicParams,
  wholeNumber,
} from './schemas.ts';
import { type TopicParams, topicName } from './topic-routes.ts';

interface OneSubscription {
  readonly Params: TopicParams & { readonly subName: string };
}

const tags = ['subscriptions'];
const TOPIC = '/persistent/:tenant/:namespace/:topic';
const SUBSCRIPTION = `${TOPIC}/subscription/:subName`;

function addLifeCycle(app: FastifyInstance, administration: Administration): void {
  app.get<{ Params: TopicParams }>(
    `${TOPIC}/subscriptions`,
    {
      schema: {
        tags,
        summary: 'List the subscriptions of a topic',
        params: params(topicParams),
        response: responses(ok(names('Their names')), 404, 412),
      },
    },
    async (request) => await administration.subscriptions(topicName(request.params)),
  );
  app.put<OneSubscription & { readonly Body: PositionJson | null | undefined }>(
    SUBSCRIPTION,
    {
      schema: {
        tags,
        summary: 'Create a subscription',
        description: 'At the latest message, unless the body says where. The topic is made where there is none.',
        params: params(subscriptionParams),
        body: optionalPositionSchema,
        response: changeResponses(404, 412),
      },
    },
    async ({ params: path, body }, reply) => {
      const position = positionOf(body ?? 'latest');
      await administration.createSubscription(topicName(path), path.subName, position);
      return await reply.code(204).send();
    },
  );
  app.delete<OneSubscription & { readonly Querystring: { readonly force: boolean } }>(
    SUBSCRIPTION,
    {
      schema: {
        tags,
        summary: 'Delete a subscription',
        params: params(subscriptionParams),
        querystring: forceQuery('Closes its consumer; else there must be none'),
        response: changeResponses(404, 412),
      },
    },
    async ({ params: path, query }, reply) => {
      await administration.deleteSubscription(topicName(path), path.subName, query.force);
      return await reply.code(204).send();
    },
  );
}

function addSkips(app: FastifyInstance, administration: Administration): void {
  app.post<{ Params: OneSubscription['Params'] & { readonly numMessages: number } }>(
    `${SUBSCRIPTION}/skip/:numMessages`,
    {
      schema: {
        tags,
        summary: 'Skip messages',
        description:
          'Counts the next messages that are not acknowledged as acknowledged. What a consumer was sent already stays with it.',
        params: params({ ...subscriptionParams, numMessages: wholeNumber(0, 'How many messages') }),
        response: changeResponses(404, 412),
      },
    },
    async ({ params: path }, reply) => {
      await administration.skipMessages(topicName(path), path.subName, path.numMessages);
      return await reply.code(204).send();
    },
  );
  app.post<OneSubscription>(
    `${SUBSCRIPTION}/skip_all`,
    {
      schema: {
        tags,
        summary: 'Clear the backlog of a subscription',
        description: 'It goes on with the next message that is published.',
        params: params(subscriptionParams),
        response: changeResponses(404, 412),
      },
    },
    async ({ params: path }, reply) => {
      await administration.resetCursor(topicName(path), path.subName, { at: 'latest' });
      return await reply.code(204).send();
    },
  );
}

function addResets(app: FastifyInstance, administration: Administration): void {
  app.post<OneSubscription & { readonly Body: PositionJson }>(
    `${SUBSCRIPTION}/resetcursor`,
    {
      schema: {
        tags,
        summary: 'Move a subscription to a message',
        description: 'Its consumer connects again, and goes on from there.',
        params: params(subscriptionParams),
        body: positionSchema,
        response: changeResponses(404, 412),
      },
    },
    async ({ params: path, body }, reply) => {
      await administration.resetCursor(topicName(path), path.subName, positionOf(body));
      return await reply.code(204).send();
    },
  );
  app.post<{ Params: OneSubscription['Params'] & { readonly timestamp: number } }>(
    `${SUBSCRIPTION}/resetcursor/:timestamp`,
    {
      schema: {
        tags,
        summary: 'Move a subscription to a time',
        description: 'To the first message that was appended at that time or later.',
        params: params({
          ...subscriptionParams,
          timestamp: wholeNumber(0, 'Milliseconds since 1970-01-01 UTC'),
        }),
        response: changeResponses(404, 412),
      },
    },
    async ({ params: path }, reply) => {
      await administration.resetCursor(topicName(path), path.subName, { at: 'time', time: path.timestamp });
      return await reply.code(204).send();
    },
  );
}

function addPeek(app: FastifyInstance, administration: Administration): void {
  app.get<{ Params: OneSubscription['Params'] & { readonly messagePosition: number } }>(
    `${SUBSCRIPTION}/position/:messagePosition`,
    {
      schema: {
        tags,
        summary: 'Look at a message',
        description: 'The payload is the body; the rest stands in headers X-Pulsar-*. Nothing is acknowledged.',
        params: params({
          ...subscriptionParams,
          messagePosition: wholeNumber(1, 'Which of the messages that are not acknowledged; 1 is the next one'),
        }),
        produces: ['application/octet-stream'],
        response: responses(
          ok({
            description: 'The payload',
            content: { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } },
          }),
          400,
          404,
          412,
        ),
      },
    },
    async ({ params: path }, reply) => {
      try {
        const message = await administration.peekMessage(topicName(path), path.subName, path.messagePosition);
        return await reply.headers(peekHeaders(message)).type('application/octet-stream').send(message.payload);
      } catch (error) {
        if (!hasCode(error, 'POSITION_NOT_FOUND')) throw error;
        return await reply.code(404).send({ reason: error.message });
      }
    },
  );
}

/** /admin/v2/persistent: subscriptions. */
export function subscriptionRoutes(app: FastifyInstance, administration: Administration): void {
  addLifeCycle(app, administration);
  addSkips(app, administration);
  addResets(app, administration);
  addPeek(app, administration);
}
