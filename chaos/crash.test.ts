/** What was acknowledged survives kill -9 and a power cut; the full number of rounds is `npm run chaos -- --full`. */
import { beforeAll, describe, expect, test } from 'vitest';
import { type CrashOptions, type CrashReport, crashRounds } from './support/crash.ts';
import { requirePackages } from './support/debian.ts';
import { PowerDisk } from './support/power.ts';
import { fourProcesses, onPowerDisk, oneProcess } from './support/victims.ts';

const SEED = Math.floor(Math.random() * 2 ** 31);
const options = (rounds: number): CrashOptions => ({
  rounds,
  seed: SEED,
  leastPublishes: 10_000,
  leastAcks: 1_000,
  patienceMs: 45_000,
  log: (line) => console.log(`seed ${SEED}, ${line}`),
  failed: (lastWords) => console.log(lastWords),
});
/** Of something that is to fail, for the most part by not coming back: the time is waited out, beside a test that works. */
const sabotaged = (rounds: number): CrashOptions => ({ ...options(rounds), patienceMs: 5_000, failed: () => {} });

/** What gave a broken promise away: a violation that the checks find, or something that the server or an app trips over. */
async function noticed(report: Promise<CrashReport>): Promise<readonly string[]> {
  return await report.then(
    ({ violations }) => violations,
    (error: unknown) => [String(error)],
  );
}

describe('kill -9 under load', { timeout: 180_000 }, () => {
  test.concurrent('of standalone with its bookie in the process', async () => {
    await using cluster = await oneProcess();
    const report = await crashRounds(cluster, options(3));
    expect(report.violations).toEqual([]);
    expect(report.rounds).toBe(3);
  });

  test.concurrent('is noticed when the disk says too early that it has written', async () => {
    await using cluster = await oneProcess('chaos/sabotage/lazy-disk.js');
    expect(await noticed(crashRounds(cluster, sabotaged(3)))).not.toEqual([]);
  });

  test('of the broker or one of three bookie processes', async () => {
    await using cluster = await fourProcesses();
    const report = await crashRounds(cluster, options(3));
    expect(report.violations).toEqual([]);
    expect(report.rounds).toBe(3);
  });
});

describe('a power cut under load', { timeout: 180_000 }, () => {
  beforeAll(requirePackages);

  test('loses nothing that was acknowledged', async () => {
    await using disk = await PowerDisk.create(2_048);
    await using cluster = await onPowerDisk(disk);
    const report = await crashRounds(cluster, options(2));
    expect(report.violations).toEqual([]);
    expect(report.rounds).toBe(2);
  });

  test('is noticed when fsync does nothing', async () => {
    await using disk = await PowerDisk.create(2_048);
    await using cluster = await onPowerDisk(disk, { LD_PRELOAD: '/usr/lib/x86_64-linux-gnu/libeatmydata.so' });
    expect(await noticed(crashRounds(cluster, sabotaged(2)))).not.toEqual([]);
  });
});
