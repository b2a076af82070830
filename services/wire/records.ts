/**
 * Metadata values and records of the ack log (`proto/magnetar/internal/v1/records.proto`, which says what each field means)
 * as the program sees them: camel case, ids as branded numbers, sequence ids as bigints, without the format version.
 *
 * Kept apart from what the SDK imports: this file loads proto-loader.
 */
import { Long, type MessageTypeDefinition } from '@grpc/proto-loader';

import { MagnetarError } from '../lib/errors.ts';
import type { EntryId, Epoch, LedgerId, MessageIndex, Millis, SequenceId } from '../lib/ids.ts';
import type { AckLogEntry__Output, AckLogEntry as ProtoAckLogEntry } from './gen/magnetar/internal/v1/AckLogEntry.ts';
import type {
  AckLogRecord__Output,
  AckLogRecord as ProtoAckLogRecord,
} from './gen/magnetar/internal/v1/AckLogRecord.ts';
import type { BookieCookie__Output, BookieCookie as ProtoCookie } from './gen/magnetar/internal/v1/BookieCookie.ts';
import type { DedupProducer__Output, DedupProducer as ProtoDedup } from './gen/magnetar/internal/v1/DedupProducer.ts';
import type { LedgerCounter__Output, LedgerCounter as ProtoCounter } from './gen/magnetar/internal/v1/LedgerCounter.ts';
import type { LedgerRecord__Output, LedgerRecord as ProtoLedger } from './gen/magnetar/internal/v1/LedgerRecord.ts';
import type {
  LedgerTombstone__Output,
  LedgerTombstone as ProtoTombstone,
} from './gen/magnetar/internal/v1/LedgerTombstone.ts';
import type {
  NamespaceRecord__Output,
  NamespaceRecord as ProtoNamespace,
} from './gen/magnetar/internal/v1/NamespaceRecord.ts';
import type { SubscriptionCreated__Output } from './gen/magnetar/internal/v1/SubscriptionCreated.ts';
import type { TenantRecord__Output, TenantRecord as ProtoTenant } from './gen/magnetar/internal/v1/TenantRecord.ts';
import type { TopicLedger__Output } from './gen/magnetar/internal/v1/TopicLedger.ts';
import type {
  TopicLedgerChunk__Output,
  TopicLedgerChunk as ProtoChunk,
} from './gen/magnetar/internal/v1/TopicLedgerChunk.ts';
import type { TopicRecord__Output, TopicRecord as ProtoTopic } from './gen/magnetar/internal/v1/TopicRecord.ts';
import { loadProtos } from './loader.ts';

/** The format version that this version of the program reads and writes, of every record. */
const FORMAT = 1;

export interface TenantRecord {
  readonly createdAt: Millis;
  readonly adminRoles: readonly string[];
  /** Empty: this cluster. */
  readonly allowedClusters: readonly string[];
}

export interface NamespaceRecord {
  readonly createdAt: Millis;
  /** No topic is made in it any more. */
  readonly deleting: boolean;
}

type LedgerState = 'open' | 'inRecovery' | 'closed';

/** The bookies that hold the entries from one on: one id per slot. */
interface Fragment {
  readonly firstEntryId: EntryId;
  readonly bookies: readonly string[];
}

export interface LedgerRecord {
  readonly ensembleSize: number;
  readonly writeQuorum: number;
  readonly ackQuorum: number;
  readonly state: LedgerState;
  /** NO_ENTRY: none. Meaningful when closed. */
  readonly lastEntryId: EntryId;
  /** Bytes. Meaningful when closed. */
  readonly length: number;
  readonly lostTail: boolean;
  readonly masterKey: Buffer;
  readonly fragments: readonly Fragment[];
  readonly createdAt: Millis;
}

/** `ids/ledger`. */
export interface LedgerCounter {
  /** The lowest id that nobody has taken. */
  readonly next: LedgerId;
}

/** `deleted/<20 digits>`. */
export interface LedgerTombstone {
  readonly deletedAt: Millis;
}

/** `bookies/cookies/ID`. */
export interface BookieCookie {
  /** 16 bytes. */
  readonly instance: Buffer;
}

export interface TopicLedger {
  readonly ledgerId: LedgerId;
  readonly firstIndex: MessageIndex;
  /** True when the following numbers are final. */
  readonly closed: boolean;
  readonly messages: number;
  readonly entries: number;
  readonly bytes: number;
  /** 0 when empty. */
  readonly firstAppendTime: Millis;
  readonly lastAppendTime: Millis;
}

export interface TopicRecord {
  readonly incarnation: number;
  readonly ownerEpoch: Epoch;
  readonly floorIndex: MessageIndex;
  readonly ledgers: readonly TopicLedger[];
  readonly chunks: number;
  readonly ackLedgers: readonly LedgerId[];
  readonly createdAt: Millis;
}

