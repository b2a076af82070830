/** Owners of an ack log in the world of `ack-log-world.ts`. */
import type { MagnetarError } from '../../../lib/errors.ts';
import type { EntryId, LedgerId, MessageIndex, Millis, SequenceId } from '../../../lib/ids.ts';
import { seededRandom } from '../../../runtime/testing/seeded-random.ts';
import type { DedupProducer } from '../../../wire/records.ts';
import type { AckLogLimits } from '../ack-limits.ts';
import { type AckLog, type DedupSnapshot, openAckLog } from '../ack-log.ts';
import { AckLogWorld, WorldLedgers, WorldRecord } from './ack-log-world.ts';

/** A message index. */
export const at = (value: number): MessageIndex => value as MessageIndex;

/** Small, so that everything that is cut is cut often. */
export const SMALL: AckLogLimits = {
  rollBytes: 400,
  rollEntries: 12,
  entryBytes: 120,
  partBytes: 150,
  waitingItems: 1_000,
  waitingBytes: 100_000,
  ledgerDeadlineMs: 1e9,
  retryFirstMs: 1,
  retryHighestMs: 10,
};

/** What an owner is given; replaced to break a guarantee. */
export type LedgersOf = (world: AckLogWorld, owner: number) => WorldLedgers;
export const honest: LedgersOf = (world, owner) => new WorldLedgers(world, owner);

/** The deduplication state that "data up to `covered`" has led to. */
export function dedupAt(covered: number): DedupSnapshot {
  const producers: DedupProducer[] = [];
  for (let i = 0; i < covered % 7; i++) {
    const batch = {
      firstSequenceId: BigInt(covered) as SequenceId,
      lastSequenceId: (2n ** 64n - 1n) as SequenceId,
      ledgerId: 1 as LedgerId,
      entryId: i as EntryId,
      index: at(covered),
      count: 1,
    };
    producers.push({ name: `producer-${i}`, batches: [batch], lastUsed: covered as Millis });
  }
  return { coveredIndex: at(covered), producers };
}

/** One broker that owns the topic, until the next one does. */
export class Owner {
  readonly failures: MagnetarError[] = [];
  readonly number: number;
  readonly world: AckLogWorld;
  /** How much data there is, for deduplication. */
  covered = 0;
  /** The oldest message that is kept. */
  oldest = 0;
  log: AckLog | undefined;

  constructor(world: AckLogWorld) {
    this.world = world;
    this.number = ++world.owner;
  }

  async open(ledgersOf: LedgersOf, limits: Partial<AckLogLimits> = SMALL): Promise<AckLog> {
    const { world, number } = this;
    const ledgers = ledgersOf(world, number);
    const opening = openAckLog({
      environment: world.environment(number),
      ledgers,
      record: new WorldRecord(world, number, ledgers),
      topic: 't',
      options: {
        dedupSnapshot: () => dedupAt(this.covered),
        oldestIndex: () => this.oldest as MessageIndex,
        onFailure: (error) => this.failures.push(error),
        limits,
      },
    });
    this.log = await done(world, opening);
    this.covered = this.log.recovered.dedup?.coveredIndex ?? 0;
    return this.log;
  }
}

/** A world with a first owner. */
export async function newLog(
  limits: Partial<AckLogLimits> = SMALL,
  seed = 1,
): Promise<{ world: AckLogWorld; owner: Owner; log: AckLog }> {
  const world = new AckLogWorld(seededRandom(seed));
  const owner = new Owner(world);
  const log = await owner.open(honest, limits);
  return { world, owner, log };
}

/** Waits for a promise while the world goes on. Rejects when the world comes to rest before. */
export async function done<T>(world: AckLogWorld, promise: Promise<T>): Promise<T> {
  let settled = false;
  const watch = promise.then(
    () => void (settled = true),
    () => void (settled = true),
  );
  await world.settle(() => settled);
  if (!settled) throw new Error('the world has come to rest without an answer');
  await watch;
  return promise;
}
