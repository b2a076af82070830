/**
 * Every kind of file, damaged in every way, under one bookie and under three: seeded cases, each on a copy of a folder that was
 * prepared once. What has to hold is in `run`; `Look` in `damage.ts` holds that no wrong byte is served, that nothing is missing
 * unless somebody says so, and that no index is given twice.
 */
import { readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Client, MagnetarError } from '../../services/client/index.ts';
import { assertNever } from '../../services/lib/assert.ts';
import type { Random } from '../../services/runtime/random.ts';
import { seededRandom } from '../../services/runtime/testing/seeded-random.ts';
import { silentLogger } from '../../services/runtime/logger.ts';
import { startStandalone as startHere } from '../../services/main/embedded.ts';
import { afterDamage, COUNT, fill, lookAtAll, lostOf, makeData, type Report, TOPICS, untilIdle } from './damage.ts';
import { type ServerProcess, startBookie, startStandalone, temporaryFolder } from './process.ts';

const FILES = ['segment', 'sealed', 'index', 'bookie witness', 'metadata', 'witness', 'cookie', 'VERSION'] as const;
const DAMAGES = ['flip', 'truncate', 'delete', 'zero'] as const;
const TOPOLOGIES = ['one bookie', 'three bookies', 'three processes'] as const;

type FileKind = (typeof FILES)[number];
type Damage = (typeof DAMAGES)[number];
type Topology = (typeof TOPOLOGIES)[number];

const BLOCK_BYTES = 4_096;
const OPERATION_MS = 15_000;
/** A flipped bit costs the entry that it is in, or those of one group commit. */
const FLIP_COSTS = 100;

/** Which folders a case begins with. */
type Origin = 'stop' | 'kill';

/** One case, as its seed decides. */
export interface Case {
  readonly seed: number;
  readonly file: FileKind;
  readonly damage: Damage;
  readonly topology: Topology;
  readonly origin: Origin;
  /** Through the built program, or composed in this process. */
  readonly built: boolean;
}

/** Case `n` of a run: kinds and ways in turn, so that none is left out; where exactly, by chance. */
export function caseOf(run: number, n: number, topologies: readonly Topology[] = TOPOLOGIES): Case {
  const file = FILES[n % FILES.length] as FileKind;
  const damage = DAMAGES[Math.floor(n / FILES.length) % DAMAGES.length] as Damage;
  const topology = topologies[(n + Math.floor(n / FILES.length)) % topologies.length] as Topology;
  const origin = file === 'segment' ? 'kill' : file === 'sealed' ? 'stop' : n % 2 === 0 ? 'stop' : 'kill';
  return { seed: run * 1_000 + n, file, damage, topology, origin, built: n % 5 === 0 };
}

/** What `caseOf` gives, in one line. */
export function describeCase({ seed, file, damage, topology, origin, built }: Case): string {
  return `seed ${seed}: ${damage} ${file}, ${topology}, after ${origin}${built ? ', built program' : ''}`;
}

/** The folders that cases begin with, made when the first one needs them. */
export class DamageMatrix implements AsyncDisposable {
  readonly #made = new Map<string, Promise<string>>();
  /** The ports of bookies in processes of their own: their names. */
  readonly #ports = new Map<string, readonly number[]>();

  /**
   * Runs a case.
   * @throws Error naming what does not hold
   */
  async run(one: Case): Promise<Report> {
    const { topology, origin, file, built } = one;
    const name = `${topology} ${origin}`;
    const making = this.#made.get(name) ?? this.#make(name, topology, origin);
    this.#made.set(name, making);
    const data = await making;
    const damage = async (copy: string): Promise<void> => await spoil(copy, one);
    let report: Report;
    if (topology === 'three processes') {
      report = await afterDamage(data, damage, async (copy) => await this.#lookInProcesses(name, copy));
    } else report = await (built ? afterDamage : afterDamageHere)(data, damage);
    check(one, report, file);
    return report;
  }

  #make(name: string, topology: Topology, origin: Origin): Promise<string> {
    if (topology === 'three processes') return this.#makeInProcesses(name, origin);
    return makeData(origin, topology === 'one bookie' ? [] : ['--bookies', '3']);
  }

