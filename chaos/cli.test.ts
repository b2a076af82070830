/** The command line over the built program and a real server: what goes in comes out, and says where it is. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { open, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type CommandOptions,
  type CommandResult,
  runCommand,
  type ServerProcess,
  spawnCommand,
  startStandalone,
  temporaryFolder,
} from './support/process.ts';

const MB = 1_000_000;
let server: ServerProcess;
let folder: string;
let topics = 0;

beforeAll(async () => {
  folder = await temporaryFolder();
  server = await startStandalone();
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

function newTopic(): string {
  topics += 1;
  return `cli-${topics}`;
}

async function run(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  return await runCommand([...args, '--service-url', server.serviceUrl], options);
}

/** Runs a command that has to succeed; gives its stdout. */
async function done(args: readonly string[], options: CommandOptions = {}): Promise<Buffer> {
  const { code, stdout, stderr } = await run(args, options);
  expect(`${code} ${code === 0 ? '' : stderr}`).toBe('0 ');
  return stdout;
}

interface Row {
  readonly id: string;
  readonly index: number;
  readonly line: number;
  readonly key: string | null;
  readonly properties: Record<string, string>;
  readonly publishTime: number;
  readonly payload?: string;
  readonly payloadBase64?: string;
}

function rows(stdout: Buffer): Row[] {
  const lines = stdout.toString().split('\n');
  expect(lines.pop()).toBe('');
  return lines.map((line) => JSON.parse(line) as Row);
}

async function readAll(topic: string, ...args: readonly string[]): Promise<Row[]> {
  return rows(await done(['read', topic, '--exit-at-end', '-o', 'json', ...args]));
}

