/** `magnetar/embedded` as an app has it: the packed package, in a process of its own. */
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { App } from './support/app.ts';
import { PowerDisk } from './support/power.ts';
import { runCommand, temporaryFolder } from './support/process.ts';

let app: App;
beforeAll(async () => {
  app = await App.create(['vitest']);
});
afterAll(async () => {
  await app?.[Symbol.asyncDispose]();
});

const SAY = `const say = (what, value = null) => process.stdout.write(JSON.stringify([what, value]) + '\\n');`;
const IMPORTS = `import { startStandalone } from 'magnetar/embedded';
import { Client, MagnetarError } from 'magnetar';
${SAY}`;

/** Publishes to a broker, consumes and acknowledges all of it. */
const USE = `
  async function use(standalone, messages = 50) {
    const client = standalone.client();
    const producer = await client.createProducer({ topic: 't' });
    await Promise.all(Array.from({ length: messages }, (_, i) => producer.send({ data: 'm' + i })));
    const consumer = await client.subscribe({ topic: 't', subscription: 's', startPosition: 'earliest' });
    const got = [];
    for await (const message of consumer.messages({ untilEnd: true })) {
      got.push(message.data.toString());
      await consumer.acknowledge(message);
    }
    return got.length;
  }
`;

describe.concurrent('an app', () => {
  test.each([
    ['app.mjs', IMPORTS],
    ['app.cjs', `const { startStandalone } = require('magnetar/embedded'); ${SAY}`],
  ])('%s has a broker of its own, and ends by itself when that is closed', async (file, imports) => {
    const process = await app.start(
      file,
      `${imports} ${USE}
      (async () => {
        for (const port of [0, false]) {
          const standalone = await startStandalone({ port });
          say('used', [standalone.serviceUrl.split(':')[0], await use(standalone)]);
          await standalone.close();
        }
      })();`,
    );
    expect(await process.says('used')).toEqual(['grpc', 50]);
    expect(await process.says('used')).toEqual(['unix', 50]);
    expect(await process.exited()).toBe(0);
    expect(process.stderr.replaceAll(/^.*(ExperimentalWarning|--trace-warnings).*\n/gm, '')).toBe('');
  });

  test('that is killed keeps what was confirmed', async () => {
    const data = await temporaryFolder();
    const source = `${IMPORTS}
      const standalone = await startStandalone({ data: process.env.DATA, port: false });
      say('url', standalone.serviceUrl);
      const client = standalone.client();
      const found = new Set();
      const reader = await client.createReader({ topic: 't', startPosition: 'earliest' });
      for await (const { data } of reader.messages({ untilEnd: true })) found.add(data.toString());
      say('found', [...found]);
      const producer = await client.createProducer({ topic: 't' });
      for (let i = found.size; ; i++) {
        await producer.send({ data: 'm' + i });
        say('confirmed', i);
      }`;
    const first = await app.start('killed.mjs', source, { env: { DATA: data } });
    let confirmed = -1;
    while (confirmed < 99) confirmed = Number(await first.says('confirmed'));
    await first.kill();
    const second = await app.start('killed.mjs', source, { env: { DATA: data } });
    const url = String(await second.says('url'));
    const found = (await second.says('found')) as readonly string[];
    expect(found.slice(0, confirmed + 1)).toEqual(Array.from({ length: confirmed + 1 }, (_, i) => `m${i}`));
    await second.says('confirmed');
    const consumed = await runCommand(['consume', 't', '-s', 's', '-n', `${found.length}`, '--service-url', url]);
    expect(String(consumed.stdout).trimEnd().split('\n')).toEqual(found);
    const refused = await runCommand(['standalone', '--data', data, '--port', '0', '--http-port', '0']);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('is in use by another Magnetar');
  });

  test('of README.md runs its tests', async () => {
    const readme = await readFile('README.md', 'utf8');
    const example = /```ts\n(import \{ startStandalone \}.*?)```/s.exec(readme)?.[1] ?? '';
    expect(example.trim().split('\n').length).toBeLessThanOrEqual(12);
    await mkdir(path.join(app.folder, 'readme'));
    await writeFile(path.join(app.folder, 'readme', 'orders.test.ts'), example);
    const vitest = path.join(app.folder, 'node_modules', 'vitest', 'vitest.mjs');
    const args = [vitest, 'run', '--dir', 'readme', '--reporter', 'json'];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: app.folder });
    expect(JSON.parse(stdout)).toMatchObject({ success: true, numPassedTests: 1 });
  });
});

