/**
 * The composition of a whole system in one process: metadata in `level`, bookies here or elsewhere, a broker, and its HTTP
 * side. It knows nothing of the process that it is in: no environment variables, signals, output or exit.
 */
import path from 'node:path';
import { openBookie } from '../bookie/bookie.ts';
import type { MeasuredBookie } from '../bookie/measured-bookie.ts';
import { type Broker, type BrokerSettings, startBroker } from '../broker/broker.ts';
import type { Bookie } from '../ledger/bookie.ts';
import { BookieIdentities } from '../ledger/bookie-identity.ts';
import { connectBookie } from '../ledger/grpc-bookie.ts';
import type { Quorum } from '../ledger/ledgers.ts';
import { openLedgers } from '../ledger/open-ledgers.ts';
import { MagnetarError } from '../lib/errors.ts';
import { openLevelStore } from '../metadata/level.ts';
import { MeasuredStore } from '../metadata/measured.ts';
import { ensureDefaults } from '../metadata/namespaces.ts';
import type { MetadataStore } from '../metadata/store.ts';
import type { Clock } from '../runtime/clock.ts';
import { memoryBudget } from '../runtime/memory.ts';
import { MemoryMetrics } from '../runtime/memory-metrics.ts';
import { labelText, type MetricSource } from '../runtime/metrics.ts';
import { type DataFolder, folderError, openDataFolder, requireMetadata } from './data-folder.ts';
import { openGrpcServer } from './grpc-server.ts';
import type { HttpPart } from './http-part.ts';
import type { RoleContext } from './role-context.ts';

/** The name of the cluster: for administrators, and as a label of its metrics. */
const CLUSTER = 'standalone';
const MOST_COPIES = 3;
const LOCAL_BOOKIE = /^local-(\d+)$/;
/** How long a start waits for bookies elsewhere; those that answer later are used then. */
const BOOKIES_WAIT_MS = 1_000;
/** How long each step of closing the broker may take: two of them fit into the time that the process has. */
const BROKER_CLOSE_MS = 5_000;

export interface OpenStandalone {
  readonly data: string;
  /** Bookies in this process; undefined: as many as the data folder has, else one. Not with `remoteBookies`. */
  readonly bookies: number | undefined;
  /** Bookies elsewhere, as host:port; empty: in this process. */
  readonly remoteBookies: readonly string[];
  /** Where apps come in: a port, 0 for a free one; or a socket in the file system. */
  readonly port: number | { readonly socket: string };
  /** 0: a free one; undefined: nothing is served over HTTP. */
  readonly httpPort: number | undefined;
  /** Bytes that the process may have in buffers. */
  readonly memoryBudgetBytes: number;
  /** What of the broker is not to be as usual. */
  readonly broker?: Pick<BrokerSettings, 'topicMetrics'>;
  readonly version: string;
}

/** A standalone that takes requests. It is closed with the lifecycle that it was opened with. */
export interface Standalone {
  readonly broker: Broker;
  /** The data folder, as an absolute path. */
  readonly folder: string;
  readonly bookies: number;
  readonly port: number;
  readonly httpPort: number | undefined;
}

/** Three copies of which two are waited for, or as many as there are bookies. */
export function standaloneQuorum(bookies: number): Quorum {
  const copies = Math.min(bookies, MOST_COPIES);
  return { ensembleSize: copies, writeQuorum: copies, ackQuorum: Math.floor(copies / 2) + 1 };
}

/** How many bookies to open here. @throws INVALID_ARGUMENT when some that hold data would be left out */
export function bookieCount(wanted: number | undefined, folder: DataFolder): number {
  const count = wanted ?? Math.max(1, folder.bookies);
  if (count >= folder.bookies) return count;
  throw new MagnetarError(
    'INVALID_ARGUMENT',
    `--bookies is ${count}, but the data folder ${folder.folder} holds ${folder.bookies} bookies; it must be at least ${folder.bookies}`,
    { details: { bookies: String(count), least: String(folder.bookies) } },
  );
}

