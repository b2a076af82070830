/**
 * The broker role: topics over ledgers, for apps, over gRPC. Nothing of it is on a disk of its own.
 */
import type { Server } from '@grpc/grpc-js';

import { MagnetarError } from '../lib/errors.ts';
import { millis } from '../lib/ids.ts';
import type { Ledgers } from '../ledger/ledgers.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { delay } from '../runtime/clock.ts';
import type { Environment } from '../runtime/environment.ts';
import { type MemoryBudget, memoryBudget } from '../runtime/memory.ts';
import type { MetricSource } from '../runtime/metrics.ts';
import { backoff } from '../runtime/random.ts';
import type { Administration } from '../wire/administration.ts';
import { StallGuard } from '../runtime/stall-guard.ts';
import { BrokerAdministration } from './administration.ts';
import { type BrokerOptions, checkBrokerOptions, defaultBrokerOptions, type LedgerOptions } from './options.ts';
import { BrokerMetrics, type Observed } from './metrics/broker-metrics.ts';
import { BrokerStats } from './metrics/broker-stats.ts';
import { acquireOwnership, type Ownership } from './ownership/ownership.ts';
import { Sessions } from './server/sessions.ts';
import { EntryCache } from './topic/entry-cache.ts';
import { Topics } from './topic/topics.ts';

/** A broker that runs. */
export interface Broker {
  /** Offers its service on a gRPC server, before that is bound. */
  addTo(server: Server): void;
  /** True while it holds its lease and serves. */
  readonly ready: boolean;
  /** UNAVAILABLE with the reason while it cannot store messages: it does not serve, or too few bookies take entries. */
  readonly unready: MagnetarError | undefined;
  /** What it tells about itself, also after `close`. */
  readonly metrics: MetricSource;
  /** What administrators can ask of it. */
  readonly administration: Administration;
  /** Ends at once and for good: every stream fails with this error, now and later. It is still to be closed. */
  fail(error: MagnetarError): void;
  /**
   * Takes nothing more in, answers what is under way, closes its topics, gives up its ownership: each within the time that
   * the options allow for closing. Does not close the store and the ledgers. Idempotent; never rejects.
   */
  close(): Promise<void>;
}

/** What of the options is not to be as usual. */
export type BrokerSettings = Partial<Omit<BrokerOptions, 'ledger'>> & { readonly ledger?: Partial<LedgerOptions> };

/** What a broker works with. */
export interface BrokerDependencies {
  readonly environment: Environment;
  readonly store: MetadataStore;
  readonly ledgers: Ledgers;
  readonly options?: BrokerSettings;
  /** The memory of the process, which its other roles use, too; one of its own when not given. */
  readonly memory?: MemoryBudget;
}

/** How long those who have never read much may stand still while others like them wait for memory. */
const FIRST_READ_PATIENCE_MS: number = 2_000;
const REGISTER_FIRST_MS: number = 100;
const REGISTER_HIGHEST_MS: number = 5_000;

class RunningBroker implements Broker {
  readonly administration: Administration;
  readonly #dependencies: BrokerDependencies;
  readonly #memory: MemoryBudget;
  readonly #options: BrokerOptions;
  readonly metrics: MetricSource;
  readonly #cache: EntryCache;
  readonly #stats: BrokerStats;
  readonly #sessions: Sessions;
  readonly #stopping = new AbortController();
  #ownership: Ownership;
  #topics: Topics;
  #numbers = 0;
  readonly #keeping: Promise<void>;
  #closing: Promise<void> | undefined;

