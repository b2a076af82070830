/** The ledgers of an ack log: making them, closing them, and dropping those that nothing needs any more. */
import type { Ledgers, LedgerWriter } from '../../ledger/ledgers.ts';
import { hasCode, MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import type { LedgerId } from '../../lib/ids.ts';
import { delay } from '../../runtime/clock.ts';
import type { Environment } from '../../runtime/environment.ts';
import { backoff } from '../../runtime/random.ts';
import type { TopicRecordHandle } from './topic-record.ts';

/** Each is two writes of a transaction. */
const DROPPED_AT_ONCE = 32;

interface AckLedgersOptions {
  readonly environment: Environment;
  readonly ledgers: Ledgers;
  readonly record: TopicRecordHandle;
  /** How long a ledger is tried to be made or closed. */
  readonly deadlineMs: number;
  readonly retryFirstMs: number;
  readonly retryHighestMs: number;
}

/** The same may succeed later, and nobody else has taken over. */
function transient(error: unknown): boolean {
  return hasCode(error, 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'NOT_ENOUGH_BOOKIES', 'QUEUE_FULL', 'DISK_FULL');
}

export class AckLedgers {
  readonly #options: AckLedgersOptions;
  /** Writers that are being closed. */
  readonly #retiring = new Set<Promise<void>>();
  #dropping: Promise<void> | undefined;

  constructor(options: AckLedgersOptions) {
    this.#options = options;
  }

  /** True when the list begins with another ledger than this one. */
  hasOlderThan(id: LedgerId): boolean {
    return this.#options.record.record.ackLedgers[0] !== id;
  }

  /** Waits before a repeated attempt at something. */
  async pause(attempt: number): Promise<void> {
    const { environment, retryFirstMs, retryHighestMs } = this.#options;
    await delay(environment.clock, backoff(environment.random, attempt, retryFirstMs, retryHighestMs));
  }

  /** Makes a ledger at the end of the list. Tries again until the deadline; not for want of room. @throws DISK_FULL */
  async make(): Promise<LedgerWriter> {
    return this.#persist(() =>
      this.#options.record.createLedger((record, id) => ({ ...record, ackLedgers: [...record.ackLedgers, id] })),
    );
  }

  /** Closes a ledger whose writer has failed, at its last confirmed entry. Tries again as `make` does. @throws DISK_FULL */
  async seal(writer: LedgerWriter): Promise<void> {
    await this.#persist(() => writer.close());
  }

  /** Closes a ledger that another one has replaced. What goes wrong is left to the next recovery. */
  retire(writer: LedgerWriter): void {
    const retired = this.#retire(writer).finally(() => this.#retiring.delete(retired));
    this.#retiring.add(retired);
  }

  async #retire(writer: LedgerWriter): Promise<void> {
    try {
      await writer.close();
    } catch (error) {
      if (hasCode(error, 'NO_SUCH_LEDGER')) return; // the topic was deleted
      this.#warn('a ledger of the ack log could not be closed', writer.ledgerId, error);
    }
  }

  /**
   * Takes the ledgers in front of this one out of the list and deletes them. When the metadata cannot be reached, the
   * next call does it.
   *
   * @throws NOT_OWNER and the like.
   */
  async dropBefore(id: LedgerId): Promise<void> {
    if (this.#dropping !== undefined) return;
    this.#dropping = this.#drop(id);
    try {
      await this.#dropping;
    } catch (error) {
      if (!transient(error)) throw error;
      this.#warn('old ledgers of the ack log could not be dropped', id, error);
    } finally {
      this.#dropping = undefined;
    }
  }

  async #drop(id: LedgerId): Promise<void> {
    await Promise.all(this.#retiring);
    const { record, ledgers } = this.#options;
    for (;;) {
      const listed = record.record.ackLedgers;
      const dropped = listed.slice(0, Math.max(0, listed.indexOf(id))).slice(0, DROPPED_AT_ONCE);
      if (dropped.length === 0) return;
      await record.change(
        (current) => ({ ...current, ackLedgers: current.ackLedgers.filter((other) => !dropped.includes(other)) }),
        ledgers.deletion(dropped),
      );
    }
  }

  /** Waits for what is under way, and closes the writers given. Never rejects. */
  async close(writers: readonly LedgerWriter[]): Promise<void> {
    await Promise.allSettled([this.#dropping]);
    for (const writer of writers) this.retire(writer);
    await Promise.all(this.#retiring);
  }

  #warn(message: string, ledgerId: LedgerId, error: unknown): void {
    this.#options.environment.logger.warn(message, { ledgerId, error });
  }

  async #persist<T>(task: () => Promise<T>): Promise<T> {
    const { clock } = this.#options.environment;
    const end = clock.monotonic() + this.#options.deadlineMs;
    for (let attempt = 0; ; attempt++) {
      try {
        return await task();
      } catch (error) {
        if (!transient(error) || hasCode(error, 'DISK_FULL')) throw error;
        if (clock.monotonic() >= end) throw this.#tooLate(error);
        await this.pause(attempt);
      }
    }
  }

  #tooLate(cause: unknown): MagnetarError {
    const { message } = toMagnetarError(cause);
    const text = `the ack log could not go on in a new ledger within ${this.#options.deadlineMs} ms: ${message}`;
    return new MagnetarError('UNAVAILABLE', text, { cause });
  }
}
