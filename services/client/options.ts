/** What apps configure: the options as they are written, and as they are once checked and filled in. */
import type { Logger } from '../runtime/logger.ts';
import { COMPRESSION_TYPES, type CompressionType } from '../wire/compression.ts';
import type { Position } from '../wire/frames.ts';
import {
  checkBoolean,
  checkFields,
  checkInteger,
  checkMethods,
  checkOptionalText,
  checkText,
  invalid,
} from './check.ts';
import type { StartPosition } from './position.ts';
import { toPosition } from './position.ts';
import type { ServiceUrl } from './service-url.ts';
import { parseServiceUrl } from './service-url.ts';

/** A day: no wait of the SDK is longer. */
const HIGHEST_MS = 86_400_000;
const HIGHEST_COUNT = 16_777_216;
const HIGHEST_BYTES = 1_073_741_824;
const BATCH_BYTES = 131_072;
/** The last sequence id that there is. */
export const SEQUENCE_ID_MAX: bigint = (1n << 64n) - 1n;

export interface ClientOptions {
  /** The broker: `grpc://host:port`, the port 7650 where none is given; or `unix:///path` of a socket. */
  readonly serviceUrl: string;
  /** How long opening, seeking, unsubscribing and confirming acknowledgments may take. 30,000 by default. */
  readonly operationTimeoutMs?: number | undefined;
  /** Told of lost and regained connections: a line each for the streams that publish and that consume. Silent by default. */
  readonly logger?: Logger | undefined;
}

export interface ProducerOptions {
  /**
   * "persistent://tenant/namespace/topic", "tenant/namespace/topic", or "topic" in public/default. Made on first use.
   */
  readonly topic: string;
  /** Unique in its topic; deduplication goes by it. The broker makes one where none is given. */
  readonly producerName?: string | undefined;
  /** How long a message may wait for being stored. 30,000 by default; 0: for ever. */
  readonly sendTimeoutMs?: number | undefined;
  /** How many messages may wait for being stored. 65,536 by default. */
  readonly maxPendingMessages?: number | undefined;
  /** How many bytes of them. 16 MiB by default. A single larger message is sent when nothing else waits. */
  readonly maxPendingBytes?: number | undefined;
  /**
   * At either limit `send()` waits (true, the default), or rejects with QUEUE_FULL (false). As many messages and bytes may
   * wait as may be pending; beyond that `send()` rejects with QUEUE_FULL in any case.
   */
  readonly blockIfQueueFull?: boolean | undefined;
  /** False: every message is an entry of its own. True by default. */
  readonly batchingEnabled?: boolean | undefined;
  /**
   * How long a batch may wait to fill while earlier ones are under way; with none under way it leaves at once. 1 by
   * default.
   */
  readonly batchingMaxPublishDelayMs?: number | undefined;
  /** A batch is full with this many messages. 1,000 by default. */
  readonly batchingMaxMessages?: number | undefined;
  /** A batch is full with this many bytes. 131,072 by default. */
  readonly batchingMaxBytes?: number | undefined;
  /**
   * How batches are compressed: 'none' (the default), 'lz4', 'zstd', 'snappy' or 'zlib'. A batch that does not shrink goes
   * out as it is. All limits hold before compression.
   */
  readonly compression?: CompressionType | undefined;
  /**
   * The first message gets the sequence id after this one. By default it follows the last one stored under the name.
   */
  readonly initialSequenceId?: bigint | number | undefined;
}

interface ReceiverOptions {
  /** Named as in ProducerOptions. */
  readonly topic: string;
  /** Where to begin. 'latest' by default. */
  readonly startPosition?: StartPosition | undefined;
  /** How many messages are fetched ahead. 20,000 by default. One entry more may come. */
  readonly receiverQueueSize?: number | undefined;
  /** How many bytes, as they are stored, are fetched ahead. 8 MiB by default. One entry more may come. */
  readonly receiverQueueBytes?: number | undefined;
}

export interface ConsumerOptions extends ReceiverOptions {
  /** The subscription's name. Made on first use at `startPosition`; an existing one goes on where it was. */
  readonly subscription: string;
  /** How the subscription is shared: 'exclusive', one consumer at a time. */
  readonly subscriptionType?: 'exclusive' | undefined;
  /** For people. The broker makes one where none is given. */
  readonly consumerName?: string | undefined;
}

export interface ReaderOptions extends ReceiverOptions {
  /** For people. The broker makes one where none is given. */
  readonly readerName?: string | undefined;
}

export interface ClientConfig {
  readonly serviceUrl: ServiceUrl;
  readonly operationTimeoutMs: number;
  /** Absent: that of the environment. */
  readonly logger: Logger | undefined;
}

export interface ProducerConfig {
  readonly topic: string;
  /** '': the broker makes one. */
  readonly producerName: string;
  /** 0: none. */
  readonly sendTimeoutMs: number;
  readonly maxPendingMessages: number;
  readonly maxPendingBytes: number;
  readonly blockIfQueueFull: boolean;
  readonly publishDelayMs: number;
  readonly batchMessages: number;
  readonly batchBytes: number;
  readonly compression: CompressionType;
  /** Absent: go on after the last one stored. */
  readonly initialSequenceId: bigint | undefined;
}

