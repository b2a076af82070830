import { promises, type Writable } from 'node:stream';
import { MagnetarError } from '../lib/errors.ts';
import type { Timer } from '../runtime/clock.ts';
import type { Histogram } from '../runtime/histogram.ts';
import type { Shell } from './shell.ts';
import { countText, platformReason } from './text.ts';

const SECOND_MS = 1_000;
const CSV_HEADER = 'second,messages,msgPerSec,mbPerSec,p50Ms,p99Ms,p999Ms,maxMs,errors\n';

/** What moved in a time. */
interface Figures {
  readonly messages: number;
  /** Since the beginning; of a line of a report, the length of its interval. */
  readonly seconds: number;
  readonly msgPerSec: number;
  /** Payloads, in millions of bytes. */
  readonly mbPerSec: number;
  // Null: no latency was measured.
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  readonly p999Ms: number | null;
  readonly maxMs: number | null;
  /** Messages that failed, or that could not be read. */
  readonly errors: number;
}

/** Counters of a time. */
class Interval {
  messages = 0;
  bytes = 0;
  errors = 0;
  readonly latencies: Histogram;

  constructor(latencies: Histogram) {
    this.latencies = latencies;
  }

  add(other: Interval): void {
    this.messages += other.messages;
    this.bytes += other.bytes;
    this.errors += other.errors;
    this.latencies.add(other.latencies);
  }

  reset(): void {
    this.messages = 0;
    this.bytes = 0;
    this.errors = 0;
    this.latencies.reset();
  }

  figures(ms: number): Figures {
    const { messages, bytes, errors, latencies } = this;
    const seconds = Math.max(ms, 1) / SECOND_MS;
    const at = (percent: number): number | null =>
      latencies.count === 0 ? null : latencies.percentile(percent) / 1_000;
    return {
      messages,
      seconds: rounded(seconds),
      msgPerSec: Math.round(messages / seconds),
      mbPerSec: rounded(bytes / 1e6 / seconds),
      p50Ms: at(50),
      p99Ms: at(99),
      p999Ms: at(99.9),
      maxMs: latencies.count === 0 ? null : latencies.max / 1_000,
      errors,
    };
  }
}

function rounded(value: number): number {
  return Number(value.toFixed(3));
}

function latencyText({ p50Ms, p99Ms, p999Ms, maxMs }: Figures): string {
  if (p50Ms === null || p99Ms === null || p999Ms === null || maxMs === null) return '';
  const [p50, p99, p999, max] = [p50Ms, p99Ms, p999Ms, maxMs].map((ms) => ms.toFixed(ms < 10 ? 2 : 1));
  return `p50 ${p50} ms, p99 ${p99} ms, p99.9 ${p999} ms, max ${max} ms`;
}

function rateText({ msgPerSec, mbPerSec }: Figures): string {
  return `${countText(msgPerSec)} messages/s, ${mbPerSec.toFixed(1)} MB/s`;
}

/**
 * Counts what a run moves. Says so once a second: on stderr where that is a terminal, and in a CSV file where one is
 * wanted. Says the sum at the end.
 */
export class PerfReport {
  readonly #shell: Shell;
  readonly #csv: Writable | undefined;
  readonly #csvName: string;
  readonly #now: Interval;
  readonly #all: Interval;
  #csvFailure: MagnetarError | undefined;
  #start: number;
  /** Seconds that are reported. */
  #seconds = 0;
  #since: number;
  #timer: Timer | undefined;
  #firstError: MagnetarError | undefined;

  private constructor(shell: Shell, csvName: string, csv: Writable | undefined) {
    this.#shell = shell;
    this.#csvName = csvName;
    this.#csv = csv;
    this.#now = new Interval(shell.newHistogram());
    this.#all = new Interval(shell.newHistogram());
    this.#start = shell.clock.monotonic();
    this.#since = this.#start;
    csv?.on('error', (error) => {
      this.#csvFailure ??= cannotWrite(csvName, error);
    });
  }

