/**
 * The speed of Magnetar standalone as a share of the bare pipe's: same machine, same run, turn and turn about, medians.
 *
 *   npm run bench -- [--sizes 128,1024] [--seconds 10] [--rounds 3] [--bookie-processes 3] [--dir DIR]
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import type { BarePipeResult } from './bare-pipe.ts';
import type { LoadResult } from './load.ts';
import { median } from './rate.ts';

const execute = promisify(execFile);
const program = fileURLToPath(new URL('../services/main/magnetar.js', import.meta.url));
const script = (name: string): string => fileURLToPath(new URL(`${name}.js`, import.meta.url));

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

async function listening(child: ChildProcess, port: number): Promise<void> {
  const { connect } = await import('node:net');
  for (;;) {
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`);
    const up = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => resolve(socket.destroy() !== undefined));
      socket.on('error', () => resolve(false));
    });
    if (up) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function started(args: readonly string[], port: number): Promise<ChildProcess> {
  const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
  await listening(child, port);
  return child;
}

async function stop(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await ended;
}

async function json(args: readonly string[]): Promise<unknown> {
  const { stdout } = await execute(process.execPath, args, { maxBuffer: 1 << 24 });
  return JSON.parse(stdout);
}

async function runMagnetar(folder: string, bookies: number, load: readonly string[]): Promise<LoadResult> {
  const children: ChildProcess[] = [];
  try {
    const where: string[] = [];
    for (let i = 0; i < bookies; i++) {
      const port = await freePort();
      children.push(await started(['bookie', '--data', path.join(folder, `b${i}`), '--port', `${port}`], port));
      where.push('--bookie', `127.0.0.1:${port}`);
    }
    const [port, httpPort] = [await freePort(), await freePort()];
    const standalone = ['standalone', '--data', path.join(folder, 'data'), '--port', `${port}`];
    children.push(await started([...standalone, '--http-port', `${httpPort}`, ...where], port));
    return (await json([script('load'), '--service-url', `grpc://127.0.0.1:${port}`, ...load])) as LoadResult;
  } finally {
    for (const child of children.toReversed()) await stop(child);
  }
}

interface Round {
  readonly pipe: BarePipeResult;
  readonly magnetar: LoadResult;
}

async function round(parent: string, size: number, seconds: number, bookies: number): Promise<Round> {
  const folder = await mkdtemp(path.join(parent, 'magnetar-bench-'));
  const load = ['--size', `${size}`, '--seconds', `${seconds}`];
  const copies = ['--copies', `${Math.max(1, bookies)}`, '--dir', folder];
  try {
    const pipe = (await json([script('bare-pipe'), ...load, ...copies])) as BarePipeResult;
    const magnetar = await runMagnetar(folder, bookies, load);
    return { pipe, magnetar };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const { values } = parseArgs({
  options: {
    sizes: { type: 'string', default: '128,1024' },
    seconds: { type: 'string', default: '10' },
    rounds: { type: 'string', default: '3' },
    'bookie-processes': { type: 'string', default: '0' },
    dir: { type: 'string', default: tmpdir() },
  },
});
const rows: Record<string, string | number>[] = [];
for (const size of values.sizes.split(',').map(Number)) {
  const rounds: Round[] = [];
  for (let i = 0; i < Number(values.rounds); i++) {
    rounds.push(await round(values.dir, size, Number(values.seconds), Number(values['bookie-processes'])));
  }
  for (const kind of ['publish', 'consume'] as const) {
    const pipe = median(rounds.map((r) => r.pipe[kind].msgPerSec));
    const magnetar = median(rounds.map((r) => r.magnetar[kind].msgPerSec));
    const share = median(rounds.map((r) => r.magnetar[kind].msgPerSec / r.pipe[kind].msgPerSec));
    rows.push({ what: `${kind} ${size} B`, 'bare pipe/s': pipe, 'magnetar/s': magnetar, share: share.toFixed(3) });
  }
}
console.table(rows);
await mkdir('bench/results', { recursive: true });
await writeFile('bench/results/speed.json', `${JSON.stringify(rows, null, 2)}\n`);
