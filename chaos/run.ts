/**
 * The crash tests and the damage matrix at length. Prints one line per round and one per run; ends with 1 when a guarantee was
 * broken.
 *
 *   npm run chaos -- [--full] [--seed N]      with --full 30 rounds of each kind of kill, 10 power cuts, 200 damaged folders and
 *                                             10 GB beside each kind of slow client, else 5, 2, 20 and 1 GB
 */
import { parseArgs } from 'node:util';
import { type CrashReport, crashRounds } from './support/crash.ts';
import { caseOf, DamageMatrix, describeCase } from './support/damage-matrix.ts';
import { memoryRounds } from './support/memory-rounds.ts';
import { PowerDisk } from './support/power.ts';
import { type Cluster, fourProcesses, onPowerDisk, oneProcess } from './support/victims.ts';

const { values } = parseArgs({
  options: { full: { type: 'boolean', default: false }, seed: { type: 'string' } },
});
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
let broken = 0;

/** Each round checks everything since the cluster was made, so a new one is made after some rounds. */
const ROUNDS_PER_CLUSTER = 10;

async function leg(rounds: number, legSeed: number, start: () => Promise<Cluster>): Promise<CrashReport> {
  await using cluster = await start();
  return await crashRounds(cluster, {
    rounds,
    seed: legSeed,
    leastPublishes: 10_000,
    leastAcks: 1_000,
    patienceMs: 60_000,
    log: console.log,
    failed: console.log,
  });
}

async function run(name: string, rounds: number, start: () => Promise<Cluster>): Promise<void> {
  console.log(`\n${name}, ${rounds} rounds, seed ${seed}`);
  let [done, acknowledged, confirmedAcks] = [0, 0, 0];
  for (let left = rounds; left > 0; left -= ROUNDS_PER_CLUSTER) {
    const report = await leg(Math.min(left, ROUNDS_PER_CLUSTER), seed + left, start);
    done += report.rounds;
    acknowledged += report.acknowledged;
    confirmedAcks += report.confirmedAcks;
    for (const violation of report.violations) console.log(`  VIOLATION ${violation}`);
    broken += report.violations.length;
  }
  console.log(`${name}: ${done} rounds, ${acknowledged} acknowledged, ${confirmedAcks} acks confirmed`);
}

async function damageMatrix(cases: number): Promise<void> {
  console.log(`\ndamage matrix, ${cases} cases, seed ${seed}`);
  await using matrix = new DamageMatrix();
  let refused = 0;
  for (let n = 0; n < cases; n++) {
    const one = caseOf(seed, n);
    try {
      const report = await matrix.run(one);
      if (report.kind === 'refused') refused++;
      console.log(`  ${describeCase(one)}: ${report.kind === 'refused' ? `refused: ${report.line}` : 'held'}`);
    } catch (error) {
      broken++;
      console.log(`  VIOLATION ${describeCase(one)}: ${String(error)}`);
    }
  }
  console.log(`damage matrix: ${cases} cases, of which ${refused} are refused at the start`);
}

await run('kill -9 of standalone', values.full ? 30 : 5, () => oneProcess());
await run('kill -9 of the broker or a bookie', values.full ? 30 : 5, fourProcesses);
const disk = await PowerDisk.create(4_096);
try {
  await run('power cut', values.full ? 10 : 2, () => onPowerDisk(disk));
} finally {
  await disk[Symbol.asyncDispose]();
}
await damageMatrix(values.full ? 200 : 20);
const megabytes = values.full ? 10_000 : 1_000;
console.log(`\nmemory, ${megabytes} MB beside each kind of slow client`);
broken += await memoryRounds(megabytes, console.log);
process.exit(broken === 0 ? 0 : 1);
