import { PassThrough, Readable } from 'node:stream';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeBroker } from '../client/testing/fake-broker.ts';
import { newClient } from './connect.ts';
import { printMessages } from './print-messages.ts';
import type { Shell } from './shell.ts';
import { shellWith } from './testing/shell.ts';

let broker: FakeBroker;
let stderr: PassThrough;
let shell: Shell;

beforeEach(async () => {
  broker = await new FakeBroker().listen();
  stderr = new PassThrough();
  shell = { ...shellWith(Readable.from([]), new PassThrough()), stderr };
});

afterEach(() => {
  broker.crash();
  broker.checkClean();
});

/** What stderr is told from now on, up to this many lines. */
async function lines(count: number): Promise<string[]> {
  let text = '';
  while (text.split('\n').length <= count) {
    const more = stderr.read() as Buffer | null;
    if (more === null) await new Promise((resolve) => stderr.once('readable', resolve));
    else text += String(more);
  }
  return text.trimEnd().split('\n');
}

function lost(url: string): unknown {
  return expect.stringMatching(new RegExp(`^lost the broker at ${url}: (?!.*is it running).+; trying again$`));
}

test('a lost connection is told once, and that it is back, whatever streams and tries there are', async () => {
  const client = newClient(shell, broker.url);
  const producer = await client.createProducer({ topic: 't' });
  const consumer = await client.subscribe({ topic: 't', subscription: 's' });
  for (const round of [1, 2]) {
    broker.crash();
    expect(await lines(1), `round ${round}`).toEqual([lost(broker.url)]);
    await new Promise((resolve) => setTimeout(resolve, 700)); // tries fail meanwhile
    await broker.listen();
    await producer.send({ data: 'a' });
    await consumer.receive();
    expect(await lines(1), `round ${round}`).toEqual([`connected to ${broker.url} again`]);
  }
  await client.close();
  expect(stderr.read()).toBe(null);
});

test('a command says nothing at its normal end', async () => {
  await (await newClient(shell, broker.url).createProducer({ topic: 't' })).send({ data: 'a' });
  const run = printMessages(shell, {
    serviceUrl: broker.url,
    topic: 't',
    from: { type: 'earliest' },
    count: 1,
    output: 'text',
  });
  expect(await run).toBe(0);
  expect(stderr.read()).toBe(null);
});

test('who has not reached the broker yet is told by the error alone', async () => {
  broker.crash();
  const client = newClient(shell, broker.url);
  const opening = client.createProducer({ topic: 't' });
  setTimeout(() => void client.close(), 300);
  await expect(opening).rejects.toMatchObject({ name: 'MagnetarError' });
  expect(stderr.read()).toBe(null);
});
