/** What the ack log of a topic does for its subscriptions. */
import type { MagnetarError } from '../../lib/errors.ts';
import type { MessageIndex } from '../../lib/ids.ts';
import type { AckDone } from './ack-queue.ts';
import type { AckSubscription, RecoveredAcks } from './ack-replay.ts';

/** The log of an open topic. */
export interface AckLog {
  /** By name. A subscription is here from the moment when it is asked for, until the moment when its deletion is. */
  readonly subscriptions: ReadonlyMap<string, AckSubscription>;
  /**
   * What was found at opening. Data from the index that `dedup` covers on is to be replayed into the deduplication state. Every
   * message that the log speaks of is below `heardOf`. `subscriptionsMissing`: some may have been lost; the owner sets
   * `missingBelow`.
   */
  readonly recovered: Pick<RecoveredAcks, 'dedup' | 'heardOf' | 'subscriptionsMissing'>;
  /**
   * There may have been subscriptions, now lost and unknown, that had messages below this index to come. Whoever asks for
   * one that is not there may mean one of them: as long as such messages are kept, it begins with the oldest of them.
   */
  missingBelow: MessageIndex;
  /** The index up to which the newest durable snapshot covers the data: trimming must not pass it. 0: there is none. */
  readonly coveredIndex: MessageIndex;
  readonly failure: MagnetarError | undefined;
  /**
   * Makes a subscription at which everything below `markDelete` is acknowledged (or less: see `missingBelow`). Resolves
   * when it is durable. Where there is one of the name, resolves with that, unchanged, when it is durable. For want of
   * room this, and what follows, fail with DISK_FULL: what was asked for is written when there is room, and is not
   * forgotten before, unless the topic is opened anew.
   */
  create(name: string, markDelete: MessageIndex): Promise<AckSubscription>;
  /** Deletes it. Resolves when that is durable. @throws SUBSCRIPTION_NOT_FOUND */
  delete(subscription: AckSubscription): Promise<void>;
  /**
   * Exactly what is below `markDelete` counts as acknowledged: at once in `state`; durable when it resolves. @throws
   * SUBSCRIPTION_NOT_FOUND
   */
  reset(subscription: AckSubscription, markDelete: MessageIndex): Promise<void>;
  /**
   * Acknowledges everything below `below` (0: nothing), and pairs of (first index, count). `state` changes at once.
   * `done` is called exactly once, never before this returns, in the order of the calls: without an error when all of
   * it is durable. Errors: QUEUE_FULL and INVALID_ARGUMENT (nothing has changed), SUBSCRIPTION_NOT_FOUND,
   * ALREADY_CLOSED, or what the log failed with (unknown whether it is durable). The end of the topic is the caller's
   * to check.
   */
  acknowledge(subscription: AckSubscription, below: MessageIndex, ranges: readonly number[], done: AckDone): void;
  /** Asks for a snapshot soon, so that less data is replayed at the next opening. */
  requestSnapshot(): void;
  /** Takes nothing more in, waits for what is under way, closes the ledger. Idempotent. Never rejects. */
  close(): Promise<void>;
}