/** Starts and closes ten brokers, one after another and side by side, and says what each round has left behind. */
function rounds(close: string): string {
  return `
    import { readdirSync } from 'node:fs';
    import { tmpdir } from 'node:os';
    ${IMPORTS} ${USE}
    const listeners = () => process.eventNames().map((name) => [String(name), process.listenerCount(name)]).toSorted();
    // Requests come and go; what stays is a handle.
    const handles = () => process.getActiveResourcesInfo().filter((name) => !name.includes('Req')).toSorted().join();
    say(process.stderr.isTTY ? 'begun on a terminal' : 'begun'); // both pipes are open from here on
    await new Promise((resolve) => setTimeout(resolve, 50)); // what loading has set off is over
    const before = { handles: handles(), fds: readdirSync('/proc/self/fd').length, listeners: listeners() };
    async function once(i) {
      const standalone = await startStandalone({ port: i % 2 === 0 ? 0 : false, httpPort: i % 2 === 0 ? 0 : false });
      await use(standalone, 20);
      ${close}
    }
    async function leftovers() {
      await new Promise((resolve) => setTimeout(resolve, 50));
      const open = handles(); // before the collection, which has callbacks of its own
      for (let i = 0; i < 3; i++) gc();
      const { heapUsed, external } = process.memoryUsage();
      return {
        fds: readdirSync('/proc/self/fd').length - before.fds,
        handles: open === before.handles ? 'none' : open + ' instead of ' + before.handles,
        listeners: JSON.stringify(listeners()) === JSON.stringify(before.listeners) ? 'none' : listeners(),
        folders: readdirSync(tmpdir()).filter((name) => name.startsWith('magnetar-')).length,
        bytes: heapUsed + external,
      };
    }
    await Promise.all([...Array(10).keys()].map(once)); // what is loaded and compiled stays
    const start = await leftovers();
    for (let i = 0; i < 10; i++) await once(i);
    say('in sequence', await leftovers());
    await Promise.all([...Array(10).keys()].map(once));
    const { bytes, ...end } = await leftovers();
    say('at once', { ...end, grown: bytes - start.bytes });
    process.exit();`;
}

interface Leftovers {
  readonly fds: number;
  readonly handles: string;
  readonly listeners: unknown;
  readonly folders: number;
  readonly grown: number;
}

async function tens(file: string, close: string): Promise<[unknown, Leftovers]> {
  const temporary = path.join(app.folder, `${file}.tmp`);
  await mkdir(temporary);
  const options = { args: ['--expose-gc'], env: { TMPDIR: temporary } };
  const process = await app.start(file, rounds(close), options);
  return [await process.says('in sequence'), (await process.says('at once')) as Leftovers];
}

describe('ten of them, in sequence and at once', () => {
  const nothing = { fds: 0, handles: 'none', listeners: 'none', folders: 0 };
  test('leave nothing behind', async () => {
    const [sequence, atOnce] = await tens('rounds.mjs', 'await standalone.close();');
    expect(sequence).toMatchObject(nothing);
    expect(atOnce).toMatchObject(nothing);
    // Twenty of them: what one alone holds on to would be several times as much.
    expect(atOnce.grown).toBeLessThan(3_000_000);
  });

  test('sabotage: one that is not closed is noticed', async () => {
    const [sequence, atOnce] = await tens('sabotage.mjs', 'if (i !== 7) await standalone.close();');
    expect(sequence).not.toMatchObject(nothing);
    expect(atOnce.fds).toBeGreaterThan(10);
    expect(atOnce.handles).toContain('PipeWrap');
    expect(atOnce.folders).toBe(3);
    expect(atOnce.grown).toBeGreaterThan(0);
  });
});