  constructor(dependencies: BrokerDependencies, memory: MemoryBudget, options: BrokerOptions, ownership: Ownership) {
    this.#dependencies = dependencies;
    this.#memory = memory;
    this.#options = options;
    this.#cache = new EntryCache(options.cacheBytes, memory.share('cache'), dependencies.environment.clock);
    memory.onShort((bytes) => this.#cache.shrink(bytes));
    this.#stats = new BrokerStats(dependencies.environment.clock);
    this.#ownership = ownership;
    this.#topics = this.#newTopics(ownership);
    const { clock, logger } = dependencies.environment;
    const topics = (): Topics => this.#topics;
    const uses = {
      write: memory.share('write'),
      ack: memory.share('ack'),
      read: new StallGuard(clock, memory.share('read')),
      firstRead: new StallGuard(clock, memory.share('firstRead'), FIRST_READ_PATIENCE_MS),
    };
    this.#sessions = new Sessions({ clock, logger, options, topics, stats: this.#stats, memory: uses });
    this.metrics = new BrokerMetrics(this.#observed(), options.topicMetrics, clock.monotonic());
    const { store } = dependencies;
    const { cluster } = options;
    this.administration = new BrokerAdministration({ store, clock, topics, unready: () => this.unready, cluster });
    this.#keeping = this.#keepOwnership();
  }

  get ready(): boolean {
    return !this.#stopping.signal.aborted && this.#ownership.held;
  }

  get unready(): MagnetarError | undefined {
    if (!this.ready) return new MagnetarError('UNAVAILABLE', 'the broker does not serve at the moment');
    const cause = this.#dependencies.ledgers.unwritable;
    return cause && new MagnetarError('UNAVAILABLE', `nothing can be stored: ${cause.message}`, { cause });
  }

  #observed(): Observed {
    return {
      stats: this.#stats,
      cache: this.#cache,
      copies: this.#dependencies.ledgers.copies,
      ready: () => this.ready,
      topics: () => this.#topics,
      streams: () => this.#sessions.streams,
    };
  }

  addTo(server: Server): void {
    this.#sessions.addTo(server);
  }

  fail(error: MagnetarError): void {
    this.#stopping.abort(error);
    this.#sessions.failAll(error);
    this.#topics.failAll(error);
  }

  async close(): Promise<void> {
    this.#closing ??= this.#close();
    await this.#closing;
  }

  async #close(): Promise<void> {
    const { clock, logger } = this.#dependencies.environment;
    const reason = new MagnetarError('UNAVAILABLE', 'the broker is stopping');
    this.#stopping.abort(reason);
    const late = clock.after(this.#options.closeMs, () => this.#sessions.failAll(reason));
    await this.#sessions.stop(reason);
    late.cancel();
    await this.#keeping;
    await this.#topics.close();
    this.#cache.close();
    try {
      await this.#ownership.release();
    } catch (error) {
      logger.warn('the lease was not given up; it will expire', { error });
    }
  }

  #newTopics(ownership: Ownership): Topics {
    const { environment, store, ledgers } = this.#dependencies;
    const nextNumber = (): number => this.#numbers++;
    return new Topics({
      environment,
      store,
      ledgers,
      ownership,
      cache: this.#cache,
      recovery: this.#memory.share('recovery'),
      options: this.#options,
      stats: this.#stats,
      nextNumber,
    });
  }

  /** When the lease is lost, every topic ends, and the broker registers anew, under a new epoch. */
  async #keepOwnership(): Promise<void> {
    const { signal } = this.#stopping;
    const stopped = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    while (!signal.aborted) {
      await Promise.race([this.#ownership.lost, stopped]);
      if (signal.aborted) return;
      this.#dependencies.environment.logger.warn('the lease is lost; topics are closed until there is a new one');
      const topics = this.#topics;
      topics.failAll(new MagnetarError('NOT_OWNER', 'the broker has lost its lease'));
      await topics.close();
      const ownership = await this.#register(signal);
      if (ownership === undefined) return;
      this.#ownership = ownership;
      this.#topics = this.#newTopics(ownership);
    }
  }

  async #register(signal: AbortSignal): Promise<Ownership | undefined> {
    const { environment, store } = this.#dependencies;
    const { clock, random, logger } = environment;
    const { brokerId, leaseTtlMs } = this.#options;
    for (let attempt = 0; !signal.aborted; attempt++) {
      try {
        const ownership = await acquireOwnership({ store, clock, brokerId, leaseTtl: millis(leaseTtlMs) });
        if (!signal.aborted) return ownership;
        await ownership.release();
      } catch (error) {
        logger.warn('the broker cannot register', { error });
        await delay(clock, backoff(random, attempt, REGISTER_FIRST_MS, REGISTER_HIGHEST_MS), signal).catch(
          () => undefined,
        );
      }
    }
    return undefined;
  }
}

/**
 * Starts a broker: registers it, so that it owns the topics. Tenants and namespaces have to be there.
 *
 * @throws INVALID_ARGUMENT for options that do not fit one another; METADATA_CONFLICT, and whatever the metadata store
 * throws.
 */
export async function startBroker(dependencies: BrokerDependencies): Promise<Broker> {
  const { environment, store } = dependencies;
  const settings = dependencies.options ?? {};
  const options: BrokerOptions = {
    ...defaultBrokerOptions,
    ...settings,
    ledger: { ...defaultBrokerOptions.ledger, ...settings.ledger },
  };
  const memory = dependencies.memory ?? memoryBudget();
  checkBrokerOptions(options, memory);
  const ownership = await acquireOwnership({
    store,
    clock: environment.clock,
    brokerId: options.brokerId,
    leaseTtl: millis(options.leaseTtlMs),
  });
  return new RunningBroker(dependencies, memory, options, ownership);
}
