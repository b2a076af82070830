import { describe, expect, test } from 'vitest';
import type { Bookie } from '../ledger/bookie.ts';
import { appendEntry, testEntry, testKey } from '../ledger/bookie.contract.ts';
import { ledgerId } from '../lib/ids.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import type { LocalBookie } from './measured-bookie.ts';
import { PAGE_BYTES } from './segments/format.ts';
import { CrashedBookie, lacOutcome, outcome } from './testing/crashed-bookie.ts';
import { MemoryIndex } from './testing/memory-index.ts';

const text = (ledger: number, entry: number): string => `ledger ${ledger} entry ${entry}`;

/** Three entries of each of ledgers 1 to 3, each in a group of its own: record n is entry n / 3 of ledger n % 3 + 1. */
async function fill(bookie: Bookie): Promise<void> {
  for (const entry of [0, 1, 2]) {
    for (const ledger of [1, 2, 3]) await appendEntry(bookie, testEntry(ledger, entry));
  }
}

const PAYLOAD = 90;
const HEADER = 20;

async function fence(bookie: Bookie, ledger: number): Promise<void> {
  await bookie.readLac({ ledgerId: ledgerId(ledger), fence: { masterKey: testKey() } });
}

/** What becomes of each entry that was filled in, as far as it is not served as it was. */
async function defects(bookie: Bookie): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const ledger of [1, 2, 3]) {
    for (const entry of [0, 1, 2]) {
      const result = await outcome(bookie, ledger, entry);
      if (result !== text(ledger, entry)) found[`${ledger}/${entry}`] = result;
    }
  }
  return found;
}

/** What a bookie's damages cost: "ledger/first-last", or "up to ledger". */
function costs(bookie: LocalBookie): string[] {
  return bookie.damage.flatMap(({ ledgers, ledgersUpTo }) =>
    ledgers === 'unknown'
      ? [`up to ${ledgersUpTo}`]
      : ledgers.map(({ ledgerId: id, firstEntryId, lastEntryId }) => `${id}/${firstEntryId}-${lastEntryId}`),
  );
}

/** A bookie with all entries in one segment that is not sealed. */
async function crashed(clock?: ManualClock): Promise<CrashedBookie> {
  const subject = new CrashedBookie({}, clock);
  await fill(await subject.open());
  subject.disk.crash();
  return subject;
}

