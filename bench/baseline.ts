/** The shares of the bare pipe that a run is held against: rates differ between machines, shares hardly. */
import { readFile, writeFile } from 'node:fs/promises';
import { type Results, summarize } from './report.ts';

const FILE = 'bench/baseline.json';
const TOLERATED = 0.85;

type Shares = Readonly<Record<string, number>>;

function sharesOf(results: Results): Shares {
  const shares: Record<string, number> = {};
  for (const { system, size, kind, share } of summarize(results.throughput)) {
    if (share !== undefined && system.startsWith('Magnetar')) shares[`${system}, ${kind}, ${size} B`] = share;
  }
  return shares;
}

/** Writes this run's shares down, over those of the same name. */
export async function saveBaseline(results: Results): Promise<void> {
  const shares = { ...(await baseline()), ...sharesOf(results) };
  await writeFile(FILE, `${JSON.stringify(shares, null, 2)}\n`);
}

async function baseline(): Promise<Shares> {
  const text = await readFile(FILE, 'utf8').catch(() => '{}');
  return JSON.parse(text) as Shares;
}

/** A line for each share that has fallen by more than 15 %. */
export async function compareWithBaseline(results: Results): Promise<string[]> {
  const now = sharesOf(results);
  return Object.entries(await baseline()).flatMap(([name, before]) => {
    const share = now[name];
    if (share === undefined || share >= before * TOLERATED) return [];
    return [`${name}: ${share} of the bare pipe; it was ${before}`];
  });
}
