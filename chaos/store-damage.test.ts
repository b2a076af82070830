/**
 * A data folder that was damaged between two runs. Never a wrong byte, never a silent loss: everything is served as it
 * was, or a line says what cannot be.
 */
import { cp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { seededRandom } from '../services/runtime/testing/seeded-random.ts';
import { ALL_RIGHT, RIGHT } from './support/all-right.ts';
import {
  afterDamage,
  changeFile,
  endOf,
  flipText,
  makeData,
  type Report,
  segmentsOf,
  textOf,
} from './support/damage.ts';
import { afterDamageHere } from './support/damage-matrix.ts';
import { runCommand, startStandalone, temporaryFolder } from './support/process.ts';

let stopped: string;
let killed: string;
beforeAll(async () => {
  [stopped, killed] = [await makeData('stop'), await makeData('kill')];
});
afterAll(async () => {
  for (const folder of [stopped, killed]) await rm(folder, { recursive: true, force: true });
});

/** What could not be told, for a report that must not be all right. */
function errors(report: Report): string[] {
  if (report.kind === 'refused') return [report.line];
  return Object.values(report.topics)
    .flatMap(({ read, consumed }) => [read, consumed])
    .map((outcome) => (outcome.kind === 'right' ? 'right' : `${outcome.kind} ${outcome.message}`));
}

function bookie(data: string): string {
  return path.join(data, 'bookie-0');
}

function witness(data: string): string {
  return path.join(bookie(data), 'witness');
}

test('without damage everything is served', async () => {
  for (const data of [stopped, killed]) expect(await afterDamage(data, async () => {})).toMatchObject(ALL_RIGHT);
});

describe('the index of a bookie', () => {
  test('is built anew when it is missing', async () => {
    for (const data of [stopped, killed]) {
      const report = await afterDamage(data, async (copy) => {
        await rm(path.join(bookie(copy), 'index'), { recursive: true });
      });
      expect(report).toMatchObject(ALL_RIGHT);
    }
  });

  test('is built anew when any file of it is damaged or missing', async () => {
    for (const name of await readdir(path.join(bookie(stopped), 'index'))) {
      const file = (copy: string): string => path.join(bookie(copy), 'index', name);
      const flip = async (copy: string): Promise<void> => {
        await changeFile(file(copy), (bytes) => {
          for (let at = 0; at < bytes.length; at += 7) bytes[at] = (bytes[at] ?? 0) ^ 1;
          return undefined;
        });
      };
      const remove = async (copy: string): Promise<void> => await rm(file(copy));
      for (const damage of [flip, remove]) {
        expect([name, await afterDamageHere(stopped, damage)]).toEqual([name, expect.objectContaining(ALL_RIGHT)]);
      }
    }
  });
});

describe('a segment', () => {
  test.each([['stopped'], ['killed']])(
    'with a flipped bit in a message: its batch is lost, and nothing else; the topic goes on (%s)',
    async (how) => {
      const data = how === 'stopped' ? stopped : killed;
      const report = await afterDamage(data, async (copy) => await flipText(bookie(copy), textOf('first', 250)));
      const outcome = {
        kind: 'damaged',
        lost: ['240-259'],
        again: 0,
        message: expect.stringMatching(
          /^messages 240 to 259 of .*\/first are lost: entry \d+ of ledger \d+: /,
        ) as string,
      };
      const first = { read: outcome, consumed: outcome, written: 'right' };
      expect(report).toMatchObject({ kind: 'running', topics: { first, second: RIGHT } });
    },
  );

  test('with a flipped bit in a message: consume and read print the rest and a line, end with 1, and --ack-lost ends it', async () => {
    const copy = await temporaryFolder();
    try {
      await cp(stopped, copy, { recursive: true });
      await flipText(bookie(copy), textOf('first', 250));
      await using server = await startStandalone({ data: copy });
      const run = async (...args: string[]): Promise<[number, number, string]> => {
        const url = ['--service-url', server.serviceUrl];
        const { code, stdout, stderr } = await runCommand([...args, '--exit-at-end', ...url]);
        return [code, stdout.toString().split('\n').length - 1, stderr];
      };
      const line = expect.stringMatching(/^magnetar: messages 240 to 259 of \S+\/first are lost: [^\n]+\n$/) as string;
      expect(await run('read', 'first')).toEqual([1, 580, line]);
      const consume = ['consume', 'first', '-s', 'new', '--from', 'earliest'];
      expect(await run(...consume)).toEqual([1, 580, line]);
      expect(await run(...consume)).toEqual([1, 0, line]);
      expect(await run(...consume, '--ack-lost')).toEqual([0, 0, line]);
      expect(await run(...consume)).toEqual([0, 0, '']);
    } finally {
      await rm(copy, { recursive: true, force: true, maxRetries: 3 });
    }
  });

  test('with a damaged footer is read without it', async () => {
    const report = await afterDamage(stopped, async (copy) => {
      const [segment = ''] = await segmentsOf(bookie(copy));
      await changeFile(segment, (bytes) => {
        bytes[bytes.length - 200] = (bytes[bytes.length - 200] ?? 0) ^ 1;
        return undefined;
      });
      await rm(path.join(bookie(copy), 'index'), { recursive: true });
    });
    expect(report).toMatchObject(ALL_RIGHT);
  });

  test.each([['stopped'], ['killed']])('that is cut short in committed data: that is said (%s)', async (how) => {
    const data = how === 'stopped' ? stopped : killed;
    const report = await afterDamage(data, async (copy) => {
      const [segment = ''] = await segmentsOf(bookie(copy));
      await truncate(segment, 100_000);
    });
    expect(errors(report)).not.toContain('right');
  });

  test.each([['stopped'], ['killed']])('that is missing, empty, or another one: that is said (%s)', async (how) => {
    const data = how === 'stopped' ? stopped : killed;
    const damages: ((segment: string) => Promise<void>)[] = [
      async (segment) => await rm(segment),
      async (segment) => await truncate(segment, 0),
      async (segment) => await changeFile(segment, (bytes) => bytes.fill(7)),
    ];
    for (const damage of damages) {
      const report = await afterDamage(data, async (copy) => await damage((await segmentsOf(bookie(copy)))[0] ?? ''));
      expect(errors(report)).not.toContain('right');
    }
  });

  test('without its first pages is read by what the witness knows of it', async () => {
    for (const data of [stopped, killed]) {
      const report = await afterDamage(data, async (copy) => {
        await changeFile((await segmentsOf(bookie(copy)))[0] ?? '', (bytes) => bytes.fill(0, 0, 12_288));
      });
      expect(report).toEqual(ALL_RIGHT);
    }
  });

  test('with more zeros behind its end, or without them, is as it was', async () => {
    for (const more of [0, 4_096, 20_000_000]) {
      const report = await afterDamage(killed, async (copy) => {
        const [segment = ''] = await segmentsOf(bookie(copy));
        await truncate(segment, endOf(await readFile(segment)) + more);
      });
      expect(report).toMatchObject(ALL_RIGHT);
    }
  });
});

describe('the witness of a bookie', () => {
  test('is made anew when it is missing or damaged', async () => {
    for (const data of [stopped, killed]) {
      expect(await afterDamage(data, async (copy) => await rm(witness(copy)))).toEqual(ALL_RIGHT);
      const report = await afterDamage(data, async (copy) => await changeFile(witness(copy), (bytes) => bytes.fill(0)));
      expect(report).toEqual(ALL_RIGHT);
    }
  });
});

describe('what identifies a folder', () => {
  test.each([
    ['VERSION missing', async (copy: string) => await rm(path.join(copy, 'VERSION')), /VERSION/],
    ['VERSION empty', async (copy: string) => await writeFile(path.join(copy, 'VERSION'), ''), /VERSION/],
    [
      'the cookie missing',
      async (copy: string) => await rm(path.join(bookie(copy), 'cookie')),
      /bookie-0\/cookie is missing/,
    ],
    [
      'the cookie damaged',
      async (copy: string) => await changeFile(path.join(bookie(copy), 'cookie'), (bytes) => bytes.fill(0, 15, 16)),
      /bookie-0\/cookie is damaged/,
    ],
  ])('%s: the start is refused', async (_, damage, line) => {
    const report = await afterDamage(stopped, damage);
    expect(report).toEqual({ kind: 'refused', line: expect.stringMatching(line) as string });
  });
});

describe('the metadata', () => {
  test.each(['metadata', 'metadata/level', 'metadata/witness'])('%s missing: the start is refused', async (name) => {
    const report = await afterDamage(stopped, async (copy) => await rm(path.join(copy, name), { recursive: true }));
    expect(report).toMatchObject({ kind: 'refused' });
    expect(errors(report)[0]).toMatch(/metadata/);
  });

  test.each([['stopped'], ['killed']])('with a damaged file: served as it was, or refused (%s)', async (how) => {
    const data = how === 'stopped' ? stopped : killed;
    const seen = new Set<string>();
    for (const name of await readdir(path.join(data, 'metadata/level'))) {
      for (const part of [0.2, 0.7]) {
        const look = part < 0.5 ? afterDamage : afterDamageHere;
        const report = await look(data, async (copy) => {
          await changeFile(path.join(copy, 'metadata/level', name), (bytes) => {
            const at = Math.floor(bytes.length * part);
            bytes[at] = (bytes[at] ?? 0) ^ 16;
            return undefined;
          });
        });
        seen.add(report.kind);
        const line = errors(report)[0] ?? '';
        expect([name, part, line]).toEqual([name, part, expect.stringMatching(/^right$|metadata/)]);
      }
    }
    expect(seen.has('refused')).toBe(true);
  });
});

test('a bit flipped anywhere in a segment: never a wrong byte, never a silent loss', async () => {
  const random = seededRandom(4_711);
  const kinds = new Map<string, number>();
  for (let round = 0; round < 16; round++) {
    const data = round % 2 === 0 ? stopped : killed;
    const look = round < 4 ? afterDamage : afterDamageHere;
    const report = await look(data, async (copy) => {
      const [segment = ''] = await segmentsOf(bookie(copy));
      await changeFile(segment, (bytes) => {
        const used = Math.min(bytes.length, 400_000);
        const at = Math.floor(random.next() * used);
        bytes[at] = (bytes[at] ?? 0) ^ (1 << Math.floor(random.next() * 8));
        return undefined;
      });
    });
    for (const line of errors(report)) {
      const kind = line === 'right' ? 'right' : 'error';
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    }
  }
  expect([...kinds.keys()].toSorted()).toEqual(['error', 'right']);
});
