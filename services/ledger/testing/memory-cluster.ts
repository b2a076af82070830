/** Ledgers over bookies and metadata in memory, for tests. */
import { type EntryId, type LedgerId, NO_ENTRY } from '../../lib/ids.ts';
import { MemoryDatabase, openMemoryStore } from '../../metadata/memory.ts';
import type { MetadataStore } from '../../metadata/store.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Disk } from '../../runtime/disk.ts';
import type { Environment } from '../../runtime/environment.ts';
import { type Logger, silentLogger } from '../../runtime/logger.ts';
import { nodeClock } from '../../runtime/node/clock.ts';
import { CrashDisk } from '../../runtime/testing/crash-disk.ts';
import { seededRandom } from '../../runtime/testing/seeded-random.ts';
import type { BookieId } from '../bookie.ts';
import type { LaneLimits } from '../bookie-lane.ts';
import type { Ledgers, LedgerWriter, Quorum } from '../ledgers.ts';
import { openLedgers } from '../open-ledgers.ts';
import { MemoryBookie } from './memory-bookie.ts';

export const THREE: Quorum = { ensembleSize: 3, writeQuorum: 3, ackQuorum: 2 };

export interface ClusterOptions {
  readonly bookies?: number;
  readonly quorum?: Quorum;
  readonly limits?: Partial<LaneLimits>;
  readonly logger?: Logger;
  readonly clock?: Clock;
  readonly seed?: number;
}

export class MemoryCluster {
  readonly environment: Environment;
  readonly bookies: readonly MemoryBookie[];
  readonly ledgers: Ledgers;
  readonly #options: ClusterOptions;
  readonly #database: MemoryDatabase;
  readonly #opened: { ledgers: Ledgers; store: MetadataStore }[] = [];

  constructor(options: ClusterOptions = {}) {
    const clock = options.clock ?? nodeClock;
    const disk: Disk = new CrashDisk();
    this.#options = options;
    this.environment = {
      clock,
      random: seededRandom(options.seed ?? 1),
      disk,
      logger: options.logger ?? silentLogger,
      fatal: (error) => {
        throw error;
      },
    };
    this.#database = new MemoryDatabase(this.environment);
    this.bookies = Array.from({ length: options.bookies ?? 3 }, (_, i) => new MemoryBookie(`b${i}`, clock));
    this.ledgers = this.client().ledgers;
  }

  bookie(id: BookieId): MemoryBookie {
    const bookie = this.bookies.find((one) => one.id === id);
    if (bookie === undefined) throw new Error(`no bookie ${id}`);
    return bookie;
  }

  /** Another process's ledgers over the same bookies and metadata. Closing them leaves the bookies running. */
  client(): { ledgers: Ledgers; store: MetadataStore } {
    const { environment, bookies } = this;
    const store = openMemoryStore({ ...environment, database: this.#database });
    const shared = bookies.map((bookie) => ({
      id: bookie.id,
      get available() {
        return bookie.available;
      },
      get full() {
        return bookie.full;
      },
      append: bookie.append.bind(bookie),
      read: bookie.read.bind(bookie),
      readLac: bookie.readLac.bind(bookie),
      close: async () => await Promise.resolve(),
    }));
    const { quorum = THREE, limits = {} } = this.#options;
    const opened = { ledgers: openLedgers({ environment, store, bookies: shared, quorum, limits }), store };
    this.#opened.push(opened);
    return opened;
  }

  async close(): Promise<void> {
    for (const { ledgers, store } of this.#opened) {
      await ledgers.close();
      await store.close();
    }
  }
}

/** A ledger that is linked to nothing. */
export async function createLedger(ledgers: Ledgers): Promise<LedgerWriter> {
  return await ledgers.create(() => ({ compares: [], writes: [] }));
}

/** Resolves with the entry's id when it is confirmed. */
export async function append(writer: LedgerWriter, text: string): Promise<EntryId> {
  return await new Promise((resolve, reject) => {
    const id: EntryId = writer.append([Buffer.from(text)], (error) =>
      error === undefined ? resolve(id) : reject(error),
    );
  });
}

/** Every entry up to `last`, as text. */
export async function readTexts(ledgers: Ledgers, id: LedgerId, last: EntryId): Promise<string[]> {
  const reader = await ledgers.reader(id, () => last);
  const texts: string[] = [];
  for (let next = 0; next <= last; next = texts.length) {
    const entries = await reader.read(next as EntryId, { maxEntries: 100, maxBytes: 1_000_000 });
    for (const { payload } of entries) texts.push(payload.toString());
  }
  return last === NO_ENTRY ? [] : texts;
}
