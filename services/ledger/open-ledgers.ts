/**
 * Ledgers over a metadata store and a set of bookies.
 */
import { hasCode, MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { EntryId, LedgerId } from '../lib/ids.ts';
import { keys } from '../metadata/keys.ts';
import type { Compare, KeyValue, MetadataStore, Write } from '../metadata/store.ts';
import type { ByteShare } from '../runtime/byte-budget.ts';
import type { Environment } from '../runtime/environment.ts';
import type { MetricSource } from '../runtime/metrics.ts';
import { ledgerTombstone } from '../wire/records.ts';
import type { Bookie, BookieId } from './bookie.ts';
import { BookieLane, type LaneLimits } from './bookie-lane.ts';
import { LedgerIds } from './ledger-ids.ts';
import type { ClosedLedger, LedgerReader, Ledgers, LedgerWriter, Quorum } from './ledgers.ts';
import { LedgerUpdater } from './metadata-update.ts';
import { LedgerMetrics, LedgerStats } from './metrics.ts';
import { checkQuorum } from './protocol/distribution.ts';
import { chooseEnsemble } from './protocol/ensemble.ts';
import { type LedgerMetadata, newLedger } from './protocol/ledger-metadata.ts';
import { Reader } from './reader.ts';
import { encodeMetadata } from './records.ts';
import { recoverLedger } from './recover.ts';
import { Writer } from './writer.ts';

const MASTER_KEY_BYTES = 16;
const CREATE_ATTEMPTS = 16;

const DEFAULT_LIMITS: LaneLimits = {
  appendDeadlineMs: 10_000,
  readDeadlineMs: 5_000,
  laggingBytes: 33_554_432,
  inFlightEntries: 8_192,
  inFlightBytes: 33_554_432,
};

export interface LedgersOptions {
  readonly environment: Environment;
  readonly store: MetadataStore;
  /** Every bookie of the cluster; closed together with the ledgers. */
  readonly bookies: readonly Bookie[];
  /** For new ledgers. */
  readonly quorum: Quorum;
  /** The process's memory for what is on its way to bookies and confirmed without them. Uncounted when not given. */
  readonly memory?: ByteShare;
  /** What differs from the defaults: 10 s for appends, 5 s for reads, 32 MiB for a straggler. */
  readonly limits?: Partial<LaneLimits>;
}

/** Ledgers that tell about themselves. */
export interface MeasuredLedgers extends Ledgers {
  readonly metrics: MetricSource;
}

/** @throws INVALID_ARGUMENT for a quorum that cannot be, or that is larger than the number of bookies */
export function openLedgers(options: LedgersOptions): MeasuredLedgers {
  checkQuorum(options.quorum);
  return new OpenLedgers(options);
}

class OpenLedgers implements MeasuredLedgers {
  readonly copies: number;
  readonly #environment: Environment;
  readonly #store: MetadataStore;
  readonly #quorum: Quorum;
  readonly #lanes: ReadonlyMap<BookieId, BookieLane>;
  readonly #ids: LedgerIds;
  readonly #updater: LedgerUpdater;
  readonly #writers = new Set<Writer>();
  readonly #stats: LedgerStats;
  readonly metrics: MetricSource;
  #closed: Promise<void> | undefined;

  constructor({ environment, store, bookies, quorum, limits, memory }: LedgersOptions) {
    this.#environment = environment;
    this.#store = store;
    this.#quorum = quorum;
    this.copies = quorum.writeQuorum;
    const laneLimits = { ...DEFAULT_LIMITS, ...limits };
    const stats = new LedgerStats();
    this.#lanes = new Map(
      bookies.map((bookie) => [bookie.id, new BookieLane(environment, bookie, laneLimits, stats, memory)]),
    );
    this.#stats = stats;
    this.metrics = new LedgerMetrics(stats, this.#lanes, this.#writers);
    if (this.#lanes.size < quorum.ensembleSize || this.#lanes.size < bookies.length) {
      const message = `an ensemble of ${quorum.ensembleSize} needs as many bookies; there are ${this.#lanes.size} different ones`;
      throw new MagnetarError('INVALID_ARGUMENT', message);
    }
    this.#ids = new LedgerIds(store);
    this.#updater = new LedgerUpdater(store);
  }

  readonly #lane = (id: BookieId): BookieLane | undefined => this.#lanes.get(id);

  #checkOpen(): void {
    if (this.#closed !== undefined) throw new MagnetarError('ALREADY_CLOSED', 'this client of the ledgers is closed');
  }

  get unwritable(): MagnetarError | undefined {
    try {
      this.#checkOpen();
      this.#ensemble(0);
      return undefined;
    } catch (error) {
      return toMagnetarError(error);
    }
  }

  async create(
    linkedAs: (id: LedgerId) => { compares: readonly Compare[]; writes: readonly Write[] },
  ): Promise<LedgerWriter> {
    this.#checkOpen();
    for (let attempt = 0; attempt < CREATE_ATTEMPTS; attempt++) {
      this.#ensemble(0); // so that no id is taken in vain
      const taken = await this.#ids.take();
      const metadata = newLedger({
        quorum: this.#quorum,
        masterKey: this.#environment.random.bytes(MASTER_KEY_BYTES),
        createdAt: this.#environment.clock.now(),
        ensemble: this.#ensemble(taken.id),
      });
      const { compares, writes } = linkedAs(taken.id);
      const key = keys.ledger(taken.id);
      const result = await this.#store.transact(
        [...compares, taken.compare, { key, modRevision: 0 }],
        [...writes, { put: key, value: encodeMetadata(metadata) }],
      );
      if (result.committed) {
        this.#stats.created++;
        return this.#writer(taken.id, metadata);
      }
      if (!compares.every((compare, at) => holds(compare, result.current[at]))) {
        throw new MagnetarError(
          'METADATA_CONFLICT',
          `ledger ${taken.id} was not created: what it was to be linked to has changed`,
        );
      }
      if (!holds(taken.compare, result.current[compares.length])) this.#ids.overtaken(taken);
    }
    throw new MagnetarError(
      'METADATA_CONFLICT',
      `no ledger could be created in ${CREATE_ATTEMPTS} tries: others create at the same time`,
    );
  }

  /** @throws NOT_ENOUGH_BOOKIES */
  #ensemble(id: number): readonly BookieId[] {
    const lanes = [...this.#lanes.values()];
    const ensemble = chooseEnsemble(lanes, this.#quorum, id);
    if (ensemble !== undefined) return ensemble;
    const { ensembleSize, writeQuorum, ackQuorum } = this.#quorum;
    const up = lanes.filter((lane) => lane.available).length;
    const full = lanes.find((lane) => lane.full !== undefined)?.full;
    const text =
      `${up} of ${lanes.length} bookies are available; ensemble ${ensembleSize} with write quorum ${writeQuorum} ` +
      `needs ${ackQuorum} of them in every write set`;
    const details = { available: String(up), known: String(lanes.length), ackQuorum: String(ackQuorum) };
    if (full === undefined) throw new MagnetarError('NOT_ENOUGH_BOOKIES', text, { details });
    throw new MagnetarError('DISK_FULL', `${text}: ${full.message}`, { details: { ...details, ...full.details } });
  }

  #writer(id: LedgerId, metadata: LedgerMetadata): Writer {
    const { clock, logger } = this.#environment;
    const writer = new Writer({
      clock,
      logger,
      id,
      metadata,
      lane: this.#lane,
      updater: this.#updater,
      stats: this.#stats,
      ended: (ended) => this.#writers.delete(ended),
    });
    this.#writers.add(writer);
    if (this.#closed !== undefined) this.#abandon(writer);
    return writer;
  }

  async recover(id: LedgerId): Promise<ClosedLedger> {
    this.#checkOpen();
    const { clock, logger } = this.#environment;
    const startedAt = clock.monotonic();
    try {
      const closed = await recoverLedger({ updater: this.#updater, lane: this.#lane, logger }, id);
      this.#stats.recovery.observe(clock.monotonic() - startedAt);
      return closed;
    } catch (error) {
      this.#stats.recoveryFailures++;
      throw error;
    }
  }

  async reader(id: LedgerId, upTo: () => EntryId): Promise<LedgerReader> {
    this.#checkOpen();
    const metadata = await this.#updater.read(id);
    return new Reader({ id, metadata, lane: this.#lane, upTo });
  }

  deletion(ids: readonly LedgerId[]): readonly Write[] {
    const value = ledgerTombstone.encode({ deletedAt: this.#environment.clock.now() });
    return ids.flatMap((id) => [{ delete: keys.ledger(id) }, { put: keys.deletedLedger(id), value }]);
  }

  #abandon(writer: Writer): void {
    writer.abandon(new MagnetarError('ALREADY_CLOSED', `the client that writes ledger ${writer.ledgerId} is closed`));
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    for (const writer of this.#writers) this.#abandon(writer);
    const results = await Promise.allSettled([...this.#lanes.values()].map((lane) => lane.close()));
    for (const result of results) {
      if (result.status === 'rejected' && !hasCode(result.reason, 'ALREADY_CLOSED'))
        throw toMagnetarError(result.reason);
    }
  }
}

/** True when a compare holds for the key as it is. */
function holds(compare: Compare, item: KeyValue | undefined): boolean {
  if ('modRevision' in compare) return (item?.modRevision ?? 0) === compare.modRevision;
  return (item?.createRevision ?? 0) === compare.createRevision;
}