export interface TopicLedgerChunk {
  readonly ledgers: readonly TopicLedger[];
}

/** A subscription, as it was made or as a snapshot page tells. */
export interface SubscriptionCreated {
  readonly subscription: number;
  readonly name: string;
  readonly markDelete: MessageIndex;
  readonly createdAt: Millis;
  /** How often it was moved since. */
  readonly moves: number;
}

interface DedupBatch {
  readonly firstSequenceId: SequenceId;
  readonly lastSequenceId: SequenceId;
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  readonly index: MessageIndex;
  readonly count: number;
}

export interface DedupProducer {
  readonly name: string;
  readonly batches: readonly DedupBatch[];
  readonly lastUsed: Millis;
}

/** One record of the ack log. `ranges` and `runs` are flat pairs. */
export type AckLogRecord =
  | ({ readonly type: 'created' } & SubscriptionCreated)
  | { readonly type: 'deleted'; readonly subscription: number }
  | {
      readonly type: 'delta';
      readonly subscription: number;
      readonly below: MessageIndex;
      readonly ranges: readonly number[];
    }
  | { readonly type: 'reset'; readonly subscription: number; readonly markDelete: MessageIndex }
  | { readonly type: 'snapshotBegin'; readonly snapshot: number; readonly missingBelow: MessageIndex }
  | {
      readonly type: 'page';
      readonly subscription: SubscriptionCreated;
      readonly fromIndex: MessageIndex;
      readonly toIndex: MessageIndex;
      readonly runs: readonly number[];
    }
  | { readonly type: 'dedup'; readonly coveredIndex: MessageIndex; readonly producers: readonly DedupProducer[] }
  | { readonly type: 'snapshotEnd'; readonly snapshot: number };

export interface AckLogEntry {
  readonly records: readonly AckLogRecord[];
  /** 1 + how many records of the log, up to this entry, made, deleted or moved a subscription; 0: not known. */
  readonly structure: number;
}

/** Turns records of one kind into bytes and back. */
export interface RecordCodec<T> {
  readonly encode: (value: T) => Buffer;
  /** @throws MagnetarError UNSUPPORTED for a format version that is not known; METADATA_DAMAGED for what cannot be read. */
  readonly decode: (bytes: Buffer) => T;
}

const protos = loadProtos('magnetar/internal/v1/records.proto') as unknown as {
  readonly 'magnetar.internal.v1.TenantRecord': MessageTypeDefinition<ProtoTenant, TenantRecord__Output>;
  readonly 'magnetar.internal.v1.NamespaceRecord': MessageTypeDefinition<ProtoNamespace, NamespaceRecord__Output>;
  readonly 'magnetar.internal.v1.LedgerRecord': MessageTypeDefinition<ProtoLedger, LedgerRecord__Output>;
  readonly 'magnetar.internal.v1.LedgerCounter': MessageTypeDefinition<ProtoCounter, LedgerCounter__Output>;
  readonly 'magnetar.internal.v1.LedgerTombstone': MessageTypeDefinition<ProtoTombstone, LedgerTombstone__Output>;
  readonly 'magnetar.internal.v1.BookieCookie': MessageTypeDefinition<ProtoCookie, BookieCookie__Output>;
  readonly 'magnetar.internal.v1.TopicRecord': MessageTypeDefinition<ProtoTopic, TopicRecord__Output>;
  readonly 'magnetar.internal.v1.TopicLedgerChunk': MessageTypeDefinition<ProtoChunk, TopicLedgerChunk__Output>;
  readonly 'magnetar.internal.v1.AckLogEntry': MessageTypeDefinition<ProtoAckLogEntry, AckLogEntry__Output>;
};

function recordCodec<T, Input extends object, Output extends { readonly format: number }>(
  name: string,
  type: MessageTypeDefinition<Input, Output>,
  toProto: (value: T) => Input,
  fromProto: (message: Output) => NoInfer<T>,
): RecordCodec<T> {
  return {
    encode: (value) => type.serialize({ format: FORMAT, ...toProto(value) }),
    decode: (bytes) => {
      try {
        const message = type.deserialize(bytes);
        if (message.format === FORMAT) return fromProto(message);
        const text = `${name} has format version ${message.format}; this version reads ${FORMAT}`;
        throw new MagnetarError('UNSUPPORTED', text);
      } catch (error) {
        if (error instanceof MagnetarError) throw error;
        const reason = error instanceof Error ? error.message : String(error);
        throw new MagnetarError('METADATA_DAMAGED', `${name} cannot be read: ${reason}`, { cause: error });
      }
    },
  };
}

/** A 64-bit integer as a safe one, from `lowest` on. */
function safe(value: Long, lowest = 0): number {
  const result = value.toNumber();
  if (Number.isSafeInteger(result) && result >= lowest) return result;
  throw new RangeError(`${value.toString()} is no integer from ${lowest} to 2^53-1`);
}

