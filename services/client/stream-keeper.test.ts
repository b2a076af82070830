import { expect, test } from 'vitest';
import type { Logger } from '../runtime/logger.ts';
import { Client } from './client.ts';
import { FakeBroker } from './testing/fake-broker.ts';
import { endOf } from './testing/steps.ts';

test('the logger is told of a lost stream and of a regained one, once each', async () => {
  const broker = await new FakeBroker().listen();
  const told: string[] = [];
  const note = (message: string): number => told.push(message);
  const logger: Logger = { debug: note, info: note, warn: note, error: note, child: () => logger };
  const client = new Client({ serviceUrl: broker.url, logger });
  const producer = await client.createProducer({ topic: 't' });
  broker.crash();
  const sent = producer.send({ data: 'a' });
  await broker.listen();
  await sent;
  await client.close();
  expect(told.filter((message) => message !== 'no stream')).toEqual(['stream lost', 'stream regained']);
  broker.crash();
  broker.checkClean();
});

/** Nothing of this process runs. */
function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

test('a process that stands still while it opens a reader reads the answers first that came meanwhile', async () => {
  const broker = await new FakeBroker().listen();
  let standstills = 0;
  broker.hooks.greet = () => {
    standStill(3_000);
    standstills++;
    return true;
  };
  const client = new Client({ serviceUrl: broker.url, operationTimeoutMs: 1_500 });
  const reader = await client.createReader({ topic: 't' });
  expect(standstills).toBe(1);
  await reader.close();
  await endOf(client, broker);
});
