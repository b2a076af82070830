/** A topic is deleted while the server is killed: afterwards it is there as it was, or it is gone as if it had never been. */
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { HttpResponse } from '../services/cli/http.ts';
import { Client } from '../services/client/index.ts';
import { nodeHttp } from '../services/main/node-http.ts';
import { startStandalone } from './support/process.ts';

const MESSAGES = 200;

async function ask(method: 'GET' | 'DELETE', url: string): Promise<HttpResponse> {
  return await nodeHttp({ method, url, body: undefined, timeoutMs: 20_000 });
}

async function names(url: string): Promise<string[]> {
  return JSON.parse((await ask('GET', url)).body.toString()) as string[];
}

async function texts(client: Client, topic: string): Promise<string[]> {
  const reader = await client.createReader({ topic, startPosition: 'earliest' });
  const found: string[] = [];
  for await (const message of reader.messages({ untilEnd: true })) found.push(message.data.toString());
  await reader.close();
  return found;
}

test('kill -9 during a deletion leaves no half of a topic, and one that was answered stays deleted', async () => {
  await using server = await startStandalone();
  await using client = new Client({ serviceUrl: server.serviceUrl });
  const outcomes: string[] = [];
  for (const killAfterMs of [0, 1, 2, 4, 'the answer'] as const) {
    const topic = `t${outcomes.length}`;
    const producer = await client.createProducer({ topic });
    const sent = Array.from({ length: MESSAGES }, (_, i) => `m${i}`);
    await Promise.all(sent.map((data) => producer.send({ data })));
    const consumer = await client.subscribe({ topic, subscription: 's', startPosition: 'earliest' });
    await consumer.acknowledge(await consumer.receive({ timeoutMs: 10_000 }));
    await Promise.all([producer.close(), consumer.close()]);

    const url = `${server.adminUrl}/admin/v2/persistent/public/default/${topic}`;
    const answered = ask('DELETE', url).then(
      ({ status }) => status,
      () => 0, // the server died first
    );
    if (killAfterMs === 'the answer') await answered;
    else await delay(killAfterMs);
    await server.kill();
    const status = await answered;
    await server.start();

    const listed = await names(`${server.adminUrl}/admin/v2/persistent/public/default`);
    const there = listed.includes(`persistent://public/default/${topic}`);
    const found = await texts(client, topic);
    const known = await names(`${url}/subscriptions`);
    expect({ found, known }).toEqual(there ? { found: sent, known: ['s'] } : { found: [], known: [] });
    outcomes.push(`${status === 204 ? 'answered' : 'not answered'}, ${there ? 'there' : 'gone'}`);
  }
  expect(outcomes).not.toContain('answered, there');
  expect(outcomes.at(-1)).toBe('answered, gone');
});