function sequenceIdOf(value: Long): SequenceId {
  return ((BigInt(value.high >>> 0) << 32n) | BigInt(value.low >>> 0)) as SequenceId;
}

function longOf(value: SequenceId): Long {
  return Long.fromBits(Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n)), true);
}

/** A message field that always has a value. */
function present<T>(value: T | null | undefined, name: string): T {
  if (value === null || value === undefined) throw new RangeError(`there is no ${name}`);
  return value;
}

const stateNames = {
  open: 'LEDGER_STATE_OPEN',
  inRecovery: 'LEDGER_STATE_IN_RECOVERY',
  closed: 'LEDGER_STATE_CLOSED',
} as const;

function ledgerState(value: LedgerRecord__Output['state']): LedgerState {
  switch (value) {
    case 'LEDGER_STATE_OPEN':
      return 'open';
    case 'LEDGER_STATE_IN_RECOVERY':
      return 'inRecovery';
    case 'LEDGER_STATE_CLOSED':
      return 'closed';
    case undefined:
    default:
      throw new RangeError(`ledger state ${String(value)} is not known`);
  }
}

export const tenantRecord: RecordCodec<TenantRecord> = recordCodec(
  'TenantRecord',
  protos['magnetar.internal.v1.TenantRecord'],
  (value: TenantRecord) => ({
    ...value,
    adminRoles: [...value.adminRoles],
    allowedClusters: [...value.allowedClusters],
  }),
  (message) => ({
    createdAt: safe(message.createdAt) as Millis,
    adminRoles: message.adminRoles,
    allowedClusters: message.allowedClusters,
  }),
);

export const namespaceRecord: RecordCodec<NamespaceRecord> = recordCodec(
  'NamespaceRecord',
  protos['magnetar.internal.v1.NamespaceRecord'],
  (value: NamespaceRecord) => value,
  (message) => ({ createdAt: safe(message.createdAt) as Millis, deleting: message.deleting }),
);

export const ledgerRecord: RecordCodec<LedgerRecord> = recordCodec(
  'LedgerRecord',
  protos['magnetar.internal.v1.LedgerRecord'],
  (value: LedgerRecord) => ({
    ...value,
    state: stateNames[value.state],
    fragments: value.fragments.map(({ firstEntryId, bookies }) => ({ firstEntryId, bookies: [...bookies] })),
  }),
  (message) => ({
    ensembleSize: message.ensembleSize,
    writeQuorum: message.writeQuorum,
    ackQuorum: message.ackQuorum,
    state: ledgerState(message.state),
    lastEntryId: safe(message.lastEntryId, -1) as EntryId,
    length: safe(message.length),
    lostTail: message.lostTail,
    masterKey: message.masterKey,
    fragments: message.fragments.map(({ firstEntryId, bookies }) => ({
      firstEntryId: safe(firstEntryId) as EntryId,
      bookies,
    })),
    createdAt: safe(message.createdAt) as Millis,
  }),
);

export const ledgerCounter: RecordCodec<LedgerCounter> = recordCodec(
  'LedgerCounter',
  protos['magnetar.internal.v1.LedgerCounter'],
  (value: LedgerCounter) => value,
  (message) => ({ next: safe(message.next) as LedgerId }),
);

export const ledgerTombstone: RecordCodec<LedgerTombstone> = recordCodec(
  'LedgerTombstone',
  protos['magnetar.internal.v1.LedgerTombstone'],
  (value: LedgerTombstone) => value,
  (message) => ({ deletedAt: safe(message.deletedAt) as Millis }),
);

export const bookieCookie: RecordCodec<BookieCookie> = recordCodec(
  'BookieCookie',
  protos['magnetar.internal.v1.BookieCookie'],
  (value: BookieCookie) => value,
  (message) => ({ instance: message.instance }),
);

function topicLedger(message: TopicLedger__Output): TopicLedger {
  return {
    ledgerId: safe(message.ledgerId) as LedgerId,
    firstIndex: safe(message.firstIndex) as MessageIndex,
    closed: message.closed,
    messages: safe(message.messages),
    entries: safe(message.entries),
    bytes: safe(message.bytes),
    firstAppendTime: safe(message.firstAppendTime) as Millis,
    lastAppendTime: safe(message.lastAppendTime) as Millis,
  };
}

