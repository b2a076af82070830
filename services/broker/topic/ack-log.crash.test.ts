import { describe, expect, test } from 'vitest';
import type { ClosedLedger, LedgerEntry, LedgerReader, LedgerWriter } from '../../ledger/ledgers.ts';
import type { EntryId, LedgerId } from '../../lib/ids.ts';
import { seededRandom } from '../../runtime/testing/seeded-random.ts';
import { ackLogEntry } from '../../wire/records.ts';
import type { AckLog, AckSubscription, DedupSnapshot } from './ack-log.ts';
import { at, dedupAt, done, honest, type LedgersOf, Owner, SMALL } from './testing/ack-log-owner.ts';
import { AckLogWorld, type StoredLedger, WorldLedgers } from './testing/ack-log-world.ts';

// What a log is held against: subscriptions as plain sets.

interface PlainSubscription {
  readonly name: string;
  markDelete: number;
  readonly acked: Set<number>;
}
type Plain = Map<number, PlainSubscription>;

type Request =
  | { readonly type: 'create'; readonly number: number; readonly name: string; readonly markDelete: number }
  | { readonly type: 'delete'; readonly number: number }
  | { readonly type: 'reset'; readonly number: number; readonly markDelete: number }
  | { readonly type: 'ack'; readonly number: number; readonly below: number; readonly ranges: readonly number[] };

function apply(plain: Plain, request: Request): void {
  const subscription = plain.get(request.number);
  if (request.type === 'create') {
    plain.set(request.number, { name: request.name, markDelete: request.markDelete, acked: new Set() });
  } else if (request.type === 'delete') {
    plain.delete(request.number);
  } else if (subscription !== undefined && request.type === 'reset') {
    subscription.markDelete = request.markDelete;
    subscription.acked.clear();
  } else if (subscription !== undefined && request.type === 'ack') {
    subscription.markDelete = Math.max(subscription.markDelete, request.below);
    for (let i = 0; i < request.ranges.length; i += 2) {
      const [first, count] = [request.ranges[i] as number, request.ranges[i + 1] as number];
      for (let n = first; n < first + count; n++) subscription.acked.add(n);
    }
    while (subscription.acked.has(subscription.markDelete)) subscription.markDelete++;
    for (const n of subscription.acked) if (n < subscription.markDelete) subscription.acked.delete(n);
  }
}

function copyOf(plain: Plain): Plain {
  return new Map([...plain].map(([number, each]) => [number, { ...each, acked: new Set(each.acked) }]));
}

function shownPlain(plain: Plain): string {
  const rows = [...plain].map(([number, { name, markDelete, acked }]) => {
    return [number, name, markDelete, [...acked].toSorted((a, b) => a - b)];
  });
  return JSON.stringify(rows.toSorted((a, b) => Number(a[0]) - Number(b[0])));
}

function plainOf(log: AckLog): Plain {
  const plain: Plain = new Map();
  for (const { number, name, state } of log.subscriptions.values()) {
    const acked = new Set<number>();
    for (let n = state.markDelete; n < 400; n++) if (state.isAcked(at(n))) acked.add(n);
    plain.set(number, { name, markDelete: state.markDelete, acked });
  }
  return plain;
}

/** Makes requests at random, and remembers them and what was confirmed. */
class Workload {
  base: Plain = new Map();
  requests: Request[] = [];
  confirmed = 0;
  confirmedEver = 0;
  /** Acknowledgments that were confirmed and said something new. */
  confirmedNews = 0;
  highestNumber = 0;

  get unanswered(): number {
    return this.#calls - this.#dones;
  }

  #calls = 0;
  #dones = 0;
  readonly owner: Owner;
  readonly problems: string[];

  constructor(owner: Owner, problems: string[]) {
    this.owner = owner;
    this.problems = problems;
  }

