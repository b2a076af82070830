/** The package as npm packs it: an app outside of this checkout imports it, requires it, and type-checks against it. */
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { App, manifest } from './support/app.ts';
import { type ServerProcess, startStandalone } from './support/process.ts';

const execute = promisify(execFile);

let server: ServerProcess;
let installed: App;
/** Its folder. */
let app: string;

beforeAll(async () => {
  installed = await App.create();
  app = installed.folder;
  server = await startStandalone();
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await installed?.[Symbol.asyncDispose]();
});

/** Publishes and consumes; prints what it got, and which files the process has loaded. */
const APP = `
  const client = new Client({ serviceUrl: process.argv[2] });
  const topic = process.argv[3];
  const producer = await client.createProducer({ topic });
  const id = await producer.send({ data: 'hello', key: 'k', properties: { from: 'app' } });
  const consumer = await client.subscribe({ topic, subscription: 's', startPosition: id });
  const message = await consumer.receive();
  await consumer.acknowledge(message);
  const error = await client.subscribe({ topic, subscription: 's' }).catch((reason) => reason);
  await client.close();
  const loaded = Object.keys(require.cache);
  console.log(JSON.stringify({
    got: [message.data.toString(), message.key, message.properties, message.messageId.equals(id)],
    error: [error instanceof MagnetarError, error.code, MessageId.parse(id.toString()).equals(id)],
    loaded,
  }));
`;

interface Outcome {
  readonly got: readonly unknown[];
  readonly error: readonly unknown[];
  readonly loaded: readonly string[];
}

/** Names every file that is loaded as an ECMAScript module. */
const HOOKS = `
  import { appendFileSync } from 'node:fs';
  export async function load(url, context, next) {
    appendFileSync(process.env.LOADED, url + '\\n');
    return await next(url, context);
  }
`;

/** Runs an app; tells what it printed, and the files that it loaded, in whatever way. */
async function run(file: string, source: string): Promise<Outcome> {
  const log = path.join(app, `${file}.loaded`);
  await writeFile(path.join(app, 'hooks.mjs'), HOOKS);
  await writeFile(
    path.join(app, 'register.mjs'),
    `import { register } from 'node:module'; register('./hooks.mjs', import.meta.url);`,
  );
  await writeFile(path.join(app, file), source);
  const args = ['--import', './register.mjs', file, server.serviceUrl, `package-${file}`];
  const env = { ...process.env, LOADED: log };
  const { stdout, stderr } = await execute(process.execPath, args, { cwd: app, env, timeout: 30_000 });
  expect(stderr.replaceAll(/^.*(ExperimentalWarning|--trace-warnings).*\n/gm, '')).toBe('');
  const outcome = JSON.parse(stdout) as Outcome;
  const modules = (await readFile(log, 'utf8')).trim().split('\n');
  return { ...outcome, loaded: [...new Set([...modules, ...outcome.loaded])] };
}

/** Which files of Magnetar, and which packages, are among the loaded files. */
function parts(loaded: readonly string[]): { own: string[]; packages: string[] } {
  return {
    own: loaded.flatMap((file) => /magnetar\/dist\/services\/(.*)/.exec(file)?.[1] ?? []),
    packages: loaded.flatMap((file) => /node_modules\/((?:@[^/]+\/)?[^/]+)\/(?!.*node_modules)/.exec(file)?.[1] ?? []),
  };
}

const SERVER_PACKAGES = [
  '@grpc/proto-loader',
  'level',
  'classic-level',
  'fastify',
  'commander',
  'picocolors',
  'pino',
  'pino-pretty',
];
/** What is loaded when it is needed. */
const LAZY_PACKAGES = ['lz4-napi', '@cloudpss/zstd', 'snappy'];

/** What the app did, and what of a server was loaded for it. */
interface Summary extends Omit<Outcome, 'loaded'> {
  readonly sdk: boolean;
  readonly serverFiles: readonly string[];
  readonly serverPackages: readonly string[];
  readonly lazyPackages: readonly string[];
}