export const topicRecord: RecordCodec<TopicRecord> = recordCodec(
  'TopicRecord',
  protos['magnetar.internal.v1.TopicRecord'],
  (value: TopicRecord) => ({ ...value, ledgers: [...value.ledgers], ackLedgers: [...value.ackLedgers] }),
  (message) => ({
    incarnation: safe(message.incarnation),
    ownerEpoch: safe(message.ownerEpoch) as Epoch,
    floorIndex: safe(message.floorIndex) as MessageIndex,
    ledgers: message.ledgers.map(topicLedger),
    chunks: message.chunks,
    ackLedgers: message.ackLedgers.map((id) => safe(id) as LedgerId),
    createdAt: safe(message.createdAt) as Millis,
  }),
);

export const topicLedgerChunk: RecordCodec<TopicLedgerChunk> = recordCodec(
  'TopicLedgerChunk',
  protos['magnetar.internal.v1.TopicLedgerChunk'],
  (value: TopicLedgerChunk) => ({ ledgers: [...value.ledgers] }),
  (message) => ({ ledgers: message.ledgers.map(topicLedger) }),
);

export const ackLogEntry: RecordCodec<AckLogEntry> = recordCodec(
  'AckLogEntry',
  protos['magnetar.internal.v1.AckLogEntry'],
  (value: AckLogEntry) => ({ records: value.records.map(ackRecordToProto), structure: value.structure }),
  (message) => ({ records: message.records.map(ackRecordFromProto), structure: safe(message.structure) }),
);

function ackRecordToProto(record: AckLogRecord): ProtoAckLogRecord {
  if (record.type === 'delta') return { delta: { ...record, ranges: [...record.ranges] } };
  if (record.type === 'page') return { page: { ...record, runs: [...record.runs] } };
  if (record.type === 'dedup') return { dedup: { ...record, producers: record.producers.map(dedupToProto) } };
  return { [record.type]: record };
}

function ackRecordFromProto(message: AckLogRecord__Output): AckLogRecord {
  switch (message.record) {
    case 'created':
      return { type: 'created', ...subscriptionFromProto(present(message.created, 'created')) };
    case 'deleted':
      return { type: 'deleted', subscription: safe(present(message.deleted, 'deleted').subscription) };
    case 'delta': {
      const { subscription, below, ranges } = present(message.delta, 'delta');
      return {
        type: 'delta',
        subscription: safe(subscription),
        below: safe(below) as MessageIndex,
        ranges: ranges.map((n) => safe(n)),
      };
    }
    case 'reset': {
      const { subscription, markDelete } = present(message.reset, 'reset');
      return { type: 'reset', subscription: safe(subscription), markDelete: safe(markDelete) as MessageIndex };
    }
    case 'snapshotBegin': {
      const { snapshot, missingBelow } = present(message.snapshotBegin, 'snapshotBegin');
      return { type: 'snapshotBegin', snapshot: safe(snapshot), missingBelow: safe(missingBelow) as MessageIndex };
    }
    case 'page': {
      const { subscription, fromIndex, toIndex, runs } = present(message.page, 'page');
      return {
        type: 'page',
        subscription: subscriptionFromProto(present(subscription, 'subscription of the page')),
        fromIndex: safe(fromIndex) as MessageIndex,
        toIndex: safe(toIndex) as MessageIndex,
        runs: runs.map((n) => safe(n)),
      };
    }
    case 'dedup': {
      const { coveredIndex, producers } = present(message.dedup, 'dedup');
      return {
        type: 'dedup',
        coveredIndex: safe(coveredIndex) as MessageIndex,
        producers: producers.map(dedupFromProto),
      };
    }
    case 'snapshotEnd':
      return { type: 'snapshotEnd', snapshot: safe(present(message.snapshotEnd, 'snapshotEnd').snapshot) };
    case undefined:
    default:
      throw new RangeError('a record of a kind that is not known');
  }
}

function subscriptionFromProto(message: SubscriptionCreated__Output): SubscriptionCreated {
  return {
    subscription: safe(message.subscription),
    name: message.name,
    markDelete: safe(message.markDelete) as MessageIndex,
    createdAt: safe(message.createdAt) as Millis,
    moves: safe(message.moves),
  };
}

function dedupToProto(producer: DedupProducer): ProtoDedup {
  const batches = producer.batches.map((batch) => ({
    ...batch,
    firstSequenceId: longOf(batch.firstSequenceId),
    lastSequenceId: longOf(batch.lastSequenceId),
  }));
  return { name: producer.name, batches, lastUsed: producer.lastUsed };
}

function dedupFromProto(message: DedupProducer__Output): DedupProducer {
  return {
    name: message.name,
    batches: message.batches.map((batch) => ({
      firstSequenceId: sequenceIdOf(batch.firstSequenceId),
      lastSequenceId: sequenceIdOf(batch.lastSequenceId),
      ledgerId: safe(batch.ledgerId) as LedgerId,
      entryId: safe(batch.entryId) as EntryId,
      index: safe(batch.index) as MessageIndex,
      count: batch.count,
    })),
    lastUsed: safe(message.lastUsed) as Millis,
  };
}
