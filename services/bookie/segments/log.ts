/**
 * The log: takes records, writes them in commit groups into the active segment, one group at a time, and settles each
 * record after the sync of its group (LP-23). While one group is in flight the next one collects.
 */
import { MagnetarError } from '../../lib/errors.ts';
import type { Timer } from '../../runtime/clock.ts';
import type { Environment } from '../../runtime/environment.ts';
import { DATA_START } from './format.ts';
import { encodeGroup, type GroupRecord } from './group.ts';
import { type GroupLimits, planGroup } from './policy.ts';
import type { SegmentFile } from './segment-file.ts';

/** A record that wants to be durable. */
export interface LogRecord extends GroupRecord {
  /** Called once: without an error when the record is durable and indexed. */
  settle(error: MagnetarError | undefined): void;
}

/** Bounds and times of a log. */
export interface LogOptions {
  readonly segmentBytes: number;
  readonly group: GroupLimits;
  /** An idle log marks its last group committed after so many ms. */
  readonly markDelayMs: number;
  /** How far ahead of the writer space is filled with zeros. */
  readonly fillAheadBytes: number;
}

/** Where a segment ends. */
export interface SegmentEnd {
  readonly footerOffset: number;
  readonly chain: number;
  readonly highestLedgerId: number;
}

/** What the log needs from the store around it. */
export interface LogHost<Entry extends LogRecord> {
  /** Makes the segment that follows; its name is durable and known to the index when it resolves. */
  createNext(highestLedgerId: number): Promise<SegmentFile>;
  /** Indexes a record that is durable. */
  index(segment: number, record: Entry, offset: number): void;
  /** Seals a full segment and hands it to the index. */
  seal(segment: SegmentFile, end: SegmentEnd): Promise<void>;
}

export class Log<Entry extends LogRecord> {
  readonly #environment: Environment;
  readonly #options: LogOptions;
  readonly #host: LogHost<Entry>;
  #active: SegmentFile;
  #at = DATA_START;
  #markedUpTo = DATA_START;
  #chain: number;
  #highestLedgerId: number;
  #queue: Entry[] = [];
  #inFlight: Entry[] = [];
  #running = false;
  #idle: (() => void)[] = [];
  #markTimer: Timer | undefined;
  #next: Promise<SegmentFile> | undefined;
  #sealing: Promise<void> | undefined;
  #closing = false;
  #failure: MagnetarError | undefined;
  /** Records and payload bytes that are not settled yet. */
  pendingRecords = 0;
  pendingBytes = 0;

  /** `active`: an empty segment. `start`: the chain value and the highest ledger id behind the segment before it. */
  constructor(
    environment: Environment,
    options: LogOptions,
    host: LogHost<Entry>,
    active: SegmentFile,
    start: { readonly chain: number; readonly highestLedgerId: number },
  ) {
    this.#environment = environment;
    this.#options = options;
    this.#host = host;
    this.#active = active;
    this.#chain = start.chain;
    this.#highestLedgerId = start.highestLedgerId;
    active.fill.want(DATA_START + options.fillAheadBytes, true);
  }

  /** Set after the first write or sync that failed: STORE_FAILED. Nothing is settled without an error after it. */
  get failure(): MagnetarError | undefined {
    return this.#failure;
  }

  /** Takes a record. The caller has checked that there is room, and that nothing has failed. */
  submit(record: Entry): void {
    this.#queue.push(record);
    this.pendingRecords++;
    this.pendingBytes += record.payloadBytes;
    this.#start();
  }

  #start(): void {
    if (this.#running || this.#failure !== undefined || this.#queue.length === 0) return;
    this.#running = true;
    void this.#run();
  }

  async #run(): Promise<void> {
    // What else this turn of the event loop has to store goes into the same group.
    await Promise.resolve();
    try {
      while (this.#queue.length > 0) {
        const room = this.#options.segmentBytes - this.#at;
        const { take, roll } = planGroup(this.#queue, this.#options.group, { room, empty: this.#at === DATA_START });
        if (roll) await this.#roll();
        else await this.#commit(this.#take(take));
      }
    } catch (error) {
      this.#fail(error);
    }
    this.#becameIdle();
  }

  #take(count: number): Entry[] {
    if (count < this.#queue.length) return this.#queue.splice(0, count);
    const all = this.#queue;
    this.#queue = [];
    return all;
  }

