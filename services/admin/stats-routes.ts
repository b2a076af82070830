import type { FastifyInstance } from 'fastify';
import type { Administration } from '../wire/administration.ts';
import { ok, params, responses, topicParams } from './schemas.ts';
import { type IsoTime, topicInternalsJson, topicStatsJson } from './stats-json.ts';
import { type OneTopic, topicName } from './topic-routes.ts';

type Schema = Readonly<Record<string, unknown>>;

const tags = ['persistent topics'];

function number(description: string): Schema {
  return { type: 'number', description };
}

const outFlow: Schema = {
  msgRateOut: number('Messages delivered per second'),
  msgThroughputOut: number('Bytes delivered per second'),
  msgOutCounter: number('Messages delivered'),
  bytesOutCounter: number('Bytes delivered'),
};
const inFlow: Schema = {
  msgRateIn: number('Messages published per second'),
  msgThroughputIn: number('Bytes published per second'),
  msgInCounter: number('Messages published'),
  bytesInCounter: number('Bytes published'),
  averageMsgSize: number('Bytes of a message, on average'),
};
const connection: Schema = {
  address: { type: 'string', description: 'Where the client is' },
  connectedSince: { type: 'string', format: 'date-time' },
  clientVersion: { type: 'string', description: 'What the client says of itself' },
};
const acks: Schema = {
  msgRateRedeliver: number('Messages per second that had been delivered before'),
  messageAckRate: number('Messages acknowledged per second'),
  unackedMessages: number('Messages that were delivered and are not acknowledged'),
  lastConsumedTimestamp: number('When something was delivered last; ms since 1970-01-01 UTC, 0: never'),
  lastAckedTimestamp: number('When something was acknowledged last'),
  lastConsumedFlowTimestamp: number('When the consumer asked for more last'),
};
const consumer: Schema = {
  type: 'object',
  properties: {
    consumerName: { type: 'string' },
    ...outFlow,
    ...acks,
    availablePermits: number('Messages that it may still be sent'),
    ...connection,
  },
};
const subscription: Schema = {
  type: 'object',
  properties: {
    ...outFlow,
    ...acks,
    msgBacklog: number('Messages that are not acknowledged'),
    backlogSize: number('Bytes from the first of them on, about'),
    type: { type: 'string', enum: ['Exclusive'] },
    activeConsumerName: { type: 'string', nullable: true },
    markDeleteIndex: number('Every message with a lower index is acknowledged'),
    ackedAboveMarkDelete: number('So many with a higher one are, too'),
    isDurable: { type: 'boolean', description: 'false: a reader' },
    consumers: { type: 'array', items: consumer },
  },
};
const stats: Schema = {
  type: 'object',
  description:
    'Counters run since the topic was opened, which it is when somebody needs it; rates are those of the last minute or so',
  properties: {
    ...inFlow,
    ...outFlow,
    storageSize: number('Bytes stored, each counted once, however many copies there are'),
    backlogSize: number('Bytes that the slowest subscription has before it, about'),
    oldestIndex: number('Index of the oldest message'),
    endIndex: number('Index that the next message gets'),
    deduplicationStatus: { type: 'string' },
    publishers: {
      type: 'array',
      items: { type: 'object', properties: { producerName: { type: 'string' }, ...inFlow, ...connection } },
    },
    subscriptions: { type: 'object', description: 'By name', additionalProperties: subscription },
  },
};
const internals: Schema = {
  type: 'object',
  properties: {
    entriesAddedCounter: number('Entries stored since the topic was opened'),
    numberOfEntries: number('Entries stored'),
    totalSize: number('Bytes stored'),
    currentLedgerEntries: number('Entries of the ledger that is written'),
    currentLedgerSize: number('Bytes of the ledger that is written'),
    pendingAddEntriesCount: number('Entries that are not confirmed yet'),
    lastConfirmedEntry: { type: 'string', description: 'As ledger:entry; entry -1: there is none' },
    state: { type: 'string', enum: ['LedgerOpened', 'ClosedLedger'] },
    incarnation: number('Rises when a topic of this name is made again'),
    ownerEpoch: number('Epoch of the broker that serves it'),
    ledgers: { type: 'array', description: 'The newest 10,000, oldest first', items: { type: 'object' } },
    ackLedgers: { type: 'array', description: 'Ledgers of the acknowledgments', items: { type: 'integer' } },
    cursors: { type: 'object', description: 'By subscription', additionalProperties: { type: 'object' } },
  },
};

/** /admin/v2/persistent: figures of a topic. */
export function statsRoutes(app: FastifyInstance, administration: Administration, isoTime: IsoTime): void {
  app.get<OneTopic>(
    '/persistent/:tenant/:namespace/:topic/stats',
    {
      schema: {
        tags,
        summary: 'Get what goes on in a topic',
        params: params(topicParams),
        response: responses(ok(stats), 404, 412),
      },
    },
    async ({ params: path }) => topicStatsJson(await administration.topicStats(topicName(path)), isoTime),
  );
  for (const [end, hide] of [
    ['internalStats', false],
    ['internal-stats', true],
  ] as const) {
    app.get<OneTopic>(
      `/persistent/:tenant/:namespace/:topic/${end}`,
      {
        schema: {
          hide,
          tags,
          summary: 'Get what a topic is made of',
          description: 'Its ledgers, and where its subscriptions are.',
          params: params(topicParams),
          response: responses(ok(internals), 404, 412),
        },
      },
      async ({ params: path }) => topicInternalsJson(await administration.topicInternals(topicName(path)), isoTime),
    );
  }
}