function payloads(messages: readonly Row[]): (string | undefined)[] {
  return messages.map(({ payload }) => payload);
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The one line that says what failed, of a command that printed nothing else that matters: no data, no stack trace. */
function problem(result: CommandResult): string {
  const lines = result.stderr.split('\n').filter((line) => line.startsWith('magnetar: '));
  expect(lines).toHaveLength(1);
  expect(result.stderr).not.toMatch(/^\s+at /m);
  expect(result.stdout).toHaveLength(0);
  expect(result.code).toBe(1);
  return lines[0] ?? '';
}

/** Lines with everything that a careless tool would change. */
function hostileInput(): Buffer {
  const pieces: Buffer[] = [
    Buffer.from('plain\n'),
    Buffer.from('carriage return\r\n\r\n\r'),
    Buffer.from('\n\n\n'),
    Buffer.from('\0\0 NUL \0\n'),
    Buffer.from([0xff, 0xfe, 0xc3, 0x28, 0xed, 0xa0, 0x80, 10]),
    Buffer.from('\u{feff}byte order mark, \u2028 \u2029 \u0085 \v \f\n'),
    Buffer.from('  leading and trailing  \t\n'),
    Buffer.alloc(4 * MB, 'four megabytes '),
    Buffer.from('\n'),
  ];
  for (let i = 0; i < 20_000; i++) pieces.push(Buffer.from(`${i.toString(36).repeat(i % 40)}\n`));
  return Buffer.concat(pieces);
}

// What waits comes first: the rest goes on beside it.
describe.concurrent('what takes its time', () => {
  test('no server at all', async () => {
    const result = await runCommand(['read', 't', '--service-url', 'grpc://127.0.0.1:1', '--exit-at-end']);
    expect(problem(result)).toMatch(/^magnetar: .*grpc:\/\/127\.0\.0\.1:1/);
  });
});

describe.concurrent('input and output', () => {
  test.each(['file', 'stdin'])('a hostile %s comes out with the same SHA-256', async (from) => {
    const topic = newTopic();
    const input = hostileInput();
    const file = path.join(folder, topic);
    await writeFile(file, input);
    await (from === 'file' ? done(['produce', topic, '-f', file]) : done(['produce', topic], { input }));
    expect(sha256(await done(['consume', topic, '-s', 'all', '--exit-at-end']))).toBe(sha256(input));
    expect(sha256(await done(['read', topic, '--exit-at-end']))).toBe(sha256(input));
  });

  test('a last line without LF counts, an empty input has no messages', async () => {
    const topic = newTopic();
    await done(['produce', topic], { input: 'a\n\nno line feed' });
    const { stderr } = await run(['produce', topic], { input: '' });
    expect(stderr).toMatch(/^published 0 messages /);
    expect((await done(['read', topic, '--exit-at-end'])).toString()).toBe('a\n\nno line feed\n');
  });

  test('texts, key and properties; JSON has them all', async () => {
    const topic = newTopic();
    const from = Date.now();
    await done(['produce', topic, '-m', 'one', '-5', '-m', '', '-k', 'k1', '-p', 'a=1', 'b=x=y', '-p', 'c=']);
    await done(['produce', topic], { input: Buffer.from([0xff, 0, 10]) });
    const [first, second, third, fourth, ...more] = await readAll(topic);
    expect(more).toEqual([]);
    expect(first).toEqual({
      id: expect.stringMatching(/^\d+:\d+:\d+$/) as string,
      index: 0,
      key: 'k1',
      properties: { a: '1', b: 'x=y', c: '' },
      publishTime: expect.any(Number) as number,
      payload: 'one',
    });
    expect(first?.publishTime).toBeGreaterThanOrEqual(from - 1_000);
    expect([second?.payload, third?.payload]).toEqual(['-5', '']);
    expect(fourth).toMatchObject({ index: 3, key: null, properties: {}, payloadBase64: '/wA=' });
  });

  test('--ids says line, id and index of what was acknowledged, and the same id reads the message', async () => {
    const topic = newTopic();
    const stdout = await done(['produce', topic, '--ids', '-m', 'a', 'b', 'c']);
    const ids = rows(stdout);
    expect(ids.map(({ line, index }) => [line, index])).toEqual([0, 1, 2].map((n) => [n, n]));
    expect((await readAll(topic)).map(({ id }) => id)).toEqual(ids.map(({ id }) => id));
    expect(payloads(await readAll(topic, '--from', ids[1]?.id ?? ''))).toEqual(['b', 'c']);
  });

  test('--ids comes at once, while the input is still open', async () => {
    const child = spawnCommand(['produce', newTopic(), '--ids', '--service-url', server.serviceUrl]);
    child.stdin?.write('first\n');
    const [chunk] = (await once(child.stdout ?? child, 'data')) as [Buffer];
    expect(JSON.parse(chunk.toString())).toMatchObject({ line: 0, index: 0 });
    child.stdin?.end();
    expect((await once(child, 'close'))[0]).toBe(0);
  });

  test('--rate paces', async () => {
    const from = performance.now();
    await done(['produce', newTopic(), '--rate', '10', '-m', ...Array.from({ length: 11 }, (_, i) => `${i}`)]);
    expect(performance.now() - from).toBeGreaterThan(1_000);
  });

  test('100 MB stream through in bounded memory', { timeout: 120_000 }, async () => {
    const topic = newTopic();
    const file = path.join(folder, 'large');
    const line = `${'0123456789'.repeat(100)}\n`;
    await writeFile(file, line.repeat(100_000));
    const limited = { env: { NODE_OPTIONS: '--max-old-space-size=96' }, timeoutMs: 60_000 };
    await done(['produce', topic, '-f', file], limited);
    const stdout = await done(['consume', topic, '-s', 's', '--exit-at-end'], limited);
    expect(stdout.length).toBe(line.length * 100_000);
    await rm(file);
  });

  test('an output that cannot be written is said, and is a failure, of every command', async () => {
    const topic = newTopic();
    await done(['produce', topic, '-m', 'a']);
    await using output = await open('/dev/full', 'w');
    for (const args of [
      ['read', topic, '--exit-at-end'],
      ['produce', topic, '-m', 'b', '--ids'],
      ['admin', 'topics', 'list', '--admin-url', server.adminUrl],
      ['perf', 'produce', topic, '--duration', '0.1', '-o', 'json'],
    ]) {
      const { code, stderr } = await run(args, { output });
      expect([args[0], code, stderr.split('\n').filter((line) => line.startsWith('magnetar:'))]).toEqual([
        args[0],
        1,
        ['magnetar: cannot write the output (ENOSPC)'],
      ]);
    }
  });

  test('a reader that goes away ends the command quietly', async () => {
    const topic = newTopic();
    await done(['produce', topic], { input: `${'x'.repeat(1_000)}\n`.repeat(5_000) });
    const child = spawnCommand(['read', topic, '--service-url', server.serviceUrl]);
    let errors = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      errors += chunk.toString();
    });
    await once(child.stdout ?? child, 'data');
    child.stdout?.destroy();
    const [code] = (await once(child, 'exit')) as [number];
    expect({ code, errors }).toEqual({ code: 0, errors: '' });
  });
});

