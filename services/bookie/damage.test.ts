import { describe, expect, test } from 'vitest';
import type { Bookie } from '../ledger/bookie.ts';
import { appendEntry, testEntry } from '../ledger/bookie.contract.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
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

describe('damage in a segment that is replayed', () => {
  test('a lost entry puts its ledger into limbo, and no other; it stays there', async () => {
    const subject = new CrashedBookie();
    await fill(await subject.open());
    subject.disk.crash();
    await subject.damageRecord(1, 4, PAYLOAD);
    for (let life = 0; life < 3; life++) {
      const bookie = await subject.open();
      expect(await outcome(bookie, 2, 1)).toBe('ENTRY_UNKNOWN');
      expect(await outcome(bookie, 2, 7)).toBe('ENTRY_UNKNOWN');
      expect(await lacOutcome(bookie, 2)).toBe('1 unsure');
      expect([await outcome(bookie, 2, 0), await outcome(bookie, 2, 2)]).toEqual([text(2, 0), text(2, 2)]);
      await expect(appendEntry(bookie, testEntry(2, 3))).rejects.toMatchObject({ code: 'ENTRY_UNKNOWN' });
      expect([await outcome(bookie, 1, 1), await outcome(bookie, 1, 7)]).toEqual([text(1, 1), 'NO_SUCH_ENTRY']);
      expect([await lacOutcome(bookie, 1), await outcome(bookie, 9, 0)]).toEqual([1, 'NO_SUCH_LEDGER']);
      await bookie.close();
      if (life === 1) subject.index = new MemoryIndex();
    }
  });

  test('recovery can give a ledger in limbo its entry back', async () => {
    const subject = new CrashedBookie();
    await fill(await subject.open());
    subject.disk.crash();
    await subject.damageRecord(1, 4, PAYLOAD);
    const bookie = await subject.open();
    await appendEntry(bookie, testEntry(2, 1, { recovery: true }));
    expect(await outcome(bookie, 2, 1)).toBe(text(2, 1));
    await bookie.close();
  });

  test('a lost record header puts every ledger so far into limbo, and newer ones not', async () => {
    const subject = new CrashedBookie();
    await fill(await subject.open());
    subject.disk.crash();
    await subject.damageRecord(1, 4, HEADER);
    for (const index of [subject.index, subject.index, new MemoryIndex()]) {
      subject.index = index;
      const bookie = await subject.open();
      expect(await outcome(bookie, 2, 1)).toBe('ENTRY_UNKNOWN');
      expect([await outcome(bookie, 1, 1), await outcome(bookie, 1, 7)]).toEqual([text(1, 1), 'ENTRY_UNKNOWN']);
      expect([await outcome(bookie, 0, 0), await lacOutcome(bookie, 3)]).toEqual(['ENTRY_UNKNOWN', '1 unsure']);
      expect(await outcome(bookie, 999, 0)).toBe('NO_SUCH_LEDGER');
      await appendEntry(bookie, testEntry(4, 0));
      expect([await outcome(bookie, 4, 0), await outcome(bookie, 4, 1)]).toEqual([text(4, 0), 'NO_SUCH_ENTRY']);
      await bookie.close();
    }
  });

  test('the last group is cut while it is not marked, and is damage from the mark on', async () => {
    const unmarked = new CrashedBookie();
    await fill(await unmarked.open());
    unmarked.disk.crash();
    await unmarked.damageRecord(1, 8, PAYLOAD);
    const cut = await unmarked.open();
    expect([await outcome(cut, 3, 2), await lacOutcome(cut, 3)]).toEqual(['NO_SUCH_ENTRY', 0]);
    await cut.close();

    const clock = new ManualClock();
    const marked = new CrashedBookie({ markDelayMs: 20 }, clock);
    await fill(await marked.open());
    clock.advance(20);
    await new Promise((resolve) => setImmediate(resolve)); // The disk in memory needs no more than this turn.
    marked.disk.crash();
    await marked.damageRecord(1, 8, PAYLOAD);
    const damaged = await marked.open();
    expect([await outcome(damaged, 3, 2), await lacOutcome(damaged, 3)]).toEqual(['ENTRY_UNKNOWN', '0 unsure']);
    await damaged.close();
  });
});