describe('when the disk fails under an app', () => {
  let disk: PowerDisk;
  beforeAll(async () => {
    disk = await PowerDisk.create(512);
  });
  afterAll(async () => {
    await disk?.[Symbol.asyncDispose]();
  });

  test('its hook is told, it lives on, and goes on in the same process once the disk is good again', async () => {
    const data = path.join(disk.folder, 'data');
    const process = await app.start(
      'fatal.mjs',
      `import { createInterface } from 'node:readline';
      ${IMPORTS}
      const input = createInterface({ input: process.stdin });
      const lines = input[Symbol.asyncIterator]();
      const data = process.env.DATA;
      let told = 0;
      const onFatal = (error) => say('fatal', [++told, error instanceof MagnetarError, error.code]);
      const standalone = await startStandalone({ data, onFatal });
      const client = standalone.client();
      const producer = await client.createProducer({ topic: 't' });
      for (let i = 0; i < 100; i++) await producer.send({ data: 'm' + i });
      const consumer = await client.subscribe({ topic: 't', subscription: 's' });
      const waiting = consumer.receive().catch((error) => error.code);
      say('published');
      await lines.next();
      const code = (work) => work.then(() => 'none', (error) => error.code);
      say('refused', [await code(producer.send({ data: 'x' })), await waiting, await code(client.createReader({ topic: 't' }))]);
      await standalone.close();
      say('closed');
      await lines.next();
      const again = await startStandalone({ data, onFatal });
      const reader = await again.client().createReader({ topic: 't', startPosition: 'earliest' });
      const found = [];
      for await (const { data } of reader.messages({ untilEnd: true })) found.push(data.toString());
      say('found', found.slice(0, 100));
      await again.close();
      input.close();`,
      { env: { DATA: data } },
    );
    await process.says('published');
    await disk.cut();
    process.tell('cut');
    expect(await process.says('fatal')).toEqual([1, true, 'STORE_FAILED']);
    expect(await process.says('refused')).toEqual(['STORE_FAILED', 'STORE_FAILED', 'STORE_FAILED']);
    await process.says('closed');
    await disk.restore(); // it would be busy if the app still had a file of it
    process.tell('restored');
    expect(await process.says('found')).toEqual(Array.from({ length: 100 }, (_, i) => `m${i}`));
    expect(await process.exited()).toBe(0);
  });

  test('without a hook it is an uncaught exception of the app', async () => {
    const process = await app.start(
      'uncaught.mjs',
      `${IMPORTS}
      process.on('uncaughtException', (error) => say('uncaught', error.code));
      const standalone = await startStandalone({ data: process.env.DATA });
      const producer = await standalone.client().createProducer({ topic: 'u' });
      say('ready');
      process.stdin.once('data', async () => {
        await producer.send({ data: 'x' }).catch(() => {});
        await standalone.close();
        say('closed');
        process.stdin.destroy();
      });`,
      { env: { DATA: path.join(disk.folder, 'uncaught') } },
    );
    await process.says('ready');
    await disk.cut();
    process.tell('cut');
    expect(await process.says('uncaught')).toBe('STORE_FAILED');
    await process.says('closed');
    expect(await process.exited()).toBe(0);
  });
});

const TYPED = `
  import type { Client, Logger, MagnetarError } from 'magnetar';
  import { type EmbeddedOptions, type EmbeddedStandalone, startStandalone } from 'magnetar/embedded';

  export async function main(logger: Logger): Promise<string> {
    const options: EmbeddedOptions = { data: 'd', bookies: 1, port: false, httpPort: 0, memoryBytes: 2 ** 26, logger };
    await using standalone: EmbeddedStandalone = await startStandalone({
      ...options,
      onFatal: (error: MagnetarError) => void error.code,
    });
    const client: Client = standalone.client({ operationTimeoutMs: 1_000 });
    await client.close();
    // @ts-expect-error the address is known
    standalone.client({ serviceUrl: 'grpc://127.0.0.1' });
    // @ts-expect-error no such option
    await startStandalone({ folder: 'd' });
    const url: string | undefined = standalone.httpUrl;
    return standalone.serviceUrl + standalone.data + (url ?? '');
  }
`;

describe.concurrent('the types hold under --strict', () => {
  test.each([
    ['typed.mts', { module: 'nodenext' }],
    ['typed.ts', { module: 'esnext', moduleResolution: 'bundler' }],
    ['typed.cts', { module: 'nodenext' }],
  ])('%s', async (file, compilerOptions) => {
    expect(await app.typeCheck(file, TYPED, compilerOptions)).toBe('');
  });
});
