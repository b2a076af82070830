/**
 * The log: takes records, writes them in commit groups into the active segment, one group at a time, and settles each
 * record after the sync of its group (LP-23). While one group is in flight the next one collects.
 */
import { MagnetarError } from '../../lib/errors.ts';
import type { Timer } from '../../runtime/clock.ts';
import { isDiskFull } from '../../runtime/disk.ts';
import type { Environment } from '../../runtime/environment.ts';
import { DATA_START } from './format.ts';
import { encodeDirectory } from './directory.ts';
import { encodeGroup, type GroupRecord } from './group.ts';
import { type GroupLimits, planGroup } from './policy.ts';
import type { SegmentFile } from './segment-file.ts';

/** So much room has to be there before ordinary records are taken again. */
const PROBE_BYTES = 1_048_576;

/** A record that wants to be durable. */
export interface LogRecord extends GroupRecord {
  /** It is stored in the last room of the disk, too: a fence, a rewrite of recovery. */
  readonly privileged: boolean;
  /** Called once: without an error when the record is durable and indexed; with DISK_FULL when it is not stored. */
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

/** What the log has to know of the room on its disk. */
interface Room {
  /** Why ordinary records are not stored at present. */
  readonly full: MagnetarError | undefined;
  /** Told when `full` has changed. */
  readonly listeners: Set<() => void>;
  wrote(bytes: number): void;
  /** A write failed for want of room. */
  refused(error: unknown): MagnetarError;
}

/** What the log needs from the store around it. */
export interface LogHost<Entry extends LogRecord> {
  readonly room: Room;
  /** Makes the segment that follows; its name is durable and known to the index when it resolves. */
  createNext(highestLedgerId: number): Promise<SegmentFile>;
  /** Indexes a record that is durable. */
  index(segment: number, record: Entry, offset: number): void;
  /** A record is not stored. */
  dropped(record: Entry): void;
  /** A commit group is durable: so many records and bytes, made so in so many ms. */
  stored(records: number, bytes: number, ms: number): void;
  /** Seals a full segment and hands it to the index. */
  seal(segment: SegmentFile, end: SegmentEnd): Promise<void>;
  /** True when ledgers up to this id may be stored; `allow` makes it so, durably. */
  allows(ledgerId: number): boolean;
  allow(ledgerId: number): Promise<void>;
  /** A segment has been synced up to an offset. */
  synced(segment: number, upTo: number): void;
}

/** A group that is on disk. */
interface DurableGroup<Entry> {
  readonly segment: number;
  readonly records: readonly Entry[];
  /** Of each record in the segment. */
  readonly offsets: readonly number[];
  readonly bytes: number;
  /** How long it took to make it durable. */
  readonly ms: number;
}

const NO_DIRECTORY: Buffer = Buffer.alloc(0);

export class Log<Entry extends LogRecord> {
  readonly #environment: Environment;
  readonly #options: LogOptions;
  readonly #host: LogHost<Entry>;
  #active: SegmentFile;
  #at = DATA_START;
  #markedUpTo = DATA_START;
  #chain: number;
  /** What the next group, or the mark, says of the last one of the active segment. */
  #directory: Buffer = NO_DIRECTORY;
  #highestLedgerId: number;
  #queue: Entry[] = [];
  #inFlight: Entry[] = [];
  /** The last group, until its records are settled. */
  #durable: DurableGroup<Entry> | undefined;
  #running = false;
  #idle: (() => void)[] = [];
  #markTimer: Timer | undefined;
  /** A mark is being written; groups do not wait for it. Never rejects. */
  #marking: Promise<void> | undefined;
  #next: Promise<SegmentFile> | undefined;
  #sealing: Promise<void> | undefined;
  /** A segment is left to the next start, to be replayed and sealed. */
  #leftOpen = false;
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
    if (host.room.full === undefined) active.fill.want(DATA_START + options.fillAheadBytes, true);
  }

  /** Set after the first write or sync that failed: STORE_FAILED. Nothing is settled without an error after it. */
  get failure(): MagnetarError | undefined {
    return this.#failure;
  }