describe('damage in a segment that is replayed', () => {
  test.each([
    ['payload', PAYLOAD],
    ['header', HEADER],
  ])('a record with a damaged %s is this entry lost, known for certain, and nothing else', async (_, at) => {
    const subject = await crashed();
    await subject.damageRecord(1, 4, at);
    for (let life = 0; life < 4; life++) {
      const bookie = await subject.open();
      expect(await defects(bookie)).toEqual({ '2/1': 'CHECKSUM_MISMATCH' });
      expect(await outcome(bookie, 2, 7)).toBe('NO_SUCH_ENTRY');
      expect(await lacOutcome(bookie, 2)).toBe(life === 0 ? 1 : life + 1);
      expect(costs(bookie)).toEqual(['2/1-1']);
      expect(subject.lines.filter((line) => line.startsWith('error'))).toEqual([
        expect.stringMatching(
          /segments\/0000000001.seg has damaged bytes at \d+ \(\d+ bytes\): lost entry 1 of ledger 2$/,
        ),
      ]);
      await appendEntry(bookie, testEntry(2, 3 + life));
      await bookie.close();
      if (life === 1) subject.index = new MemoryIndex();
    }
  });

  test('recovery gives an entry back, and then nothing is damaged any more', async () => {
    const subject = await crashed();
    await subject.damageRecord(1, 4, PAYLOAD);
    let bookie = await subject.open();
    await appendEntry(bookie, testEntry(2, 1, { recovery: true }));
    expect([await defects(bookie), bookie.damage]).toEqual([{}, []]);
    for (const index of [subject.index, new MemoryIndex()]) {
      await bookie.close();
      subject.index = index;
      bookie = await subject.open();
      expect([await defects(bookie), bookie.damage]).toEqual([{}, []]);
    }
    await bookie.close();
  });

  test('a damaged newest copy of an entry leaves an older one, and the other way round', async () => {
    for (const segment of [1, 2]) {
      const subject = new CrashedBookie();
      for (let copy = 0; copy < 2; copy++) {
        const bookie = await subject.open();
        await appendEntry(bookie, testEntry(1, 0, { recovery: true }));
        await bookie.close();
      }
      await subject.damageRecord(segment, 0, PAYLOAD);
      const bookie = await subject.open();
      expect(await outcome(bookie, 1, 0)).toBe(text(1, 0));
      await bookie.close();
    }
  });

  test('a lost fence does not unfence: it is known to have been there', async () => {
    const subject = new CrashedBookie();
    const first = await subject.open();
    await appendEntry(first, testEntry(1, 0));
    await fence(first, 1);
    await fence(first, 2);
    await appendEntry(first, testEntry(3, 0));
    subject.disk.crash();
    await subject.damageRecord(1, 1, HEADER);
    for (const index of [subject.index, subject.index, new MemoryIndex()]) {
      subject.index = index;
      const bookie = await subject.open();
      for (const ledger of [1, 2]) {
        await expect(appendEntry(bookie, testEntry(ledger, 1))).rejects.toMatchObject({ code: 'LEDGER_FENCED' });
      }
      await bookie.close();
    }
  });

  test('a ledger whose key is lost takes what recovery writes, and nothing else', async () => {
    const subject = new CrashedBookie();
    const first = await subject.open();
    for (const ledger of [1, 2]) await appendEntry(first, testEntry(ledger, 0));
    subject.disk.crash();
    await subject.damageRecord(1, 0, HEADER);
    for (const index of [subject.index, subject.index, new MemoryIndex()]) {
      subject.index = index;
      const bookie = await subject.open();
      expect([await outcome(bookie, 1, 0), await outcome(bookie, 1, 1)]).toEqual([
        'CHECKSUM_MISMATCH',
        'NO_SUCH_ENTRY',
      ]);
      await expect(appendEntry(bookie, testEntry(1, 1))).rejects.toMatchObject({ code: 'ENTRY_UNKNOWN' });
      await bookie.close();
    }
    const bookie = await subject.open();
    await appendEntry(bookie, testEntry(1, 0, { recovery: true }));
    expect(await outcome(bookie, 1, 0)).toBe(text(1, 0));
    await appendEntry(bookie, testEntry(1, 1));
    await bookie.close();
  });

  test('a wide damage leaves ledgers in doubt, and newer ones not; they can be fenced', async () => {
    const subject = await crashed();
    await subject.wipePages(1, 3, 2); // Record 3 is named by what is lost with record 4.
    for (const index of [subject.index, subject.index, new MemoryIndex()]) {
      subject.index = index;
      const bookie = await subject.open();
      expect(await defects(bookie)).toEqual({ '1/1': 'ENTRY_UNKNOWN', '2/1': 'CHECKSUM_MISMATCH' });
      expect([await outcome(bookie, 1, 7), await outcome(bookie, 0, 0)]).toEqual(['ENTRY_UNKNOWN', 'ENTRY_UNKNOWN']);
      expect([await lacOutcome(bookie, 3), await lacOutcome(bookie, 0)]).toEqual(['1 unsure', '-1 unsure']);
      expect(costs(bookie)).toEqual(['up to 3', '2/1-1']);
      await expect(appendEntry(bookie, testEntry(1, 3))).rejects.toMatchObject({
        code: 'ENTRY_UNKNOWN',
        details: { file: subject.path(1), ledgerId: '1' },
      });
      expect(await outcome(bookie, 999, 0)).toBe('NO_SUCH_LEDGER');
      await appendEntry(bookie, testEntry(4, 0));
      expect([await outcome(bookie, 4, 0), await outcome(bookie, 4, 1)]).toEqual([text(4, 0), 'NO_SUCH_ENTRY']);
      await bookie.close();
    }
    const bookie = await subject.open();
    await fence(bookie, 1);
    await fence(bookie, 0);
    await bookie.close();
    const again = await subject.open();
    for (const ledger of [0, 1]) {
      await expect(appendEntry(again, testEntry(ledger, 5))).rejects.toMatchObject({ code: 'LEDGER_FENCED' });
    }
    await appendEntry(again, testEntry(1, 1, { recovery: true }));
    expect(await outcome(again, 1, 1)).toBe(text(1, 1));
    await again.close();
  });

  test('the last group is cut while it is not marked, and is damage from the mark on', async () => {
    for (const at of [PAYLOAD, HEADER]) {
      const unmarked = await crashed();
      await unmarked.damageRecord(1, 8, at);
      const cut = await unmarked.open();
      expect([await outcome(cut, 3, 2), await lacOutcome(cut, 3), cut.damage]).toEqual(['NO_SUCH_ENTRY', 0, []]);
      await cut.close();

      const clock = new ManualClock();
      const marked = new CrashedBookie({ markDelayMs: 20 }, clock);
      await fill(await marked.open());
      clock.advance(20);
      await new Promise((resolve) => setImmediate(resolve)); // The disk in memory needs no more than this turn.
      marked.disk.crash();
      await marked.damageRecord(1, 8, at);
      const damaged = await marked.open();
      expect([await defects(damaged), costs(damaged)]).toEqual([{ '3/2': 'CHECKSUM_MISMATCH' }, ['3/2-2']]);
      await damaged.close();
    }
  });

  test('blocks that the disk does not give are damage, never a torn tail, and do not keep the bookie from starting', async () => {
    for (const lost of [4, 8]) {
      const subject = await crashed();
      const offset = 3 * PAGE_BYTES + lost * PAGE_BYTES;
      subject.disk.before = ({ operation, path, offset: from = 0, bytes }) => {
        const hit = from < offset + PAGE_BYTES && from + bytes > offset;
        if (operation !== 'read' || !hit || path.endsWith('witness')) return;
        throw Object.assign(new Error('EIO'), { code: 'EIO' });
      };
      const bookie = await subject.open();
      const name = lost === 4 ? '2/1' : '3/2';
      const found = await defects(bookie);
      expect(Object.keys(found)).toEqual([name]);
      expect(found[name]).not.toBe('NO_SUCH_ENTRY');
      expect(bookie.damage).toMatchObject([{ what: 'unreadable', file: subject.path(1) }]);
      await bookie.close();
    }
  });
});

