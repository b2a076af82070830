import { hasCode, type MagnetarError, toMagnetarError } from '../lib/errors.ts';
import { delay } from '../runtime/clock.ts';
import type { Client, CompressionType, Producer, Tally } from '../client/index.ts';
import { Deque } from '../lib/collections/deque.ts';
import { newClient, whenOpen } from './connect.ts';
import { Payloads } from './perf-payloads.ts';
import { PerfReport } from './perf-report.ts';
import { EXIT_DONE, EXIT_FAILED, type Shell } from './shell.ts';
import { countText } from './text.ts';
import { timeLimit } from './time-limit.ts';

/** What is under way at most, of all producers together. */
const WINDOW_BYTES = 8_388_608;
/** What a message takes beside its payload. */
const MESSAGE_BYTES = 16;
const BURST_MESSAGES = 500;
/** So often, at full speed, the event loop gets a turn. */
const TURN_AFTER_MESSAGES = 5_000;
const TICK_MS = 1;
const SEND_TIMEOUT_MS = 10_000;

export interface PerfProduceOptions {
  readonly serviceUrl: string;
  readonly topic: string;
  /** Bytes of a payload. */
  readonly size: number;
  /** Seconds. */
  readonly duration: number;
  /** Messages a second, of all producers together; 0: as fast as it goes. */
  readonly rate: number;
  readonly producers: number;
  readonly compression: CompressionType;
  readonly csv: string | undefined;
  readonly output: 'text' | 'json';
}

/** Messages posted one after another whose latency counts from the same time, or from times at equal distances. */
interface Posted {
  count: number;
  /** On the monotonic clock: of the first of them. */
  readonly at: number;
  /** From one to the next, in milliseconds. */
  readonly step: number;
}

/** One producer, and what it has under way, in order. */
class Lane implements Tally {
  readonly #producer: Producer;
  readonly #load: Load;
  readonly #posted = new Deque<Posted>();
  /** How many of the first ones of `#posted` are settled. */
  #settled = 0;

  constructor(producer: Producer, load: Load) {
    this.#producer = producer;
    this.#load = load;
  }

  /** Posts `count` messages. @throws MagnetarError when the producer takes none any more */
  post(payloads: Payloads, count: number, at: number, step: number): void {
    const posted: Posted = { count: 0, at, step };
    this.#posted.push(posted);
    try {
      for (; posted.count < count; posted.count++) {
        this.#producer.post({ data: payloads.next() }, this);
      }
    } finally {
      this.#load.posted(posted.count);
    }
  }

  stored(count: number): void {
    this.#settle(count, this.#load.now());
    this.#load.stored(count);
  }

  failed(count: number, error: MagnetarError): void {
    this.#settle(count, undefined);
    this.#load.failed(count, error);
  }

  /** Takes the oldest messages off; `now`: they were stored, and their latency counts. */
  #settle(count: number, now: number | undefined): void {
    for (let left = count; left > 0; ) {
      const posted = this.#posted.peek();
      if (posted === undefined) return;
      const settled = Math.min(left, posted.count - this.#settled);
      if (now !== undefined) this.#measure(posted, settled, now);
      left -= settled;
      this.#settled += settled;
      if (this.#settled < posted.count) return;
      this.#posted.shift();
      this.#settled = 0;
    }
  }

  /** Where all have the same time, one value stands for them. */
  #measure({ at, step }: Posted, count: number, now: number): void {
    const first = at + this.#settled * step;
    const values = step === 0 ? 1 : count;
    for (let i = 0; i < values; i++) this.#load.report.latency(now - first - i * step);
  }
}

/** The load of a run. */
class Load {
  readonly report: PerfReport;
  readonly #shell: Shell;
  readonly #options: PerfProduceOptions;
  readonly #payloads: Payloads;
  readonly #window: number;
  #lanes: readonly Lane[] = [];
  #pending = 0;
  #sent = 0;
  #unsent = 0;
  #turn = 0;
  #wake: (() => void) | undefined;

  constructor(shell: Shell, options: PerfProduceOptions, report: PerfReport) {
    this.#shell = shell;
    this.#options = options;
    this.report = report;
    this.#payloads = new Payloads(options.size);
    this.#window = windowOf(options.size);
  }

  /** Messages that were due, but for which there was no room until the end. */
  get unsent(): number {
    return this.#unsent;
  }

  now(): number {
    return this.#shell.clock.monotonic();
  }

  posted(count: number): void {
    this.#pending += count;
    this.#sent += count;
  }

  stored(count: number): void {
    this.report.count(count, count * this.#options.size);
    this.#settled(count);
  }

  failed(count: number, error: MagnetarError): void {
    this.report.countErrors(count, error);
    this.#settled(count);
  }

  #settled(count: number): void {
    this.#pending -= count;
    this.#wake?.();
    this.#wake = undefined;
  }

