/**
 * An ack log of which entries are lost, any of them: what is left counts, and no message counts as acknowledged that was
 * not; no subscription goes without that being said.
 */
import { describe, expect, test } from 'vitest';
import type { ClosedLedger, LedgerEntry, LedgerReader } from '../../ledger/ledgers.ts';
import { MagnetarError } from '../../lib/errors.ts';
import type { EntryId, LedgerId } from '../../lib/ids.ts';
import { ackLogEntry } from '../../wire/records.ts';
import type { AckLog } from './ack-log.ts';
import { structuralIn } from './ack-replay.ts';
import { at, done, type LedgersOf, newLog, Owner, SMALL } from './testing/ack-log-owner.ts';
import { type AckLogWorld, WorldLedgers } from './testing/ack-log-world.ts';

const MESSAGES = 300;

/** Which entries are lost; of a ledger whose tail is lost, nobody knows what came behind `keep`. */
interface Losses {
  readonly entries: ReadonlySet<string>;
  readonly tail: { readonly ledger: LedgerId; readonly keep: number } | undefined;
}

class LossyLedgers extends WorldLedgers {
  readonly #losses: Losses;

  constructor(world: AckLogWorld, owner: number, losses: Losses) {
    super(world, owner);
    this.#losses = losses;
  }

  override async recover(id: LedgerId): Promise<ClosedLedger> {
    const closed = await super.recover(id);
    const { tail } = this.#losses;
    if (tail?.ledger !== id) return closed;
    return { ...closed, lastEntryId: (tail.keep - 1) as EntryId, lostTail: true };
  }

  override async reader(id: LedgerId, upTo: () => EntryId): Promise<LedgerReader> {
    const reader = await super.reader(id, upTo);
    const isLost = (entry: number): boolean => this.#losses.entries.has(`${id}:${entry}`);
    return {
      ledgerId: id,
      read: async (first, limits) => {
        if (isLost(first)) throw new MagnetarError('DATA_LOSS', `entry ${first} of ledger ${id} is lost`);
        const entries = await reader.read(first, limits);
        const end = entries.findIndex(({ entryId }) => isLost(entryId));
        return end < 0 ? entries : entries.slice(0, end);
      },
      lostUpTo: async (first) => {
        let last: number = first;
        while (last < upTo() && isLost(last + 1)) last++;
        return Promise.resolve(last as EntryId);
      },
    };
  }
}

type LossyLedgersOf = (losses: Losses) => LedgersOf;
const lossy: LossyLedgersOf = (losses) => (world, owner) => new LossyLedgers(world, owner, losses);

interface Lived {
  readonly world: AckLogWorld;
  readonly log: AckLog;
}

/** An owner that made subscriptions, acknowledged, moved and deleted; all of it is durable. */
async function live(seed: number): Promise<Lived> {
  const { world, log } = await newLog({ ...SMALL, entryBytes: 60, rollEntries: 30, rollBytes: 1e9 }, seed);
  const below = (limit: number): number => Math.floor(world.random.next() * limit);
  for (let step = 0; step < 150; step++) {
    const all = [...log.subscriptions.values()];
    const one = all[below(all.length)];
    const dice = below(100);
    if (one === undefined || (dice < 6 && all.length < 6)) void log.create(`s${below(1_000)}`, at(below(50)));
    else if (dice < 8) void log.delete(one);
    else if (dice < 16) void log.reset(one, at(below(MESSAGES)));
    else if (dice < 18) log.requestSnapshot();
    else
      log.acknowledge(one, at(below(8) === 0 ? below(MESSAGES) : 0), [below(MESSAGES), 1 + below(9)], () => undefined);
    if (below(3) === 0) await world.settle();
  }
  await world.settle();
  return { world, log };
}

/** Some entries, one or many, anywhere or at the end. */
function someLosses({ world }: Lived): Losses {
  const below = (limit: number): number => Math.floor(world.random.next() * limit);
  const entries = new Set<string>();
  let tail: Losses['tail'];
  const all = world.record.ackLedgers.flatMap((id) => world.ledger(id).entries.map((_, entry) => ({ id, entry })));
  const kind = below(4);
  if (kind === 0) {
    const last = world.record.ackLedgers.at(-1) as LedgerId;
    tail = { ledger: last, keep: below(world.ledger(last).durable + 1) };
  } else {
    const first = below(all.length);
    const count = kind === 1 ? 1 : 1 + below(8);
    for (const { id, entry } of kind === 3 ? all.slice(-count) : all.slice(first, first + count))
      entries.add(`${id}:${entry}`);
  }
  return { entries, tail };
}

interface Outcome {
  readonly problems: string[];
  /** Subscriptions that came back as they were; with less acknowledged; not at all, which was said. */
  same: number;
  less: number;
  missing: number;
}

