/** `magnetar inspect`: what a data folder, or a bookie's folder, holds, and what is damaged in it. Changes nothing. */
import { cp, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { openLevelIndex } from '../bookie/index/level-store.ts';
import { type BookieReport, inspectBookie } from '../bookie/inspect.ts';
import { EXIT_DONE, EXIT_FAILED, type Shell } from '../cli/shell.ts';
import { oneLine } from '../cli/text.ts';
import { UsageError } from '../cli/usage-error.ts';
import { toMagnetarError } from '../lib/errors.ts';
import type { LedgerId } from '../lib/ids.ts';
import { openLevelStore } from '../metadata/level.ts';
import { keys } from '../metadata/keys.ts';
import type { MetadataStore } from '../metadata/store.ts';
import type { Environment } from '../runtime/environment.ts';
import { silentLogger } from '../runtime/logger.ts';
import { nodeClock } from '../runtime/node/clock.ts';
import { nodeDisk } from '../runtime/node/disk.ts';
import { nodeRandom } from '../runtime/node/random.ts';
import { readOnlyDisk } from '../runtime/node/read-only-disk.ts';
import { topicLedgerChunk, topicRecord } from '../wire/records.ts';
import { checkVersion } from './data-folder.ts';
import { type FolderReport, type InspectedTopic, isHealthy } from './folder-report.ts';
import { inspectJson, inspectText } from './inspect-text.ts';

const COMMAND = 'magnetar inspect';
const LOCKS = '/proc/locks';
const BOOKIE = /^bookie-\d+$/;

export interface InspectOptions {
  readonly folder: string;
  /** Look closer at this one. */
  readonly ledger: number | undefined;
  readonly output: 'table' | 'json';
}

/** Resolves with the exit code: 0 when nothing is damaged, 1 when something is. @throws UsageError */
export async function runInspect(shell: Shell, options: InspectOptions): Promise<number> {
  const folder = path.resolve(options.folder);
  const report = await inspectFolder(folder);
  const text = options.output === 'json' ? inspectJson(report, options.ledger) : inspectText(report, options.ledger);
  shell.stdout.write(text);
  return isHealthy(report) ? EXIT_DONE : EXIT_FAILED;
}

async function inspectFolder(folder: string): Promise<FolderReport> {
  const disk = readOnlyDisk;
  if (!(await disk.exists(folder))) throw new UsageError(`there is no folder ${folder}`, COMMAND);
  if (!(await stat(folder)).isDirectory()) throw new UsageError(`${folder} is no folder`, COMMAND);
  const names = await disk.list(folder);
  if (names.includes('segments') || names.includes('cookie')) {
    await requireUnused(folder, path.join(folder, 'index'));
    return { folder, version: undefined, bookies: [await inspectOne(folder)], metadata: undefined };
  }
  if (!names.includes('VERSION')) {
    const text = `${folder} is neither a data folder, which has a file VERSION, nor a bookie's, which has a file cookie`;
    throw new UsageError(text, COMMAND);
  }
  const version = (await disk.readFile(path.join(folder, 'VERSION'))).toString('utf8');
  checkVersion(folder, version);
  const bookies = names.filter((name) => BOOKIE.test(name)).map((name) => path.join(folder, name));
  await requireUnused(folder, path.join(folder, 'metadata', 'level'));
  for (const bookie of bookies) await requireUnused(folder, path.join(bookie, 'index'));
  const metadata = names.includes('metadata') ? await inspectMetadata(path.join(folder, 'metadata')) : undefined;
  const reports: BookieReport[] = [];
  for (const bookie of bookies) reports.push(await inspectOne(bookie));
  return { folder, version: version.trim(), bookies: reports, metadata };
}

/** @throws UsageError when a process has a store open: while it writes, what is read here would not fit together. */
async function requireUnused(folder: string, store: string): Promise<void> {
  const holder = await lockHolder(path.join(store, 'LOCK'));
  if (holder === undefined) return;
  throw new UsageError(`${folder} is in use by process ${holder}; stop it first, or inspect a copy`, COMMAND);
}

/** Which process holds a lock on a file, as the kernel tells; undefined: none does, or the platform does not tell. */
async function lockHolder(file: string): Promise<string | undefined> {
  try {
    const { ino } = await stat(file);
    for (const line of (await readFile(LOCKS, 'utf8')).split('\n')) {
      const [, , , access, pid, place = ''] = line.split(/\s+/);
      if (access === 'WRITE' && place.endsWith(`:${ino}`)) return pid;
    }
  } catch {
    return undefined; // no such file, or not Linux
  }
  return undefined;
}

function environmentWith(disk: Environment['disk']): Environment {
  return { clock: nodeClock, random: nodeRandom, disk, logger: silentLogger, fatal: () => {} };
}

/** Works on a copy: who opens a store changes its files. */
async function withCopy<T>(folder: string, work: (copy: string) => Promise<T>): Promise<T> {
  const temporary = await mkdtemp(path.join(tmpdir(), 'magnetar-inspect-'));
  const copy = path.join(temporary, 'copy');
  try {
    await cp(folder, copy, { recursive: true });
    return await work(copy);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

async function inspectOne(folder: string): Promise<BookieReport> {
  const environment = environmentWith(readOnlyDisk);
  const inspect = async (index: Parameters<typeof inspectBookie>[0]['index'], indexProblem?: string) =>
    await inspectBookie({ environment, folder, index, indexProblem });
  const indexFolder = path.join(folder, 'index');
  if (!(await readOnlyDisk.exists(path.join(indexFolder, 'CURRENT')))) return await inspect(undefined, 'is missing');
  return await withCopy(indexFolder, async (copy) => {
    let index: Awaited<ReturnType<typeof openLevelIndex>>;
    try {
      index = await openLevelIndex(readOnlyDisk, copy); // One that it calls damaged cannot be thrown away.
    } catch (error) {
      const damaged = error instanceof Error && 'code' in error && error.code === 'EROFS';
      const why = damaged ? 'is damaged' : `cannot be opened: ${oneLine(toMagnetarError(error).message)}`;
      return await inspect(undefined, why);
    }
    try {
      return await inspect(index);
    } finally {
      await index.close();
    }
  });
}

async function inspectMetadata(folder: string): Promise<FolderReport['metadata']> {
  return await withCopy(folder, async (copy) => {
    try {
      const store = await openLevelStore({ environment: environmentWith(nodeDisk), folder: copy });
      try {
        return { problem: undefined, topics: await topicsOf(store) };
      } finally {
        await store.close();
      }
    } catch (error) {
      const text = oneLine(toMagnetarError(error).message).replaceAll(copy, folder);
      return { problem: text, topics: [] };
    }
  });
}

async function topicsOf(store: MetadataStore): Promise<InspectedTopic[]> {
  const topics: InspectedTopic[] = [];
  for (let after: string | undefined; ; ) {
    const { items, more } = await store.range({ prefix: 'topics/', ...(after === undefined ? {} : { after }) });
    for (const { key, value } of items) {
      const [, tenant = '', namespace = '', local = ''] = key.split('/');
      const { ledgers, chunks, ackLedgers } = topicRecord.decode(value);
      const older: LedgerId[] = [];
      for (let chunk = 0; chunk < chunks; chunk++) {
        const { items: found } = await store.get([keys.topicChunk(tenant, namespace, local, chunk)]);
        const part = found[0] === undefined ? [] : topicLedgerChunk.decode(found[0].value).ledgers;
        older.push(...part.map(({ ledgerId }) => ledgerId));
      }
      const topic = `persistent://${tenant}/${namespace}/${local}`;
      topics.push({ topic, ledgers: [...older, ...ledgers.map(({ ledgerId }) => ledgerId)], ackLedgers });
    }
    if (!more) return topics;
    after = items.at(-1)?.key;
  }
}
