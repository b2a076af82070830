/** A broker's process in the world of `world.ts`, without the streams: its topics are called directly. */
import type { BrokerOptions } from '../../broker/options.ts';
import { defaultBrokerOptions } from '../../broker/options.ts';
import { acquireOwnership, type Ownership } from '../../broker/ownership/ownership.ts';
import { parseTopicName } from '../../broker/protocol/topic-name.ts';
import { BrokerStats } from '../../broker/metrics/broker-stats.ts';
import { EntryCache } from '../../broker/topic/entry-cache.ts';
import type { Topic } from '../../broker/topic/topic.ts';
import { Topics } from '../../broker/topic/topics.ts';
import type { Ledgers } from '../../ledger/ledgers.ts';
import { openLedgers } from '../../ledger/open-ledgers.ts';
import { MagnetarError } from '../../lib/errors.ts';
import { millis } from '../../lib/ids.ts';
import { openMemoryStore } from '../../metadata/memory.ts';
import { ensureDefaults } from '../../metadata/namespaces.ts';
import type { MetadataStore } from '../../metadata/store.ts';
import { memoryBudget } from '../../runtime/memory.ts';
import { delay } from '../../runtime/clock.ts';
import type { Environment } from '../../runtime/environment.ts';
import { silentLogger } from '../../runtime/logger.ts';
import { CrashDisk } from '../../runtime/testing/crash-disk.ts';
import { Life, RemoteBookie, type World } from './world.ts';

const TOPIC = 'orders';

/** So small that ack logs, lists and snapshots are rolled and cut all the time, and ledgers with one broker in two. */
const OPTIONS: BrokerOptions = {
  ...defaultBrokerOptions,
  leaseTtlMs: 2_000,
  cacheBytes: 8_192,
  idleTopicMs: 60,
  topicOpenMs: 2_000,
  closeMs: 300,
  ledger: {
    ...defaultBrokerOptions.ledger,
    rollBytes: 12_000,
    rollEntries: 5,
    rollAgeMs: 200,
    maxPendingEntries: 20,
    replaceMs: 150,
    retryFirstMs: 2,
    retryHighestMs: 20,
    dedupSnapshotEntries: 9,
    maxListedLedgers: 4,
  },
  ackLog: { rollBytes: 400, rollEntries: 6, entryBytes: 120, partBytes: 150, ledgerDeadlineMs: 150, retryFirstMs: 2 },
};
const LONG_LEDGERS = { rollBytes: 100_000, rollEntries: 60, rollAgeMs: 5_000 };
const LIMITS = { appendDeadlineMs: 80, readDeadlineMs: 80, laggingBytes: 20_000 };

function outOfReach(): MagnetarError {
  return new MagnetarError('UNAVAILABLE', 'the metadata store is out of reach');
}

/** A store whose transactions take their time, and sometimes fail. */
function unreliable(world: World, life: Life, store: MetadataStore): MetadataStore {
  const wait = async (): Promise<void> => delay(life.clock, world.latency());
  return {
    get: async (keys) => {
      await wait();
      return store.get(keys);
    },
    range: async (query) => store.range(query),
    transact: async (compares, writes) => {
      await wait();
      if (world.chance(0.02)) throw outOfReach();
      const result = await store.transact(compares, writes);
      await wait();
      if (world.chance(0.02)) throw outOfReach();
      return result;
    },
    watch: (options) => store.watch(options),
    compact: async (below) => store.compact(below),
    grantLease: async (ttl) => store.grantLease(ttl),
    close: async () => store.close(),
  };
}

export class BrokerProcess {
  readonly #world: World;
  readonly #life: Life;
  readonly #ownership: Ownership;
  readonly #ledgers: Ledgers;
  readonly #topics: Topics;

  private constructor(
    world: World,
    parts: { readonly life: Life; readonly ownership: Ownership; readonly ledgers: Ledgers; readonly topics: Topics },
  ) {
    this.#world = world;
    this.#life = parts.life;
    this.#ownership = parts.ownership;
    this.#ledgers = parts.ledgers;
    this.#topics = parts.topics;
  }

  /** Starts one; it takes the topics over from whoever has them. Undefined when it could not register. */
  static async start(world: World): Promise<BrokerProcess | undefined> {
    const life = new Life(world.clock);
    const { clock } = life;
    const { random, database } = world;
    const fatal = (error: Error): void => world.violation(`the broker: ${error.message}`);
    const environment: Environment = { clock, random, disk: new CrashDisk(), logger: silentLogger, fatal };
    const store = unreliable(world, life, openMemoryStore({ clock, random, database }));
    const bookies = world.machines.map((machine) => new RemoteBookie(machine, clock));
    const copies = Math.min(3, bookies.length);
    const quorum = { ensembleSize: copies, writeQuorum: copies, ackQuorum: Math.floor(copies / 2) + 1 };
    const ledgers = openLedgers({ environment, store, bookies, quorum, limits: LIMITS });
    const { brokerId, leaseTtlMs } = OPTIONS;
    const registering = ensureDefaults(store, clock.now()).then(async () =>
      acquireOwnership({ store, clock, brokerId, leaseTtl: millis(leaseTtlMs) }),
    );
    let ownership: Ownership;
    try {
      ownership = await world.done(registering, 'the registration of the broker');
    } catch {
      life.end();
      return undefined;
    }
    let numbers = 0;
    const memory = memoryBudget();
    const cache = new EntryCache(OPTIONS.cacheBytes, memory.share('cache'), environment.clock);
    const recovery = memory.share('recovery');
    const nextNumber = (): number => numbers++;
    const options = world.below(2) === 0 ? OPTIONS : { ...OPTIONS, ledger: { ...OPTIONS.ledger, ...LONG_LEDGERS } };
    const stats = new BrokerStats(environment.clock);
    const shared = { environment, store, ledgers, ownership, cache, recovery, stats };
    const topics = new Topics({ ...shared, options, nextNumber });
    void ownership.lost.then(() => topics.failAll(new MagnetarError('NOT_OWNER', 'the lease is lost')));
    return new BrokerProcess(world, { life, ownership, ledgers, topics });
  }

  get alive(): boolean {
    return this.#life.alive;
  }

  get clock(): Life['clock'] {
    return this.#life.clock;
  }

  async topic(): Promise<Topic> {
    const topic = await this.#topics.open(parseTopicName(TOPIC));
    this.#world.options.opened?.(topic);
    return topic;
  }

  kill(): void {
    this.#life.end();
  }

  /** Ends it in order. */
  async stop(): Promise<void> {
    if (!this.alive) return;
    const { disturbed } = this.#world;
    this.#world.disturbed = false;
    const closing = this.#topics
      .close()
      .then(async () => this.#ownership.release())
      .then(async () => this.#ledgers.close());
    await this.#world.done(closing, 'the close of the broker');
    this.#world.disturbed = disturbed;
    this.kill();
  }
}