describe('damage in a sealed segment', () => {
  test('an entry that is damaged is not served, and its neighbours are', async () => {
    const subject = new CrashedBookie();
    const first = await subject.open();
    await fill(first);
    await first.close();
    await subject.damageRecord(1, 3, PAYLOAD);
    await subject.damageRecord(1, 4, HEADER);
    const bookie = await subject.open();
    expect([await outcome(bookie, 1, 1), await outcome(bookie, 2, 1)]).toEqual([
      'CHECKSUM_MISMATCH',
      'CHECKSUM_MISMATCH',
    ]);
    expect([await outcome(bookie, 1, 0), await outcome(bookie, 3, 1)]).toEqual([text(1, 0), text(3, 1)]);
    await bookie.close();
  });

  test('a lost seal or footer costs nothing: the groups are read again', async () => {
    const subject = new CrashedBookie();
    const first = await subject.open();
    await fill(first);
    await first.close();
    const { length } = await subject.disk.readFile(subject.path(1));
    for (const fromEnd of [10, 100]) {
      subject.disk.flipBit(subject.path(1), (length - fromEnd) * 8);
      subject.index = new MemoryIndex();
      const bookie = await subject.open();
      expect([await outcome(bookie, 3, 2), await outcome(bookie, 3, 3)]).toEqual([text(3, 2), 'NO_SUCH_ENTRY']);
      await bookie.close();
    }
  });

  test('a lost footer and a lost index together cost nothing either: what later segments hold of the same ledgers is found', async () => {
    const subject = await filled();
    const { length } = await subject.disk.readFile(subject.path(1));
    subject.disk.flipBit(subject.path(1), (length - 10) * 8);
    subject.index = new MemoryIndex();
    const bookie = await subject.open();
    for (const ledger of [1, 2, 3]) {
      const outcomes = await Promise.all([0, 1, 2].map((entry) => outcome(bookie, ledger, entry)));
      expect(outcomes).toEqual([0, 1, 2].map((entry) => text(ledger, entry)));
    }
    expect(await lacOutcome(bookie, 1)).toBe(1);
    await expect(appendEntry(bookie, testEntry(2, 3))).rejects.toMatchObject({ code: 'LEDGER_FENCED' });
    await bookie.close();
  });

  test('a segment that is missing is never "no such entry"', async () => {
    const subject = new CrashedBookie({ segmentBytes: 20_480 });
    const first = await subject.open();
    await fill(first);
    await first.close();
    await subject.disk.remove(subject.path(2));
    for (const index of [subject.index, new MemoryIndex()]) {
      subject.index = index;
      const bookie = await subject.open();
      const outcomes = await Promise.all(
        [1, 2, 3].flatMap((ledger) => [0, 1, 2, 3].map((entry) => outcome(bookie, ledger, entry))),
      );
      expect(outcomes).not.toContain('NO_SUCH_ENTRY');
      expect(outcomes).toContain('ENTRY_UNKNOWN');
      expect(outcomes[0]).toBe(text(1, 0));
      await bookie.close();
    }
  });

  test('segments that all are missing are not an empty bookie', async () => {
    const subject = new CrashedBookie();
    const first = await subject.open();
    await fill(first);
    await first.close();
    await subject.disk.remove(subject.path(1));
    const bookie = await subject.open();
    expect([await outcome(bookie, 1, 0), await lacOutcome(bookie, 7)]).toEqual(['ENTRY_UNKNOWN', 'NO_SUCH_LEDGER']);
    expect(await lacOutcome(bookie, 3)).toBe('1 unsure');
    await bookie.close();
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
