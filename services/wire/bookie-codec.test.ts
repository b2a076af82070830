import fc from 'fast-check';
import { expect, test } from 'vitest';

import type { EntryId, LedgerId } from '../lib/ids.ts';
import { appendRequest, appendResponse, readRequest, readResponse } from './bookie-codec.ts';
import {
  bytes,
  clientHellos,
  codecContract,
  credits,
  entryIds,
  entryIdsOrNone,
  errors,
  ledgerIds,
  referenceType,
  safe,
  serverHellos,
  uint32,
} from './codec.contract.ts';
import type { AppendRequest, AppendResponse, ReadRequest, ReadResponse } from './frames.ts';

const FILE = 'magnetar/v1/bookie.proto';

const appends: fc.Arbitrary<AppendRequest> = fc.record(
  {
    hello: clientHellos,
    entries: fc.array(
      fc
        .record({
          request: uint32,
          ledgerId: ledgerIds,
          entryId: entryIds,
          lac: entryIdsOrNone,
          length: safe,
          digest: uint32,
          masterKey: bytes,
          recovery: fc.boolean(),
          payload: fc.array(bytes, { maxLength: 3 }),
        })
        .map((entry) => ({ ...entry, payloadBytes: entry.payload.reduce((sum, piece) => sum + piece.length, 0) })),
      { maxLength: 3 },
    ),
  },
  { requiredKeys: [] },
);

codecContract('AppendRequest', {
  codec: appendRequest,
  type: referenceType(FILE, 'magnetar.v1.AppendRequest'),
  frames: appends,
  repeated: ['entries'],
});

const appendResponses: fc.Arbitrary<AppendResponse> = fc.record(
  {
    hello: serverHellos,
    results: fc.array(fc.record({ request: uint32, error: errors }, { requiredKeys: ['request'] }), { maxLength: 5 }),
    credit: credits,
    full: errors,
  },
  { requiredKeys: [] },
);

codecContract('AppendResponse', {
  codec: appendResponse,
  type: referenceType(FILE, 'magnetar.v1.AppendResponse'),
  frames: appendResponses,
  repeated: ['results'],
});

const reads: fc.Arbitrary<ReadRequest> = fc.record(
  {
    hello: clientHellos,
    reads: fc.array(
      fc.record({
        request: uint32,
        ledgerId: ledgerIds,
        firstEntryId: entryIds,
        maxEntries: uint32,
        maxBytes: uint32,
        fence: fc.boolean(),
        masterKey: bytes,
      }),
      { maxLength: 3 },
    ),
    lacs: fc.array(fc.record({ request: uint32, ledgerId: ledgerIds, fence: fc.boolean(), masterKey: bytes }), {
      maxLength: 3,
    }),
  },
  { requiredKeys: [] },
);

codecContract('ReadRequest', {
  codec: readRequest,
  type: referenceType(FILE, 'magnetar.v1.ReadRequest'),
  frames: reads,
  repeated: ['reads', 'lacs'],
});

const storedEntries = fc.record({
  entryId: entryIds,
  lac: entryIdsOrNone,
  length: safe,
  digest: uint32,
  payload: bytes,
});

const readResponses: fc.Arbitrary<ReadResponse> = fc.record(
  {
    hello: serverHellos,
    entries: fc.array(
      fc.record(
        { request: uint32, error: errors, entries: fc.array(storedEntries, { maxLength: 3 }) },
        { requiredKeys: ['request', 'entries'] },
      ),
      { maxLength: 3 },
    ),
    lacs: fc.array(
      fc.record(
        { request: uint32, error: errors, lac: entryIdsOrNone, lastEntryId: entryIdsOrNone, unsure: fc.constant(true) },
        { requiredKeys: ['request', 'lac', 'lastEntryId'] },
      ),
      { maxLength: 3 },
    ),
    credit: credits,
  },
  { requiredKeys: [] },
);

codecContract('ReadResponse', {
  codec: readResponse,
  type: referenceType(FILE, 'magnetar.v1.ReadResponse'),
  frames: readResponses,
  repeated: ['entries', 'lacs'],
});

test('an empty error and an empty entry are there all the same', () => {
  const error = { code: '', message: '', retryable: false, details: {} };
  const nothing = { entryId: 0 as EntryId, lac: 0 as EntryId, length: 0, digest: 0, payload: Buffer.alloc(0) };
  const entries = [{ request: 0, error, entries: [nothing] }];
  expect(readResponse.decode(readResponse.encode({ entries })).entries).toEqual(entries);
});

test('a last-add-confirmed below -1 is a violation', () => {
  const entry = { request: 1, ledgerId: 1 as LedgerId, entryId: 1 as EntryId, lac: -2 as EntryId, length: 0 };
  const rest = { digest: 0, masterKey: Buffer.alloc(16), recovery: false, payload: [], payloadBytes: 0 };
  const frame = appendRequest.encode({ entries: [{ ...entry, ...rest }] });
  expect(() => appendRequest.decode(frame)).toThrow(/field 4 is -2; an entry id is an integer from -1 on/);
});
