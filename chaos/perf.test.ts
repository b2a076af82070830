/** `magnetar perf` over the built program and a real server: what it says it moved was moved, and when. */
import { once } from 'node:events';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Client } from '../services/client/index.ts';
import { runCommand, type ServerProcess, spawnCommand, startStandalone, temporaryFolder } from './support/process.ts';
import { storedBlocks } from './support/raw-stream.ts';
import { suspendProcess } from './support/suspend.ts';

/** The last line of `-o json`. */
interface Sum {
  readonly messages: number;
  readonly seconds: number;
  readonly msgPerSec: number;
  readonly mbPerSec: number;
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  readonly p999Ms: number | null;
  readonly maxMs: number | null;
  readonly errors: number;
  readonly unsent?: number;
}

let server: ServerProcess;
let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  server = await startStandalone();
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

function perfArgs(args: readonly string[]): string[] {
  return ['perf', ...args, '--service-url', server.serviceUrl];
}

async function perf(...args: readonly string[]): Promise<Sum> {
  const { sum, stderr } = await perfSaying(...args);
  expect(stderr).toBe(''); // progress is for terminals
  return sum;
}

async function perfSaying(...args: readonly string[]): Promise<{ readonly sum: Sum; readonly stderr: string }> {
  const { code, stdout, stderr } = await runCommand([...perfArgs(args), '-o', 'json']);
  if (code !== 0) throw new Error(`perf ended with ${code}: ${stderr}`);
  return { sum: JSON.parse(stdout.toString().trimEnd().split('\n').at(-1) ?? '') as Sum, stderr };
}

/** How many messages a topic has. */
async function messagesOf(topic: string): Promise<number> {
  await using client = new Client({ serviceUrl: server.serviceUrl });
  return (await (await client.createProducer({ topic })).send({ data: 'end' })).index ?? -1;
}

describe('at full speed', () => {
  test('what is published is there, and is consumed to the end of the topic', async () => {
    const produced = await perf('produce', 'full', '--duration', '1', '--producers', '3');
    expect(produced).toMatchObject({ errors: 0, unsent: 0 });
    expect(produced.messages).toBeGreaterThan(10_000);
    expect(produced.seconds).toBeGreaterThanOrEqual(1);
    expect(produced.msgPerSec).toBeCloseTo(produced.messages / produced.seconds, -3);
    expect(produced.mbPerSec).toBeCloseTo((produced.msgPerSec * 128) / 1e6, 0);
    const { p50Ms, p99Ms, p999Ms, maxMs } = produced;
    const latencies = [0, p50Ms, p99Ms, p999Ms, maxMs].map((ms) => ms ?? -1);
    expect(latencies.toSorted((a, b) => a - b)).toEqual(latencies);
    for (let round = 0; round < 2; round++) {
      // The subscription of the first round is gone.
      const consumed = await perf('consume', 'full', '--duration', '30');
      const nothing = { p50Ms: null, p99Ms: null, p999Ms: null, maxMs: null, errors: 0 };
      expect(consumed).toMatchObject({ messages: produced.messages, ...nothing });
    }
    expect(await messagesOf('full')).toBe(produced.messages);
  });

  test('says when the time was over before the end of the topic', async () => {
    await perf('produce', 'cut', '--duration', '0.2');
    const { sum, stderr } = await perfSaying('consume', 'cut', '--duration', '0.001');
    expect(sum.messages).toBeLessThan(await messagesOf('cut'));
    expect(stderr).toBe('stopped after 0.001 s, before the end; --duration gives it more time\n');
  });

  test('what is consumed on a subscription of one’s own is acknowledged; each consumer gets everything', async () => {
    const { messages } = await perf('produce', 'own', '--duration', '0.2', '--size', '1000', '--compression', 'zstd');
    const blocks = await storedBlocks(server.port, 'own');
    expect(blocks.every(({ compression }) => compression === 2)).toBe(true);
    const consume = ['consume', 'own', '-s', 'mine', '--consumers', '2'];
    expect((await perf(...consume)).messages).toBe(2 * messages);
    expect((await perf(...consume)).messages).toBe(0);
  });
});