describe.concurrent('positions', () => {
  test('earliest is the default, latest sees what comes later', async () => {
    const topic = newTopic();
    await done(['produce', topic, '-m', 'old']);
    expect(await readAll(topic, '--from', 'latest')).toEqual([]);
    const child = spawnCommand([
      'consume',
      topic,
      '-s',
      'new',
      '--from',
      'latest',
      '-n',
      '1',
      '--service-url',
      server.serviceUrl,
    ]);
    const output = once(child.stdout ?? child, 'data') as Promise<[Buffer]>;
    const more = new AbortController();
    const printed = output.then(([chunk]) => {
      more.abort();
      return chunk.toString();
    });
    while (!more.signal.aborted) await done(['produce', topic, '-m', 'new']); // until one of them comes behind the subscription
    expect(await printed).toBe('new\n');
    expect(payloads(await readAll(topic))[0]).toBe('old');
  });

  test('a time: ISO 8601, milliseconds, relative', async () => {
    const topic = newTopic();
    await done(['produce', topic, '-m', 'before']);
    const between = Date.now() + 1; // the start of a process takes longer
    await done(['produce', topic, '-m', 'after']);
    // A relative time counts from the start of the command, whenever that is: so it is only said what is certain by then.
    const sayings: [string, string[]][] = [
      [new Date(between).toISOString(), ['after']],
      [`${between}`, ['after']],
      ['-1ms', []],
      ['-10m', ['before', 'after']],
      ['2099-01-01', []],
    ];
    for (const [from, seen] of sayings) {
      expect({ from, seen: payloads(await readAll(topic, '--from', from)) }).toEqual({ from, seen });
    }
  });

  test('a message id is inclusive, for read and for a new subscription; one that does not exist is an error', async () => {
    const topic = newTopic();
    const ids = rows(await done(['produce', topic, '--ids', '-m', 'a', 'b', 'c']));
    const at = ids[2]?.id ?? '';
    expect(payloads(await readAll(topic, '--from', at))).toEqual(['c']);
    const consumed = await done(['consume', topic, '-s', 'late', '--from', at, '--exit-at-end']);
    expect(consumed.toString()).toBe('c\n');
    const missing = await run(['read', topic, '--from', '999999999:0:0', '--exit-at-end']);
    expect(problem(missing)).toMatch(/^magnetar: .*999999999:0:0/);
  });

  test('-n stops; an existing subscription goes on behind what was acknowledged', async () => {
    const topic = newTopic();
    await done(['produce', topic, '-m', 'a', 'b', 'c', 'd']);
    const some = await done(['consume', topic, '-s', 's', '-n', '2']);
    expect(some.toString()).toBe('a\nb\n');
    expect((await done(['consume', topic, '-s', 's', '--exit-at-end'])).toString()).toBe('c\nd\n');
    expect((await done(['consume', topic, '-s', 's', '--exit-at-end'])).toString()).toBe('');
    expect((await done(['read', topic, '-n', '1', '--from', 'earliest'])).toString()).toBe('a\n');
  });
});

describe.concurrent('interruption', () => {
  test.each(['SIGINT', 'SIGTERM'] as const)(
    '%s ends a consumer with 0, and everything printed is acknowledged',
    async (signal) => {
      const topic = newTopic();
      await done(['produce', topic, '-m', 'a', 'b']);
      const child = spawnCommand(['consume', topic, '-s', 's', '--service-url', server.serviceUrl]);
      let printed = '';
      await new Promise<void>((resolve) => {
        child.stdout?.on('data', (chunk: Buffer) => {
          printed += chunk.toString();
          if (printed === 'a\nb\n') resolve();
        });
      });
      child.kill(signal);
      expect((await once(child, 'close'))[0]).toBe(0);
      expect((await done(['consume', topic, '-s', 's', '--exit-at-end'])).toString()).toBe('');
    },
  );

  test('SIGINT ends a producer behind what it has read', async () => {
    const topic = newTopic();
    const child = spawnCommand(['produce', topic, '--ids', '--service-url', server.serviceUrl]);
    child.stdin?.write('only\n');
    await once(child.stdout ?? child, 'data');
    child.kill('SIGINT');
    expect((await once(child, 'close'))[0]).toBe(1);
    expect(payloads(await readAll(topic))).toEqual(['only']);
  });
});