  /** `csv`: a file to write. @throws MagnetarError INVALID_ARGUMENT when it cannot be written */
  static async open(shell: Shell, csv: string | undefined): Promise<PerfReport> {
    if (csv === undefined) return new PerfReport(shell, '', undefined);
    try {
      return new PerfReport(shell, csv, await shell.createFile(csv));
    } catch (error) {
      throw cannotWrite(csv, error);
    }
  }

  /** The first message that failed. */
  get firstError(): MagnetarError | undefined {
    return this.#firstError;
  }

  /** Begins to count the time. */
  begin(): void {
    this.#start = this.#shell.clock.monotonic();
    this.#since = this.#start;
    this.#csv?.write(CSV_HEADER);
    this.#schedule();
  }

  /** Counts messages that were stored, or received; `bytes` of all of them. */
  count(messages: number, bytes: number): void {
    this.#now.messages += messages;
    this.#now.bytes += bytes;
  }

  /** Counts messages that failed. */
  countErrors(messages: number, error: MagnetarError): void {
    this.#now.errors += messages;
    this.#firstError ??= error;
  }

  latency(ms: number): void {
    this.#now.latencies.record(ms * 1_000);
  }

  #schedule(): void {
    const due = this.#start + (this.#seconds + 1) * SECOND_MS;
    const wait = Math.max(0, due - this.#shell.clock.monotonic());
    this.#timer = this.#shell.clock.after(wait, () => this.#second(), { unref: true });
  }

  #second(): void {
    this.#line();
    this.#schedule();
  }

  #line(): void {
    const now = this.#shell.clock.monotonic();
    const figures = this.#now.figures(now - this.#since);
    this.#since = now;
    this.#seconds += 1;
    this.#all.add(this.#now);
    this.#now.reset();
    const { messages, msgPerSec, mbPerSec, p50Ms, p99Ms, p999Ms, maxMs, errors } = figures;
    const cells = [this.#seconds, messages, msgPerSec, mbPerSec, p50Ms, p99Ms, p999Ms, maxMs, errors];
    this.#csv?.write(`${cells.map((cell) => cell ?? '').join(',')}\n`);
    if (!this.#shell.stderrIsTerminal) return;
    const parts = [`${this.#seconds} s: ${rateText(figures)}`, latencyText(figures)];
    if (errors > 0) parts.push(`${countText(errors)} errors`);
    this.#shell.stderr.write(`${parts.filter((part) => part !== '').join('; ')}\n`);
  }

  /** Ends the count. Resolves with the sum, when the file is written. @throws MagnetarError why it is not */
  async end(): Promise<Figures> {
    this.#timer?.cancel();
    const ms = this.#shell.clock.monotonic() - this.#start;
    if (this.#now.messages > 0 || this.#now.errors > 0 || this.#seconds === 0) this.#line();
    const figures = this.#all.figures(ms);
    if (this.#csv === undefined) return figures;
    try {
      this.#csv.end();
      await promises.finished(this.#csv);
    } catch (error) {
      this.#csvFailure ??= cannotWrite(this.#csvName, error);
    }
    return figures;
  }

  /** Writes the sum to stdout, as people or as programs read it. @throws MagnetarError when the CSV file is not whole */
  print(figures: Figures, format: 'text' | 'json', facts: PerfFacts): void {
    const { stdout } = this.#shell;
    if (format === 'json') stdout.write(`${JSON.stringify({ ...facts, ...figures })}\n`);
    else {
      const { messages, seconds, errors } = figures;
      stdout.write(`${facts.what}: ${countText(messages)} messages in ${seconds.toFixed(2)} s, ${rateText(figures)}\n`);
      stdout.write(`latency, ${facts.latency}: ${latencyText(figures) || 'not measured'}\n`);
      if (errors > 0) stdout.write(`errors: ${countText(errors)}\n`);
    }
    if (this.#csvFailure !== undefined) throw this.#csvFailure;
  }
}

/** What a sum is about. */
export interface PerfFacts {
  /** Such as "published to orders". */
  readonly what: string;
  /** From when to when it is counted. */
  readonly latency: string;
  readonly [fact: string]: string | number;
}

function cannotWrite(name: string, error: unknown): MagnetarError {
  return new MagnetarError('INVALID_ARGUMENT', `cannot write ${name} (${platformReason(error)})`, { cause: error });
}
