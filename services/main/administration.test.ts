/** The administration of a real broker, under the contract of the REST API's port, and the API over it. */
import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fastify } from 'fastify';
import { expect, test } from 'vitest';
import { administrationContract, type OpenedAdministration } from '../admin/administration.contract.ts';
import { adminPlugin } from '../admin/plugin.ts';
import type { Administration } from '../wire/administration.ts';
import { startBroker } from '../broker/broker.ts';
import { MemoryCluster } from '../ledger/testing/memory-cluster.ts';
import { MagnetarError } from '../lib/errors.ts';
import { keys } from '../metadata/keys.ts';
import { ensureDefaults } from '../metadata/namespaces.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { silentLogger } from '../runtime/logger.ts';

const ONE = { ensembleSize: 1, writeQuorum: 1, ackQuorum: 1 };

async function open(): Promise<
  OpenedAdministration & { readonly store: MetadataStore; readonly cluster: MemoryCluster }
> {
  const cluster = new MemoryCluster({ bookies: 1, quorum: ONE });
  const { environment } = cluster;
  const { store, ledgers } = cluster.client();
  await ensureDefaults(store, environment.clock.now());
  const broker = await startBroker({ environment, store, ledgers });
  const administration: Administration = broker.administration;
  const close = async (): Promise<void> => {
    await broker.close();
    await cluster.close();
  };
  return { administration, close, store, cluster };
}

administrationContract('a broker', open);

test('a broker is not healthy while nothing can be stored, and is again by itself', async () => {
  const { administration, close, cluster } = await open();
  const app = fastify();
  await app.register(adminPlugin({ administration, logger: silentLogger, version: '1', isoTime: String }));
  const health = async (): Promise<[number, string]> => {
    const { statusCode, body } = await app.inject('/admin/v2/brokers/health');
    return [statusCode, body];
  };
  const bookie = cluster.bookie('b0');
  expect(await health()).toEqual([200, 'ok']);
  bookie.up = false;
  expect(await health()).toEqual([503, expect.stringContaining('nothing can be stored: 0 of 1 bookies are available')]);
  bookie.up = true;
  expect(await health()).toEqual([200, 'ok']);
  bookie.full = new MagnetarError('DISK_FULL', 'the disk of b0 is full');
  expect(await health()).toEqual([503, expect.stringContaining('the disk of b0 is full')]);
  bookie.full = undefined;
  expect(await health()).toEqual([200, 'ok']);
  await app.close();
  await close();
});

test('a list of 10,000 topics comes whole, and holds nobody up for long', async () => {
  const { administration, close, store } = await open();
  const app = fastify();
  await app.register(adminPlugin({ administration, logger: silentLogger, version: '1', isoTime: String }));
  for (let i = 0; i < 10_000; i++) {
    await store.transact(
      [],
      [{ put: keys.topic('public', 'default', `topic-${10_000 + i}`), value: Buffer.from('x') }],
    );
  }
  await app.ready();
  let turns = 0;
  let over = false;
  const count = (): void => {
    turns++;
    if (!over) setImmediate(count);
  };
  setImmediate(count);
  const { body } = await app.inject('/admin/v2/persistent/public/default');
  over = true;
  const names = JSON.parse(body) as string[];
  expect(names).toHaveLength(10_000);
  expect([names[0], names[9_999]]).toEqual([
    'persistent://public/default/topic-10000',
    'persistent://public/default/topic-19999',
  ]);
  // A page of 500 is one piece of work; between two of them others have their turn.
  expect(turns).toBeGreaterThanOrEqual(10);
  await app.close();
  await close();
});

/** The status of a request whose path goes out as it is written; `fetch` would take the dots for steps. */
async function statusOf(port: number, method: string, path: string): Promise<number> {
  return await new Promise((resolve, reject) => {
    const call = request({ host: '127.0.0.1', port, method, path, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    call.once('error', reject).end();
  });
}

test('"." and ".." are names of nothing, however they are written', async () => {
  const { administration, close } = await open();
  const app = fastify();
  await app.register(adminPlugin({ administration, logger: silentLogger, version: '1', isoTime: String }));
  await app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = app.server.address() as AddressInfo;
  try {
    const info = { adminRoles: [], allowedClusters: ['standalone'] };
    await administration.createTenant('v', info);
    await administration.createTopic('persistent://public/default/t');
    const found: [string, number][] = [];
    for (const dots of ['.', '..', '%2e', '%2e%2e', '.%2E']) {
      const name = decodeURIComponent(dots);
      for (const [method, path] of [
        ['GET', `tenants/${dots}`],
        ['DELETE', `tenants/${dots}?force=true`],
        ['GET', `namespaces/${dots}`],
        ['PUT', `namespaces/${dots}/n`],
        ['PUT', `namespaces/v/${dots}`],
        ['DELETE', `namespaces/v/${dots}?force=true`],
        ['GET', `persistent/v/${dots}`],
        ['PUT', `persistent/${dots}/default/t`],
        ['DELETE', `persistent/${dots}/tenants/v?force=true`],
        ['PUT', `persistent/public/${dots}/t`],
        ['PUT', `persistent/public/default/${dots}`],
        ['GET', `persistent/public/default/${dots}/stats`],
        ['PUT', `persistent/public/default/t/subscription/${dots}`],
      ] as const) {
        found.push([`${method} ${path}`, await statusOf(port, method, `/admin/v2/${path}`)]);
      }
      await expect(administration.createTenant(name, info)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    expect(found.filter(([, status]) => status !== 412)).toEqual([]);
    expect(await administration.tenant('v')).toEqual(info);
  } finally {
    await app.close();
    await close();
  }
});
