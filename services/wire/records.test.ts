import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import type { Epoch, Millis } from '../lib/ids.ts';
import {
  bytes,
  entryIds,
  entryIdsOrNone,
  indexes,
  ledgerIds,
  outcome,
  referenceType,
  safe,
  sequenceIds,
  text,
  uint32,
} from './codec.contract.ts';
import {
  ackLogEntry,
  type AckLogRecord,
  bookieCookie,
  ledgerCounter,
  ledgerRecord,
  ledgerTombstone,
  namespaceRecord,
  type RecordCodec,
  tenantRecord,
  topicLedgerChunk,
  topicRecord,
} from './records.ts';

const FILE = 'magnetar/internal/v1/records.proto';
const times = safe as fc.Arbitrary<Millis>;
const epochs = safe as fc.Arbitrary<Epoch>;
const numbers = fc.array(safe, { maxLength: 10 });

const topicLedgers = fc.array(
  fc.record({
    ledgerId: ledgerIds,
    firstIndex: indexes,
    closed: fc.boolean(),
    messages: safe,
    entries: safe,
    bytes: safe,
    firstAppendTime: times,
    lastAppendTime: times,
  }),
  { maxLength: 3 },
);

const subscriptions = fc.record({ subscription: safe, name: text, markDelete: indexes, createdAt: times, moves: safe });
const dedupProducers = fc.record({
  name: text,
  batches: fc.array(
    fc.record({
      firstSequenceId: sequenceIds,
      lastSequenceId: sequenceIds,
      ledgerId: ledgerIds,
      entryId: entryIds,
      index: indexes,
      count: uint32,
    }),
    { maxLength: 5 },
  ),
  lastUsed: times,
});

const ackRecords: fc.Arbitrary<AckLogRecord> = fc.oneof(
  subscriptions.map((subscription) => ({ type: 'created' as const, ...subscription })),
  fc.record({ type: fc.constant('deleted' as const), subscription: safe }),
  fc.record({ type: fc.constant('delta' as const), subscription: safe, below: indexes, ranges: numbers }),
  fc.record({ type: fc.constant('reset' as const), subscription: safe, markDelete: indexes }),
  fc.record({ type: fc.constant('snapshotBegin' as const), snapshot: safe, missingBelow: indexes }),
  fc.record({
    type: fc.constant('page' as const),
    subscription: subscriptions,
    fromIndex: indexes,
    toIndex: indexes,
    runs: numbers,
  }),
  fc.record({
    type: fc.constant('dedup' as const),
    coveredIndex: indexes,
    producers: fc.array(dedupProducers, { maxLength: 3 }),
  }),
  fc.record({ type: fc.constant('snapshotEnd' as const), snapshot: safe }),
);

function recordSuite<T>(name: string, codec: RecordCodec<T>, values: fc.Arbitrary<T>): void {
  describe(`record ${name}`, () => {
    test('comes back', () => {
      fc.assert(
        fc.property(values, (value) => {
          expect(codec.decode(codec.encode(value))).toEqual(value);
        }),
      );
    });

    test('of another format version is refused by name', () => {
      const type = referenceType(FILE, `magnetar.internal.v1.${name}`);
      for (const format of [0, 2]) {
        const other = Buffer.from(type.encode(type.create({ format })).finish());
        expect(outcome(() => codec.decode(other))).toBe(
          `UNSUPPORTED: ${name} has format version ${format}; this version reads 1`,
        );
      }
    });

    test('that is damaged is another record, or an error that names it', () => {
      fc.assert(
        fc.property(values, fc.nat(), fc.nat(255), (value, at, byte) => {
          const encoded = codec.encode(value);
          const place = at % encoded.length;
          const allowed = new RegExp(
            `^(decoded|METADATA_DAMAGED: ${name} cannot be read: .+|UNSUPPORTED: ${name} has .+)$`,
          );
          expect(outcome(() => codec.decode(encoded.subarray(0, place)))).toMatch(allowed);
          encoded[place] = byte;
          expect(outcome(() => codec.decode(encoded))).toMatch(allowed);
        }),
      );
    });
  });
}

recordSuite(
  'TenantRecord',
  tenantRecord,
  fc.record({ createdAt: times, adminRoles: fc.array(text), allowedClusters: fc.array(text) }),
);
recordSuite('NamespaceRecord', namespaceRecord, fc.record({ createdAt: times, deleting: fc.boolean() }));
recordSuite(
  'LedgerRecord',
  ledgerRecord,
  fc.record({
    ensembleSize: uint32,
    writeQuorum: uint32,
    ackQuorum: uint32,
    state: fc.constantFrom('open', 'inRecovery', 'closed'),
    lastEntryId: entryIdsOrNone,
    length: safe,
    lostTail: fc.boolean(),
    masterKey: bytes,
    fragments: fc.array(fc.record({ firstEntryId: entryIds, bookies: fc.array(text, { maxLength: 3 }) }), {
      maxLength: 3,
    }),
    createdAt: times,
  }),
);
recordSuite('LedgerCounter', ledgerCounter, fc.record({ next: ledgerIds }));
recordSuite('LedgerTombstone', ledgerTombstone, fc.record({ deletedAt: times }));
recordSuite('BookieCookie', bookieCookie, fc.record({ instance: bytes }));
recordSuite(
  'TopicRecord',
  topicRecord,
  fc.record({
    incarnation: safe,
    ownerEpoch: epochs,
    floorIndex: indexes,
    ledgers: topicLedgers,
    chunks: uint32,
    ackLedgers: fc.array(ledgerIds, { maxLength: 4 }),
    createdAt: times,
  }),
);
recordSuite('TopicLedgerChunk', topicLedgerChunk, fc.record({ ledgers: topicLedgers }));
recordSuite(
  'AckLogEntry',
  ackLogEntry,
  fc.record({ records: fc.array(ackRecords, { maxLength: 5 }), structure: safe }),
);

test('what a newer version may add is refused, not passed over', () => {
  const entry = referenceType(FILE, 'magnetar.internal.v1.AckLogEntry');
  const strange = Buffer.from(entry.encode(entry.create({ format: 1, records: [{}] })).finish());
  expect(outcome(() => ackLogEntry.decode(strange))).toMatch(/AckLogEntry cannot be read: a record of a kind/);
  const ledger = referenceType(FILE, 'magnetar.internal.v1.LedgerRecord');
  const state = Buffer.from(ledger.encode(ledger.create({ format: 1, state: 7 })).finish());
  expect(outcome(() => ledgerRecord.decode(state))).toMatch(/LedgerRecord cannot be read: ledger state 7 is not known/);
});
