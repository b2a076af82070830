/** What the command line says about itself and about wrong usage. No server is needed. */
import { readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { type CommandResult, runCommand } from './support/process.ts';

const COMMANDS = ['standalone', 'bookie', 'produce', 'consume', 'read'];
const GROUPS = ['perf', 'admin'];
const PERF_COMMANDS = ['produce', 'consume'];

/** The one line that says what is wrong, of a command that ended as wrong usage does. */
function usageProblem(result: CommandResult): string {
  const [problem, hint, ...more] = result.stderr.split('\n');
  expect(hint).toMatch(/^See 'magnetar[a-z ]* --help'\.$/);
  expect(more).toEqual(['']);
  expect(result.code).toBe(2);
  expect(result.stdout).toHaveLength(0);
  return problem ?? '';
}

describe.concurrent('a wrong value in the environment', () => {
  test('is named by its variable; a flag beats it', async () => {
    const env = { MAGNETAR_SERVICE_URL: 'nonsense' };
    expect(usageProblem(await runCommand(['read', 't'], { env }))).toMatch(/MAGNETAR_SERVICE_URL is 'nonsense'/);
    const flag = await runCommand(['--service-url', 'grpc://127.0.0.1:1', 'read', 't', '--exit-at-end'], { env });
    expect(flag.code).toBe(1);
    expect(flag.stderr).toContain('127.0.0.1:1');
  });

  test('so is a level of the log', async () => {
    const env = { MAGNETAR_LOG_LEVEL: 'loud' };
    const standalone = ['standalone', '--data', '/dev/null/data'];
    expect(usageProblem(await runCommand(standalone, { env }))).toMatch(
      /MAGNETAR_LOG_LEVEL is 'loud'; it must be one of debug, info, warn, error/,
    );
    const flag = await runCommand([...standalone, '--log-level', 'error'], { env });
    expect(flag.code).toBe(1);
    expect(flag.stderr).toContain('/dev/null/data');
  });
});

describe.concurrent('help', () => {
  test('alone, and with --help, it lists every command on stdout', async () => {
    for (const args of [[], ['--help'], ['help']]) {
      const { code, stdout, stderr } = await runCommand(args);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      for (const command of [...COMMANDS, ...GROUPS])
        expect(stdout.toString()).toMatch(new RegExp(`^ {2}${command}\\b`, 'm'));
      expect(stdout.toString()).toContain('--service-url');
    }
  });

  test.each(COMMANDS)('%s --help shows options, global options and examples', async (command) => {
    const { code, stdout } = await runCommand([command, '--help']);
    expect(code).toBe(0);
    const text = stdout.toString();
    expect(text).toMatch(new RegExp(`^Usage: magnetar ${command}`));
    for (const part of ['Options:', 'Global Options:', '--admin-url', `Examples:\n  `]) expect(text).toContain(part);
    expect((await runCommand(['help', command])).stdout.toString()).toBe(text);
  });

  test.each(PERF_COMMANDS)('perf %s --help does so, too', async (command) => {
    const { code, stdout } = await runCommand(['perf', command, '--help']);
    expect(code).toBe(0);
    const text = stdout.toString();
    expect(text).toMatch(new RegExp(`^Usage: magnetar perf ${command}`));
    for (const part of ['Options:', 'Global Options:', '--duration', `Examples:\n  `]) expect(text).toContain(part);
    expect((await runCommand(['perf', '--help'])).stdout.toString()).toMatch(new RegExp(`^ {2}${command}\\b`, 'm'));
  });

  test('--version is that of package.json', async () => {
    const { version } = JSON.parse(await readFile('package.json', 'utf8')) as { version: string };
    expect((await runCommand(['--version'])).stdout.toString()).toBe(`${version}\n`);
  });
});

describe.concurrent('wrong usage', () => {
  test.each([
    [['prodce', 't'], /unknown command 'prodce'.*produce/],
    [['produce'], /missing required argument 'topic'/],
    [['produce', 't', '--idz'], /unknown option '--idz'.*--ids/],
    [['produce', 't', 'u'], /too many arguments/],
    [['produce', 't', '-f', 'x', '-m', 'y'], /'-f, --file <file>' cannot be used with .*'-m, --message/],
    [['produce', 't', '-p', 'novalue'], /'novalue' is invalid.* name=value/],
    [['produce', 't', '--rate', '0'], /'0' is invalid.* above 0/],
    [['consume', 't'], /required option '-s, --subscription <name>'/],
    [['consume', 't', '-s', 's', '-t', 'shared'], /'shared' is invalid.* exclusive/],
    [['consume', 't', '-s', 's', '--from', 'newest'], /'newest' is invalid.* earliest, latest, a message id/],
    [['consume', 't', '-s', 's', '-n', '0'], /'0' is invalid.* from 1 on/],
    [['read', 't', '-o', 'xml'], /'xml' is invalid.* text, json/],
    [
      ['read', 't', '--service-url', 'http://x:1'],
      /--service-url is 'http:\/\/x:1'; it must be grpc:\/\/HOST or grpc:\/\/HOST:PORT,/,
    ],
    [['read', 't', '--admin-url', 'x'], /--admin-url is 'x'; it must have the form http:\/\/HOST:PORT/],
    [['produce', 't', '--compression', 'gzip'], /'gzip' is invalid.* none, lz4, zstd, snappy, zlib/],
    [['perf'], /a command is missing/],
    [['perf', 'prodce'], /unknown command 'prodce'.*produce/],
    [['perf', 'produce'], /missing required argument 'topic'/],
    [['perf', 'produce', 't', '--size', '-1'], /'-1' is invalid.* from 0 to 16777216/],
    [['perf', 'produce', 't', '--duration', '0'], /'0' is invalid.* above 0 and at most 86400/],
    [['perf', 'produce', 't', '--duration', '1m'], /'1m' is invalid.* a number of seconds/],
    [['perf', 'produce', 't', '--rate', 'fast'], /'fast' is invalid.* a number of messages a second/],
    [['perf', 'produce', 't', '--producers', '0'], /'0' is invalid.* from 1 to 1000/],
    [['perf', 'produce', 't', '--compression', 'brotli'], /'brotli' is invalid.* none, lz4/],
    [['perf', 'produce', 't', '-o', 'csv'], /'csv' is invalid.* text, json/],
    [['perf', 'produce', 't', '--service-url', 'x'], /--service-url is 'x'/],
    [['perf', 'consume'], /missing required argument 'topic'/],
    [['perf', 'consume', 't', '--consumers', '1.5'], /'1.5' is invalid.* from 1 to 1000/],
    [['perf', 'consume', 't', '--rate', '5'], /unknown option '--rate'/],
    [['standalone', '--port', '65536'], /'65536' is invalid.* from 0 to 65535/],
    [['standalone', '--bookies', '0'], /'0' is invalid.* from 1 to 16/],
    [['standalone', '--bookies', '1', '--bookie', 'h:1'], /--bookies and --bookie exclude each other/],
    [['standalone', '--bookie', 'h'], /'h' is invalid.* HOST:PORT/],
    [['bookie', '--port', 'x'], /'x' is invalid.* from 1 to 65535/],
    [['bookie', '--log-level', 'loud'], /--log-level is 'loud'; it must be one of debug, info, warn, error/],
  ])('%j', async (args, pattern) => {
    expect(usageProblem(await runCommand(args))).toMatch(pattern);
  });

  test('a file that does not exist is named', async () => {
    const { code, stderr } = await runCommand([
      'produce',
      't',
      '-f',
      '/nowhere/at/all',
      '--service-url',
      'grpc://127.0.0.1:1',
    ]);
    expect(stderr).toMatch(/^magnetar: cannot read \/nowhere\/at\/all \(ENOENT\)/m);
    expect(code).toBe(1);
  });
});
