/** A stock gRPC client: Python, with stubs from the stock generator, without the SDK. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, expect, test } from 'vitest';
import { requirePackages } from './support/debian.ts';
import { startStandalone } from './support/process.ts';

const execute = promisify(execFile);
const proto = fileURLToPath(new URL('../proto', import.meta.url));
const app = fileURLToPath(new URL('python/app.py', import.meta.url));

function message(index: number): object {
  return { index, payload: `message ${index}`, key: `k${index}` };
}

beforeAll(requirePackages);

test('publishes, consumes and acknowledges with stubs made by protoc alone', async () => {
  const stubs = await mkdtemp(path.join(tmpdir(), 'magnetar-stubs-'));
  await using server = await startStandalone();
  try {
    const files = ['common', 'message', 'broker'].map((name) => `magnetar/v1/${name}.proto`);
    const plugin = '--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin';
    await execute('protoc', ['-I', proto, plugin, `--python_out=${stubs}`, `--grpc_python_out=${stubs}`, ...files]);
    const { stdout } = await execute('/usr/bin/python3', [app, stubs, `127.0.0.1:${server.port}`, 'from-python']);
    const result: unknown = JSON.parse(stdout);
    expect(result).toEqual({
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
    });
  } finally {
    await rm(stubs, { recursive: true, force: true });
  }
});
