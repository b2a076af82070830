/**
 * The crash tests at length. Prints one line per round and one per run; ends with 1 when a guarantee was broken.
 *
 *   npm run chaos -- [--full] [--seed N]      30 rounds of each kind of kill and 10 power cuts with --full, else 5 and 2
 */
import { parseArgs } from 'node:util';
import { type CrashReport, crashRounds } from './support/crash.ts';
import { PowerDisk } from './support/power.ts';
import { type Cluster, fourProcesses, onPowerDisk, oneProcess } from './support/victims.ts';

const { values } = parseArgs({
  options: { full: { type: 'boolean', default: false }, seed: { type: 'string' } },
});
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
let broken = 0;

async function run(name: string, rounds: number, start: () => Promise<Cluster>): Promise<void> {
  console.log(`\n${name}, ${rounds} rounds, seed ${seed}`);
  let report: CrashReport;
  {
    await using cluster = await start();
    report = await crashRounds(cluster, { rounds, seed, leastPublishes: 10_000, leastAcks: 1_000, log: console.log });
  }
  const { acknowledged, confirmedAcks, violations } = report;
  console.log(`${name}: ${report.rounds} rounds, ${acknowledged} acknowledged, ${confirmedAcks} acks confirmed`);
  for (const violation of violations) console.log(`  VIOLATION ${violation}`);
  broken += violations.length;
}

await run('kill -9 of standalone', values.full ? 30 : 5, oneProcess);
await run('kill -9 of the broker or a bookie', values.full ? 30 : 5, fourProcesses);
const disk = await PowerDisk.create(4_096);
try {
  await run('power cut', values.full ? 10 : 2, () => onPowerDisk(disk));
} finally {
  await disk.remove();
}
process.exit(broken === 0 ? 0 : 1);
