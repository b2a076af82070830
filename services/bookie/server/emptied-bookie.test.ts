import type { Server } from '@grpc/grpc-js';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Bookie } from '../../ledger/bookie.ts';
import { BookieIdentities } from '../../ledger/bookie-identity.ts';
import { connectBookie, type RemoteBookie } from '../../ledger/grpc-bookie.ts';
import type { Ledgers } from '../../ledger/ledgers.ts';
import { openLedgers } from '../../ledger/open-ledgers.ts';
import { append, createLedger, readTexts, THREE } from '../../ledger/testing/memory-cluster.ts';
import { openMemoryStore } from '../../metadata/memory.ts';
import { nodeRandom } from '../../runtime/node/random.ts';
import { CrashDisk } from '../../runtime/testing/crash-disk.ts';
import { bindWithWideWindows, createServer } from '../../wire/server.ts';
import { openBookie } from '../bookie.ts';
import { testEnvironment } from '../testing/environment.ts';
import { MemoryIndex } from '../testing/memory-index.ts';
import { addBookieService } from './server.ts';
import { until } from '../../runtime/testing/until.ts';

/** A bookie's process on one address, whatever folder it has. */
class Host {
  port = 0;
  #disk = new CrashDisk();
  #index = new MemoryIndex();
  #running: { readonly bookie: Bookie; readonly server: Server } | undefined;

  async start(): Promise<void> {
    const environment = { ...testEnvironment(this.#disk), random: nodeRandom };
    const openIndex = async (): Promise<MemoryIndex> => await Promise.resolve(this.#index);
    const bookie = await openBookie({ environment, folder: '/bookie', id: 'b', openIndex });
    const server = createServer();
    addBookieService(server, bookie, { environment, serverName: 'test' });
    this.port = await bindWithWideWindows(server, `127.0.0.1:${this.port}`);
    this.#running = { bookie, server };
  }

  async stop(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    running?.server.forceShutdown();
    await running?.bookie.close();
  }

  /** Its folder is lost. */
  empty(): void {
    this.#disk = new CrashDisk();
    this.#index = new MemoryIndex();
  }
}

const environment = testEnvironment();
let hosts: readonly [Host, Host, Host];
let ledgers: Ledgers;
/** How often a bookie was looked at. */
let checks = 0;

beforeEach(() => {
  hosts = [new Host(), new Host(), new Host()];
});

afterEach(async () => {
  await ledgers.close();
  await Promise.all(hosts.map(async (host) => host.stop()));
});

/** Ledgers over the hosts; `verified`: by what the metadata knows of them. */
async function connect(verified: boolean): Promise<readonly RemoteBookie[]> {
  await Promise.all(hosts.map(async (host) => host.start()));
  const store = openMemoryStore(environment);
  const identities = new BookieIdentities(store);
  const bookies = hosts.map(({ port }) => {
    const address = `127.0.0.1:${port}`;
    const verify = async (instance: Buffer | undefined): Promise<void> => {
      await identities.check(address, instance).finally(() => checks++);
    };
    return connectBookie({ environment, address, ...(verified ? { verify } : {}) });
  });
  await Promise.all(bookies.map(async ({ tried }) => tried));
  ledgers = openLedgers({ environment, store, bookies, quorum: THREE });
  return bookies;
}

/**
 * The third bookie misses an entry that is acknowledged; then the first one loses its folder, and the second one, which alone
 * has the entry, is away. What recovery makes of the ledger meanwhile, and afterwards.
 */
async function loseAFolder(verified: boolean): Promise<{ meanwhile: unknown; afterwards: string[] }> {
  const [one, two, three] = await connect(verified);
  const writer = await createLedger(ledgers);
  await hosts[2].stop();
  await until(() => three?.available === false);
  await append(writer, 'acknowledged');
  await hosts[2].start();
  await until(() => three?.available === true);
  await Promise.all([hosts[0].stop(), hosts[1].stop()]);
  await until(() => one?.available === false && two?.available === false);
  hosts[0].empty();
  const before = checks;
  await hosts[0].start();
  await until(() => (verified ? checks > before : one?.available === true));
  const meanwhile = await ledgers.recover(writer.ledgerId).catch((error: unknown) => error);
  await hosts[1].start();
  await until(() => two?.available === true);
  const { lastEntryId } = await ledgers.recover(writer.ledgerId);
  return { meanwhile, afterwards: await readTexts(ledgers, writer.ledgerId, lastEntryId) };
}

test('a bookie whose folder was emptied proves nothing: what it had stored is not taken for never stored (LP-27)', async () => {
  const { meanwhile, afterwards } = await loseAFolder(true);
  expect(meanwhile).toMatchObject({ code: 'UNAVAILABLE' });
  expect(afterwards).toEqual(['acknowledged']);
});

test('sabotage: were it believed, an acknowledged entry would be lost without a word', async () => {
  const { afterwards } = await loseAFolder(false);
  expect(afterwards).toEqual([]);
});
