import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openBookie } from '../bookie/bookie.ts';
import { addBookieService } from '../bookie/server/server.ts';
import type { Environment } from '../runtime/environment.ts';
import { Lifecycle } from '../runtime/lifecycle.ts';
import { silentLogger } from '../runtime/logger.ts';
import { memoryBudget } from '../runtime/memory.ts';
import { nodeClock } from '../runtime/node/clock.ts';
import { nodeDisk } from '../runtime/node/disk.ts';
import { nodeRandom } from '../runtime/node/random.ts';
import { HOST, openGrpcServer } from './grpc-server.ts';
import { openStandalone } from './open-standalone.ts';
import type { RoleContext } from './role-context.ts';

const BUDGET = 67_108_864;
const environment: Environment = {
  clock: nodeClock,
  random: nodeRandom,
  disk: nodeDisk,
  logger: silentLogger,
  fatal(error) {
    throw error;
  },
};

let parent = '';
let lifecycles: Lifecycle[] = [];

beforeEach(async () => {
  parent = await mkdtemp(path.join(tmpdir(), 'magnetar-ready-'));
});

afterEach(async () => {
  for (const lifecycle of lifecycles.toReversed()) await lifecycle.close({ deadlineMs: 10_000 });
  lifecycles = [];
  await rm(parent, { recursive: true, force: true });
});

function context(): RoleContext {
  const lifecycle = new Lifecycle(environment);
  lifecycles.push(lifecycle);
  return { environment, lifecycle };
}

/** A bookie behind a port; tells which one. */
async function startBookie(own: RoleContext, port: number): Promise<number> {
  const memory = memoryBudget(BUDGET);
  const bookie = await openBookie({ environment, folder: path.join(parent, 'bookie'), id: 'b' });
  own.lifecycle.add('bookie', async () => await bookie.close());
  const grpc = openGrpcServer(own, 'bookie', memory);
  addBookieService(grpc.server, bookie, { environment, serverName: 'test', memory });
  return await grpc.bind(port);
}

test('/readyz follows whether a bookie elsewhere can be written to', async () => {
  const first = context();
  const port = await startBookie(first, 0);
  await first.lifecycle.close({ deadlineMs: 10_000 });

  const { httpPort } = await openStandalone(context(), {
    data: path.join(parent, 'data'),
    bookies: undefined,
    remoteBookies: [`${HOST}:${port}`],
    port: 0,
    httpPort: 0,
    memoryBudgetBytes: BUDGET,
    version: '1.2.3',
  });
  const ready = async (): Promise<unknown[]> => {
    const response = await fetch(`http://${HOST}:${httpPort}/readyz`);
    return [response.status, await response.json()];
  };
  const status = expect.stringMatching(/^not ready: nothing can be stored: 0 of 1 bookies are available/) as string;
  expect(await ready()).toEqual([503, { status }]);

  const second = context();
  await startBookie(second, port);
  await expect.poll(ready, { timeout: 10_000 }).toEqual([200, { status: 'ready' }]);
  await second.lifecycle.close({ deadlineMs: 10_000 });
  await expect.poll(ready, { timeout: 10_000 }).toEqual([503, { status }]);
});
