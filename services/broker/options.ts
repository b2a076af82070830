import { MagnetarError } from '../lib/errors.ts';
import type { MemoryBudget } from '../runtime/memory.ts';
import { MAX_FRAME_BYTES } from '../wire/server.ts';
import type { AckLogLimits } from './topic/ack-limits.ts';

/** What can be set about a broker. Every bound is in items or bytes; times in milliseconds. */
export interface BrokerOptions {
  /** Names the broker in the metadata (`brokers/<id>`) and in the producer names that it makes. */
  readonly brokerId: string;
  /** The name of the cluster that it is of. */
  readonly cluster: string;
  /** Free text for ServerHello: name and version. */
  readonly serverName: string;
  /** The largest payload of one message, in bytes. */
  readonly maxMessageBytes: number;
  /** How many messages a batch may have: a consumer takes memory for each of them. */
  readonly maxMessagesPerBatch: number;
  /** Time to live of the broker's lease. */
  readonly leaseTtlMs: number;
  /** What one publish stream may have under way. */
  readonly publishWindowItems: number;
  readonly publishWindowBytes: number;
  /** Acks that one consume stream may have under way. */
  readonly ackWindowItems: number;
  /** Producers, and consumers, that one stream may have. */
  readonly maxPerStream: number;
  /** Bytes that one consume stream may have been given and not taken; with many that stand still each gets less. */
  readonly deliveryWindowBytes: number;
  /** Bytes that the cache of recent entries may pin, if not less: its part of the memory budget. */
  readonly cacheBytes: number;
  /** How long a client may take to say hello. */
  readonly handshakeMs: number;
  /** A topic that nobody is connected to for so long is closed. */
  readonly idleTopicMs: number;
  /** How long opening a topic may take. */
  readonly topicOpenMs: number;
  /** How long closing a topic, and draining at the end, may take. */
  readonly closeMs: number;
  /** Metrics tell of every topic and subscription, in the place of the sums over namespaces. */
  readonly topicMetrics: boolean;
  readonly ledger: LedgerOptions;
  /** What of the ack logs is not to be as usual. */
  readonly ackLog: Partial<AckLogLimits>;
}

/** When a topic goes on in another ledger, and how long it tries. */
export interface LedgerOptions {
  /** A ledger of so many bytes of entries is closed. */
  readonly rollBytes: number;
  /** A ledger of so many entries is closed. */
  readonly rollEntries: number;
  /** A ledger of that age is closed at the next publish. */
  readonly rollAgeMs: number;
  /** Entries and bytes that may wait for confirmation in one topic. */
  readonly maxPendingEntries: number;
  readonly maxPendingBytes: number;
  /** How long publishes wait for a new ledger after the old one failed. */
  readonly replaceMs: number;
  /** The first wait between two tries, and the longest. */
  readonly retryFirstMs: number;
  readonly retryHighestMs: number;
  /** After so many entries, or bytes of entries, the deduplication state is written down again. */
  readonly dedupSnapshotEntries: number;
  readonly dedupSnapshotBytes: number;
  /** Ledgers that a topic record lists; older ones move into chunks. */
  readonly maxListedLedgers: number;
}

const MiB: number = 1_048_576;

export const defaultLedgerOptions: LedgerOptions = {
  rollBytes: 1024 * MiB,
  rollEntries: 100_000,
  rollAgeMs: 4 * 3_600_000,
  maxPendingEntries: 100_000,
  maxPendingBytes: 256 * MiB,
  replaceMs: 20_000,
  retryFirstMs: 50,
  retryHighestMs: 2_000,
  dedupSnapshotEntries: 20_000,
  dedupSnapshotBytes: 128 * MiB,
  maxListedLedgers: 1_000,
};

export const defaultBrokerOptions: BrokerOptions = {
  brokerId: 'broker-0',
  cluster: 'standalone',
  serverName: 'magnetar',
  maxMessageBytes: 5_242_880,
  maxMessagesPerBatch: 100_000,
  leaseTtlMs: 10_000,
  publishWindowItems: 1_000,
  publishWindowBytes: 16 * MiB,
  ackWindowItems: 10_000,
  maxPerStream: 10_000,
  deliveryWindowBytes: 4 * MiB,
  cacheBytes: Number.MAX_SAFE_INTEGER,
  handshakeMs: 10_000,
  idleTopicMs: 60_000,
  topicOpenMs: 30_000,
  closeMs: 10_000,
  topicMetrics: false,
  ledger: defaultLedgerOptions,
  ackLog: {},
};

/** What a block has besides the payload of its only message: names, a few properties. */
const BLOCK_BYTES: number = 65_536;

/**
 * Checks that whatever a client may send can be taken in: a message of the largest size fits into the window of a stream,
 * and what a stream may have under way fits into the memory for all.
 *
 * @throws INVALID_ARGUMENT
 */
export function checkBrokerOptions(options: BrokerOptions, memory: MemoryBudget): void {
  const { maxMessageBytes, publishWindowBytes } = options;
  const { mostBytes } = memory.share('write');
  const block = maxMessageBytes + BLOCK_BYTES;
  const found = [];
  if (block > MAX_FRAME_BYTES) {
    found.push(`maxMessageBytes is ${maxMessageBytes}; it must be at most ${MAX_FRAME_BYTES - BLOCK_BYTES}`);
  }
  if (publishWindowBytes < block) {
    found.push(
      `publishWindowBytes is ${publishWindowBytes}; it must be at least ${block}, for messages of ${maxMessageBytes}`,
    );
  }
  if (mostBytes < publishWindowBytes) {
    found.push(
      `publishWindowBytes is ${publishWindowBytes}; a memory budget of ${memory.totalBytes} bytes has at most ${mostBytes} for it`,
    );
  }
  if (found.length > 0) throw new MagnetarError('INVALID_ARGUMENT', found.join('; '));
}