/** A bookie with several sealed segments of entries, closed in order. */
describe('damage in a sealed segment', () => {
  test('is found by the read: logged once, listed, and listed after a restart', async () => {
    const subject = new CrashedBookie();
    const first = await subject.open();
    await fill(first);
    await first.close();
    await subject.damageRecord(1, 3, PAYLOAD);
    await subject.damageRecord(1, 4, HEADER);
    let bookie = await subject.open();
    expect([bookie.damage, subject.lines]).toEqual([[], []]);
    for (let round = 0; round < 3; round++) {
      expect(await defects(bookie)).toEqual({ '1/1': 'CHECKSUM_MISMATCH', '2/1': 'CHECKSUM_MISMATCH' });
    }
    expect(subject.lines).toEqual([expect.stringMatching(/^error .*lost entry 1 of ledger 1$/)]); // Both are one damage.
    for (const index of [subject.index, subject.index]) {
      expect(costs(bookie)).toEqual(['1/1-1', '2/1-1']);
      await bookie.close();
      subject.index = index;
      bookie = await subject.open();
    }
    await appendEntry(bookie, testEntry(1, 1, { recovery: true }));
    await appendEntry(bookie, testEntry(2, 1, { recovery: true }));
    expect([bookie.damage, await defects(bookie)]).toEqual([[], {}]);
    await bookie.close();
  });

  test('of header, seal or footer costs nothing: they are written anew, with the index or without it', async () => {
    for (const withIndex of [true, false]) {
      const subject = await filled();
      const { length } = await subject.disk.readFile(subject.path(1));
      for (const at of [20, length - 10, length - 100]) {
        subject.disk.flipBit(subject.path(1), at * 8);
        if (!withIndex) subject.index = new MemoryIndex();
        const bookie = await subject.open();
        expect([await defects(bookie), bookie.damage, await outcome(bookie, 3, 3)]).toEqual([{}, [], 'NO_SUCH_ENTRY']);
        await expect(appendEntry(bookie, testEntry(2, 3))).rejects.toMatchObject({ code: 'LEDGER_FENCED' });
        await bookie.close();
        const mended = withIndex ? at !== length - 100 : true;
        expect(/anew|rebuilding/.test(subject.lines.join())).toBe(mended);
        subject.index = new MemoryIndex();
        await (await subject.open()).close();
        // The index was rebuilt from what is whole; a footer is only looked at then.
        expect(subject.lines).toHaveLength(withIndex && at === length - 100 ? 2 : 1);
      }
    }
  });
});

