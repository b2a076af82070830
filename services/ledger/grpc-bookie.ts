/**
 * A bookie in another process. Keeps one connection; when it is lost, tries again with growing pauses for as long as it is
 * not closed. In between everything fails at once, so that a quorum goes on without it.
 */
import { assert } from '../lib/assert.ts';
import { MagnetarError } from '../lib/errors.ts';
import type { Clock, Timer } from '../runtime/clock.ts';
import type { Environment } from '../runtime/environment.ts';
import { backoff } from '../runtime/random.ts';
import { RunningClock } from '../runtime/running-clock.ts';
import type { EntriesResult, WireError, WireLacResult } from '../wire/frames.ts';
import { fromWireError } from '../wire/status.ts';
import type { AppendEntry, Bookie, BookieId, LacResult, ReadEntries, ReadLac, StoredEntry } from './bookie.ts';
import { BookieConnection } from './bookie-connection.ts';

const FIRST_RETRY_MS = 20;
const LONGEST_RETRY_MS = 2_000;
/** What may wait for one bookie. Writers are bounded long before: this is the last line. */
const OPEN_ITEMS = 65_536;
const OPEN_BYTES = 536_870_912;
const NO_KEY: Buffer = Buffer.alloc(0);

/** A bookie behind a connection. */
export interface RemoteBookie extends Bookie {
  /** Resolves when the first try to connect has succeeded or failed: until then it counts as out of reach. Never rejects. */
  readonly tried: Promise<void>;
}

export interface ConnectBookieOptions {
  readonly environment: Environment;
  /** "host:port"; it is the bookie's id, too. */
  readonly address: string;
  /** Looks whether it is the bookie that it should be, by its instance id (LP-27): while that rejects, it is out of reach. */
  readonly verify?: (instance: Buffer | undefined) => Promise<void>;
}

/** Connects in the background. */
export function connectBookie(options: ConnectBookieOptions): RemoteBookie {
  return new GrpcBookie(options);
}

class GrpcBookie implements RemoteBookie {
  readonly id: BookieId;
  readonly tried: Promise<void>;
  readonly #environment: Environment;
  readonly #clock: Clock;
  readonly #verify: ConnectBookieOptions['verify'];
  #connection: BookieConnection | undefined;
  #retry: Timer | undefined;
  #failures = 0;
  #why: MagnetarError;
  #closed = false;
  #triedOnce: () => void = () => {};

  constructor({ environment, address, verify }: ConnectBookieOptions) {
    this.id = address;
    this.#environment = environment;
    this.#clock = new RunningClock(environment.clock);
    this.#verify = verify;
    this.#why = new MagnetarError('UNAVAILABLE', `bookie ${address} is not connected yet`);
    this.tried = new Promise((resolve) => {
      this.#triedOnce = resolve;
    });
    this.#connect();
  }

  get available(): boolean {
    return this.#connection?.ready === true && this.full === undefined;
  }

  get full(): MagnetarError | undefined {
    return this.#connection?.full;
  }

