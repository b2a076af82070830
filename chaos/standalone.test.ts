/** `magnetar standalone` and `magnetar bookie` as processes: start, health, refusals, end. */
import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freePort } from './support/ports.ts';
import { type CommandResult, runCommand, startBookie, startStandalone, temporaryFolder } from './support/process.ts';

let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** Runs a server that must refuse to start; one line says why. */
async function refused(role: string, ...args: readonly string[]): Promise<string> {
  const result: CommandResult = await runCommand([role, ...args]);
  const lines = result.stderr.split('\n').filter((line) => line.startsWith('magnetar: '));
  expect(lines).toHaveLength(1);
  expect(result.stderr).not.toMatch(/^\s+at /m);
  expect(result.code).toBe(1);
  return lines[0] ?? '';
}

async function ports(): Promise<string[]> {
  return ['--port', `${await freePort()}`, '--http-port', `${await freePort()}`];
}

async function get(url: string): Promise<{ status: number; body: unknown }> {
  const response = await fetch(url);
  return { status: response.status, body: await response.json() };
}

describe('a standalone that runs', () => {
  test('answers for its health, says what to do next, and ends in order', async () => {
    await using server = await startStandalone();
    expect(server.stdout).toContain(server.serviceUrl);
    expect(server.stdout).toContain(`npx magnetar produce hello -m 'Hello, world' --service-url ${server.serviceUrl}`);
    expect(await get(`${server.adminUrl}/healthz`)).toEqual({ status: 200, body: { status: 'ok' } });
    expect(await get(`${server.adminUrl}/readyz`)).toEqual({ status: 200, body: { status: 'ready' } });
    const { version } = JSON.parse(await readFile('package.json', 'utf8')) as { version: string };
    expect((await get(`${server.adminUrl}/version`)).body).toMatchObject({ version, role: 'standalone' });
    expect((await get(`${server.adminUrl}/nowhere`)).status).toBe(404);
    for (const line of server.stderr.trim().split('\n')) expect(JSON.parse(line)).toMatchObject({ level: 'info' });
    expect((await readdir(server.data)).toSorted()).toEqual(['VERSION', 'bookie-0', 'metadata']);
    expect(await server.stop()).toBe(0);
    expect(server.stderr).not.toContain('"level":"error"');
  });

  test('the environment names the server for commands; a flag beats it', async () => {
    await using server = await startStandalone();
    const env = { MAGNETAR_SERVICE_URL: server.serviceUrl, MAGNETAR_ADMIN_URL: server.adminUrl };
    expect((await runCommand(['produce', 't', '-m', 'x'], { env })).code).toBe(0);
    expect((await runCommand(['read', 't', '--exit-at-end'], { env })).stdout.toString()).toBe('x\n');
    const wrong = { MAGNETAR_SERVICE_URL: 'grpc://127.0.0.1:1' };
    const first = await runCommand(['--service-url', server.serviceUrl, 'read', 't', '--exit-at-end'], { env: wrong });
    const last = await runCommand(['read', 't', '--exit-at-end', '--service-url', server.serviceUrl], { env: wrong });
    expect([first.stdout.toString(), last.stdout.toString()]).toEqual(['x\n', 'x\n']);
  });

  test.each([1, 2, 3, 5])(
    '%d bookies: keeps its data over a restart, and remembers how many there are',
    async (bookies) => {
      await using server = await startStandalone({ args: ['--bookies', `${bookies}`] });
      const url = ['--service-url', server.serviceUrl];
      expect((await runCommand(['produce', 't', '-m', 'a', 'b', ...url])).code).toBe(0);
      await server.kill();
      await server.start();
      expect((await runCommand(['produce', 't', '-m', 'c', ...url])).code).toBe(0);
      expect((await runCommand(['read', 't', '--exit-at-end', ...url])).stdout.toString()).toBe('a\nb\nc\n');
      expect(await server.stop()).toBe(0);
      expect((await readdir(server.data)).filter((name) => name.startsWith('bookie-'))).toHaveLength(bookies);
      await using again = await startStandalone({ data: server.data });
      const other = ['--service-url', again.serviceUrl];
      expect((await runCommand(['read', 't', '--exit-at-end', ...other])).stdout.toString()).toBe('a\nb\nc\n');
    },
  );

  test('a bookie that holds data is never left out', async () => {
    await using server = await startStandalone({ args: ['--bookies', '3'] });
    await server.stop();
    const message = await refused('standalone', '--data', server.data, '--bookies', '1', ...(await ports()));
    expect(message).toMatch(/--bookies is 1, but the data folder .* holds 3 bookies; it must be at least 3/);
  });

  test.each([0, 2])(
    'a bookie whose folder is gone is not taken for one that never had anything: %d',
    async (number) => {
      await using server = await startStandalone({ args: ['--bookies', '3'] });
      await server.stop();
      await rm(path.join(server.data, `bookie-${number}`), { recursive: true });
      const message = await refused('standalone', '--data', server.data, ...(await ports()));
      expect(message).toContain(`bookie local-${number} is not the one that the cluster knows by this name`);
    },
  );

  test('bookies in processes of their own; one of three may be away', async () => {
    await using b0 = await startBookie();
    await using b1 = await startBookie();
    await using b2 = await startBookie();
    const places = [b0, b1, b2].flatMap(({ port }) => ['--bookie', `127.0.0.1:${port}`]);
    await using server = await startStandalone({ args: places });
    const url = ['--service-url', server.serviceUrl];
    expect((await runCommand(['produce', 't', '-m', 'a', ...url])).code).toBe(0);
    await b1.kill();
    expect((await runCommand(['produce', 't', '-m', 'b', ...url])).code).toBe(0);
    await b1.start();
    expect((await runCommand(['read', 't', '--exit-at-end', ...url])).stdout.toString()).toBe('a\nb\n');
    expect(await readdir(server.data)).not.toContain('bookie-0');
    expect(await server.stop()).toBe(0);
    expect(await b0.stop()).toBe(0);
  });
});