  async #makeInProcesses(name: string, origin: Origin): Promise<string> {
    const data = await temporaryFolder();
    const servers = await Promise.all(processesOf(data).map(async (folder) => await startBookie({ data: folder })));
    try {
      this.#ports.set(
        name,
        servers.map(({ port }) => port),
      );
      servers.unshift(await startBroker(data, servers));
      await using client = new Client({ serviceUrl: servers[0]?.serviceUrl ?? '' });
      await fill(client);
      if (origin === 'kill') await untilIdle(path.join(data, 'broker'), bookiesOf(data, 'three processes'));
      await client.close();
      for (const server of servers) await server[origin]();
      return data;
    } finally {
      await disposeAll(servers);
    }
  }

  async #lookInProcesses(name: string, copy: string): Promise<Report> {
    const servers: ServerProcess[] = [];
    try {
      const ports = this.#ports.get(name) ?? [];
      const starts = processesOf(copy).map(async (folder, at) => {
        servers.push(await startBookie({ data: folder, port: ports[at] ?? 0 }));
      });
      const refused = (await Promise.allSettled(starts)).filter(({ status }) => status === 'rejected').length;
      if (refused > 1) throw new Error(`${refused} bookies refuse to start`);
      const broker = await startBroker(
        copy,
        ports.map((port) => ({ port })),
      ).catch((error: unknown) => String(error));
      if (typeof broker === 'string') return { kind: 'refused', line: /magnetar: (.*)/.exec(broker)?.[1] ?? broker };
      servers.push(broker);
      await using client = new Client({ serviceUrl: broker.serviceUrl, operationTimeoutMs: OPERATION_MS });
      return await lookAtAll(client, () => servers.map(({ stderr }) => stderr).join(''));
    } finally {
      await disposeAll(servers);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const making of this.#made.values()) {
      await rm(await making.catch(() => '/nowhere'), { recursive: true, force: true, maxRetries: 3 });
    }
  }
}

async function startBroker(data: string, bookies: readonly { readonly port: number }[]): Promise<ServerProcess> {
  const args = bookies.flatMap(({ port }) => ['--bookie', `127.0.0.1:${port}`]);
  return await startStandalone({ data: path.join(data, 'broker'), args });
}

async function disposeAll(servers: readonly ServerProcess[]): Promise<void> {
  for (const server of servers) await server[Symbol.asyncDispose]();
}

/** `afterDamage` in this process: the composition of `services/main` without a process around it, which is quicker. */
export async function afterDamageHere(data: string, damage: (copy: string) => Promise<void>): Promise<Report> {
  return await afterDamage(data, damage, lookHere);
}

/** Opens a folder in this process and looks at everything. @throws as `lookAtAll` does */
export async function lookHere(data: string): Promise<Report> {
  const lines: string[] = [];
  const logger = { ...silentLogger, error: (text: string) => void lines.push(`{"level":"error","msg":"${text}"}`) };
  logger.child = () => logger;
  try {
    await using server = await startHere({ data, port: false, logger });
    const client = server.client({ operationTimeoutMs: OPERATION_MS });
    return await lookAtAll(client, () => lines.join('\n'));
  } catch (error) {
    if (error instanceof MagnetarError) return { kind: 'refused', line: error.message };
    throw error;
  }
}