  #connect(): void {
    const { logger, random } = this.#environment;
    const clock = this.#clock;
    this.#retry = undefined;
    let openedAt = Number.POSITIVE_INFINITY;
    this.#connection = new BookieConnection({
      clock,
      address: this.id,
      verify: this.#verify,
      opened: () => {
        openedAt = clock.monotonic();
        if (this.#failures > 0) logger.info('bookie is reachable', { bookie: this.id });
        this.#triedOnce();
      },
      lost: (error) => {
        this.#connection = undefined;
        this.#why = error;
        this.#triedOnce();
        if (this.#closed) return;
        // One that is lost at once, again and again, is tried as seldom as one that cannot be reached.
        if (clock.monotonic() - openedAt > LONGEST_RETRY_MS) this.#failures = 0;
        if (this.#failures === 0) logger.warn('bookie is out of reach', { bookie: this.id, error });
        this.#retry = clock.after(backoff(random, this.#failures++, FIRST_RETRY_MS, LONGEST_RETRY_MS), () =>
          this.#connect(),
        );
      },
    });
  }

  /** The connection, or why there is none. */
  #ready(): BookieConnection | MagnetarError {
    const connection = this.#connection;
    if (connection?.ready !== true) return this.#why;
    const items = connection.appends.openItems + connection.reads.openItems;
    if (items < OPEN_ITEMS && connection.appends.openBytes < OPEN_BYTES) return connection;
    const message = `${items} requests wait for bookie ${this.id}; at most ${OPEN_ITEMS}, or ${OPEN_BYTES} bytes, may`;
    return new MagnetarError('QUEUE_FULL', message);
  }

  append(entry: AppendEntry, done: (error?: MagnetarError) => void): void {
    const connection = (entry.recovery ? undefined : this.full) ?? this.#ready();
    if (connection instanceof MagnetarError) {
      this.#environment.clock.nextTurn(() => done(connection));
      return;
    }
    connection.appends.request(
      (request) => ({
        request,
        ledgerId: entry.ledgerId,
        entryId: entry.entryId,
        lac: entry.lac,
        length: entry.length,
        digest: entry.digest,
        masterKey: entry.masterKey,
        recovery: entry.recovery,
        payload: entry.payload,
        payloadBytes: entry.payloadBytes,
      }),
      { items: 1, bytes: entry.payloadBytes },
      { answer: ({ error }) => (error === undefined ? done() : done(fromWireError(error))), fail: done },
    );
  }

  async read({ ledgerId, firstEntryId, maxEntries, maxBytes, fence }: ReadEntries): Promise<readonly StoredEntry[]> {
    const masterKey = fence?.masterKey ?? NO_KEY;
    const numbers = { ledgerId, firstEntryId, maxEntries, maxBytes, fence: fence !== undefined, masterKey };
    const answer = await this.#read((connection, settle) => {
      const cost = { items: 1, bytes: 0 };
      connection.reads.request((request) => ({ kind: 'entries', read: { request, ...numbers } }), cost, settle);
    });
    if ('entries' in answer && answer.entries !== undefined && answer.entries.length > 0) return answer.entries;
    throw new MagnetarError(
      'PROTOCOL_VIOLATION',
      `bookie ${this.id} answered a read with neither entries nor an error`,
    );
  }

  async readLac({ ledgerId, fence }: ReadLac): Promise<LacResult> {
    const masterKey = fence?.masterKey ?? NO_KEY;
    const answer = await this.#read((connection, settle) => {
      const numbers = { ledgerId, fence: fence !== undefined, masterKey };
      const cost = { items: 0, bytes: 0 };
      connection.reads.request((request) => ({ kind: 'lac', read: { request, ...numbers } }), cost, settle);
    });
    if ('lac' in answer) {
      const { lac, lastEntryId, unsure } = answer;
      return unsure === true ? { lac, lastEntryId, unsure } : { lac, lastEntryId };
    }
    throw new MagnetarError(
      'PROTOCOL_VIOLATION',
      `bookie ${this.id} answered a question for the last confirmed with entries`,
    );
  }

  #read(
    start: (
      connection: BookieConnection,
      settle: { answer(answer: ReadAnswer): void; fail(error: MagnetarError): void },
    ) => void,
  ): Promise<ReadAnswer> {
    return new Promise((resolve, reject) => {
      const connection = this.#ready();
      if (connection instanceof MagnetarError) reject(connection);
      else start(connection, { answer: (answer) => settleRead(answer, resolve, reject), fail: reject });
    });
  }

  close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      this.#retry?.cancel();
      const error = new MagnetarError('ALREADY_CLOSED', `the client of bookie ${this.id} is closed`);
      this.#connection?.lose(error);
      this.#why = error;
      assert(this.#connection === undefined, 'a connection that was lost is forgotten');
    }
    return Promise.resolve();
  }
}

type ReadAnswer = EntriesResult | WireLacResult;

function settleRead(
  answer: { readonly error?: WireError } & ReadAnswer,
  resolve: (answer: ReadAnswer) => void,
  reject: (error: MagnetarError) => void,
): void {
  if (answer.error === undefined) resolve(answer);
  else reject(fromWireError(answer.error));
}