describe('what a server refuses', () => {
  test('a port in use is named with its flag', async () => {
    await using server = await startStandalone();
    const data = path.join(folder, 'port');
    const grpc = ['--port', `${server.port}`, '--http-port', `${await freePort()}`];
    expect(await refused('standalone', '--data', data, ...grpc)).toMatch(new RegExp(`port ${server.port} .*--port`));
    const http = ['--port', `${await freePort()}`, '--http-port', `${server.httpPort}`];
    expect(await refused('standalone', '--data', data, ...http)).toMatch(
      new RegExp(`port ${server.httpPort} .*--http-port`),
    );
    const bookie = ['--data', path.join(folder, 'port-bookie'), '--port', `${server.port}`];
    expect(await refused('bookie', ...bookie)).toMatch(new RegExp(`port ${server.port} .*--port`));
  });

  test('a data folder in use is named', async () => {
    await using server = await startStandalone();
    const message = await refused('standalone', '--data', server.data, ...(await ports()));
    expect(message).toMatch(/in use/);
    expect(message).toContain(server.data);
    await using bookie = await startBookie();
    const again = await refused('bookie', '--data', bookie.data, '--port', `${bookie.port}`);
    expect(again).toMatch(/in use/);
    expect(again).toContain(bookie.data);
  });

  test.each(['standalone', 'bookie'])('%s: a newer data folder is named with both versions', async (role) => {
    const data = path.join(folder, `newer-${role}`);
    await mkdir(data);
    await writeFile(path.join(data, 'VERSION'), 'magnetar data folder 7\n');
    const message = await refused(role, '--data', data, '--port', `${await freePort()}`);
    expect(message).toContain(data);
    expect(message).toMatch(/version 7; the newest that this program reads is 1/);
  });

  test.each(['standalone', 'bookie'])('%s: a data folder below a file', async (role) => {
    const file = path.join(folder, 'a-file');
    await writeFile(file, '');
    const message = await refused(role, '--data', path.join(file, 'data'), '--port', `${await freePort()}`);
    expect(message).toMatch(/a-file\/data cannot be written to \(ENOTDIR\)/);
  });

  test.runIf(process.getuid?.() === 0)('a data folder on a read-only file system, new or old', async () => {
    const parent = path.join(folder, 'read-only');
    await mkdir(parent);
    await using server = await startStandalone({ data: path.join(parent, 'old') });
    await server.stop();
    execFileSync('mount', ['--bind', parent, parent]);
    try {
      execFileSync('mount', ['-o', 'remount,ro,bind', parent]);
      for (const name of ['new', 'old']) {
        const data = path.join(parent, name);
        const message = await refused('standalone', '--data', data, ...(await ports()));
        expect(message).toMatch(/read-only\/(new|old).* cannot be written to.*(EROFS|Read-only)/);
      }
    } finally {
      execFileSync('umount', [parent]);
    }
  });
});
