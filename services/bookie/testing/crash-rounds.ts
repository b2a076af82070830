/**
 * Lives of a bookie that each end in a crash at some operation of the disk, and the checker of what has to be there afterwards.
 */
import type { AppendEntry, Bookie } from '../../ledger/bookie.ts';
import { hasCode, type MagnetarError } from '../../lib/errors.ts';
import { entryId, ledgerId } from '../../lib/ids.ts';
import { type Clock, delay } from '../../runtime/clock.ts';
import { nodeClock } from '../../runtime/node/clock.ts';
import type { Random } from '../../runtime/random.ts';
import type { CrashDisk } from '../../runtime/testing/crash-disk.ts';
import { seededRandom } from '../../runtime/testing/seeded-random.ts';
import { entryDigest } from '../../wire/digest.ts';
import { openBookie } from '../bookie.ts';
import { testEnvironment } from './environment.ts';
import { MemoryIndex } from './memory-index.ts';

const FOLDER = '/bookie-0';
const LEDGERS = 6;
const LIVES = 4;
const KEY = Buffer.alloc(16, 7);

/** What became of a run. */
export interface CrashReport {
  /** What should not be: one line each. */
  readonly violations: string[];
  /** How many entries and fences were acknowledged. */
  acked: number;
  /** How many were refused because the disk was full. */
  refused: number;
  crashes: number;
}

/** An entry whose every byte follows from its place, so that the checker knows what it must be. */
function entryAt(ledger: number, entry: number, recovery: boolean): AppendEntry {
  const payload = [Buffer.alloc((entry * 977 + ledger * 131) % 7_000, `${ledger}/${entry};`)];
  const numbers = {
    ledgerId: ledgerId(ledger),
    entryId: entryId(entry),
    lac: entryId(entry - 1),
    length: entry,
  };
  const payloadBytes = payload[0]?.length ?? 0;
  return { ...numbers, digest: entryDigest({ ...numbers, payload }), masterKey: KEY, recovery, payload, payloadBytes };
}

/** Timers go off soon: a bookie that waits for room looks for it all the time. */
const hastyClock: Clock = {
  ...nodeClock,
  after: (ms, callback, options) => nodeClock.after(Math.min(ms, 1), callback, options),
};

class CrashRounds {
  readonly report: CrashReport = { violations: [], acked: 0, refused: 0, crashes: 0 };
  readonly #disk: CrashDisk;
  readonly #random: Random;
  readonly #fills: boolean;
  #index = new MemoryIndex();
  readonly #acked = new Map<string, AppendEntry>();
  readonly #fenced = new Set<number>();
  readonly #next = Array.from({ length: LEDGERS }, () => 0);

  constructor(disk: CrashDisk, seed: number, fills: boolean) {
    this.#disk = disk;
    this.#random = seededRandom(seed);
    this.#fills = fills;
  }

  #below(limit: number): number {
    return Math.floor(this.#random.next() * limit);
  }

