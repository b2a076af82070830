/** METRICS.md against what is told: both name the same. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { BookieStats } from '../bookie/metrics.ts';
import { Client } from '../client/client.ts';
import { MagnetarError } from '../lib/errors.ts';
import { MeasuredStore } from '../metadata/measured.ts';
import { MemoryDatabase, openMemoryStore } from '../metadata/memory.ts';
import { scrape } from '../runtime/exposition.ts';
import { Lifecycle } from '../runtime/lifecycle.ts';
import { silentLogger } from '../runtime/logger.ts';
import { DEFAULT_MEMORY_BYTES } from '../runtime/memory.ts';
import type { MetricSource } from '../runtime/metrics.ts';
import { nodeClock } from '../runtime/node/clock.ts';
import { nodeDisk } from '../runtime/node/disk.ts';
import { nodeRandom } from '../runtime/node/random.ts';
import { Connections } from '../wire/connections.ts';
import { openStandalone } from './open-standalone.ts';

function fatal(error: Error): never {
  throw error;
}

/** What a standalone tells in which somebody was connected, and somebody was refused. */
async function ofStandalone(): Promise<string> {
  const data = await mkdtemp(path.join(tmpdir(), 'magnetar-metrics-'));
  const environment = { clock: nodeClock, random: nodeRandom, disk: nodeDisk, logger: silentLogger, fatal };
  const lifecycle = new Lifecycle(environment);
  try {
    const { port, httpPort } = await openStandalone(
      { environment, lifecycle },
      {
        data,
        bookies: 1,
        remoteBookies: [],
        port: 0,
        httpPort: 0,
        memoryBudgetBytes: DEFAULT_MEMORY_BYTES,
        broker: { topicMetrics: true },
        version: '1',
      },
    );
    await using client = new Client({ serviceUrl: `grpc://127.0.0.1:${port}` });
    await using consumer = await client.subscribe({ topic: 't', subscription: 's' });
    await expect(client.subscribe({ topic: consumer.topic, subscription: 's' })).rejects.toThrow(MagnetarError);
    return await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text();
  } finally {
    await lifecycle.close({ deadlineMs: 10_000 });
    await rm(data, { recursive: true, force: true });
  }
}

/** What a bookie in a process of its own tells beside that, and failures of stores. */
async function ofOthers(): Promise<string> {
  const stats = new BookieStats(nodeClock);
  stats.readFailed(1, new MagnetarError('DATA_LOSS', 'it is gone'));
  const bookie: MetricSource = {
    *collect(sink) {
      stats.collect(sink, 'bookie="b"');
      yield;
    },
  };
  const at = { clock: nodeClock, random: nodeRandom };
  const store = new MeasuredStore(openMemoryStore({ ...at, database: new MemoryDatabase(at) }), nodeClock);
  await store.close();
  await expect(store.get(['x'])).rejects.toThrow(MagnetarError);
  const sources = [new Connections('bookie'), bookie, store];
  return [...(await scrape(sources, { clock: nodeClock, common: '' }))].join('');
}

let standalone = '';
let families: ReadonlySet<string>;
let samples: ReadonlySet<string>;
let document = '';
beforeAll(async () => {
  standalone = await ofStandalone();
  const text = `${standalone}\n${await ofOthers()}`;
  families = new Set(text.match(/(?<=^# TYPE )\w+/gm));
  samples = new Set(text.match(/^[A-Za-z]\w+/gm));
  document = await readFile(new URL('METRICS.md', import.meta.url), 'utf8');
});

/** Names, and patterns of names, that a text mentions. */
function mentioned(text: string): string[] {
  return [...text.matchAll(/`((?:magnetar|pulsar|bookie|bookkeeper|process|nodejs)_[\w*]+)(?:\{[^`]*\})?`/g)].map(
    ([, name = '']) => name,
  );
}

function matches(pattern: string, name: string): boolean {
  return new RegExp(`^${pattern.replaceAll('*', '\\w+')}$`).test(name);
}

/** The text without names that are Pulsar's and BookKeeper's alone. */
function ours(text: string): string {
  return text.replaceAll(/^\|(.+?)\|(.+)\|$/gm, (row, _there: string, here: string) =>
    here.trim().startsWith('the same') ? row : here,
  );
}

describe('METRICS.md', () => {
  test('names every family that is told', () => {
    const list = mentioned(document.slice(document.indexOf('## What there is')));
    expect(families.size).toBeGreaterThan(90);
    expect([...families].filter((name) => !list.some((pattern) => matches(pattern, name)))).toEqual([]);
  });

  test('names nothing that is not told', () => {
    const told = [...families, ...samples];
    const missing = mentioned(ours(document)).filter((pattern) => !told.some((name) => matches(pattern, name)));
    expect(missing).toEqual([]);
  });

  test('says on what the label of the cluster is', () => {
    const series = standalone.split('\n').filter((line) => /^[A-Za-z]/.test(line));
    const without = series.filter((line) => !line.includes('cluster="standalone"'));
    expect(without.filter((line) => !/^(process|nodejs)_/.test(line))).toEqual([]);
    expect(series.filter((line) => /^(process|nodejs)_/.test(line) && line.includes('cluster='))).toEqual([]);
  });
});
