/** What a server costs: the time to its start; and after a load, when it has nothing to do, memory and CPU. Of the built program. */
import { readdir, readFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Client } from '../services/client/index.ts';
import { type ServerProcess, startStandalone } from './support/process.ts';
import { memoryOf } from './support/well-behaved.ts';

const MESSAGES = 600_000;
const WINDOW = 5_000;
const DATA: Buffer = Buffer.alloc(128, 1);
/**
 * After millions of messages and half a minute a server is to have 130 MB. Here it has had less to do and less time to tidy
 * up; what holds on to what it was sent has 30 MB more.
 */
const MOST_MEGABYTES = 145;
/** An idle server takes 0.05 % of a core. */
const MOST_SHARE = 0.01;
const MEASURED_MS = 5_000;

let server: ServerProcess;
let client: Client;
beforeEach(async () => {
  server = await startStandalone();
  client = new Client({ serviceUrl: server.serviceUrl });
});
afterEach(async () => {
  await client?.close();
  await server?.[Symbol.asyncDispose]();
});

async function publish(topic: string, messages: number): Promise<void> {
  await using producer = await client.createProducer({ topic });
  for (let sent = 0; sent < messages; sent += WINDOW) {
    await Promise.all(Array.from({ length: WINDOW }, async () => await producer.send({ data: DATA })));
  }
}

/** Nanoseconds that all threads of the server have been running. */
async function cpuNanoseconds(): Promise<number> {
  const tasks = `/proc/${server.pid}/task`;
  const all = (await readdir(tasks)).map(async (task) => await readFile(`${tasks}/${task}/schedstat`, 'utf8'));
  return (await Promise.all(all)).reduce((sum, text) => sum + Number(text.split(' ', 1)[0]), 0);
}

/** The share of one core that the server takes while something goes on. */
async function cpuShare(something: Promise<unknown>): Promise<number> {
  const [before, from] = [await cpuNanoseconds(), performance.now()];
  await something;
  return ((await cpuNanoseconds()) - before) / 1_000_000 / (performance.now() - from);
}

async function rest(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

test('a server is ready soon', () => {
  expect(server.readyMs).toBeLessThan(1_500);
});

describe('after a load', () => {
  test('a server whose consumers keep up is small, and does next to nothing', async () => {
    await using consumer = await client.subscribe({ topic: 'idle', subscription: 's' });
    const publishing = publish('idle', MESSAGES);
    for (let i = 0; i < MESSAGES; i++) void consumer.acknowledge(await consumer.receive());
    await publishing;
    expect((await memoryOf(server)).now).toBeLessThan(MOST_MEGABYTES);
    await rest(1_000);
    expect(await cpuShare(rest(MEASURED_MS))).toBeLessThan(MOST_SHARE);
  });

  test('sabotage: what is held for a consumer that stands still is noticed, and so is work', async () => {
    await using consumer = await client.subscribe({ topic: 'still', subscription: 's', receiverQueueSize: 1_000 });
    await publish('still', 400_000); // less than the cache may hold: it waits for its consumer
    expect((await memoryOf(server)).now).toBeGreaterThan(MOST_MEGABYTES);
    expect((await consumer.receive()).index).toBe(0);
    const probes = async (): Promise<void> => {
      for (const end = performance.now() + 1_000; performance.now() < end; ) await fetch(`${server.adminUrl}/healthz`);
    };
    expect(await cpuShare(probes())).toBeGreaterThan(MOST_SHARE);
  });
});
