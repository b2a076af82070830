import fc from 'fast-check';
import { expect, test } from 'vitest';

import {
  bytes,
  clientHellos,
  codecContract,
  credits,
  entryIds,
  errors,
  indexes,
  ledgerIds,
  referenceType,
  safe,
  serverHellos,
  text,
  uint32,
} from './codec.contract.ts';
import { consumeRequest, consumeResponse } from './consume-codec.ts';
import type { ConsumeRequest, ConsumeResponse, Position, WireMessageId } from './frames.ts';

const FILE = 'magnetar/v1/broker.proto';

const messageIds: fc.Arbitrary<WireMessageId> = fc.record(
  { ledgerId: ledgerIds, entryId: entryIds, batchIndex: uint32, partition: uint32, index: indexes },
  { requiredKeys: ['ledgerId', 'entryId', 'batchIndex'] },
);

const positions: fc.Arbitrary<Position> = fc.oneof(
  fc.constant<Position>({ at: 'earliest' }),
  fc.constant<Position>({ at: 'latest' }),
  messageIds.map((id): Position => ({ at: 'messageId', id })),
  safe.map((time): Position => ({ at: 'time', time })),
  indexes.map((index): Position => ({ at: 'index', index })),
);

const requests: fc.Arbitrary<ConsumeRequest> = fc.record(
  {
    hello: clientHellos,
    subscribes: fc.array(
      fc.record(
        {
          consumer: uint32,
          topic: text,
          subscription: text,
          type: fc.oneof(
            fc.constant('exclusive' as const),
            fc.integer({ min: 1, max: 2_147_483_647 }).map((unknown) => ({ unknown })),
          ),
          start: positions,
          name: text,
          instance: bytes,
          topicIdentity: text,
        },
        { requiredKeys: ['consumer', 'topic', 'subscription', 'type', 'name', 'instance', 'topicIdentity'] },
      ),
      { maxLength: 3 },
    ),
    flows: fc.array(fc.record({ consumer: uint32, messages: uint32, bytes: safe }), { maxLength: 3 }),
    acks: fc.array(
      fc.record({
        consumer: uint32,
        ackId: safe,
        below: indexes,
        ranges: fc.array(fc.tuple(safe, safe), { maxLength: 40 }).map((pairs) => pairs.flat()),
      }),
      { maxLength: 3 },
    ),
    seeks: fc.array(fc.record({ consumer: uint32, seekId: safe, to: positions }), { maxLength: 3 }),
    closes: fc.array(fc.record({ consumer: uint32, unsubscribe: fc.boolean() }), { maxLength: 3 }),
  },
  { requiredKeys: [] },
);

codecContract('ConsumeRequest', {
  codec: consumeRequest,
  type: referenceType(FILE, 'magnetar.v1.ConsumeRequest'),
  frames: requests,
  repeated: ['subscribes', 'flows', 'acks', 'seeks', 'closes'],
});

const responses: fc.Arbitrary<ConsumeResponse> = fc.record(
  {
    hello: serverHellos,
    subscribed: fc.array(
      fc.record(
        {
          consumer: uint32,
          error: errors,
          name: text,
          nextIndex: indexes,
          endIndex: indexes,
          moves: safe,
          topicIdentity: text,
          subscriptionIdentity: text,
        },
        {
          requiredKeys: ['consumer', 'name', 'nextIndex', 'endIndex', 'moves', 'topicIdentity', 'subscriptionIdentity'],
        },
      ),
      { maxLength: 3 },
    ),
    deliveries: fc.array(
      fc.record({
        consumer: uint32,
        ledgerId: ledgerIds,
        entryId: entryIds,
        index: indexes,
        appendTime: safe,
        crc32c: uint32,
        skip: bytes,
        block: bytes,
        redeliveries: uint32,
      }),
      { maxLength: 3 },
    ),
    caughtUp: fc.array(fc.record({ consumer: uint32, index: indexes }), { maxLength: 3 }),
    ackReceipts: fc.array(
      fc.record({ consumer: uint32, ackId: safe, error: errors }, { requiredKeys: ['consumer', 'ackId'] }),
      { maxLength: 3 },
    ),
    seeksDone: fc.array(
      fc.record(
        { consumer: uint32, seekId: safe, error: errors, nextIndex: indexes, moves: safe },
        { requiredKeys: ['consumer', 'seekId', 'nextIndex', 'moves'] },
      ),
      { maxLength: 3 },
    ),
    closed: fc.array(fc.record({ consumer: uint32, error: errors }, { requiredKeys: ['consumer'] }), { maxLength: 3 }),
    credit: credits,
    losses: fc.array(
      fc.record(
        {
          consumer: uint32,
          firstIndex: indexes,
          lastIndex: indexes,
          ledgerId: ledgerIds,
          firstEntryId: entryIds,
          lastEntryId: entryIds,
          error: errors,
        },
        { requiredKeys: ['consumer', 'firstIndex', 'lastIndex', 'ledgerId', 'firstEntryId', 'error'] },
      ),
      { maxLength: 3 },
    ),
  },
  { requiredKeys: [] },
);

codecContract('ConsumeResponse', {
  codec: consumeResponse,
  type: referenceType(FILE, 'magnetar.v1.ConsumeResponse'),
  frames: responses,
  repeated: ['subscribed', 'deliveries', 'caughtUp', 'ackReceipts', 'seeksDone', 'closed', 'losses'],
});

test('a seek to nowhere and half a range are violations that say so', () => {
  const seek = Buffer.from([0x2a, 4, 0x10, 9, 0x1a, 0]); // seeks { seek_id: 9, to {} }
  expect(() => consumeRequest.decode(seek)).toThrow(/seek 9 has no position/);
  const acks = [{ consumer: 1, ackId: 7, below: 0 as never, ranges: [1, 2, 3] }];
  expect(() => consumeRequest.decode(consumeRequest.encode({ acks }))).toThrow(/ack 7 has 3 numbers in its ranges/);
});

test('a start without any of its fields is no start', () => {
  const frame = consumeRequest.decode(Buffer.from([0x12, 2, 0x2a, 0])); // subscribes { start {} }
  expect(frame.subscribes?.[0]?.start).toBeUndefined();
});