  #below(limit: number): number {
    return Math.floor(this.owner.world.random.next() * limit);
  }

  /** `apply` has happened; `place` is how many requests are durable when this one is. */
  #note(request: Request): (error?: unknown) => void {
    const place = this.requests.push(request);
    return (error) => {
      if (error !== undefined) return;
      this.confirmedEver++;
      this.confirmed = Math.max(this.confirmed, place);
    };
  }

  act(): void {
    const { log } = this.owner;
    if (log === undefined || log.failure !== undefined) return;
    const all = [...log.subscriptions.values()];
    const subscription = all[this.#below(all.length)];
    const dice = this.#below(100);
    this.owner.covered += this.#below(3);
    if (subscription === undefined || (dice < 4 && all.length < 5)) return this.#create(log);
    const { number } = subscription;
    if (dice < 6) {
      const note = this.#note({ type: 'delete', number });
      log.delete(subscription).then(() => note(), note);
    } else if (dice < 15) {
      const markDelete = this.#below(300);
      const note = this.#note({ type: 'reset', number, markDelete });
      log.reset(subscription, at(markDelete)).then(() => note(), note);
    } else if (dice < 19) {
      log.requestSnapshot();
    } else {
      this.#acknowledge(log, subscription);
    }
  }

  #create(log: AckLog): void {
    const [name, markDelete] = [`s${this.#below(1_000)}`, this.#below(100)];
    if (log.subscriptions.has(name)) return;
    const creating = log.create(name, at(markDelete));
    const number = log.subscriptions.get(name)?.number ?? -1;
    if (number <= this.highestNumber) this.problems.push(`subscription number ${number} was given again`);
    this.highestNumber = number;
    const note = this.#note({ type: 'create', number, name, markDelete });
    creating.then(() => note(), note);
  }

  #acknowledge(log: AckLog, subscription: AckSubscription): void {
    const below = this.#below(4) === 0 ? this.#below(300) : 0;
    const ranges: number[] = [];
    for (let i = this.#below(6); i > 0; i--) ranges.push(this.#below(300), 1 + this.#below(3));
    const note = this.#note({ type: 'ack', number: subscription.number, below, ranges });
    let returned = false;
    const call = this.#calls++;
    const { state } = subscription;
    const before = state.markDelete + state.ackedAbove;
    log.acknowledge(subscription, at(below), ranges, (error) => {
      if (!returned) this.problems.push('done was called before acknowledge returned');
      if (call !== this.#dones++) this.problems.push('acknowledgments were answered out of order');
      note(error);
      if (error === undefined && news) this.confirmedNews++;
    });
    const news = state.markDelete + state.ackedAbove > before;
    returned = true;
  }

  /**
   * Some state between what was confirmed and what was asked for must have been recovered. It is the base of what
   * follows.
   */
  check(recovered: AckLog): void {
    const found = plainOf(recovered);
    const shown = shownPlain(found);
    const state = copyOf(this.base);
    const before = this.requests.splice(0);
    for (const request of before.slice(0, this.confirmed)) apply(state, request);
    let same = shownPlain(state) === shown;
    for (const request of before.slice(this.confirmed)) {
      if (same) break;
      apply(state, request);
      same = shownPlain(state) === shown;
    }
    if (!same)
      this.problems.push(`${this.confirmed} of ${before.length} requests were confirmed, but there is ${shown}`);
    this.base = found;
    this.confirmed = 0;
  }
}

interface Outcome {
  readonly problems: string[];
  readonly confirmed: number;
  /** Ledgers that were made. */
  readonly ledgers: number;
  /** Ledgers that could not be written any more. */
  readonly failedLedgers: number;
  readonly takeovers: number;
}

/** Owners come and go, by crash or by takeover, while requests are made. */
async function play(seed: number, ledgersOf: LedgersOf): Promise<Outcome> {
  const random = seededRandom(seed);
  const world = new AckLogWorld(random);
  const faulty = seed % 3 === 0;
  world.chances = faulty ? { notEnoughBookies: 0.02, unavailable: 0.05 } : { notEnoughBookies: 0, unavailable: 0 };
  const problems: string[] = [];
  let previous: Owner | undefined;
  let workload: Workload | undefined;
  let [confirmed, highestNumber, takeovers] = [0, 0, 0];
  for (let life = 0; life < 4; life++) {
    const owner = new Owner(world);
    const zombie = previous !== undefined && random.next() < 0.4;
    if (previous !== undefined && !zombie) world.crash(previous.number);
    const log = await owner
      .open(ledgersOf, { ...SMALL, entryBytes: seed % 2 === 0 ? 120 : 1_000 })
      .catch((error: unknown) => {
        problems.push(`recovery failed: ${String(error)}`);
      });
    if (log === undefined) break;
    for (const id of world.record.ackLedgers)
      if (!world.ledgers.has(id)) problems.push(`ledger ${id} is listed, but gone`);
    const next = new Workload(owner, problems);
    if (workload !== undefined) {
      checkDedup(log, workload.owner.log, problems);
      workload.check(log);
      next.base = workload.base;
    }
    next.highestNumber = highestNumber;
    const old = workload;
    const confirmedByOld = old?.confirmedNews ?? 0;
    workload = next;
    const steps = 20 + Math.floor(random.next() * 300);
    for (let step = 0; step < steps; step++) {
      const dice = random.next();
      if (dice < 0.02) for (let i = 0; i < 60; i++) workload.act();
      else if (dice < 0.25) workload.act();
      else await world.step();
    }
    if (old !== undefined && old.confirmedNews > confirmedByOld) problems.push('an owner that was replaced confirmed');
    // Without a confirmation the number is not known to be taken.
    highestNumber = Math.max(highestNumber, ...workload.base.keys());
    confirmed += workload.confirmedEver;
    takeovers += zombie ? 1 : 0;
    previous = owner;
  }
  if (workload !== undefined) {
    await converge(world, workload, problems).catch((error: unknown) => problems.push(String(error)));
  }
  const { ledgersMade: ledgers, ledgersFailed: failedLedgers } = world;
  return { problems, confirmed, ledgers, failedLedgers, takeovers };
}

/** When everything works again, everything is answered, and one ledger is enough. */
async function converge(world: AckLogWorld, workload: Workload, problems: string[]): Promise<void> {
  world.chances = { notEnoughBookies: 0, unavailable: 0 };
  const { log } = workload.owner;
  if (log === undefined || log.failure !== undefined) {
    problems.push(`the last owner has failed: ${log?.failure?.message ?? 'no log'}`);
    return;
  }
  await world.settle();
  log.requestSnapshot();
  await world.settle();
  if (workload.unanswered > 0) problems.push(`${workload.unanswered} acknowledgments were never answered`);
  if (world.record.ackLedgers.length !== 1) problems.push(`there are ledgers ${world.record.ackLedgers.join()}`);
  if (world.ledgers.size !== 1) problems.push('a ledger is not listed, and not deleted');
  await done(world, log.close());
  if (workload.confirmed !== workload.requests.length) problems.push('not all requests were confirmed');
  workload.check(await new Owner(world).open(honest));
}

function checkDedup(log: AckLog, old: AckLog | undefined, problems: string[]): void {
  const { dedup } = log.recovered;
  if (
    dedup !== undefined &&
    JSON.stringify(dedupText(dedup)) !== JSON.stringify(dedupText(dedupAt(dedup.coveredIndex)))
  ) {
    problems.push(`the deduplication state at ${dedup.coveredIndex} is another one`);
  }
  if ((dedup?.coveredIndex ?? 0) < (old?.coveredIndex ?? 0)) problems.push('a snapshot that was announced is gone');
}

function dedupText({ coveredIndex, producers }: DedupSnapshot): unknown {
  return {
    coveredIndex,
    producers: producers.map((p) => [
      p.name,
      p.lastUsed,
      ...p.batches.map((b) => `${b.firstSequenceId}-${b.lastSequenceId}@${b.index}`),
    ]),
  };
}

async function playAll(seeds: number, ledgersOf: LedgersOf): Promise<Outcome> {
  const total = { problems: [] as string[], confirmed: 0, ledgers: 0, failedLedgers: 0, takeovers: 0 };
  for (let seed = 1; seed <= seeds; seed++) {
    const { problems, confirmed, ledgers, failedLedgers, takeovers } = await play(seed, ledgersOf);
    total.problems.push(...problems.map((problem) => `seed ${seed}: ${problem}`));
    total.confirmed += confirmed;
    total.ledgers += ledgers;
    total.failedLedgers += failedLedgers;
    total.takeovers += takeovers;
  }
  return total;
}

describe('an ack log with owners that crash or are replaced at any point', () => {
  test('recovers what was confirmed, and nothing that was not asked for', async () => {
    const { problems, confirmed, ledgers, failedLedgers, takeovers } = await playAll(200, honest);
    expect(problems).toEqual([]);
    // It did enough.
    expect(confirmed).toBeGreaterThan(20_000);
    expect(ledgers).toBeGreaterThan(1_000);
    expect(failedLedgers).toBeGreaterThan(50);
    expect(takeovers).toBeGreaterThan(50);
  }, 120_000);

  test('a writer that confirms before an entry is on disk is caught', async () => {
    class Hasty extends WorldLedgers {
      override writer(ledger: StoredLedger): LedgerWriter {
        const writer = super.writer(ledger);
        const append = writer.append.bind(writer);
        writer.append = (payload, confirm) => {
          const id = append(payload, () => undefined);
          void Promise.resolve().then(() => confirm());
          return id;
        };
        return writer;
      }
    }
    const { problems } = await playAll(20, (world, owner) => new Hasty(world, owner));
    expect(problems.length).toBeGreaterThan(0);
  });

  test('a replay that ignores what lies between the begin and the end of a snapshot is caught', async () => {
    class FromTheEnd extends WorldLedgers {
      readonly #world: AckLogWorld;

      constructor(world: AckLogWorld, owner: number) {
        super(world, owner);
        this.#world = world;
      }

      override async reader(id: LedgerId, upTo: () => EntryId): Promise<LedgerReader> {
        const reader = await super.reader(id, upTo);
        const ended = this.#endedSnapshots();
        let inside = false;
        const cut = (entry: LedgerEntry): LedgerEntry => {
          const { structure, records: all } = ackLogEntry.decode(entry.payload);
          const records = all.filter((record) => {
            if (record.type === 'snapshotBegin') inside = ended.has(record.snapshot);
            if (record.type === 'snapshotEnd') inside = false;
            return !inside || ['page', 'dedup', 'snapshotBegin', 'created', 'deleted'].includes(record.type);
          });
          return { entryId: entry.entryId, payload: ackLogEntry.encode({ records, structure }) };
        };
        return { ...reader, read: async (first, limits) => (await reader.read(first, limits)).map(cut) };
      }

      #endedSnapshots(): Set<number> {
        const ended = new Set<number>();
        for (const id of this.#world.record.ackLedgers) {
          for (const payload of this.#world.ledger(id).entries) {
            for (const record of ackLogEntry.decode(payload).records) {
              if (record.type === 'snapshotEnd') ended.add(record.snapshot);
            }
          }
        }
        return ended;
      }
    }
    const { problems } = await playAll(40, (world, owner) => new FromTheEnd(world, owner));
    expect(problems.length).toBeGreaterThan(0);
  });

  test('a recovery that does not fence is caught', async () => {
    class Open extends WorldLedgers {
      readonly #world: AckLogWorld;

      constructor(world: AckLogWorld, owner: number) {
        super(world, owner);
        this.#world = world;
      }

      override async recover(id: LedgerId): Promise<ClosedLedger> {
        await Promise.resolve();
        const lastEntryId = (this.#world.ledger(id).durable - 1) as EntryId;
        return { ledgerId: id, lastEntryId, length: 0, lostTail: false };
      }
    }
    const { problems } = await playAll(20, (world, owner) => new Open(world, owner));
    expect(problems.length).toBeGreaterThan(0);
  });
});