describe.concurrent('a consumer that is killed', () => {
  test('has acknowledged nothing that its output did not take', async () => {
    const topic = newTopic();
    const count = 20_000;
    const input = Array.from({ length: count }, (_, i) => `${i} ${'x'.repeat(990)}\n`).join('');
    await done(['produce', topic], { input });
    const child = spawnCommand(['consume', topic, '-s', 's', '--service-url', server.serviceUrl]);
    const taken: Buffer[] = [];
    await new Promise<void>((resolve) => {
      child.stdout?.on('data', (chunk: Buffer) => {
        taken.push(chunk);
        if (taken.length === 1) child.stdout?.pause(); // from now on it writes into a pipe that nobody empties
        resolve();
      });
    });
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    child.kill('SIGKILL');
    child.stdout?.resume();
    await once(child, 'close');
    const lines = Buffer.concat(taken).toString().split('\n').length - 1;
    expect(lines).toBeLessThan(count);
    const rest = (await done(['consume', topic, '-s', 's', '--exit-at-end'])).toString();
    const next = Number(rest.slice(0, rest.indexOf(' ')));
    expect(next).toBeLessThanOrEqual(lines);
    expect(rest).toBe(input.slice(input.indexOf(`${next} x`)));
  });
});

describe.concurrent('errors of the server', () => {
  test('a second exclusive consumer is refused', async () => {
    const topic = newTopic();
    await done(['produce', topic, '-m', 'a']);
    const first = spawnCommand(['consume', topic, '-s', 'mine', '--service-url', server.serviceUrl]);
    await once(first.stdout ?? first, 'data');
    expect(problem(await run(['consume', topic, '-s', 'mine', '--exit-at-end']))).toMatch(/^magnetar: .*mine.*/);
    first.kill('SIGINT');
    await once(first, 'close');
    expect((await done(['consume', topic, '-s', 'mine', '--exit-at-end'])).toString()).toBe('');
  });

  test.each([
    ['an unknown tenant', 'nobody/default/t', /nobody/],
    ['an unknown namespace', 'public/nowhere/t', /public\/nowhere/],
    ['a wrong name', 'a/b/c/d', /a\/b\/c\/d/],
    ['a name with a character that is not allowed', 'tab\there', /tab\\there/],
    ['another domain', 'queue://public/default/t', /queue:\/\/public\/default\/t/],
  ])('%s is named', async (_what, topic, pattern) => {
    expect(problem(await run(['read', topic, '--exit-at-end']))).toMatch(pattern);
    expect(problem(await run(['consume', topic, '-s', 's', '--exit-at-end']))).toMatch(pattern);
    expect(problem(await run(['produce', topic, '-m', 'x']))).toMatch(pattern);
  });

  test('a message over the limit is refused by line and size; the lines before it are stored', async () => {
    const topic = newTopic();
    const input = Buffer.concat([Buffer.from('small\n'), Buffer.alloc(5_242_881, 'x'), Buffer.from('\nbehind\n')]);
    const { code, stderr } = await run(['produce', topic], { input });
    expect(stderr).toMatch(/^magnetar: line 1: .*5242881.*5242880/m);
    expect(code).toBe(1);
    expect(payloads(await readAll(topic))[0]).toBe('small');
    const limit = await run(['produce', topic], { input: Buffer.alloc(5_242_880, 'x') });
    expect(limit.code).toBe(0);
  });

  test('a line that no server could take is refused without being held', async () => {
    const { code, stderr } = await run(['produce', newTopic()], { input: Buffer.alloc(20 * MB, 'x') });
    expect(stderr).toMatch(/^magnetar: line 0 of the input .* longer than 16777216 bytes/m);
    expect(code).toBe(1);
  });
});

describe('a server that ends or stands still', () => {
  test('acknowledgments survive kill -9 of the server right after the command', async () => {
    const topic = newTopic();
    await done(['produce', topic, '-m', 'a', 'b', 'c']);
    expect((await done(['consume', topic, '-s', 's', '-n', '2'])).toString()).toBe('a\nb\n');
    await server.kill();
    await server.start();
    expect((await done(['consume', topic, '-s', 's', '--exit-at-end'])).toString()).toBe('c\n');
  });

  test('the first SIGINT waits for what is under way, the second ends the command at once', async () => {
    const child = spawnCommand(['produce', newTopic(), '--ids', '--service-url', server.serviceUrl]);
    child.stdin?.write('stored\n');
    await once(child.stdout ?? child, 'data');
    server.signal('SIGSTOP');
    try {
      child.stdin?.write('not confirmed\n');
      child.kill('SIGINT');
      const exit = once(child, 'exit') as Promise<[number]>;
      const early = await Promise.race([exit, new Promise((resolve) => setTimeout(resolve, 500, 'waits'))]);
      expect(early).toBe('waits');
      child.kill('SIGINT');
      expect((await exit)[0]).toBe(130);
    } finally {
      server.signal('SIGCONT');
    }
  });
});