  async #commit(records: Entry[]): Promise<void> {
    this.#inFlight = records;
    for (const { ledgerId } of records) if (ledgerId > this.#highestLedgerId) this.#highestLedgerId = ledgerId;
    const segment = this.#active;
    const offset = this.#at;
    const group = encodeGroup(
      {
        identity: segment.identity,
        offset,
        committedUpTo: offset,
        highestLedgerId: this.#highestLedgerId,
        previousChain: this.#chain,
      },
      records,
    );
    const end = offset + group.bytes;
    if (!segment.fill.covers(end)) await segment.fill.yieldTo(end);
    await segment.file.write(group.buffers, offset);
    await segment.file.sync();
    if (this.#failure !== undefined) throw this.#failure; // Sealing failed meanwhile: these records have been settled.
    this.#at = end;
    this.#chain = group.chain;
    this.#inFlight = [];
    for (const [at, record] of records.entries()) {
      this.#host.index(segment.identity.id, record, group.offsets[at] ?? 0);
    }
    for (const record of records) this.#settle(record, undefined);
    this.#prepareAhead();
  }

  #settle(record: Entry, error: MagnetarError | undefined): void {
    this.pendingRecords--;
    this.pendingBytes -= record.payloadBytes;
    try {
      record.settle(error);
    } catch (thrown) {
      this.#environment.logger.error('a callback of an append threw', { error: thrown });
    }
  }

  #prepareAhead(): void {
    const { segmentBytes, fillAheadBytes } = this.#options;
    this.#active.fill.want(this.#at + fillAheadBytes, false);
    if (this.#at > segmentBytes / 2) void this.#prepareNext();
  }

  #prepareNext(): Promise<SegmentFile> {
    if (this.#next !== undefined) return this.#next;
    const next = this.#host.createNext(this.#highestLedgerId).then((segment) => {
      segment.fill.want(DATA_START + this.#options.fillAheadBytes, true);
      return segment;
    });
    next.catch(() => {}); // The roll that needs the segment reports it.
    this.#next = next;
    return next;
  }

  async #roll(): Promise<void> {
    const next = await this.#prepareNext();
    await this.#sealing; // One at a time: the entries of unsealed segments are held in memory.
    const full = this.#active;
    const end = this.#end();
    this.#sealing = this.#host.seal(full, end).catch((error: unknown) => this.#fail(error));
    this.#next = undefined;
    this.#active = next;
    this.#at = DATA_START;
    this.#markedUpTo = DATA_START;
  }

  #end(): SegmentEnd {
    return { footerOffset: this.#at, chain: this.#chain, highestLedgerId: this.#highestLedgerId };
  }

  /** Everything is written: soon says so on disk, and lets those go on who wait for it. */
  #becameIdle(): void {
    this.#running = false;
    for (const resume of this.#idle.splice(0)) resume();
    if (this.#failure !== undefined || this.#closing) return;
    this.#active.fill.want(this.#at + this.#options.fillAheadBytes, true);
    this.#markTimer?.cancel();
    if (this.#at === this.#markedUpTo) return;
    this.#markTimer = this.#environment.clock.after(this.#options.markDelayMs, () => void this.#markIdle(), {
      unref: true,
    });
  }

  async #markIdle(): Promise<void> {
    if (this.#running || this.#closing || this.#failure !== undefined || this.#markedUpTo === this.#at) return;
    this.#running = true;
    try {
      await this.#active.mark({
        committedUpTo: this.#at,
        highestLedgerId: this.#highestLedgerId,
        chain: this.#chain,
      });
      this.#markedUpTo = this.#at;
    } catch (error) {
      this.#fail(error);
    }
    this.#becameIdle();
    this.#start();
  }

  /** The state of the file is unknown now: acknowledges nothing more, ever. */
  #fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    const cause = error instanceof Error ? error : new Error(String(error));
    this.#failure = new MagnetarError('STORE_FAILED', `the bookie's log failed: ${cause.message}`, { cause });
    this.#environment.logger.error('the log failed; nothing more is stored', { error: cause });
    const lost = [...this.#inFlight, ...this.#queue];
    this.#inFlight = [];
    this.#queue = [];
    for (const record of lost) this.#settle(record, this.#failure);
    this.#environment.fatal(this.#failure);
  }

  /** Stores what was taken, seals the active segment, closes the files. Nothing may be submitted any more. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#markTimer?.cancel();
    while (this.#running) await new Promise<void>((resolve) => this.#idle.push(resolve));
    await this.#sealing;
    if (this.#next !== undefined) {
      const next = await this.#next.catch(() => undefined);
      await next?.close();
    }
    if (this.#failure === undefined && this.#at > DATA_START) {
      await this.#host.seal(this.#active, this.#end()).catch((error: unknown) => this.#fail(error));
    } else {
      await this.#active.close();
    }
  }
}
