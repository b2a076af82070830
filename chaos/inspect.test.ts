/** `magnetar inspect` on folders that are whole, damaged in every way, in use, or no folders of Magnetar at all. */
import { createHash } from 'node:crypto';
import { cp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { changeFile, flipText, makeData, segmentsOf, textOf } from './support/damage.ts';
import { runCommand, startStandalone, temporaryFolder } from './support/process.ts';

const FIRST = 'persistent://public/default/first';
const SECOND = 'persistent://public/default/second';

let stopped: string;
let killed: string;
beforeAll(async () => {
  [stopped, killed] = [await makeData('stop'), await makeData('kill')];
});
afterAll(async () => {
  for (const folder of [stopped, killed]) await rm(folder, { recursive: true, force: true });
});

interface Inspected {
  readonly healthy: boolean;
  readonly metadata: { readonly topics: readonly { readonly topic: string; readonly ledgers: readonly number[] }[] };
  readonly bookies: readonly {
    readonly problems: readonly string[];
    readonly segments: readonly { readonly state: string; readonly entries: number }[];
    readonly ledgers: readonly {
      readonly ledgerId: number;
      readonly ranges: readonly { readonly firstEntryId: number; readonly lastEntryId: number }[];
      readonly lost: readonly unknown[];
    }[];
    readonly damages: readonly {
      readonly file: string;
      readonly offset: number;
      readonly bytes: number;
      readonly what: string;
      readonly text: string;
      readonly ledgers: 'unknown' | readonly unknown[];
      readonly concerns: readonly string[];
    }[];
  }[];
}

/** `magnetar inspect`, with what it prints as text. */
async function inspect(...args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await runCommand(['inspect', ...args]);
  return { code, stdout: stdout.toString(), stderr };
}

async function inspectJson(folder: string, ...more: readonly string[]): Promise<Inspected & { readonly code: number }> {
  const { code, stdout, stderr } = await inspect(folder, '-o', 'json', ...more);
  expect(stderr).toBe('');
  return { code, ...(JSON.parse(stdout) as Inspected) };
}

/** Every file of a folder, with a hash of what is in it. */
async function fingerprint(folder: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath, entry.name);
    files[path.relative(folder, file)] = createHash('sha256')
      .update(await readFile(file))
      .digest('hex');
  }
  return files;
}

