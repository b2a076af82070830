import type { Readable, Writable } from 'node:stream';
import type { Clock } from '../runtime/clock.ts';
import type { Histogram } from '../runtime/histogram.ts';
import type { HttpRequest, HttpResponse } from './http.ts';

/** What a command has of the world outside. `main` makes one from the process; tests make their own. */
export interface Shell {
  readonly stdin: Readable;
  /** Data, and nothing else. */
  readonly stdout: Writable;
  /** For people. */
  readonly stderr: Writable;
  /** True where a person reads stdout. */
  readonly stdoutIsTerminal: boolean;
  /** True where a person reads stderr: progress may be drawn there. */
  readonly stderrIsTerminal: boolean;
  /** True where a person types stdin. */
  readonly stdinIsTerminal: boolean;
  readonly clock: Clock;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Aborts when the person has asked the command to end (SIGINT, SIGTERM): it finishes what is under way. */
  readonly interrupted: AbortSignal;
  /** Milliseconds since 1970-01-01 UTC of a date and time in ISO 8601; undefined: it is none. */
  parseTime(text: string): number | undefined;
  /** A time as a Date. `time`: milliseconds since 1970-01-01 UTC. */
  dateOf(time: number): Date;
  /** The bytes of a file. Rejects with the platform's error when it cannot be opened. */
  openFile(path: string): Promise<Readable>;
  /** A file to write, emptied. Rejects with the platform's error when it cannot be opened. */
  createFile(path: string): Promise<Writable>;
  /** Rejects with the platform's error when there is no answer. */
  http(request: HttpRequest): Promise<HttpResponse>;
  newHistogram(): Histogram;
}

/** The exit codes of every command. */
export const EXIT_DONE = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;