function compare(before: AckLog, after: AckLog, outcome: Outcome): void {
  for (const { name, state } of before.subscriptions.values()) {
    const found = after.subscriptions.get(name);
    if (found === undefined) {
      if (after.recovered.subscriptionsMissing) outcome.missing++;
      else outcome.problems.push(`subscription ${name} is lost, and nobody says so`);
      continue;
    }
    let less = 0;
    for (let n = 0; n < MESSAGES + 20; n++) {
      const [was, is] = [state.isAcked(at(n)), found.state.isAcked(at(n))];
      if (is && !was) outcome.problems.push(`${name}: message ${n} counts as acknowledged, and was not`);
      if (was && !is) less++;
    }
    if (less === 0) outcome.same++;
    else outcome.less++;
  }
}

async function playAll(seeds: number, ledgersOf: LossyLedgersOf): Promise<Outcome> {
  const outcome: Outcome = { problems: [], same: 0, less: 0, missing: 0 };
  for (let seed = 1; seed <= seeds; seed++) {
    const lived = await live(seed);
    const { world, log } = lived;
    world.crash(1);
    const lost = someLosses(lived);
    const next = await new Owner(world).open(ledgersOf(lost)).catch((error: unknown) => {
      outcome.problems.push(`seed ${seed}: recovery failed: ${String(error)}`);
    });
    if (next === undefined) continue;
    const before = outcome.problems.length;
    compare(log, next, outcome);
    for (let i = before; i < outcome.problems.length; i++) outcome.problems[i] = `seed ${seed}: ${outcome.problems[i]}`;
  }
  return outcome;
}

describe('an ack log with lost entries', () => {
  test('never says that more is acknowledged than was, and loses no subscription in silence', async () => {
    const { problems, same, less, missing } = await playAll(400, lossy);
    expect(problems).toEqual([]);
    expect(same).toBeGreaterThan(300);
    expect(less).toBeGreaterThan(100);
    expect(missing).toBeGreaterThan(20);
  });

  test('a replay that does not notice lost moves is caught', async () => {
    /** Entries say that nothing which makes, moves or deletes a subscription is missing. */
    class Unaware extends LossyLedgers {
      #count: number | undefined;

      override async reader(id: LedgerId, upTo: () => EntryId): Promise<LedgerReader> {
        const reader = await super.reader(id, upTo);
        const pretend = (entry: LedgerEntry): LedgerEntry => {
          const { records, structure } = ackLogEntry.decode(entry.payload);
          this.#count = (this.#count ?? structure - structuralIn(records)) + structuralIn(records);
          return { ...entry, payload: ackLogEntry.encode({ records, structure: this.#count }) };
        };
        return { ...reader, read: async (first, limits) => (await reader.read(first, limits)).map(pretend) };
      }
    }
    const { problems } = await playAll(150, (lost) => (world, owner) => new Unaware(world, owner, lost));
    expect(problems.join()).toMatch(/counts as acknowledged, and was not/);
  });

  test('a tail that is lost in silence is caught', async () => {
    class Silent extends LossyLedgers {
      override async recover(id: LedgerId): Promise<ClosedLedger> {
        return { ...(await super.recover(id)), lostTail: false };
      }
    }
    const { problems } = await playAll(150, (lost) => (world, owner) => new Silent(world, owner, lost));
    expect(problems.join()).toMatch(/counts as acknowledged, and was not/);
    expect(problems.join()).toMatch(/is lost, and nobody says so/);
  });

  test('whoever asks for a subscription that may have been lost is given every message that is kept, also after a restart', async () => {
    const { world, log } = await newLog();
    await done(world, log.create('a', at(0)));
    const b = await done(world, log.create('b', at(0)));
    log.acknowledge(b, at(50), [], () => undefined);
    await world.settle();
    const [ledger] = world.record.ackLedgers;
    const entries = new Set([`${ledger}:1`]); // "b" was made
    const owner = new Owner(world);
    owner.oldest = 7;
    const next = await owner.open(lossy({ entries, tail: undefined }));
    expect([...next.subscriptions.keys()]).toEqual(['a']);
    expect(next.recovered).toMatchObject({ subscriptionsMissing: true, nameless: [2], heardOf: 50 });
    next.missingBelow = at(60);
    const again = await done(world, next.create('b', at(60)));
    expect([again.number, again.state.markDelete]).toEqual([3, 7]);
    next.requestSnapshot();
    await world.settle();
    await done(world, next.close());
    const last = new Owner(world);
    last.oldest = 20;
    const reopened = await last.open(lossy({ entries: new Set(), tail: undefined }));
    expect((await done(world, reopened.create('c', at(60)))).state.markDelete).toBe(20);
    last.oldest = 60; // whatever a lost subscription may have missed is gone by now
    expect((await done(world, reopened.create('d', at(90)))).state.markDelete).toBe(90);
  });
});