  /** Resolves when something was settled; rejects when `signal` aborts. */
  #progress(signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) return Promise.reject(toMagnetarError(signal.reason));
    return new Promise((resolve, reject) => {
      const abort = (): void => reject(toMagnetarError(signal?.reason));
      signal?.addEventListener('abort', abort, { once: true });
      this.#wake = () => {
        signal?.removeEventListener('abort', abort);
        resolve();
      };
    });
  }

  /** Sends until the time is over; resolves when everything is settled. @throws why it could not send on */
  async run(producers: readonly Producer[]): Promise<void> {
    this.#lanes = producers.map((producer) => new Lane(producer, this));
    const { signal, stop } = timeLimit(this.#shell, this.#options.duration);
    try {
      if (this.#options.rate === 0) await this.#flatOut(signal);
      else await this.#paced(signal);
    } catch (error) {
      if (!signal.aborted || !hasCode(error, 'CANCELLED')) throw error;
    } finally {
      stop();
      for (const producer of producers) producer.flush().catch(() => {}); // each message tells its fate
      while (this.#pending > 0) await this.#progress();
    }
  }

  #post(count: number, at: number, step: number): void {
    const lane = this.#lanes[this.#turn++ % this.#lanes.length] as Lane;
    lane.post(this.#payloads, count, at, step);
  }

  async #flatOut(signal: AbortSignal): Promise<void> {
    const burst = Math.min(BURST_MESSAGES, Math.ceil(this.#window / 4));
    const end = this.now() + this.#options.duration * 1_000;
    let untilTurn = TURN_AFTER_MESSAGES;
    for (;;) {
      const now = this.now();
      if (now >= end || signal.aborted) return;
      this.#post(burst, now, 0);
      untilTurn -= burst;
      if (untilTurn <= 0) {
        untilTurn = TURN_AFTER_MESSAGES;
        await new Promise<void>((resolve) => this.#shell.clock.nextTurn(resolve));
      }
      while (this.#pending + burst > this.#window) await this.#progress(signal);
    }
  }

  /** Message i is due at i / rate, whatever became of those before it: its latency counts from then. */
  async #paced(signal: AbortSignal): Promise<void> {
    const { rate, duration } = this.#options;
    const { clock, interrupted } = this.#shell;
    const start = this.now();
    const step = 1_000 / rate;
    const total = Math.ceil(rate * duration);
    while (this.#sent < total && !interrupted.aborted) {
      const now = this.now();
      const due = Math.min(total, Math.floor((now - start) / step) + 1);
      const each = Math.ceil((due - this.#sent) / this.#lanes.length);
      while (this.#sent < due && this.#pending < this.#window) {
        const count = Math.min(each, due - this.#sent, this.#window - this.#pending);
        this.#post(count, start + this.#sent * step, step);
      }
      this.#unsent = due - this.#sent;
      if (this.#unsent > 0) await this.#progress(signal);
      else if (due < total) await delay(clock, Math.max(TICK_MS, start + due * step - now), interrupted);
    }
    await delay(clock, Math.max(0, start + duration * 1_000 - this.now()), interrupted); // of a low rate, the last pause
  }
}

function windowOf(size: number): number {
  return Math.max(1, Math.floor(WINDOW_BYTES / (size + MESSAGE_BYTES)));
}

async function openProducers(shell: Shell, client: Client, options: PerfProduceOptions): Promise<Producer[]> {
  const { topic, compression, serviceUrl, producers } = options;
  const limits = { maxPendingBytes: 2 * WINDOW_BYTES, maxPendingMessages: 2 * windowOf(options.size) };
  const config = { topic, compression, sendTimeoutMs: SEND_TIMEOUT_MS, ...limits };
  const opening = Array.from({ length: producers }, async () => {
    return await client.createProducer(config, { signal: shell.interrupted });
  });
  return await whenOpen(shell, serviceUrl, Promise.all(opening));
}

/** `magnetar perf produce`. Resolves with the exit code. */
export async function perfProduce(shell: Shell, options: PerfProduceOptions): Promise<number> {
  const { serviceUrl, topic, size, rate, producers, compression } = options;
  const client = newClient(shell, serviceUrl);
  try {
    const open = await openProducers(shell, client, options);
    const report = await PerfReport.open(shell, options.csv);
    const load = new Load(shell, options, report);
    report.begin();
    let failure: MagnetarError | undefined;
    await load.run(open).catch((error: unknown) => {
      failure = toMagnetarError(error);
    });
    const figures = await report.end();
    const { unsent } = load;
    report.print(figures, options.output, {
      what: `published to ${topic}`,
      latency: rate === 0 ? 'from sending to the receipt' : 'from when a message was due to its receipt',
      topic,
      size,
      rate,
      producers,
      compression,
      unsent,
    });
    if (unsent > 0) shell.stderr.write(`${countText(unsent)} messages were due and could not be sent in time\n`);
    if (failure !== undefined) throw failure;
    const { firstError } = report;
    if (firstError === undefined) return EXIT_DONE;
    const text = `${countText(figures.errors)} messages were not stored; the first: ${firstError.message}`;
    shell.stderr.write(`magnetar: ${text}\n`);
    return EXIT_FAILED;
  } finally {
    await client.close();
  }
}
