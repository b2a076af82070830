/**
 * Magnetar against a bare pipe and against its peers: same machine, same run, turn and turn about, medians.
 *
 *   npm run bench -- [--sizes 128,1024,65536] [--seconds 10] [--rounds 3] [--systems magnetar,magnetar-3,nats,…]
 *                    [--parts throughput,latency,idle] [--dir DIR] [--reference bare-pipe.mjs] [--save-baseline]
 *
 * Prints tables; writes bench/results/results.json and bench/results/index.html; warns where a share of the bare pipe has
 * fallen by more than 15 % below bench/baseline.json.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { BarePipeResult } from './bare-pipe.ts';
import { compareWithBaseline, saveBaseline } from './baseline.ts';
import type { LoadResult } from './loads/driver.ts';
import { CLIENT_OPTIONS, json, usage } from './processes.ts';
import { type Idle, type Latency, pipeName, type Results, type Throughput, writeResults } from './report.ts';
import { magnetar, nats, rabbitmq, redis, type Running, type System } from './systems.ts';

const SYSTEMS: Readonly<Record<string, System>> = {
  magnetar: magnetar(0),
  'magnetar-3': magnetar(3),
  nats: nats(false),
  'nats-sync': nats(true),
  redis,
  rabbitmq,
};
const LATENCY_SIZE = 1024;
const LATENCY_RATE = 10_000;
const LATENCY_ROUNDS = 5;
const REST_MS = 30_000;
const IDLE_MS = 60_000;
/** Whoever is measured next finds a disk that has got over the files that were removed. */
const SETTLE_MS = 3_000;

const script = (name: string): string => fileURLToPath(new URL(`${name}.js`, import.meta.url));
const say = (text: string): void => void process.stderr.write(`${text}\n`);
const pause = async (ms: number): Promise<void> => await new Promise((resolve) => setTimeout(resolve, ms));

const { values } = parseArgs({
  options: {
    sizes: { type: 'string', default: '128,1024,65536' },
    seconds: { type: 'string', default: '10' },
    rounds: { type: 'string', default: '3' },
    systems: { type: 'string', default: Object.keys(SYSTEMS).join(',') },
    parts: { type: 'string', default: 'throughput,latency,idle' },
    dir: { type: 'string', default: tmpdir() },
    reference: { type: 'string' },
    'save-baseline': { type: 'boolean', default: false },
  },
});
const [seconds, rounds] = [values.seconds, Number(values.rounds)];

/** What one of them moved in one round. */
type Moves = Omit<Throughput, 'size' | 'round'>;

async function inFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(path.join(values.dir, 'magnetar-bench-'));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
    await pause(SETTLE_MS);
  }
}

async function withSystem<T>(system: System, work: (running: Running) => Promise<T>): Promise<T> {
  return await inFolder(async (folder) => {
    const running = await system.start(folder);
    try {
      return await work(running);
    } finally {
      await running.stop();
    }
  });
}

async function load(name: string, address: string, args: readonly string[]): Promise<LoadResult> {
  return (await json([...CLIENT_OPTIONS, script(`loads/${name}`), '--address', address, ...args])) as LoadResult;
}

async function pipe(file: string, size: number, copies: number): Promise<BarePipeResult> {
  return await inFolder(async (dir) => {
    const what = ['--size', `${size}`, '--seconds', seconds, '--copies', `${copies}`, '--dir', dir];
    return (await json([file, ...what])) as BarePipeResult;
  });
}

async function pipeThroughput(name: string, file: string, size: number, copies: number): Promise<Moves> {
  const { publish, consume } = await pipe(file, size, copies);
  return { system: name, copies, publish: publish.msgPerSec, consume: consume.msgPerSec };
}

async function systemThroughput(system: System, size: number): Promise<Moves> {
  const what = ['--size', `${size}`, '--seconds', seconds, '--what', 'publish,consume,both'];
  const moved = await withSystem(system, async ({ address }) => await load(system.load, address, what));
  const rate = (kind: keyof LoadResult): number => moved[kind]?.msgPerSec ?? 0;
  const both = { bothPublish: rate('bothPublish'), bothConsume: rate('bothConsume') };
  return { system: system.name, copies: system.copies, publish: rate('publish'), consume: rate('consume'), ...both };
}

