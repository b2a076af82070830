import { open } from 'node:fs/promises';
import type { Shell } from '../cli/shell.ts';
import { nodeClock } from '../runtime/node/clock.ts';
import { newHistogram } from '../runtime/node/histogram.ts';

const FILE_CHUNK_BYTES = 1_048_576;
/** A date, or a date and a time, in ISO 8601: what `Date.parse` reads by its specification and not by habit. */
const ISO_8601 = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?$/;

function parseTime(text: string): number | undefined {
  if (!ISO_8601.test(text)) return undefined;
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
