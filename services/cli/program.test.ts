import { PassThrough, Readable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { hasCode, MagnetarError } from '../lib/errors.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { OutputClosed } from './chunked-output.ts';
import { runProgram } from './program.ts';
import type { Shell } from './shell.ts';
import { newHistogram } from '../runtime/node/histogram.ts';
import { UsageError } from './usage-error.ts';

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command line with one further command, `work`, that does what the test says. */
async function run(args: readonly string[], work: () => Promise<number> = async () => 0): Promise<Ran> {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const shell: Shell = {
    stdin: Readable.from([]),
    stdout,
    stderr,
    stdoutIsTerminal: false,
    stderrIsTerminal: false,
    stdinIsTerminal: false,
    clock: new ManualClock(),
    environment: {},
    interrupted: new AbortController().signal,
    parseTime: () => undefined,
    dateOf: (time) => new Date(time),
    openFile: async () => Readable.from([]),
    createFile: async () => Promise.resolve(new PassThrough()),
    http: () => Promise.reject(new Error('there is no server')),
    newHistogram,
  };
  const code = await runProgram({
    args,
    shell,
    version: '9.8.7',
    addCommands: ({ add }) =>
      add({ name: 'work', summary: 'works', examples: ['magnetar work'], declare: () => {}, run: work }),
  });
  return { code, stdout: String(stdout.read() ?? ''), stderr: String(stderr.read() ?? '') };
}

const thrown = (error: unknown) => async (): Promise<number> => {
  throw error;
};

describe('runProgram', () => {
  test('the exit code is the command’s', async () => {
    expect(await run(['work'], async () => 1)).toEqual({ code: 1, stdout: '', stderr: '' });
    expect(await run(['work'])).toEqual({ code: 0, stdout: '', stderr: '' });
  });

  test('an error is one line and exit code 1', async () => {
    const error = new MagnetarError('TENANT_NOT_FOUND', 'tenant a\nwas not found');
    expect(await run(['work'], thrown(error))).toEqual({
      code: 1,
      stdout: '',
      stderr: 'magnetar: tenant a was not found\n',
    });
    expect((await run(['work'], thrown(new TypeError('x is not\n a function')))).stderr).toBe(
      'magnetar: internal error: x is not\n',
    );
  });

  test('wrong usage is one line, a hint and exit code 2', async () => {
    expect(await run(['work'], thrown(new UsageError('wrong', 'magnetar work')))).toEqual({
      code: 2,
      stdout: '',
      stderr: "magnetar: wrong\nSee 'magnetar work --help'.\n",
    });
    expect((await run(['work', '--no'])).stderr).toBe("magnetar: unknown option '--no'\nSee 'magnetar work --help'.\n");
    expect((await run(['wrk'])).code).toBe(2);
  });

  test('an output that nobody reads any more ends the command quietly', async () => {
    expect(await run(['work'], thrown(new OutputClosed()))).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(hasCode(new OutputClosed())).toBe(false);
  });

  test('help and version go to stdout', async () => {
    expect(await run(['--version'])).toEqual({ code: 0, stdout: '9.8.7\n', stderr: '' });
    const { code, stdout } = await run(['work', '--help']);
    expect(code).toBe(0);
    expect(stdout).toContain('Examples:\n  magnetar work\n');
  });
});
