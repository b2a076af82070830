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
  sequenceIds,
  serverHellos,
  text,
  uint32,
} from './codec.contract.ts';
import type { PublishRequest, PublishResponse } from './frames.ts';
import { publishRequest, publishResponse } from './publish-codec.ts';

const FILE = 'magnetar/v1/broker.proto';

const requests: fc.Arbitrary<PublishRequest> = fc.record(
  {
    hello: clientHellos,
    opens: fc.array(fc.record({ producer: uint32, topic: text, name: text, instance: bytes }), { maxLength: 3 }),
    batches: fc.array(
      fc.record({ producer: uint32, crc32c: uint32, block: bytes }, { requiredKeys: ['producer', 'block'] }),
      { maxLength: 3 },
    ),
    closes: fc.array(fc.record({ producer: uint32 }), { maxLength: 3 }),
  },
  { requiredKeys: [] },
);

codecContract('PublishRequest', {
  codec: publishRequest,
  type: referenceType(FILE, 'magnetar.v1.PublishRequest'),
  frames: requests,
  repeated: ['opens', 'batches', 'closes'],
});

const responses: fc.Arbitrary<PublishResponse> = fc.record(
  {
    hello: serverHellos,
    opened: fc.array(
      fc.record(
        { producer: uint32, error: errors, name: text, epoch: safe, lastSequenceId: sequenceIds },
        { requiredKeys: ['producer', 'name', 'epoch'] },
      ),
      { maxLength: 3 },
    ),
    receipts: fc.array(
      fc.record(
        {
          producer: uint32,
          lastSequenceId: sequenceIds,
          error: errors,
          ledgerId: ledgerIds,
          entryId: entryIds,
          index: indexes,
          count: uint32,
          duplicate: fc.boolean(),
        },
        { requiredKeys: ['producer', 'lastSequenceId', 'ledgerId', 'entryId', 'index', 'count', 'duplicate'] },
      ),
      { maxLength: 3 },
    ),
    closed: fc.array(fc.record({ producer: uint32, error: errors }, { requiredKeys: ['producer'] }), { maxLength: 3 }),
    credit: credits,
  },
  { requiredKeys: [] },
);

codecContract('PublishResponse', {
  codec: publishResponse,
  type: referenceType(FILE, 'magnetar.v1.PublishResponse'),
  frames: responses,
  repeated: ['opened', 'receipts', 'closed'],
});

test('a block is a view of the frame, not a copy', () => {
  const frame = publishRequest.encode({ batches: [{ producer: 1, block: Buffer.alloc(10_000, 7) }] });
  const block = publishRequest.decode(frame).batches?.[0]?.block;
  expect(block?.length).toBe(10_000);
  expect(block?.buffer).toBe(frame.buffer);
});

test('protocol version 0 is read as 1', () => {
  const hello = { protocolVersion: 0, features: [], client: '' };
  expect(publishRequest.decode(publishRequest.encode({ hello })).hello?.protocolVersion).toBe(1);
});

test('names that objects have already are ordinary names of details', () => {
  const details = Object.fromEntries([
    ['__proto__', 'a'],
    ['constructor', 'b'],
  ]);
  const error = { code: 'X', message: 'y', retryable: false, details };
  const frame = publishResponse.decode(publishResponse.encode({ closed: [{ producer: 1, error }] }));
  expect(Object.entries(frame.closed?.[0]?.error?.details ?? {})).toEqual(Object.entries(details));
});

test('numbers that do not fit are refused, not cut', () => {
  const tooLarge = Buffer.from([0x22, 6, 0x08, 0xff, 0xff, 0xff, 0xff, 0x1f]); // closes { producer: 2^33 - 1 }
  expect(() => publishRequest.decode(tooLarge)).toThrow(/8589934591 for field 1, which takes at most 4294967295/);
});
