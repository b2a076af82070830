import { open } from 'node:fs/promises';
import type { Shell } from '../cli/shell.ts';
import { nodeClock } from '../runtime/node/clock.ts';
import { newHistogram } from '../runtime/node/histogram.ts';

const DAY_CHARACTERS = 10;
const FILE_CHUNK_BYTES = 1_048_576;
/** A date, or a date and a time, in ISO 8601: what `Date.parse` reads by its specification and not by habit. */
const ISO_8601 = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?$/;

/** `Date.parse` takes 31 November for 1 December. */
function isDay(day: string): boolean {
  const time = Date.parse(day);
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(day);
}

/** Milliseconds since 1970-01-01 UTC of a date and time in ISO 8601; undefined: it is none, or there is no such day. */
export function parseTime(text: string): number | undefined {
  if (!ISO_8601.test(text) || !isDay(text.slice(0, DAY_CHARACTERS))) return undefined;
  const time = Date.parse(
    text
      .replace(' ', 'T')
      .replace(',', '.')
      .replace(/([+-]\d{2})(\d{2})$/, '$1:$2'),
  );
  return Number.isNaN(time) ? undefined : time;
}

/** The process as a command sees it. `interrupted` is the caller's. */
export function nodeShell(interrupted: AbortSignal): Shell {
  return {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    stdoutIsTerminal: process.stdout.isTTY,
    stderrIsTerminal: process.stderr.isTTY,
    stdinIsTerminal: process.stdin.isTTY,
    clock: nodeClock,
    environment: process.env,
    interrupted,
    parseTime,
    dateOf: (time) => new Date(time),
    openFile: async (path) => (await open(path)).createReadStream({ highWaterMark: FILE_CHUNK_BYTES }),
    createFile: async (path) => (await open(path, 'w')).createWriteStream(),
    http: async (request) => await (await import('./node-http.ts')).nodeHttp(request),
    newHistogram,
  };
}
