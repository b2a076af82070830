/**
 * One bookie as the writers, readers and recoveries of this process share it: every request gets a deadline, and what is
 * kept for a straggler is bounded.
 */
import { MagnetarError } from '../lib/errors.ts';
import type { Environment } from '../runtime/environment.ts';
import type { AppendEntry, Bookie, BookieId, LacResult, ReadEntries, ReadLac, StoredEntry } from './bookie.ts';
import { Deadlines } from './deadlines.ts';

/** How long a bookie may take, and how much may wait for one that lags. */
export interface LaneLimits {
  /** Milliseconds. After them the copy counts as failed; if it is stored later, that counts, too. */
  readonly appendDeadlineMs: number;
  readonly readDeadlineMs: number;
  /** Bytes of copies that a bookie may still owe for entries that are confirmed without it. */
  readonly laggingBytes: number;
}

/** An entry's copy on its way to one bookie. */
export interface Copy {
  readonly entry: AppendEntry;
  /**
   * What has become of it. Without an error: stored. It may be called twice: when a deadline was followed by an answer.
   * Never called before `append` returns.
   */
  settled(error: MagnetarError | undefined): void;
}

interface Read {
  fail(error: MagnetarError): void;
}

export class BookieLane {
  readonly bookie: Bookie;
  readonly #environment: Environment;
  readonly #limits: LaneLimits;
  /** Copies that are not answered; true: the entry is confirmed without them. */
  readonly #outstanding = new Map<Copy, boolean>();
  readonly #appendDeadlines: Deadlines<Copy>;
  readonly #readDeadlines: Deadlines<Read>;
  #laggingBytes = 0;

  constructor(environment: Environment, bookie: Bookie, limits: LaneLimits) {
    this.bookie = bookie;
    this.#environment = environment;
    this.#limits = limits;
    const late = (ms: number): MagnetarError =>
      new MagnetarError('DEADLINE_EXCEEDED', `bookie ${bookie.id} did not answer within ${ms} ms`);
    this.#appendDeadlines = new Deadlines(environment.clock, limits.appendDeadlineMs, (copy) => {
      copy.settled(late(limits.appendDeadlineMs));
    });
    this.#readDeadlines = new Deadlines(environment.clock, limits.readDeadlineMs, (read) => {
      read.fail(late(limits.readDeadlineMs));
    });
  }

  get id(): BookieId {
    return this.bookie.id;
  }

  /** False when it cannot be reached, or lags so far that copies are dropped. */
  get available(): boolean {
    return this.bookie.available && !this.#full;
  }

  get #full(): boolean {
    return this.#laggingBytes >= this.#limits.laggingBytes;
  }

  append(copy: Copy): void {
    if (this.#full) {
      const message = `bookie ${this.id} lags by ${this.#laggingBytes} bytes; at most ${this.#limits.laggingBytes} are kept for it`;
      this.#environment.clock.nextTurn(() => copy.settled(new MagnetarError('QUEUE_FULL', message)));
      return;
    }
    this.#outstanding.set(copy, false);
    this.#appendDeadlines.add(copy);
    this.bookie.append(copy.entry, (error) => {
      if (this.#outstanding.get(copy) === true) this.#laggingBytes -= copy.entry.payloadBytes;
      this.#outstanding.delete(copy);
      this.#appendDeadlines.remove(copy);
      copy.settled(error);
    });
  }

  /** The copy's entry has been confirmed: while this bookie does not answer, it lags. */
  confirmed(copy: Copy): void {
    if (this.#outstanding.get(copy) !== false) return;
    this.#outstanding.set(copy, true);
    this.#laggingBytes += copy.entry.payloadBytes;
  }

  read(request: ReadEntries): Promise<readonly StoredEntry[]> {
    return this.#bounded(() => this.bookie.read(request));
  }

  readLac(request: ReadLac): Promise<LacResult> {
    return this.#bounded(() => this.bookie.readLac(request));
  }

  #bounded<T>(call: () => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const read: Read = { fail: reject };
      this.#readDeadlines.add(read);
      call()
        .then(resolve, reject)
        .finally(() => this.#readDeadlines.remove(read));
    });
  }

  /** Ends its timers and the bookie. */
  async close(): Promise<void> {
    await this.bookie.close();
    this.#appendDeadlines.close();
    this.#readDeadlines.close();
  }
}
