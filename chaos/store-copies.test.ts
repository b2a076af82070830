/** Three copies in one process: what each bookie holds, and what happens when one of their folders is damaged, gone or mixed up. */
import { cp, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Client } from '../services/client/index.ts';
import { ALL_RIGHT, RIGHT } from './support/all-right.ts';
import { afterDamage, changeFile, flipText, lostOf, makeData, segmentsOf, textOf, TOPICS } from './support/damage.ts';
import { afterDamageHere } from './support/damage-matrix.ts';
import { freePort } from './support/ports.ts';
import { runCommand, startBookie, startStandalone, temporaryFolder } from './support/process.ts';

const NUMBERS = [0, 1, 2] as const;

let stopped: string;
let killed: string;
beforeAll(async () => {
  const args = ['--bookies', '3'];
  [stopped, killed] = [await makeData('stop', args), await makeData('kill', args)];
});
afterAll(async () => {
  for (const folder of [stopped, killed]) await rm(folder, { recursive: true, force: true });
});

function bookie(data: string, number: number): string {
  return path.join(data, `bookie-${number}`);
}

async function logOf(folder: string): Promise<Buffer> {
  const segments = await segmentsOf(folder);
  return Buffer.concat(await Promise.all(segments.map(async (file) => await readFile(file))));
}

test('every message is on three disks', async () => {
  for (const number of NUMBERS) {
    const log = await logOf(bookie(killed, number));
    for (const topic of TOPICS) {
      for (const n of [0, 299, 599]) expect(log.includes(textOf(topic, n))).toBe(true);
    }
  }
  expect(await afterDamage(killed, async () => {})).toMatchObject(ALL_RIGHT);
});

/** Another message is damaged in each copy. */
async function flipInEach(copy: string): Promise<void> {
  for (const number of NUMBERS) await flipText(bookie(copy, number), textOf('first', 100 * (number + 1)));
}

describe('damage in the copies of one bookie is made good by the others', () => {
  test.each(NUMBERS)('bookie %d: messages, and everything that can be', async (number) => {
    for (const [data, look] of [
      [stopped, afterDamage],
      [killed, afterDamageHere],
    ] as const) {
      const flipped = async (copy: string): Promise<void> => {
        for (const topic of TOPICS) await flipText(bookie(copy, number), textOf(topic, 300));
      };
      expect(await look(data, flipped)).toMatchObject(ALL_RIGHT);
      const spoiled = async (copy: string): Promise<void> => {
        for (const segment of await segmentsOf(bookie(copy, number))) {
          await changeFile(segment, (bytes) => {
            for (let at = 12_288; at < bytes.length; at += 1_000) bytes[at] = (bytes[at] ?? 0) ^ 1;
            return undefined;
          });
        }
      };
      expect(await look(data, spoiled)).toMatchObject(ALL_RIGHT);
    }
  });

  test('different damage in each: they are whole together, and the topic goes on', async () => {
    expect(await afterDamage(stopped, flipInEach)).toMatchObject(ALL_RIGHT);
    const report = await afterDamage(killed, flipInEach);
    expect(lostOf(report, 'first')).toEqual([]);
    expect(report).toMatchObject({ kind: 'running', topics: { first: { written: 'right' }, second: RIGHT } });
  });
});

describe('a folder that is not the bookie’s own', () => {
  test.each(NUMBERS)('bookie %d gone: the start is refused, and nothing is made in its place', async (number) => {
    for (const data of [stopped, killed]) {
      const report = await afterDamage(data, async (copy) => await rm(bookie(copy, number), { recursive: true }));
      expect(report).toEqual({ kind: 'refused', line: expect.stringMatching(`local-${number}`) as string });
    }
  });

  test.each(NUMBERS)('bookie %d emptied: the start is refused', async (number) => {
    const report = await afterDamage(killed, async (copy) => {
      for (const name of ['cookie', 'witness', 'segments', 'index']) {
        await rm(path.join(bookie(copy, number), name), { recursive: true });
      }
    });
    expect(report).toEqual({ kind: 'refused', line: expect.stringMatching(`local-${number}`) as string });
  });

  test('cookies that were swapped, or folders: the start is refused, naming both', async () => {
    for (const name of ['cookie', '']) {
      const report = await afterDamage(stopped, async (copy) => {
        const [a, b] = [path.join(bookie(copy, 0), name), path.join(bookie(copy, 1), name)];
        await rename(a, path.join(copy, 'aside'));
        await rename(b, a);
        await rename(path.join(copy, 'aside'), b);
      });
      const line = expect.stringMatching(/bookie-0 belongs to bookie "local-1", not to "local-0"/) as string;
      expect(report).toEqual({ kind: 'refused', line });
    }
  });

  test('a copy of another bookie’s folder: the start is refused', async () => {
    const report = await afterDamage(stopped, async (copy) => {
      await rm(bookie(copy, 2), { recursive: true });
      await cp(bookie(copy, 1), bookie(copy, 2), { recursive: true });
    });
    expect(report).toMatchObject({ kind: 'refused' });
  });

  test('a bookie in a process of its own does not take the folder of another', async () => {
    const data = await temporaryFolder();
    try {
      const first = await startBookie({ data });
      await first.stop();
      const port = await freePort();
      const { code, stderr } = await runCommand(['bookie', '--data', data, '--port', `${port}`]);
      expect(code).toBe(1);
      expect(stderr).toContain(`belongs to bookie "127.0.0.1:${first.port}", not to "127.0.0.1:${port}"`);
    } finally {
      await rm(data, { recursive: true, force: true });
    }
  });
});

test('more bookies can be added to a folder: old messages stay readable, new ones get more copies', async () => {
  const data = await temporaryFolder();
  try {
    for (const [round, bookies] of [1, 3].entries()) {
      await using server = await startStandalone({ data, args: ['--bookies', `${bookies}`] });
      await using client = new Client({ serviceUrl: server.serviceUrl });
      await using producer = await client.createProducer({ topic: 't' });
      await producer.send({ data: `message of round ${round}` });
      await using reader = await client.createReader({ topic: 't', startPosition: 'earliest' });
      for (let n = 0; n <= round; n++) expect((await reader.readNext()).data.toString()).toBe(`message of round ${n}`);
      await reader.close();
      await server.stop();
    }
    const logs = await Promise.all(NUMBERS.map(async (number) => await logOf(bookie(data, number))));
    const copies = (text: string): number => logs.filter((log) => log.includes(text)).length;
    expect([copies('message of round 0'), copies('message of round 1')]).toEqual([1, 3]);
  } finally {
    await rm(data, { recursive: true, force: true });
  }
});
