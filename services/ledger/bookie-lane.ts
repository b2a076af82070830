/**
 * One bookie as the writers, readers and recoveries of this process share it: every request gets a deadline; what is on its
 * way to the bookie is bounded, the rest waits here; and what is kept for a straggler is bounded.
 */
import { hasCode, MagnetarError } from '../lib/errors.ts';
import type { ByteShare } from '../runtime/byte-budget.ts';
import type { Environment } from '../runtime/environment.ts';
import { jittered } from '../runtime/random.ts';
import type { AppendEntry, Bookie, BookieId, LacResult, ReadEntries, ReadLac, StoredEntry } from './bookie.ts';
import { Deadlines } from './deadlines.ts';
import type { LedgerStats } from './metrics.ts';

/** How long a bookie may take, and how much may wait for it. */
export interface LaneLimits {
  /** Milliseconds. After them the copy counts as failed; if it is stored later, that counts, too. */
  readonly appendDeadlineMs: number;
  readonly readDeadlineMs: number;
  /** Bytes of copies that a bookie may still owe for entries that are confirmed without it. */
  readonly laggingBytes: number;
  /** Copies that a bookie is given at the same time, and their payloads in bytes (one copy may exceed them). */
  readonly inFlightEntries: number;
  readonly inFlightBytes: number;
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

/** A copy without an answer. */
interface Flight {
  readonly copy: Copy;
  /** Its entry is confirmed without it. */
  lagging: boolean;
  /** Its deadline has passed: it is not worth sending (again). */
  expired: boolean;
  /** The bookie has it. */
  sent: boolean;
  /** Its bytes are charged to the lane's memory: whoever sent it has been told what became of it. */
  charged: boolean;
}

interface Read {
  fail(error: MagnetarError): void;
}

/** How long a bookie that says QUEUE_FULL is left in peace. */
const PAUSE_MS = 5;

export class BookieLane {
  readonly bookie: Bookie;
  readonly #environment: Environment;
  readonly #limits: LaneLimits;
  readonly #stats: LedgerStats;
  readonly #flights = new Map<Copy, Flight>();
  readonly #appendDeadlines: Deadlines<Flight>;
  readonly #readDeadlines: Deadlines<Read>;
  readonly #memory: ByteShare | undefined;
  #laggingBytes = 0;
  #inFlight = { entries: 0, bytes: 0 };
  /** Copies that are to be sent, from `#head` on. */
  #queue: Flight[] = [];
  #head = 0;
  /** Those of the queue that failed before they were sent. */
  #dropped = 0;
  #paused = false;

