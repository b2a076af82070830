/** Data folders of every version that this program has to read: fixtures, made by the programs of their time. */
import { execFile } from 'node:child_process';
import { readdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { Client, MessageId } from '../services/client/index.ts';
import { contentOf, type Fixture } from './support/fixture.ts';
import { startStandalone, temporaryFolder } from './support/process.ts';

const execute = promisify(execFile);
const FOLDER = path.join('chaos', 'fixtures');

interface Unpacked extends AsyncDisposable {
  readonly data: string;
  readonly content: Fixture;
}

/** A copy of a fixture's folder that may be written to, and what is in it. */
async function unpack(version: number): Promise<Unpacked> {
  const folder = await temporaryFolder();
  await execute('tar', ['xzf', path.join(FOLDER, `data-v${version}.tar.gz`), '-C', folder]);
  return {
    data: path.join(folder, 'data'),
    content: JSON.parse(await readFile(path.join(folder, 'content.json'), 'utf8')) as Fixture,
    [Symbol.asyncDispose]: async () => await rm(folder, { recursive: true, force: true }),
  };
}

test('there is a fixture of the version that this program writes', async () => {
  await using server = await startStandalone();
  const version = (await readFile(path.join(server.data, 'VERSION'), 'utf8')).trim().split(' ').at(-1);
  expect(await readdir(FOLDER)).toContain(`data-v${version}.tar.gz`);
});

describe.each([1])('a data folder of version %d', (version) => {
  test('is served as it was, with the index of the bookie or without it, and over restarts', async () => {
    await using fixture = await unpack(version);
    const { data, content } = fixture;
    const names = Object.fromEntries(content.topics.map((one) => [one.topic, Object.keys(one.subscriptions)]));
    expect(content.topics.reduce((sum, { messages }) => sum + messages.length, 0)).toBe(810);
    await using server = await startStandalone({ data });
    for (const how of ['kill', 'stop', undefined] as const) {
      await using client = new Client({ serviceUrl: server.serviceUrl });
      expect(await contentOf(client, names)).toEqual(content);
      if (how === undefined) break;
      await server[how]();
      await rm(path.join(data, 'bookie-0', 'index'), { recursive: true });
      await server.start();
    }
  });

  test('knows places, times and what was sent before, and goes on', async () => {
    await using fixture = await unpack(version);
    await using server = await startStandalone({ data: fixture.data });
    await using client = new Client({ serviceUrl: server.serviceUrl });
    for (const { topic, messages } of fixture.content.topics) {
      for (const at of [0, Math.floor(messages.length / 2), messages.length - 1]) {
        const { id = '', index = -1, appendTime = 0 } = messages[at] ?? {};
        await using byId = await client.createReader({ topic, startPosition: MessageId.parse(id) });
        expect((await byId.readNext()).index).toBe(index);
        await using byTime = await client.createReader({ topic, startPosition: new Date(appendTime) });
        expect((await byTime.readNext()).appendTime).toBe(appendTime);
      }
      const { producerName = '', sequenceId = '' } = messages.at(-1) ?? {};
      await using producer = await client.createProducer({ topic, producerName });
      expect(producer.lastSequenceId).toBe(BigInt(sequenceId));
      await producer.send({ data: 'again', sequenceId: BigInt(sequenceId) });
      expect((await producer.send({ data: 'new' })).index).toBe(messages.length);
    }
  });
});
