/** Servers and loads as processes of their own. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { promisify } from 'node:util';

const execute = promisify(execFile);
const START_MS = 60_000;
const STOP_MS = 20_000;
const TICKS_PER_SECOND = 100;
/**
 * For the clients of all systems, as `magnetar` itself starts: else the engine, which has decided by the little that lives in its
 * heap how seldom it collects, collects all of it some dozens of times a second for the large messages that pass through. A
 * pipe, of which hardly anything lives for long, is no faster with it.
 */
export const CLIENT_OPTIONS: readonly string[] = ['--initial-old-space-size=128'];

/** A port that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

async function listens(port: number): Promise<boolean> {
  return await new Promise<boolean>((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

/** Starts a server; resolves when it listens on the port. */
export async function started(
  program: string,
  args: readonly string[],
  port: number,
  env: Readonly<Record<string, string>> = {},
): Promise<ChildProcess> {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'ignore'], env: { ...process.env, ...env } });
  let failure: Error | undefined;
  child.on('error', (error) => {
    failure = error;
  });
  const giveUp = performance.now() + START_MS;
  while (!(await listens(port))) {
    if (failure !== undefined) throw failure;
    if (child.exitCode !== null) throw new Error(`${program} ended with ${child.exitCode}`);
    if (performance.now() > giveUp) throw new Error(`${program} does not listen on port ${port}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  return child;
}

/** Ends a server, by force if it takes too long. */
export async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  await ended;
  clearTimeout(timer);
}

/** Runs a Node script whose last line on stdout is JSON. */
export async function json(args: readonly string[]): Promise<unknown> {
  const { stdout } = await execute(process.execPath, args, { maxBuffer: 1 << 24 });
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '');
}

/** Processes and all that came from them. */
async function family(pids: readonly number[]): Promise<number[]> {
  const all = [...pids];
  for (let at = 0; at < all.length; at++) {
    const children = await readFile(`/proc/${all[at]}/task/${all[at]}/children`, 'utf8').catch(() => '');
    all.push(...children.split(' ').filter(Boolean).map(Number));
  }
  return all;
}

/** What processes and their children hold and have used: resident bytes, and seconds of a core. */
export async function usage(pids: readonly number[]): Promise<{ residentBytes: number; cpuSeconds: number }> {
  let [residentBytes, cpuSeconds] = [0, 0];
  for (const pid of await family(pids)) {
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
    residentBytes += Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024;
    const fields = (await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')).split(') ').at(-1)?.split(' ') ?? [];
    cpuSeconds += (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / TICKS_PER_SECOND;
  }
  return { residentBytes, cpuSeconds };
}