function summary({ got, error, loaded }: Outcome): Summary {
  const { own, packages } = parts(loaded);
  return {
    got,
    error,
    sdk: own.includes('client/index.js') && packages.includes('@grpc/grpc-js'),
    serverFiles: own.filter((file) => !/^(client|wire|runtime|lib)\//.test(file)),
    serverPackages: SERVER_PACKAGES.filter((name) => packages.includes(name)),
    lazyPackages: LAZY_PACKAGES.filter((name) => packages.includes(name)),
  };
}

const GOOD: Summary = {
  got: ['hello', 'k', { from: 'app' }, true],
  error: [true, 'CONSUMER_BUSY', true],
  sdk: true,
  serverFiles: [],
  serverPackages: [],
  lazyPackages: [],
};

/** Publishes and consumes, compressed in every way. */
const COMPRESSING_APP = `
  const client = new Client({ serviceUrl: process.argv[2] });
  const topic = process.argv[3];
  const data = 'hello '.repeat(100);
  const types = ['lz4', 'zstd', 'snappy', 'zlib'];
  for (const compression of types) await (await client.createProducer({ topic, compression })).send({ data });
  const consumer = await client.subscribe({ topic, subscription: 's', startPosition: 'earliest' });
  const got = [];
  for await (const message of consumer.messages({ untilEnd: true })) got.push(message.data.toString() === data);
  await client.close();
  console.log(JSON.stringify({ got, error: [], loaded: Object.keys(require.cache) }));
`;

describe('an app', () => {
  test('imports the package', async () => {
    const source = `
      import { createRequire } from 'node:module';
      import { Client, MagnetarError, MessageId } from 'magnetar';
      const require = createRequire(import.meta.url);
      ${APP}`;
    expect(summary(await run('app.mjs', source))).toEqual(GOOD);
  });

  test('requires the package', async () => {
    const source = `
      const { Client, MagnetarError, MessageId } = require('magnetar');
      (async () => {${APP}})();`;
    expect(summary(await run('app.cjs', source))).toEqual(GOOD);
  });

  test.each(['mjs', 'cjs'])('compresses, with libraries that are loaded then (%s)', async (kind) => {
    const source = {
      mjs: `
        import { createRequire } from 'node:module';
        import { Client } from 'magnetar';
        const require = createRequire(import.meta.url);
        ${COMPRESSING_APP}`,
      cjs: `
        const { Client } = require('magnetar');
        (async () => {${COMPRESSING_APP}})();`,
    }[kind];
    const { got, lazyPackages } = summary(await run(`compressing.${kind}`, source ?? ''));
    expect(got).toEqual([true, true, true, true]);
    expect(lazyPackages).toEqual(LAZY_PACKAGES);
  });

  test('that loads a server is noticed by these checks', async () => {
    const source = `
      import { createRequire } from 'node:module';
      const require = createRequire(import.meta.url);
      await import('./node_modules/magnetar/dist/services/metadata/level.js');
      console.log(JSON.stringify({ got: [], error: [], loaded: Object.keys(require.cache) }));`;
    const { serverFiles, serverPackages } = summary(await run('server.mjs', source));
    expect(serverFiles).toContain('metadata/level.js');
    expect(serverPackages).toContain('level');
  });

  test('finds the API for other languages, and nothing that is not exported', async () => {
    const source = `
      import { createRequire } from 'node:module';
      import { readFileSync } from 'node:fs';
      const require = createRequire(import.meta.url);
      const text = readFileSync(require.resolve('magnetar/proto/magnetar/v1/broker.proto'), 'utf8');
      const inner = await import('magnetar/dist/services/main/main.js').catch((error) => error.code);
      console.log(JSON.stringify({ got: [text.includes('service Broker'), inner], error: [], loaded: [] }));`;
    expect((await run('proto.mjs', source)).got).toEqual([true, 'ERR_PACKAGE_PATH_NOT_EXPORTED']);
  });
});

const TYPED = `
  import { Client, MagnetarError, MessageId, type Message, type ProducerMessage, type StartPosition } from 'magnetar';

  export async function main(serviceUrl: string): Promise<number> {
    await using client = new Client({ serviceUrl, operationTimeoutMs: 1_000 });
    await using producer = await client.createProducer({ topic: 't', producerName: 'p', compression: 'lz4' });
    const message: ProducerMessage = { data: new Uint8Array(1), key: 'k', properties: { a: 'b' } };
    const id: MessageId = await producer.send(message);
    const from: StartPosition = id;
    await using consumer = await client.subscribe({ topic: 't', subscription: 's', startPosition: from });
    let bytes = 0;
    for await (const received of consumer) {
      const { data, index, key }: Message = received;
      bytes += data.length + index + (key?.length ?? 0);
      await consumer.acknowledge(received);
      if (bytes > 100) break;
    }
    try {
      await consumer.receive({ timeoutMs: 10, signal: AbortSignal.timeout(5) });
    } catch (error) {
      if (error instanceof MagnetarError && error.code === 'DEADLINE_EXCEEDED') return bytes;
      throw error;
    }
    // @ts-expect-error a topic is needed
    await client.createProducer({});
    // @ts-expect-error no such compression
    await client.createProducer({ topic: 't', compression: 'gzip' });
    // @ts-expect-error no such subscription type
    await client.subscribe({ topic: 't', subscription: 's', subscriptionType: 'shard' });
    return bytes;
  }
`;

describe('the types of the package hold under --strict', () => {
  test.each([
    ['app.mts', { module: 'nodenext' }],
    ['app.ts', { module: 'esnext', moduleResolution: 'bundler' }],
    ['app.cts', { module: 'nodenext' }],
  ])('%s', async (file, compilerOptions) => {
    expect(await installed.typeCheck(file, TYPED, compilerOptions)).toBe('');
  });
});

describe('the tarball', () => {
  test('holds the program, the API, licence and readme, and no tests', () => {
    for (const file of [
      'LICENSE',
      'README.md',
      'package.json',
      'dist/services/client/index.d.ts',
      'dist/services/main/magnetar.js',
      'proto/magnetar/v1/broker.proto',
    ]) {
      expect(installed.packed).toContain(`package/${file}`);
    }
    expect(installed.packed.filter((file) => /\.(test|contract)\.|\/testing\/|chaos|bench/.test(file))).toEqual([]);
  });

  test('holds a program that runs', async () => {
    const program = path.join(app, 'node_modules', 'magnetar', 'dist', 'services', 'main', 'magnetar.js');
    const { stdout } = await execute(program, ['--version'], { cwd: app });
    expect(stdout).toBe(`${(await manifest()).version}\n`);
    const args = ['read', 'package-app.mjs', '--exit-at-end', '--service-url', server.serviceUrl];
    expect((await execute(program, args, { cwd: app })).stdout).toBe('hello\n');
  });
});