  /** Every segment that holds something is sealed, once it is closed. */
  get inOrder(): boolean {
    return this.#failure === undefined && !this.#leftOpen;
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
        await this.#writeQueue();
        this.#settleDurable(); // Who hears of it may have submitted the next record.
      }
    } catch (error) {
      this.fail(error);
      this.#settleDurable();
    }
    this.#becameIdle();
  }

  async #writeQueue(): Promise<void> {
    while (this.#queue.length > 0) {
      const { full } = this.#host.room;
      if (full !== undefined && this.#refuseOrdinary(full) === 0) return;
      const room = this.#options.segmentBytes - this.#at;
      const segment = { room, directoryBytes: this.#directory.length, empty: this.#at === DATA_START };
      const { take, roll } = planGroup(this.#queue, this.#options.group, segment);
      const next = roll ? undefined : this.#commit(this.#take(take));
      this.#settleDurable();
      if (next === undefined) await this.#roll();
      else await next;
    }
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
        directory: this.#directory,
      },
      records,
    );
    const end = offset + group.bytes;
    if (!segment.fill.covers(end)) await segment.fill.yieldTo(end);
    const { clock } = this.#environment;
    let startedAt: number;
    try {
      if (!this.#host.allows(this.#highestLedgerId)) await this.#host.allow(this.#highestLedgerId);
      startedAt = clock.monotonic();
      await segment.file.commit(group.buffers, offset);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      this.#notWritten(error);
      return;
    }
    if (this.#failure !== undefined) throw this.#failure; // Sealing failed meanwhile: these records have been settled.
    this.#at = end;
    this.#host.synced(segment.identity.id, end);
    this.#chain = group.chain;
    this.#directory = encodeDirectory(segment.identity, offset, records);
    this.#inFlight = [];
    const { offsets, bytes } = group;
    this.#durable = { segment: segment.identity.id, records, offsets, bytes, ms: clock.monotonic() - startedAt };
  }

  /** Tells of the group that is durable, once the next one is on its way: the disk does not wait for those who hear of it. */
  #settleDurable(): void {
    const group = this.#durable;
    if (group === undefined) return;
    this.#durable = undefined;
    const { segment, records, offsets, bytes, ms } = group;
    for (const [at, record] of records.entries()) this.#host.index(segment, record, offsets[at] ?? 0);
    this.#host.stored(records.length, bytes, ms);
    for (const record of records) this.#settle(record, undefined);
    this.#host.room.wrote(bytes);
    this.#prepareAhead();
  }

  /**
   * There was no room for all of the group in flight. Place and chain stay: the next group overwrites what there is of this one, which
   * until then is a torn tail, as after a crash. Records that are privileged go again without the others, which may fit.
   */
  #notWritten(error: unknown): void {
    const full = this.#host.room.refused(error);
    const records = this.#inFlight;
    this.#inFlight = [];
    const privileged = records.filter((record) => record.privileged);
    const again = privileged.length < records.length;
    if (again) this.#queue = [...privileged, ...this.#queue];
    for (const record of records) if (!again || !record.privileged) this.#refuse(record, full);
  }

  /** Refuses what waits and is not privileged; returns how many records are left. */
  #refuseOrdinary(full: MagnetarError): number {
    const waiting = this.#take(this.#queue.length);
    this.#queue = waiting.filter((record) => record.privileged);
    for (const record of waiting) if (!record.privileged) this.#refuse(record, full);
    return this.#queue.length;
  }

  #refuse(record: Entry, full: MagnetarError): void {
    this.#host.dropped(record);
    this.#settle(record, full);
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
    if (this.#host.room.full !== undefined) return;
    const { segmentBytes, fillAheadBytes } = this.#options;
    this.#active.fill.want(this.#at + fillAheadBytes, false);
    if (this.#at > segmentBytes / 2) void this.#prepareNext();
  }

  #prepareNext(): Promise<SegmentFile> {
    if (this.#next !== undefined) return this.#next;
    const next = this.#host.createNext(this.#highestLedgerId).then((segment) => {
      if (this.#host.room.full === undefined) segment.fill.want(DATA_START + this.#options.fillAheadBytes, true);
      return segment;
    });
    next.catch((error: unknown) => {
      // Without room, the roll that needs the segment tries again. No roll may ever come to report another error.
      if (!isDiskFull(error)) this.fail(error);
      else if (this.#next === next) this.#next = undefined;
    });
    this.#next = next;
    return next;
  }

  /** Goes on in the next segment. Where that is not possible for want of room, everything that waits is refused. */
  async #roll(): Promise<void> {
    let next: SegmentFile;
    try {
      next = await this.#prepareNext();
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      return this.#refuseAll(this.#host.room.refused(error));
    }
    // One at a time: the entries of unsealed segments are held in memory.
    const late = await this.#untilSealed();
    if (late !== undefined) return this.#refuseAll(late);
    await this.#marking;
    const filled = this.#active;
    const end = this.#end();
    this.#sealing = this.#seal(filled, end).finally(() => {
      this.#sealing = undefined;
    });
    this.#next = undefined;
    this.#active = next;
    this.#directory = NO_DIRECTORY;
    this.#at = DATA_START;
    this.#markedUpTo = DATA_START;
  }

  /** Waits for the segment before to be sealed; gives up, and returns why, when that waits for room itself. */
  async #untilSealed(): Promise<MagnetarError | undefined> {
    const { room } = this.#host;
    for (let sealing = this.#sealing; sealing !== undefined; sealing = this.#sealing) {
      if (room.full !== undefined) return room.full;
      const sealed = sealing;
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          room.listeners.delete(wake);
          resolve();
        };
        room.listeners.add(wake);
        void sealed.then(wake);
      });
    }
    return undefined;
  }

  #refuseAll(full: MagnetarError): void {
    for (const record of this.#take(this.#queue.length)) this.#refuse(record, full);
  }

  /** Never rejects. A segment that is not sealed when the log is closed is replayed at the next start. */
  async #seal(segment: SegmentFile, end: SegmentEnd): Promise<void> {
    try {
      await this.#host.seal(segment, end);
    } catch (error) {
      if (!isDiskFull(error)) {
        this.fail(error);
        return;
      }
      this.#leftOpen = true;
      this.#environment.logger.warn('no room to seal a segment', { error });
    }
  }

  /** Reserves room for what is written next. @throws what the disk throws when there is none */
  async probe(): Promise<void> {
    if (this.#options.segmentBytes - this.#at < PROBE_BYTES) await this.#prepareNext();
    else await this.#active.fill.probe(PROBE_BYTES);
  }

  #end(): SegmentEnd {
    return { footerOffset: this.#at, chain: this.#chain, highestLedgerId: this.#highestLedgerId };
  }

  /** Everything is written: soon says so on disk, and lets those go on who wait for it. */
  #becameIdle(): void {
    this.#running = false;
    for (const resume of this.#idle.splice(0)) resume();
    if (this.#failure !== undefined || this.#closing) return;
    if (this.#host.room.full === undefined) this.#active.fill.want(this.#at + this.#options.fillAheadBytes, true);
    this.#markLater();
  }

  #markLater(): void {
    this.#markTimer?.cancel();
    if (this.#at === this.#markedUpTo) return;
    this.#markTimer = this.#environment.clock.after(this.#options.markDelayMs, () => this.#markIdle(), { unref: true });
  }

  /** A mark goes beside groups, and has pages of its own: it speaks of what is durable already. One at a time. */
  #markIdle(): void {
    if (this.#marking !== undefined || !this.#wantsMark) return;
    this.#marking = this.#mark().finally(() => {
      this.#marking = undefined;
      if (this.#wantsMark) this.#markLater();
    });
  }

  get #wantsMark(): boolean {
    const ended = this.#closing || this.#failure !== undefined;
    return !this.#running && !ended && this.#at !== this.#markedUpTo;
  }

  async #mark(): Promise<void> {
    const [segment, upTo] = [this.#active, this.#at];
    try {
      await segment.mark({
        committedUpTo: upTo,
        highestLedgerId: this.#highestLedgerId,
        chain: this.#chain,
        directory: this.#directory,
      });
      this.#markedUpTo = upTo;
    } catch (error) {
      if (isDiskFull(error)) this.#host.room.refused(error);
      else this.fail(error);
    }
  }

  /** The state of the file is unknown now: acknowledges nothing more, ever. */
  fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    const cause = error instanceof Error ? error : new Error(String(error));
    this.#failure = new MagnetarError('STORE_FAILED', `the bookie's log failed: ${cause.message}`, { cause });
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
    await this.#marking;
    await this.#sealing;
    if (this.#next !== undefined) {
      const next = await this.#next.catch(() => undefined);
      await next?.close();
    }
    if (this.#failure === undefined && this.#at > DATA_START) {
      await this.#seal(this.#active, this.#end());
    } else {
      await this.#active.close();
    }
  }
}