  /** @param memory what copies are charged to that nobody else waits for any more */
  constructor(environment: Environment, bookie: Bookie, limits: LaneLimits, stats: LedgerStats, memory?: ByteShare) {
    this.#stats = stats;
    this.bookie = bookie;
    this.#memory = memory;
    this.#environment = environment;
    this.#limits = limits;
    const late = (ms: number): MagnetarError =>
      new MagnetarError('DEADLINE_EXCEEDED', `bookie ${bookie.id} did not answer within ${ms} ms`);
    this.#appendDeadlines = new Deadlines(environment.clock, limits.appendDeadlineMs, (flight) => {
      this.#expire(flight, late(limits.appendDeadlineMs));
    });
    this.#readDeadlines = new Deadlines(environment.clock, limits.readDeadlineMs, (read) => {
      read.fail(late(limits.readDeadlineMs));
    });
  }

  get id(): BookieId {
    return this.bookie.id;
  }

  /** Why the bookie takes no entries, if it has no room. */
  get full(): MagnetarError | undefined {
    return this.bookie.full;
  }

  /** False when it cannot be reached, has no room, or lags so far that copies are dropped. */
  get available(): boolean {
    return this.bookie.available && !this.#lags;
  }

  get #lags(): boolean {
    return this.#laggingBytes >= this.#limits.laggingBytes;
  }

  /** Copies without an answer. */
  get pendingEntries(): number {
    return this.#flights.size;
  }

  /** Bytes of copies that are owed for entries confirmed without them. */
  get laggingBytes(): number {
    return this.#laggingBytes;
  }

  append(copy: Copy): void {
    if (this.#lags) {
      const message = `bookie ${this.id} lags by ${this.#laggingBytes} bytes; at most ${this.#limits.laggingBytes} are kept for it`;
      this.#environment.clock.nextTurn(() => copy.settled(new MagnetarError('QUEUE_FULL', message)));
      return;
    }
    const flight: Flight = { copy, lagging: false, expired: false, sent: false, charged: false };
    this.#flights.set(copy, flight);
    this.#appendDeadlines.add(flight);
    this.#queue.push(flight);
    this.#pump();
  }

  #pump(): void {
    while (!this.#paused && this.#head < this.#queue.length) {
      const { entries, bytes } = this.#inFlight;
      if (entries >= this.#limits.inFlightEntries || bytes >= this.#limits.inFlightBytes) break;
      const flight = this.#queue[this.#head++] as Flight;
      if (!flight.expired) this.#send(flight);
      else if (flight.lagging) this.#land(flight);
      else this.#dropped--;
    }
    if (this.#head === this.#queue.length || this.#head > 1_024) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
  }

  /** What has failed is not kept for a bookie that takes nothing, or is charged for as long as the bookie has it. */
  #expire(flight: Flight, error: MagnetarError): void {
    flight.expired = true;
    if (flight.sent) this.#charge(flight);
    else if (!flight.lagging) this.#drop(flight);
    flight.copy.settled(error);
  }

  #drop(flight: Flight): void {
    this.#land(flight);
    this.#dropped++;
    if (this.#dropped * 2 <= this.#queue.length - this.#head) return;
    this.#queue = this.#queue.slice(this.#head).filter(({ expired, lagging }) => !expired || lagging);
    this.#head = 0;
    this.#dropped = 0;
  }

  #charge(flight: Flight): void {
    if (flight.charged) return;
    flight.charged = true;
    this.#memory?.charge(flight.copy.entry.payloadBytes);
  }

  #send(flight: Flight): void {
    const { entry } = flight.copy;
    flight.sent = true;
    this.#inFlight.entries++;
    this.#inFlight.bytes += entry.payloadBytes;
    this.bookie.append(entry, (error) => {
      this.#inFlight.entries--;
      this.#inFlight.bytes -= entry.payloadBytes;
      if (!flight.expired && hasCode(error, 'QUEUE_FULL')) {
        // It has more clients than it can serve just now, and has not stored it: no reason to fail a slot.
        flight.sent = false;
        this.#queue.push(flight);
        this.#pause();
        return;
      }
      this.#land(flight);
      flight.copy.settled(error);
      this.#pump();
    });
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    const { clock, random } = this.#environment;
    clock.after(jittered(random, PAUSE_MS), () => {
      this.#paused = false;
      this.#pump();
    });
  }

  #land(flight: Flight): void {
    const { payloadBytes } = flight.copy.entry;
    if (flight.lagging) this.#laggingBytes -= payloadBytes;
    if (flight.charged) this.#memory?.give(payloadBytes);
    this.#flights.delete(flight.copy);
    this.#appendDeadlines.remove(flight);
  }

  /** The copy's entry has been confirmed: while this bookie does not answer, it lags. */
  confirmed(copy: Copy): void {
    const flight = this.#flights.get(copy);
    if (flight === undefined || flight.lagging) return;
    flight.lagging = true;
    this.#laggingBytes += copy.entry.payloadBytes;
    this.#charge(flight);
  }

  read(request: ReadEntries): Promise<readonly StoredEntry[]> {
    const startedAt = this.#environment.clock.monotonic();
    return this.#bounded(async () => {
      const entries = await this.bookie.read(request);
      this.#stats.readLatency.observe(this.#environment.clock.monotonic() - startedAt);
      return entries;
    });
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

  /** Closes the bookie, which answers or fails what is under way; then what still waits fails. */
  async close(): Promise<void> {
    try {
      await this.bookie.close();
    } finally {
      this.#appendDeadlines.close();
      this.#readDeadlines.close();
      this.#paused = false;
      this.#pump(); // a closed bookie refuses
    }
  }
}
