import { PassThrough, Readable, type Writable } from 'node:stream';
import { nodeClock } from '../../runtime/node/clock.ts';
import { newHistogram } from '../../runtime/node/histogram.ts';
import type { Shell } from '../shell.ts';

/** A shell in which nobody sits at a terminal and no server answers. */
export function shellWith(stdin: Readable, stdout: Writable): Shell {
  return {
    stdin,
    stdout,
    stderr: new PassThrough(),
    stdoutIsTerminal: false,
    stderrIsTerminal: false,
    stdinIsTerminal: false,
    clock: nodeClock,
    environment: {},
    interrupted: new AbortController().signal,
    parseTime: () => undefined,
    dateOf: (time) => new Date(time),
    openFile: async () => Promise.resolve(Readable.from([])),
    createFile: async () => Promise.resolve(new PassThrough()),
    http: () => Promise.reject(new Error('there is no server')),
    newHistogram,
  };
}