  async run(): Promise<CrashReport> {
    for (let life = 0; life < LIVES; life++) {
      this.#crashAfter(this.#below(120));
      try {
        await this.#live(await this.#open());
      } catch (error) {
        if (hasCode(error, 'DATA_LOSS', 'FOLDER_VERSION')) this.report.violations.push(error.message);
      }
      this.#disk.before = () => {};
      this.#index.full = false;
      this.#disk.crash(this.#random);
      this.report.crashes++;
      if (this.#random.next() < 0.3) this.#index = new MemoryIndex();
    }
    this.#disk.capacityBytes = Number.POSITIVE_INFINITY;
    const bookie = await this.#open();
    await this.#check(bookie);
    await bookie.close();
    return this.report;
  }

  #crashAfter(operations: number): void {
    let left = operations;
    this.#disk.before = () => {
      if (left-- > 0) return;
      if (left === -1) this.#disk.crash(this.#random);
      throw new Error('the machine is down');
    };
  }

  /** Makes the disk a little larger than what is on it, mostly, or as large as one may wish. */
  #changeCapacity(): void {
    if (!this.#fills || this.#random.next() < 0.5) return;
    const more = this.#random.next() < 0.3 ? Number.POSITIVE_INFINITY : this.#below(6) * 8_192;
    this.#disk.capacityBytes = this.#disk.usedBytes + more;
    this.#index.full = more < 16_384 && this.#random.next() < 0.5;
  }

  async #open(): Promise<Bookie> {
    return await openBookie({
      environment: { ...testEnvironment(this.#disk), clock: this.#fills ? hastyClock : nodeClock },
      folder: FOLDER,
      id: 'local-0',
      options: { segmentBytes: 98_304, markDelayMs: 0, ...(this.#fills ? { reserveBytes: 4_096 } : {}) },
      openIndex: async () => await Promise.resolve(this.#index),
    });
  }

  async #live(bookie: Bookie): Promise<void> {
    for (let round = 0; round < 40; round++) {
      this.#changeCapacity();
      const pending = Array.from({ length: 1 + this.#below(12) }, async () => await this.#step(bookie));
      const outcomes = await Promise.all(pending);
      if (outcomes.includes('failed')) break;
      // Sometimes the log gets time to mark its last group.
      if (this.#random.next() < 0.2) await delay(nodeClock, 2);
    }
    await bookie.close();
  }

  async #step(bookie: Bookie): Promise<'failed' | undefined> {
    const ledger = this.#below(LEDGERS);
    if (this.#random.next() < 0.02) return await this.#fence(bookie, ledger);
    const entry = this.#next[ledger] ?? 0;
    this.#next[ledger] = entry + 1;
    const sent = entryAt(ledger, entry, this.#random.next() < 0.3);
    return await new Promise((resolve) => {
      bookie.append(sent, (error?: MagnetarError) => {
        if (error === undefined) {
          this.#acked.set(`${ledger}/${entry}`, sent);
          this.report.acked++;
          if (this.#fenced.has(ledger) && !sent.recovery) this.#violation(`${ledger}/${entry} taken behind a fence`);
        } else if (error.code === 'DISK_FULL' && this.#fills) this.report.refused++;
        else if (error.code !== 'LEDGER_FENCED' && error.code !== 'STORE_FAILED') this.#violation(error.message);
        resolve(hasCode(error, 'STORE_FAILED') ? 'failed' : undefined);
      });
    });
  }

  async #fence(bookie: Bookie, ledger: number): Promise<'failed' | undefined> {
    try {
      await bookie.readLac({ ledgerId: ledgerId(ledger), fence: { masterKey: KEY } });
    } catch (error) {
      if (hasCode(error, 'DISK_FULL') && this.#fills) {
        this.report.refused++;
        return undefined;
      }
      if (!hasCode(error, 'STORE_FAILED')) this.#violation(String(error));
      return 'failed';
    }
    this.#fenced.add(ledger);
    this.report.acked++;
    return undefined;
  }

  #violation(text: string): void {
    this.report.violations.push(text);
  }

  async #check(bookie: Bookie): Promise<void> {
    for (const [name, sent] of this.#acked) {
      const request = { ledgerId: sent.ledgerId, firstEntryId: sent.entryId, maxEntries: 1, maxBytes: 1 };
      try {
        const [entry] = await bookie.read(request);
        if (entry?.payload.equals(Buffer.concat([...sent.payload])) !== true)
          this.#violation(`${name} is another entry`);
      } catch (error) {
        this.#violation(`${name}: ${String(error)}`);
      }
    }
    for (const ledger of this.#fenced) {
      const outcome = await new Promise<MagnetarError | undefined>((resolve) => {
        bookie.append(entryAt(ledger, 1_000, false), resolve);
      });
      if (!hasCode(outcome, 'LEDGER_FENCED')) this.#violation(`ledger ${ledger} is no longer fenced`);
    }
    // A crash is no damage: "there is none" can still be said.
    try {
      await bookie.readLac({ ledgerId: ledgerId(LEDGERS) });
    } catch (error) {
      if (!hasCode(error, 'NO_SUCH_LEDGER')) this.#violation(`a ledger that never was: ${String(error)}`);
    }
  }
}

/** Runs some lives on a disk, which `fills` up now and then; the seed decides everything but the timers. */
export async function crashRounds(
  disk: CrashDisk,
  seed: number,
  { fills = false }: { readonly fills?: boolean } = {},
): Promise<CrashReport> {
  return await new CrashRounds(disk, seed, fills).run();
}