describe.concurrent('at a rate', () => {
  test('so many messages are published, evenly; the CSV file has a line a second', async () => {
    const csv = path.join(folder, 'rate.csv');
    const sum = await perf('produce', 'rate', '--rate', '500', '--duration', '2.5', '--producers', '2', '--csv', csv);
    expect(sum).toMatchObject({ messages: 1_250, errors: 0, unsent: 0 });
    expect(sum.seconds).toBeGreaterThanOrEqual(2.5);
    const [header, ...lines] = (await readFile(csv, 'utf8')).trimEnd().split('\n');
    expect(header).toBe('second,messages,msgPerSec,mbPerSec,p50Ms,p99Ms,p999Ms,maxMs,errors');
    const rows = lines.map((line) => line.split(',').map(Number));
    expect(rows.map(([second]) => second)).toEqual([1, 2, 3]);
    expect(rows.reduce((all, [, messages]) => all + (messages ?? 0), 0)).toBe(1_250);
    const times = (await storedBlocks(server.port, 'rate')).map(
      ({ publishTime, count }) => [publishTime, count] as const,
    );
    const first = times[0]?.[0] ?? 0;
    const before = times.filter(([time]) => time < first + 1_250).reduce((all, [, count]) => all + count, 0);
    expect(before).toBeGreaterThan(400);
    expect(before).toBeLessThan(850);
  });

  test('a consumer that follows says how long messages take', async () => {
    const following = perf('consume', 'live', '--follow', '--duration', '4');
    const produced = await perf('produce', 'live', '--rate', '200', '--duration', '2');
    const consumed = await following;
    expect(consumed.messages).toBe(produced.messages);
    expect(consumed.p50Ms ?? 0).toBeGreaterThan(0);
    expect(consumed.p50Ms ?? 0).toBeLessThan(1_000);
  });

  test('latency counts from when a message was due, also while the tool itself stood still', async () => {
    const args = perfArgs(['produce', 'stall', '--rate', '500', '--duration', '3', '-o', 'json']);
    const child = spawnCommand(args);
    let stdout = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    const closed = once(child, 'close') as Promise<[number | null]>;
    while ((await storedBlocks(server.port, 'stall')).length < 50)
      await new Promise((resolve) => setTimeout(resolve, 10));
    await suspendProcess(child.pid ?? 0);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    child.kill('SIGCONT');
    expect(await closed).toEqual([0, null]);
    // A second of three: a third of the messages was late, half of that by more than half a second.
    const sum = JSON.parse(stdout) as Sum;
    expect(sum).toMatchObject({ messages: 1_500, errors: 0 });
    expect(sum.p99Ms ?? 0).toBeGreaterThan(800);
    // Counted from when they were sent, nothing of it would be seen.
    const blocks = await storedBlocks(server.port, 'stall');
    const late = blocks.filter(({ appendTime, publishTime }) => appendTime - publishTime > 800);
    expect(late.reduce((messages, { count }) => messages + count, 0)).toBeLessThan(15);
  });
});

describe('a server that is killed', () => {
  test('loses and doubles nothing', async () => {
    const producing = perfSaying('produce', 'crash', '--rate', '1000', '--duration', '3');
    while ((await storedBlocks(server.port, 'crash')).length < 50)
      await new Promise((resolve) => setTimeout(resolve, 10));
    await server.kill();
    await server.start();
    const { sum, stderr } = await producing;
    expect(sum).toMatchObject({ messages: 3_000, errors: 0 });
    expect(stderr).toMatch(/^lost the broker at .*; trying again\nconnected to .* again\n$/);
    expect(await messagesOf('crash')).toBe(3_000);
  });
});

describe('ends', () => {
  test.each([
    ['produce', 'published to until'],
    ['consume', 'consumed from until'],
  ])('Ctrl-C: %s says what it has done', async (command, what) => {
    const csv = path.join(folder, `until-${command}.csv`);
    const more = command === 'consume' ? ['--follow'] : [];
    const child = spawnCommand(perfArgs([command, 'until', '--duration', '600', '--csv', csv, ...more]));
    let stdout = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    const closed = once(child, 'close') as Promise<[number | null]>;
    const lines = async (): Promise<number> => (await readFile(csv, 'utf8').catch(() => '')).split('\n').length - 1;
    while ((await lines()) < 2) await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill('SIGINT');
    expect(await closed).toEqual([0, null]);
    expect(stdout).toMatch(
      new RegExp(`^${what}: [\\d,]+ messages in \\d\\.\\d\\d s, [\\d,]+ messages/s, [\\d.]+ MB/s\\nlatency, `),
    );
  });

  test.each([
    [
      ['produce', 'no', '--csv', '/no/such/folder/x.csv'],
      /^magnetar: cannot write \/no\/such\/folder\/x\.csv \(ENOENT\)\n$/,
    ],
    [
      ['produce', 'no', '--size', '6000000'],
      /magnetar: the message has 6000000 bytes; the broker takes at most 5242880\n$/,
    ],
    [['consume', 'a/b'], /^magnetar: .*a\/b/],
  ])('%j is one line', async (args, pattern) => {
    const { code, stderr } = await runCommand(perfArgs(args));
    expect(code).toBe(1);
    expect(stderr).toMatch(pattern);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });
});