export interface ReceiverConfig {
  readonly topic: string;
  /** '': a reader. */
  readonly subscription: string;
  readonly start: Position;
  readonly queueMessages: number;
  readonly queueBytes: number;
  /** '': the broker makes one. */
  readonly name: string;
}

/** @throws MagnetarError INVALID_ARGUMENT */
export function checkClientOptions(options: ClientOptions): ClientConfig {
  checkFields('the options of a client', options, ['serviceUrl', 'operationTimeoutMs', 'logger']);
  return {
    serviceUrl: parseServiceUrl(options.serviceUrl),
    operationTimeoutMs: milliseconds('operationTimeoutMs', options.operationTimeoutMs, 30_000, 1),
    logger:
      options.logger === undefined
        ? undefined
        : checkMethods('logger', options.logger, ['debug', 'info', 'warn', 'error']),
  };
}

function milliseconds(field: string, value: number | undefined, fallback: number, lowest: number): number {
  return checkInteger(field, value, { fallback, lowest, highest: HIGHEST_MS });
}

function count(field: string, value: number | undefined, fallback: number): number {
  return checkInteger(field, value, { fallback, lowest: 1, highest: HIGHEST_COUNT });
}

function bytes(field: string, value: number | undefined, fallback: number): number {
  return checkInteger(field, value, { fallback, lowest: 1, highest: HIGHEST_BYTES });
}

const PRODUCER_FIELDS = [
  'topic',
  'producerName',
  'sendTimeoutMs',
  'maxPendingMessages',
  'maxPendingBytes',
  'blockIfQueueFull',
  'batchingEnabled',
  'batchingMaxPublishDelayMs',
  'batchingMaxMessages',
  'batchingMaxBytes',
  'compression',
  'initialSequenceId',
] as const;

/** @throws MagnetarError INVALID_ARGUMENT */
export function checkProducerOptions(options: ProducerOptions): ProducerConfig {
  checkFields('the options of a producer', options, PRODUCER_FIELDS);
  const batching = checkBoolean('batchingEnabled', options.batchingEnabled, true);
  const batchMessages = count('batchingMaxMessages', options.batchingMaxMessages, 1_000);
  return {
    topic: checkText('topic', options.topic),
    producerName: checkOptionalText('producerName', options.producerName),
    sendTimeoutMs: milliseconds('sendTimeoutMs', options.sendTimeoutMs, 30_000, 0),
    maxPendingMessages: count('maxPendingMessages', options.maxPendingMessages, 65_536),
    maxPendingBytes: bytes('maxPendingBytes', options.maxPendingBytes, 16_777_216),
    blockIfQueueFull: checkBoolean('blockIfQueueFull', options.blockIfQueueFull, true),
    publishDelayMs: milliseconds('batchingMaxPublishDelayMs', options.batchingMaxPublishDelayMs, 1, 0),
    batchMessages: batching ? batchMessages : 1,
    batchBytes: bytes('batchingMaxBytes', options.batchingMaxBytes, BATCH_BYTES),
    compression: compressionType(options.compression ?? 'none'),
    initialSequenceId:
      options.initialSequenceId === undefined
        ? undefined
        : checkSequenceId('initialSequenceId', options.initialSequenceId),
  };
}

function compressionType(value: CompressionType): CompressionType {
  if (COMPRESSION_TYPES.includes(value)) return value;
  throw invalid('compression', value, `one of ${COMPRESSION_TYPES.join(', ')}`);
}

/** A sequence id of an app's choice. @throws MagnetarError INVALID_ARGUMENT */
export function checkSequenceId(field: string, value: bigint | number): bigint {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value === 'bigint' && value >= 0n && value <= SEQUENCE_ID_MAX) return value;
  throw invalid(field, value, 'an integer: a number from 0 to 2^53-1, or a bigint from 0 to 2^64-1');
}

const RECEIVER_FIELDS = ['topic', 'startPosition', 'receiverQueueSize', 'receiverQueueBytes'] as const;

function receiverConfig(options: ReceiverOptions): Omit<ReceiverConfig, 'subscription' | 'name'> {
  return {
    topic: checkText('topic', options.topic),
    start: toPosition('startPosition', options.startPosition ?? 'latest'),
    queueMessages: count('receiverQueueSize', options.receiverQueueSize, 20_000),
    queueBytes: bytes('receiverQueueBytes', options.receiverQueueBytes, 8_388_608),
  };
}

/** @throws MagnetarError INVALID_ARGUMENT */
export function checkConsumerOptions(options: ConsumerOptions): ReceiverConfig {
  checkFields('the options of a consumer', options, [
    ...RECEIVER_FIELDS,
    'subscription',
    'subscriptionType',
    'consumerName',
  ]);
  const type: string | undefined = options.subscriptionType;
  if (type !== undefined && type !== 'exclusive') throw invalid('subscriptionType', type, "'exclusive'");
  return {
    ...receiverConfig(options),
    subscription: checkText('subscription', options.subscription),
    name: checkOptionalText('consumerName', options.consumerName),
  };
}

/** @throws MagnetarError INVALID_ARGUMENT */
export function checkReaderOptions(options: ReaderOptions): ReceiverConfig {
  checkFields('the options of a reader', options, [...RECEIVER_FIELDS, 'readerName']);
  return {
    ...receiverConfig(options),
    subscription: '',
    name: checkOptionalText('readerName', options.readerName),
  };
}