/** Each round begins with another one: who comes after whom makes a difference on a disk. */
async function throughput(systems: readonly System[]): Promise<Throughput[]> {
  const found: Throughput[] = [];
  const { reference } = values;
  const subjects: ((size: number) => Promise<Moves>)[] = [
    async (size) => await pipeThroughput(pipeName(1), script('bare-pipe'), size, 1),
    async (size) => await pipeThroughput(pipeName(3), script('bare-pipe'), size, 3),
    ...systems.map((system) => async (size: number) => await systemThroughput(system, size)),
  ];
  if (reference !== undefined)
    subjects.push(async (size) => await pipeThroughput('reference pipe', reference, size, 1));
  for (const size of values.sizes.split(',').map(Number)) {
    for (let round = 1; round <= rounds; round++) {
      const first = (round - 1) % subjects.length;
      for (const measure of [...subjects.slice(first), ...subjects.slice(0, first)]) {
        const moves = await measure(size);
        found.push({ ...moves, size, round });
        const { system, publish, consume } = moves;
        say(`${size} B, round ${round}: ${system}: ${publish} published, ${consume} consumed a second`);
      }
    }
  }
  return found;
}

async function latency(systems: readonly System[]): Promise<Latency[]> {
  const found: Latency[] = [];
  const what = ['--size', `${LATENCY_SIZE}`, '--rate', `${LATENCY_RATE}`, '--seconds', seconds, '--what', 'latency'];
  const add = (system: string, round: number, { latency: moved }: LoadResult): void => {
    const { p50Ms = 0, p99Ms = 0, p999Ms = 0, msgPerSec = 0 } = moved ?? {};
    found.push({ system, size: LATENCY_SIZE, rate: LATENCY_RATE, round, msgPerSec, p50Ms, p99Ms, p999Ms });
    say(`latency, round ${round}: ${system}: p50 ${p50Ms} ms, p99 ${p99Ms} ms, p99.9 ${p999Ms} ms`);
  };
  for (let round = 1; round <= LATENCY_ROUNDS; round++) {
    add('write + fdatasync', round, await inFolder(async (folder) => await load('fdatasync', folder, what)));
    for (const system of systems) {
      add(system.name, round, await withSystem(system, async ({ address }) => await load(system.load, address, what)));
    }
  }
  return found;
}

/** After a load, and a rest. */
async function idle(systems: readonly System[]): Promise<Idle[]> {
  const found: Idle[] = [];
  for (const system of systems) {
    const row = await withSystem(system, async ({ address, pids, startMs }) => {
      await load(system.load, address, ['--seconds', '3', '--what', 'publish,consume']);
      await pause(REST_MS);
      const before = await usage(pids);
      await pause(IDLE_MS);
      const { residentBytes, cpuSeconds } = await usage(pids);
      const cpuPercent = Number((((cpuSeconds - before.cpuSeconds) / (IDLE_MS / 1000)) * 100).toFixed(2));
      return { system: system.name, startMs, residentMb: Math.round(residentBytes / 1e6), cpuPercent };
    });
    found.push(row);
    say(`idle: ${row.system}: ${row.residentMb} MB, ${row.cpuPercent} % of a core; it took ${row.startMs} ms to start`);
  }
  return found;
}

const systems: System[] = [];
for (const key of values.systems.split(',')) {
  const system = SYSTEMS[key];
  if (system === undefined) throw new Error(`--systems knows ${Object.keys(SYSTEMS).join(', ')}, not ${key}`);
  const missing = await system.missing();
  if (missing === undefined) systems.push(system);
  else say(`without ${system.name}, which needs: ${missing}`);
}
const parts = values.parts.split(',');
const results: Results = {
  systems: systems.map(({ name, durability }) => ({ name, durability })),
  seconds: Number(seconds),
  throughput: parts.includes('throughput') ? await throughput(systems) : [],
  latency: parts.includes('latency') ? await latency(systems) : [],
  idle: parts.includes('idle') ? await idle(systems) : [],
};
await mkdir('bench/results', { recursive: true });
await writeResults(results, 'bench/results');
if (values['save-baseline']) await saveBaseline(results);
for (const warning of await compareWithBaseline(results)) say(`warning: ${warning}`);