/** What is said of a copy of a folder that was damaged. Nothing in it may change. */
async function afterDamage(
  data: string,
  damage: (bookie: string, copy: string) => Promise<void>,
): Promise<{ readonly text: string; readonly report: Inspected & { readonly code: number } }> {
  const copy = await temporaryFolder();
  try {
    await cp(data, copy, { recursive: true });
    await damage(path.join(copy, 'bookie-0'), copy);
    const before = await fingerprint(copy);
    const [report, { code, stdout }] = await Promise.all([inspectJson(copy), inspect(copy)]);
    expect(code).toBe(report.code);
    expect(await fingerprint(copy)).toEqual(before);
    return { text: stdout.replaceAll(copy, 'DATA'), report };
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}

async function firstSegment(bookie: string): Promise<string> {
  return (await segmentsOf(bookie))[0] ?? '';
}

describe('a folder that is whole', () => {
  test.each([['stopped'], ['killed']])('is described, and nothing in it changes (%s)', async (how) => {
    const data = how === 'stopped' ? stopped : killed;
    const { text, report } = await afterDamage(data, async () => {});
    expect(report).toMatchObject({ code: 0, healthy: true });
    for (const part of [
      /magnetar data folder 1/,
      /local-0/,
      /agrees with the segments/,
      /0000000001\.seg/,
      /No damage\./,
    ]) {
      expect(text).toMatch(part);
    }
    expect(text).toContain(FIRST);
    expect(report.bookies[0]?.segments[0]?.state).toBe(how === 'stopped' ? 'sealed' : 'open');
    expect(report.metadata.topics.map(({ topic }) => topic)).toEqual([FIRST, SECOND]);
  });

  test('one ledger is looked at closely', async () => {
    const { metadata } = await inspectJson(stopped);
    const ledger = metadata.topics[0]?.ledgers[0] ?? -1;
    const { bookies } = await inspectJson(stopped, '--ledger', `${ledger}`);
    expect(bookies[0]?.ledgers).toMatchObject([{ ledgerId: ledger, ranges: [{ firstEntryId: 0 }], lost: [] }]);
    const { stdout } = await inspect(stopped, '--ledger', `${ledger}`);
    expect(stdout).toMatch(/0-\d+ +\S+0000000001\.seg at \d+ +good/);
    expect((await inspect(stopped, '--ledger', '999999')).stdout).toContain('nothing of it is here');
  });

  test('a bookie s folder alone is looked at, too', async () => {
    const { code, stdout } = await inspect(path.join(stopped, 'bookie-0'));
    expect([code, stdout]).toEqual([0, expect.stringMatching(/local-0[^]*No damage\.\n$/)]);
  });
});

describe('damage is named, with what it costs:', () => {
  test.each([['stopped'], ['killed']])('a flipped bit in a message (%s)', async (how) => {
    const data = how === 'stopped' ? stopped : killed;
    const { text, report } = await afterDamage(data, async (bookie) => await flipText(bookie, textOf('first', 250)));
    expect(report).toMatchObject({ code: 1, healthy: false });
    const [damage, ...more] = report.bookies[0]?.damages ?? [];
    expect(more).toEqual([]);
    expect(damage).toMatchObject({
      what: 'damaged',
      concerns: [FIRST],
      ledgers: [{ firstEntryId: 12, lastEntryId: 12 }],
    });
    expect(text).toMatch(/0000000001\.seg has damaged bytes at \d+ \(\d+ bytes\): lost entry 12 of ledger \d+/);
    expect(text).toMatch(/concerns: +persistent:\/\/public\/default\/first\n +what to do: /);
  });

  test('a block of zeros, and a segment that is cut short', async () => {
    for (const data of [stopped, killed]) {
      const zeroed = await afterDamage(data, async (bookie) => {
        await changeFile(await firstSegment(bookie), (bytes) => bytes.fill(0, 40_960, 45_056));
      });
      expect(zeroed.report.code).toBe(1);
      const [damage] = zeroed.report.bookies[0]?.damages ?? [];
      expect(damage?.what).toBe('damaged');
      const cut = await afterDamage(data, async (bookie) => await truncate(await firstSegment(bookie), 100_000));
      expect(cut.report.code).toBe(1);
      expect(cut.report.bookies[0]?.damages.map(({ what }) => what)).toContain('stale');
      expect(cut.text).toMatch(/cut short/);
    }
  });

  test('a segment that is missing, or another one', async () => {
    const missing = await afterDamage(stopped, async (bookie) => await rm(await firstSegment(bookie)));
    expect(missing.report.bookies[0]?.damages).toMatchObject([
      { what: 'missing', concerns: expect.arrayContaining([FIRST, SECOND]) as unknown },
    ]);
    expect(missing.text).toMatch(/0000000001\.seg is missing: lost entries 0-\d+ of ledger[^]*put the file back/);
    const unknown = await afterDamage(killed, async (bookie) => await rm(await firstSegment(bookie)));
    expect(unknown.report.bookies[0]?.damages).toMatchObject([{ what: 'missing', ledgers: 'unknown' }]);
    const stranger = path.join(killed, 'bookie-0');
    const foreign = await afterDamage(stopped, async (bookie) => {
      await cp(await firstSegment(stranger), await firstSegment(bookie));
    });
    expect(foreign.report.bookies[0]?.damages).toMatchObject([{ what: 'foreign' }]);
    expect(foreign.text).toMatch(/put the right file back/);
  });

  test('header, footer, index and witness: harmless, and said', async () => {
    const harmless: [RegExp, (bookie: string) => Promise<void>][] = [
      [
        /damaged bytes at 0 .*no entry is lost/,
        async (bookie) => await changeFile(await firstSegment(bookie), (bytes) => bytes.fill(0, 0, 4_096)),
      ],
      [
        /no entry is lost/,
        async (bookie) => await changeFile(await firstSegment(bookie), (bytes) => bytes.fill(0, bytes.length - 10)),
      ],
      [
        /the index is missing; the next start builds it anew/,
        async (bookie) => await rm(path.join(bookie, 'index'), { recursive: true }),
      ],
      [/the index is damaged/, async (bookie) => await writeFile(path.join(bookie, 'index', 'CURRENT'), 'nonsense')],
      [/witness is missing/, async (bookie) => await rm(path.join(bookie, 'witness'))],
    ];
    for (const [said, damage] of harmless) {
      const { text, report } = await afterDamage(stopped, damage);
      expect(text).toMatch(said);
      expect(report.code).toBe(1);
      expect(report.bookies[0]?.ledgers.flatMap(({ lost }) => lost)).toEqual([]);
    }
  });

  test('cookie and metadata: without them nothing starts', async () => {
    const cookie = await afterDamage(stopped, async (bookie) => await rm(path.join(bookie, 'cookie')));
    expect(cookie.text).toMatch(/cookie is missing; restore it from a backup; a bookie does not start without it/);
    const metadata = await afterDamage(stopped, async (_, copy) => {
      await rm(path.join(copy, 'metadata', 'witness'));
    });
    expect([cookie.report.code, metadata.report.code]).toEqual([1, 1]);
    expect(metadata.text).toMatch(/the metadata cannot be read: .*witness file is missing/);
  });
});

describe('what it does not look into', () => {
  test('a folder that is in use: it says by whom', async () => {
    await using server = await startStandalone();
    const { code, stdout, stderr } = await inspect(server.data);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(`is in use by process ${server.pid}; stop it first, or inspect a copy`);
  });

  test('what is no folder of Magnetar, or a newer one', async () => {
    const folder = await temporaryFolder();
    try {
      const nothing = await inspect(path.join(folder, 'nothing'));
      expect([nothing.code, nothing.stderr]).toEqual([2, expect.stringContaining('there is no folder') as string]);
      const file = path.join(folder, 'file');
      await writeFile(file, '');
      const no = await inspect(file);
      expect([no.code, no.stderr]).toEqual([2, expect.stringContaining(`${file} is no folder`) as string]);
      const other = await inspect(folder);
      expect([other.code, other.stderr]).toEqual([2, expect.stringContaining('is neither a data folder') as string]);
      await writeFile(path.join(folder, 'VERSION'), 'magnetar data folder 99\n');
      const newer = await inspect(folder);
      expect([newer.code, newer.stderr]).toEqual([1, expect.stringContaining('has version 99') as string]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
