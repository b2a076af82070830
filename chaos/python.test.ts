/** A stock gRPC client: Python, with stubs from the stock generator, without the SDK. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Client } from '../services/client/index.ts';
import { requirePackages } from './support/debian.ts';
import { type ServerProcess, startStandalone } from './support/process.ts';
import { storedBlocks } from './support/raw-stream.ts';

const execute = promisify(execFile);
const proto = fileURLToPath(new URL('../proto', import.meta.url));
const COMPRESSION_ZLIB = 4;
const app = fileURLToPath(new URL('python/app.py', import.meta.url));

let stubs: string;
let server: ServerProcess;

function message(index: number): object {
  return { index, payload: `message ${index}`, key: `k${index}` };
}

/** What the app reports when all is well. */
const GOOD = {
  receipts: [
    { index: 0, count: 5, duplicate: false },
    { index: 5, count: 5, duplicate: false },
  ],
  again: [
    { index: 0, count: 5, duplicate: true },
    { index: 5, count: 5, duplicate: true },
  ],
  first: Array.from({ length: 10 }, (_, i) => message(i)),
  second: [1, 3, 5, 7, 9].map(message),
};

async function runApp(...args: readonly string[]): Promise<unknown> {
  const { stdout } = await execute('/usr/bin/python3', [app, stubs, `127.0.0.1:${server.port}`, ...args]);
  return JSON.parse(stdout);
}

beforeAll(async () => {
  await requirePackages();
  stubs = await mkdtemp(path.join(tmpdir(), 'magnetar-stubs-'));
  const files = ['common', 'message', 'broker'].map((name) => `magnetar/v1/${name}.proto`);
  const plugin = '--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin';
  await execute('protoc', ['-I', proto, plugin, `--python_out=${stubs}`, `--grpc_python_out=${stubs}`, ...files]);
  server = await startStandalone();
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  if (stubs !== undefined) await rm(stubs, { recursive: true, force: true });
});

test('publishes, consumes and acknowledges with stubs made by protoc alone', async () => {
  expect(await runApp('from-python')).toEqual(GOOD);
});

test('compresses with its own zlib; it and the SDK read each other', async () => {
  await using client = new Client({ serviceUrl: server.serviceUrl });
  const texts = Array.from({ length: 10 }, (_, i) => `message ${i}`);
  const producer = await client.createProducer({ topic: 'from-sdk', compression: 'zlib' });
  await Promise.all(texts.map((data, i) => producer.send({ data, key: `k${i}` })));
  expect(await runApp('from-python-zlib', 'zlib', 'from-sdk')).toEqual({ ...GOOD, other: GOOD.first });
  const reader = await client.createReader({ topic: 'from-python-zlib', startPosition: 'earliest' });
  const read: unknown[] = [];
  for await (const { data, key, properties } of reader.messages({ untilEnd: true })) {
    read.push([data.toString(), key, properties]);
  }
  expect(read).toEqual(texts.map((text, i) => [text, `k${i}`, { n: `${i}` }]));
  for (const topic of ['from-sdk', 'from-python-zlib']) {
    const blocks = await storedBlocks(server.port, topic);
    expect(blocks.map(({ compression }) => compression)).toEqual(blocks.map(() => COMPRESSION_ZLIB));
  }
});