async function filled(): Promise<CrashedBookie> {
  const subject = new CrashedBookie({ segmentBytes: 20_480 });
  const bookie = await subject.open();
  await fill(bookie);
  await bookie.readLac({ ledgerId: testEntry(2, 0).ledgerId, fence: { masterKey: testEntry(2, 0).masterKey } });
  await bookie.close();
  return subject;
}

/** The rows about segments and ledgers, in order. */
function rowsOf(index: MemoryIndex): [string, Buffer][] {
  const bookie = Buffer.from('B').toString('hex');
  return [...index.values].filter(([key]) => key !== bookie).toSorted(([a], [b]) => (a < b ? -1 : 1));
}

describe('damage in the index', () => {
  test('an index that is rebuilt from the footers equals the one that was kept', async () => {
    const subject = await filled();
    const kept = rowsOf(subject.index);
    expect(kept.length).toBeGreaterThan(10);
    subject.index = new MemoryIndex();
    await (await subject.open()).close();
    expect(rowsOf(subject.index)).toEqual(kept);
  });

  test('any row that is lost or has a flipped bit is noticed at the next start, and mended', async () => {
    const reference = await filled();
    for (const key of reference.index.values.keys()) {
      for (const how of ['lost', 'flipped']) {
        const subject = await filled();
        const value = subject.index.values.get(key);
        if (how === 'lost') subject.index.values.delete(key);
        else value?.writeUInt8((value[0] ?? 0) ^ 4, 0);
        const bookie = await subject.open();
        expect([await outcome(bookie, 1, 2), await outcome(bookie, 3, 1)], `${key} ${how}`).toEqual([
          text(1, 2),
          text(3, 1),
        ]);
        await expect(appendEntry(bookie, testEntry(2, 3))).rejects.toMatchObject({ code: 'LEDGER_FENCED' });
        await bookie.close();
        expect(rowsOf(subject.index)).toEqual(rowsOf(reference.index));
      }
    }
  });

  test('a row that goes bad while the bookie runs is an error, never "no such entry"', async () => {
    const subject = await filled();
    const bookie = await subject.open();
    for (const value of subject.index.values.values()) value.writeUInt8((value[0] ?? 0) ^ 4, 0);
    for (const ledger of [1, 2, 3]) expect(await outcome(bookie, ledger, 1)).toBe('ENTRY_UNKNOWN');
    await expect(appendEntry(bookie, testEntry(1, 5))).rejects.toMatchObject({ code: 'ENTRY_UNKNOWN' });
    expect(await outcome(bookie, 50, 0)).toBe('NO_SUCH_LEDGER');
    await bookie.close();
  });
});
