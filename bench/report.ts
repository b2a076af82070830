/** What a run of the bench found: as tables, as JSON, and as a page with charts. */
import { readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { median } from './rate.ts';

/** The bare pipe that a system of so many copies is held against. */
export function pipeName(copies: number): string {
  return copies === 1 ? 'bare pipe' : `bare pipe, ${copies} copies`;
}

/** Messages a second in one round. */
export interface Throughput {
  readonly system: string;
  /** How many copies it writes of a message. */
  readonly copies: number;
  /** Payload bytes. */
  readonly size: number;
  readonly round: number;
  readonly publish: number;
  readonly consume: number;
  readonly bothPublish?: number;
  readonly bothConsume?: number;
}

/** From when a message was due until its confirmation, at a fixed rate, in one round. */
export interface Latency {
  readonly system: string;
  readonly size: number;
  readonly rate: number;
  readonly round: number;
  /** What was reached. */
  readonly msgPerSec: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
}

/** A system that has nothing to do. */
export interface Idle {
  readonly system: string;
  readonly startMs: number;
  readonly residentMb: number;
  /** Of one core. */
  readonly cpuPercent: number;
}

/** All of a run. */
export interface Results {
  readonly systems: readonly { readonly name: string; readonly durability: string }[];
  readonly seconds: number;
  readonly throughput: readonly Throughput[];
  readonly latency: readonly Latency[];
  readonly idle: readonly Idle[];
}

/** Medians over the rounds, and the median of each round's share of the bare pipe. */
export interface Summary {
  readonly system: string;
  readonly size: number;
  readonly kind: 'publish' | 'consume' | 'bothPublish' | 'bothConsume';
  readonly msgPerSec: number;
  /** Of the bare pipe with as many copies, in the same round; undefined where the pipe does no such thing. */
  readonly share: number | undefined;
}

const KINDS = ['publish', 'consume', 'bothPublish', 'bothConsume'] as const;
const TITLES = {
  publish: 'publish',
  consume: 'consume',
  bothPublish: 'publish (both at once)',
  bothConsume: 'consume (both at once)',
} as const;

/** Sums up the rounds. */
export function summarize(rows: readonly Throughput[]): Summary[] {
  const summary: Summary[] = [];
  const sizes = [...new Set(rows.map(({ size }) => size))];
  const systems = [...new Set(rows.map(({ system }) => system))];
  for (const size of sizes) {
    for (const kind of KINDS) {
      for (const system of systems) {
        const own = rows.filter((row) => row.system === system && row.size === size && row[kind] !== undefined);
        if (own.length === 0) continue;
        const shares = own.flatMap((row) => {
          const { copies, round } = row;
          const pipe = rows.find((r) => r.system === pipeName(copies) && r.size === size && r.round === round);
          return pipe?.[kind] === undefined ? [] : [(row[kind] ?? 0) / pipe[kind]];
        });
        const msgPerSec = Math.round(median(own.map((row) => row[kind] ?? 0)));
        const share = shares.length === 0 ? undefined : Number(median(shares).toFixed(3));
        summary.push({ system, size, kind, msgPerSec, share });
      }
    }
  }
  return summary;
}

function latencies(rows: readonly Latency[]): Omit<Latency, 'round'>[] {
  return [...new Set(rows.map(({ system }) => system))].map((system) => {
    const own = rows.filter((row) => row.system === system);
    const middle = (of: (row: Latency) => number): number => Number(median(own.map(of)).toFixed(2));
    const { size = 0, rate = 0 } = own[0] ?? {};
    const reached = middle((row) => row.msgPerSec);
    const times = {
      p50Ms: middle((row) => row.p50Ms),
      p99Ms: middle((row) => row.p99Ms),
      p999Ms: middle((row) => row.p999Ms),
    };
    return { system, size, rate, msgPerSec: reached, ...times };
  });
}

/** One group of bars: a value per system. */
interface Chart {
  readonly title: string;
  readonly names: readonly string[];
  readonly values: readonly number[];
}

function charts(results: Results): Chart[] {
  const summary = summarize(results.throughput);
  const found: Chart[] = [];
  for (const size of new Set(summary.map((row) => row.size))) {
    for (const kind of KINDS) {
      const rows = summary.filter((row) => row.size === size && row.kind === kind);
      if (rows.length === 0) continue;
      const title = `${TITLES[kind]}, ${size} B: messages a second`;
      found.push({ title, names: rows.map(({ system }) => system), values: rows.map((row) => row.msgPerSec) });
    }
  }
  const late = latencies(results.latency);
  for (const [key, title] of [
    ['p50Ms', 'p50'],
    ['p99Ms', 'p99'],
    ['p999Ms', 'p99.9'],
  ] as const) {
    if (late.length === 0) continue;
    const { rate = 0, size = 0 } = late[0] ?? {};
    const text = `latency of a publish, ${title}, ${rate} messages of ${size} B a second: ms`;
    found.push({ title: text, names: late.map(({ system }) => system), values: late.map((row) => row[key]) });
  }
  for (const [key, title] of [
    ['startMs', 'start: ms'],
    ['residentMb', 'idle memory: MB'],
    ['cpuPercent', 'idle: % of a core'],
  ] as const) {
    if (results.idle.length === 0) continue;
    found.push({ title, names: results.idle.map(({ system }) => system), values: results.idle.map((row) => row[key]) });
  }
  return found;
}

const PAGE_SCRIPT = `
for (const { title, names, values } of charts) {
  const place = document.body.appendChild(document.createElement('div'));
  new uPlot({
    title, width: 1100, height: 280,
    scales: { x: { time: false, range: [-0.5, names.length - 0.5] }, y: { range: [0, Math.max(...values) * 1.1] } },
    legend: { show: false }, cursor: { show: false },
    axes: [
      { splits: names.map((_, at) => at), values: () => names.map((name, at) => name.replaceAll(', ', '\\n') + '\\n' + values[at].toLocaleString('en')), grid: { show: false }, size: 80 },
      { size: 90, values: (_, ticks) => ticks.map((tick) => tick.toLocaleString('en')) },
    ],
    series: [{}, { fill: '#3b7dd8', stroke: '#3b7dd8', paths: uPlot.paths.bars({ size: [0.6, 120] }), points: { show: false } }],
  }, [names.map((_, at) => at), values], place);
}`;

async function page(results: Results): Promise<string> {
  const require = createRequire(import.meta.url);
  const [code, style] = await Promise.all([
    readFile(require.resolve('uplot/dist/uPlot.iife.min.js'), 'utf8'),
    readFile(require.resolve('uplot/dist/uPlot.min.css'), 'utf8'),
  ]);
  const systems = results.systems.map(({ name, durability }) => `<li>${name}: ${durability}</li>`).join('');
  const data = JSON.stringify(charts(results)).replaceAll('<', '\\u003c');
  return `<!doctype html><meta charset="utf-8"><title>Magnetar: bench</title><style>${style} body{font-family:sans-serif;margin:2em}</style>
<h1>Magnetar: bench</h1><p>Medians. What a confirmation means:</p><ul>${systems}</ul>
<script>${code}</script><script>const charts = ${data};${PAGE_SCRIPT}</script>\n`;
}

/** Prints the tables, and writes results.json and index.html into the folder. */
export async function writeResults(results: Results, folder: string): Promise<void> {
  const summary = summarize(results.throughput);
  const late = latencies(results.latency);
  if (summary.length > 0) console.table(summary.map((row) => ({ ...row, kind: TITLES[row.kind] })));
  if (late.length > 0) console.table(late);
  if (results.idle.length > 0) console.table(results.idle);
  const all = { ...results, summary, latencySummary: late };
  await writeFile(path.join(folder, 'results.json'), `${JSON.stringify(all, null, 2)}\n`);
  await writeFile(path.join(folder, 'index.html'), await page(results));
}
