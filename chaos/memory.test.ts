/** Clients that stand still: what they cost is bounded, others get on, and all of it is given back. */
import { afterEach, describe, expect, test } from 'vitest';
import { Client } from '../services/client/index.ts';
import { fill, growth, idleGrowth, LARGE_BYTES, MOST_MEGABYTES, StillClients, usedMemory } from './support/memory.ts';
import { type ServerProcess, startStandalone } from './support/process.ts';

/** So much that no limit is left. */
const UNBOUNDED = ['--memory-budget-mib', '65536'];

let server: ServerProcess;
let client: Client;

async function start(args: readonly string[] = []): Promise<void> {
  server = await startStandalone({ args });
  client = new Client({ serviceUrl: server.serviceUrl });
}

afterEach(async () => {
  await client?.close();
  await server?.[Symbol.asyncDispose]();
});

/** Nothing but what the cache holds for a while is in use once everybody has gone. */
async function allIsGivenBack(): Promise<void> {
  const left = async (): Promise<number> => {
    const uses = Object.entries(await usedMemory(server));
    return uses.reduce((sum, [use, bytes]) => (use === 'cache' ? sum : sum + bytes), 0);
  };
  await expect.poll(left, { timeout: 10_000 }).toBe(0);
  expect(Object.keys(await usedMemory(server))).toContain('firstRead');
}

const LARGE = 30;
const READERS = 100;

/** How much a server needs for readers of large messages that read nothing, while somebody else reads. */
async function deaf(): Promise<number> {
  await fill(client, 'large', LARGE, LARGE_BYTES);
  await using reader = await client.createReader({ topic: 'large', startPosition: 'earliest' });
  expect((await reader.readNext()).index).toBe(0);
  return await growth(server, async () => {
    await using _ = await StillClients.deaf(server.port, READERS, 'large');
    for (let index = 1; index < LARGE; index++) expect((await reader.readNext()).index).toBe(index);
  });
}

/** How much a server needs for clients that send half a frame, while others send large messages. */
async function halfFrames(): Promise<number> {
  await fill(client, 'large', 1, LARGE_BYTES);
  return await growth(server, async () => {
    await using _ = await StillClients.halfFrames(server.port, 120, LARGE_BYTES, 4_000_000);
    await Promise.all([0, 1, 2, 3].map(async (n) => await fill(client, `large-${n}`, 4, LARGE_BYTES)));
  });
}

describe.each([
  ['readers that read nothing, while another one gets everything', deaf],
  ['producers that stop in the middle of a frame, while others publish large messages', halfFrames],
])('%s', (_, needed) => {
  test('memory is bounded, and all is given back', async () => {
    await start();
    expect(await needed()).toBeLessThan(MOST_MEGABYTES);
    await client.close();
    await allIsGivenBack();
  });

  test('sabotage: without a bound they need more', async () => {
    await start(UNBOUNDED);
    expect(await needed()).toBeGreaterThan(MOST_MEGABYTES);
  });
});

const IDLE = 300;
const EACH_MEGABYTES = 0.06;

test('idle connections with a producer and a consumer take 60 KB each, also on a server that has just started', async () => {
  await start();
  const enough = IDLE * EACH_MEGABYTES;
  expect(await idleGrowth(server, IDLE, enough)).toBeLessThanOrEqual(enough);
});