/** What has to hold of a report. @throws Error naming what does not */
function check(one: Case, report: Report, file: FileKind): void {
  const isLog = file === 'segment' || file === 'sealed' || file === 'index' || file === 'bookie witness';
  if (report.kind === 'refused') {
    if (isLog) throw new Error(`the start is refused: ${report.line}`);
    if (!/metadata|witness|cookie|version|bookie/i.test(report.line)) throw new Error(`unclear: ${report.line}`);
    return;
  }
  const outcomes = Object.values(report.topics).flatMap(({ read, consumed }) => [read, consumed]);
  for (const outcome of outcomes) {
    if (outcome.kind === 'error') throw new Error(`not served: ${outcome.code} ${outcome.message}`);
    if (outcome.kind === 'damaged' && (one.topology !== 'one bookie' || !isLog || file === 'index'))
      throw new Error(`lost ${outcome.lost.join(', ')}, ${outcome.again} again: ${outcome.message}`);
  }
  for (const [topic, { written }] of Object.entries(report.topics)) {
    if (written !== 'right') throw new Error(`topic ${topic} cannot be written: ${written}`);
  }
  const cost = TOPICS.flatMap((topic) => lostOf(report, topic)).map((range) => {
    const [first = 0, last = 0] = range.split('-').map(Number);
    return Math.min(last, COUNT - 1) - first + 1;
  });
  const most = Math.max(0, ...cost);
  if (one.damage === 'flip' && most > FLIP_COSTS) throw new Error(`a flipped bit costs ${most} messages`);
}

/** The data folders of three bookies in processes of their own. */
function processesOf(data: string): string[] {
  return [0, 1, 2].map((n) => path.join(data, `process-${n}`));
}

/** The folders of bookies. */
function bookiesOf(data: string, topology: Topology): string[] {
  if (topology === 'three processes') return processesOf(data).map((folder) => path.join(folder, 'bookie-0'));
  return (topology === 'one bookie' ? [0] : [0, 1, 2]).map((n) => path.join(data, `bookie-${n}`));
}

async function filesIn(folder: string): Promise<string[]> {
  const names = await readdir(folder);
  return names.filter((name) => name !== 'LOCK' && name !== 'LOG').map((name) => path.join(folder, name));
}

/** The files of a kind. */
async function candidates(data: string, { file, topology }: Case, random: Random): Promise<string[]> {
  const own = topology === 'three processes' ? path.join(data, 'broker') : data;
  const bookies = bookiesOf(data, topology);
  const bookie = bookies[Math.floor(random.next() * bookies.length)] ?? '';
  switch (file) {
    case 'segment':
    case 'sealed':
      return await filesIn(path.join(bookie, 'segments'));
    case 'index':
      return await filesIn(path.join(bookie, 'index'));
    case 'bookie witness':
      return [path.join(bookie, 'witness')];
    case 'cookie':
      return [path.join(bookie, 'cookie')];
    case 'metadata':
      return await filesIn(path.join(own, 'metadata', 'level'));
    case 'witness':
      return [path.join(own, 'metadata', 'witness')];
    case 'VERSION':
      return [path.join(own, 'VERSION')];
    default:
      return assertNever(file);
  }
}

/** Damages a folder as a case says; where, is a matter of its seed. */
async function spoil(data: string, one: Case): Promise<void> {
  const random = seededRandom(one.seed);
  const files = (await candidates(data, one, random)).toSorted();
  const sizes = await Promise.all(files.map(async (file) => (await stat(file)).size));
  const filled = files.filter((_, at) => (sizes[at] ?? 0) > 0);
  const file = filled[Math.floor(random.next() * filled.length)];
  if (file === undefined) throw new Error(`${describeCase(one)}: there is no such file`);
  await spoilFile(file, one.damage, random);
}

async function spoilFile(file: string, how: Damage, random: Random): Promise<void> {
  if (how === 'delete') {
    await rm(file);
    return;
  }
  const bytes = await readFile(file);
  let used = bytes.length; // segments have room behind what they hold, where damage damages nothing
  while (used > 1 && bytes[used - 1] === 0) used--;
  const at = Math.floor(random.next() * used);
  if (how === 'truncate') {
    await truncate(file, at);
    return;
  }
  if (how === 'flip') bytes[at] = (bytes[at] ?? 0) ^ (1 << Math.floor(random.next() * 8));
  else
    bytes
      .subarray(at - (at % BLOCK_BYTES))
      .subarray(0, BLOCK_BYTES)
      .fill(0);
  await writeFile(file, bytes);
}