/** @throws DATA_LOSS when a bookie of this process has another folder than the metadata knows */
async function openBookies(
  { environment, lifecycle }: RoleContext,
  store: MetadataStore,
  folder: DataFolder,
  options: OpenStandalone,
): Promise<(Bookie | MeasuredBookie)[]> {
  const identities = new BookieIdentities(store);
  if (options.remoteBookies.length > 0) {
    const remote = options.remoteBookies.map((address) =>
      connectBookie({ environment, address, verify: async (instance) => await identities.check(address, instance) }),
    );
    for (const bookie of remote) lifecycle.add(`connection to bookie ${bookie.id}`, async () => await bookie.close());
    await atMost(environment.clock, BOOKIES_WAIT_MS, Promise.all(remote.map(({ tried }) => tried)));
    return remote;
  }
  // One whose folder is gone is missed, not left out.
  const known = (await identities.names()).map((id) => Number(LOCAL_BOOKIE.exec(id)?.[1] ?? -1) + 1);
  const held = { ...folder, bookies: Math.max(folder.bookies, ...known) };
  const bookies: MeasuredBookie[] = [];
  for (let number = 0; number < bookieCount(options.bookies, held); number++) {
    const bookie = await openBookie({ environment, folder: folder.bookieFolder(number), id: `local-${number}` });
    lifecycle.add(`bookie ${bookie.id}`, async () => await bookie.close());
    await identities.check(bookie.id, bookie.instance);
    bookies.push(bookie);
  }
  return bookies;
}

function isoTime(time: number): string {
  return new Date(time).toISOString();
}

async function atMost(clock: Clock, ms: number, work: Promise<unknown>): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = clock.after(ms, resolve);
    void work.then(() => {
      timer.cancel();
      resolve();
    });
  });
}

/** Opens metadata, bookies and the broker; the broker takes requests on the port that is returned. */
async function openBroker(
  context: RoleContext,
  folder: DataFolder,
  options: OpenStandalone,
): Promise<{ broker: Broker; port: number; bookies: number; metrics: readonly MetricSource[] }> {
  const { environment, lifecycle } = context;
  const memory = memoryBudget(options.memoryBudgetBytes);
  await requireMetadata(environment.disk, folder);
  const level = await openLevelStore({ environment, folder: folder.metadataFolder });
  const store = new MeasuredStore(level, environment.clock);
  lifecycle.add('metadata store', async () => await store.close());
  const bookies = await openBookies(context, store, folder, options);
  const local = bookies.flatMap((bookie) => ('metrics' in bookie ? [bookie.metrics] : []));
  const quorum = standaloneQuorum(bookies.length);
  const ledgers = openLedgers({ environment, store, bookies, quorum, memory: memory.share('write') });
  lifecycle.add('ledgers', async () => await ledgers.close());
  await ensureDefaults(store, environment.clock.now());
  const server = openGrpcServer(context, 'broker', memory);
  const serverName = `magnetar ${options.version}`;
  const settings = { ...options.broker, cluster: CLUSTER, serverName, closeMs: BROKER_CLOSE_MS };
  const broker = await startBroker({ environment, store, ledgers, memory, options: settings });
  lifecycle.add('broker', async () => await broker.close());
  broker.addTo(server.server);
  const metrics = [broker.metrics, ledgers.metrics, store, new MemoryMetrics(memory), server.connections, ...local];
  return { broker, port: await server.bind(options.port), bookies: bookies.length, metrics };
}

/**
 * Opens everything; what was opened is in the lifecycle, also when it throws.
 *
 * @throws FOLDER_IN_USE, FOLDER_NOT_WRITABLE, FOLDER_VERSION, PORT_IN_USE, INVALID_ARGUMENT, DATA_LOSS, METADATA_DAMAGED,
 * STORE_FAILED
 */
export async function openStandalone(context: RoleContext, options: OpenStandalone): Promise<Standalone> {
  const { environment } = context;
  const folder = await openDataFolder(environment.disk, path.resolve(options.data));
  let opened: Awaited<ReturnType<typeof openBroker>>;
  try {
    opened = await openBroker(context, folder, options);
  } catch (error) {
    throw folderError(folder.folder, error);
  }
  const { broker, port, bookies, metrics } = opened;
  const serving = { broker, folder: folder.folder, bookies, port };
  if (options.httpPort === undefined) return { ...serving, httpPort: undefined };
  // Apps are served from here on: what HTTP needs is loaded after that.
  const { administration } = broker;
  const { logger } = environment;
  const admin: HttpPart = {
    paths: ['/admin', '/docs'],
    async plugin(app) {
      const { adminPlugin } = await import('../admin/plugin.ts');
      await app.register(adminPlugin({ administration, logger, version: options.version, isoTime }));
    },
  };
  const { openHttpSide } = await import('./http-side.ts');
  const httpPort = await openHttpSide(context, {
    port: options.httpPort,
    about: { version: options.version, role: 'standalone' },
    unready: () => broker.unready?.message,
    sources: metrics,
    common: labelText({ cluster: CLUSTER }),
    parts: [admin],
  });
  return { ...serving, httpPort };
}
