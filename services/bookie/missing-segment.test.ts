import { describe, expect, test } from 'vitest';
import type { Bookie } from '../ledger/bookie.ts';
import { appendEntry, testEntry } from '../ledger/bookie.contract.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import type { LocalBookie } from './measured-bookie.ts';
import { CrashedBookie, lacOutcome, outcome } from './testing/crashed-bookie.ts';
import { MemoryIndex } from './testing/memory-index.ts';

const ENTRIES = 12;
const SMALL = { segmentBytes: 24_576, markDelayMs: 0 } as const;

/** Ledger 1 has all entries, three to a segment. */
async function fill(bookie: Bookie, from = 0, to = ENTRIES): Promise<void> {
  for (let entry = from; entry < to; entry++) await appendEntry(bookie, testEntry(1, entry));
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

async function closed(): Promise<CrashedBookie> {
  const subject = new CrashedBookie(SMALL, new ManualClock());
  const bookie = await subject.open();
  await fill(bookie);
  await bookie.close();
  return subject;
}

/** Killed, when all that happens by itself had happened. */
async function killed(entries = ENTRIES): Promise<CrashedBookie> {
  const clock = new ManualClock();
  const subject = new CrashedBookie(SMALL, clock);
  await fill(await subject.open(), 0, entries);
  await turns();
  clock.advance(1_000);
  await turns();
  subject.disk.crash();
  return subject;
}

async function outcomes(bookie: Bookie, ledger = 1): Promise<string[]> {
  return await Promise.all(
    Array.from({ length: ENTRIES }, async (_, entry) => {
      const result = await outcome(bookie, ledger, entry);
      return result === `ledger ${ledger} entry ${entry}` ? 'right' : result;
    }),
  );
}

async function segments(subject: CrashedBookie): Promise<number[]> {
  return (await subject.disk.list('/bookie/segments')).map(Number.parseFloat);
}

const WHOLE: readonly string[] = Array.from({ length: ENTRIES }, () => 'right');

/** Opens, looks, closes. */
async function look(
  subject: CrashedBookie,
): Promise<{ results: string[]; damage: LocalBookie['damage']; lac: unknown }> {
  const bookie = await subject.open();
  try {
    return { results: await outcomes(bookie), damage: bookie.damage, lac: await lacOutcome(bookie, 1) };
  } finally {
    await bookie.close();
  }
}

describe.each([
  ['closed in order', closed],
  ['killed', killed],
])('of a bookie that was %s', (_, make) => {
  test('any segment that is missing is missed, and costs what was in it; put back, all is well', async () => {
    const reference = await make();
    for (const id of await segments(reference)) {
      const subject = await make();
      const path = subject.path(id);
      const content = await subject.disk.readFile(path);
      await subject.replace(path, undefined);
      for (let life = 0; life < 2; life++) {
        const { results, damage, lac } = await look(subject);
        const lost = results.filter((result) => result !== 'right');
        const said = subject.lines.filter((line) => line.startsWith(`error ${path} is missing`));
        expect(lost).not.toContain('NO_SUCH_ENTRY');
        expect(lost.length).toBeLessThanOrEqual(3);
        expect(damage.map(({ file, what }) => [file, what])).toEqual(said.map(() => [path, 'missing']));
        expect(said.length).toBe(lost.length > 0 ? 1 : damage.length);
        // In order, whatever held something was sealed, and the index knows it all.
        const known =
          make === closed ? [new Set(lost.length > 0 ? ['CHECKSUM_MISMATCH'] : []), 10] : [new Set(lost), lac];
        expect([new Set(lost), lac]).toEqual(known);
      }
      if (!(await subject.disk.exists(path))) await subject.replace(path, content);
      expect(await look(subject)).toMatchObject({ results: WHOLE, damage: [], lac: 10 });
    }
  });

  test('all segments that are missing are missed, index or not, and new ledgers are taken', async () => {
    for (const withIndex of [true, false]) {
      const subject = await make();
      for (const id of await segments(subject)) await subject.replace(subject.path(id), undefined);
      if (!withIndex) subject.index = new MemoryIndex();
      const bookie = await subject.open();
      const results = new Set(await outcomes(bookie));
      expect([...results].filter((code) => code !== 'CHECKSUM_MISMATCH' && code !== 'ENTRY_UNKNOWN')).toEqual([]);
      await appendEntry(bookie, testEntry(1_000, 0));
      expect([await outcome(bookie, 1_000, 0), await outcome(bookie, 1_000, 1)]).toEqual([
        'ledger 1000 entry 0',
        'NO_SUCH_ENTRY',
      ]);
      await bookie.close();
    }
  });

  test('without the index too a missing segment is missed, the last one included', async () => {
    for (const id of await segments(await make())) {
      const subject = await make();
      await subject.replace(subject.path(id), undefined);
      subject.index = new MemoryIndex();
      const { results, damage } = await look(subject);
      expect(results).not.toContain('NO_SUCH_ENTRY');
      expect(results.every((result) => result === 'right') || damage.length > 0).toBe(true);
    }
  });

  test('two segments that changed places, and another bookie s, are recognised and never served from', async () => {
    for (const withIndex of [true, false]) {
      const subject = await make();
      const [one, two] = [subject.path(1), subject.path(2)];
      const [first, second] = [await subject.disk.readFile(one), await subject.disk.readFile(two)];
      await subject.replace(one, second);
      await subject.replace(two, first);
      if (!withIndex) subject.index = new MemoryIndex();
      const swapped = await look(subject);
      expect(swapped.results.slice(6)).toEqual(WHOLE.slice(6));
      expect(new Set(swapped.results.slice(0, 6))).toEqual(
        new Set([withIndex ? 'CHECKSUM_MISMATCH' : 'ENTRY_UNKNOWN']),
      );
      expect(swapped.damage.map(({ what }) => what)).toEqual(['foreign', 'foreign']);
      await subject.replace(one, first);
      await subject.replace(two, second);
      expect(await look(subject)).toMatchObject({ results: WHOLE, damage: [] });

      const other = new CrashedBookie(SMALL, new ManualClock());
      other.environment.random.next(); // Another life of chance: other salts.
      const stranger = await other.open();
      for (let entry = 0; entry < ENTRIES; entry++) {
        await appendEntry(stranger, testEntry(1, entry, { payload: [Buffer.from('a stranger')] }));
      }
      await stranger.close();
      await subject.replace(two, await other.disk.readFile(other.path(2)));
      if (!withIndex) subject.index = new MemoryIndex();
      const { results } = await look(subject);
      expect(results.slice(3, 6)).not.toContain('a stranger');
      expect(results.filter((result) => result === 'right')).toHaveLength(9);
    }
  });

  test('any segment that is cut short is noticed, wherever', async () => {
    const reference = await make();
    for (const id of await segments(reference)) {
      const { length } = await reference.disk.readFile(reference.path(id));
      for (const size of [0, 100, 4_096, 12_288, 16_384, 20_480, length - 64, length - 1]) {
        if (size >= length) continue;
        const subject = await make();
        await subject.cut(subject.path(id), size);
        const { results } = await look(subject);
        expect([id, size, results]).not.toEqual([id, size, expect.arrayContaining(['NO_SUCH_ENTRY'])]);
        const wanted = size >= length - 64 && make === closed ? WHOLE : results; // The seal alone is missing.
        expect(results).toEqual(wanted);
      }
    }
  });
});

describe('an old copy of a segment', () => {
  test('of one that was sealed since is noticed, and serves what it has', async () => {
    for (const withIndex of [true, false]) {
      const subject = await killed(5);
      const old = await subject.disk.readFile(subject.path(2));
      const bookie = await subject.open();
      await fill(bookie, 5);
      await bookie.close();
      await subject.replace(subject.path(2), old.subarray(0, 16_384)); // Entry 3 alone.
      if (!withIndex) subject.index = new MemoryIndex();
      const { results, damage } = await look(subject);
      expect(results).toEqual(WHOLE.map((_, at) => (at === 4 ? 'CHECKSUM_MISMATCH' : 'right')));
      expect(damage).toMatchObject([{ what: 'stale' }]);
    }
  });

  test('of the last one, after a crash, is noticed by the witness', async () => {
    const clock = new ManualClock();
    const subject = new CrashedBookie(SMALL, clock);
    const bookie = await subject.open();
    await fill(bookie, 0, 4);
    await turns();
    const old = await subject.disk.readFile(subject.path(2));
    await fill(bookie, 4, 6);
    await turns();
    clock.advance(1_000);
    await turns();
    subject.disk.crash();
    await subject.replace(subject.path(2), old);
    expect(await look(subject)).toMatchObject({
      results: WHOLE.map((_, at) => (at >= 4 ? 'ENTRY_UNKNOWN' : 'right')),
      damage: [{ what: 'stale', ledgers: 'unknown', ledgersUpTo: 63 }],
      lac: '2 unsure',
    });
    // Sabotage: without the witness nobody misses them.
    const blind = new CrashedBookie(SMALL, new ManualClock());
    const again = await blind.open();
    await fill(again, 0, 4);
    await turns();
    const copy = await blind.disk.readFile(blind.path(2));
    await fill(again, 4, 6);
    blind.disk.crash();
    await blind.replace(blind.path(2), copy);
    await blind.replace('/bookie/witness', undefined);
    expect((await look(blind)).results).toContain('NO_SUCH_ENTRY');
  });
});

describe('the witness', () => {
  test('is made anew when it is missing or damaged, and that is said', async () => {
    const subject = await closed();
    const content = await subject.disk.readFile('/bookie/witness');
    const damages = [undefined, Buffer.alloc(0), content.subarray(0, 30), Buffer.alloc(content.length)];
    for (const damaged of damages) {
      await subject.replace('/bookie/witness', damaged);
      expect(subject.lines).toEqual([]);
      expect(await look(subject)).toMatchObject({ results: WHOLE, damage: [] });
      expect(subject.lines).toEqual([expect.stringMatching(/^warn .*witness .* anew/)]);
      await subject.replace(subject.path(2), undefined);
      expect(await look(subject)).toMatchObject({ damage: [{ what: 'missing' }] });
      const whole = await closed();
      await subject.replace(subject.path(2), await whole.disk.readFile(whole.path(2)));
      await look(subject);
      void subject.lines;
    }
  });

  test('with one damaged page is as good as before', async () => {
    for (const page of [0, 4_096]) {
      const subject = await closed();
      subject.disk.flipBit('/bookie/witness', (page + 20) * 8);
      expect(await look(subject)).toMatchObject({ results: WHOLE, damage: [] });
      expect(subject.lines).toEqual([]);
    }
  });

  test('an index that is older than the segments is brought up to date', async () => {
    const subject = new CrashedBookie(SMALL, new ManualClock());
    let bookie = await subject.open();
    await fill(bookie, 0, 4);
    await bookie.close();
    const old = new Map(subject.index.values);
    bookie = await subject.open();
    await fill(bookie, 4);
    await bookie.close();
    subject.index.values.clear();
    for (const [key, value] of old) subject.index.values.set(key, value);
    expect(await look(subject)).toMatchObject({ results: WHOLE, damage: [], lac: 10 });
  });
});
