import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ErrorCode, MagnetarError } from '../lib/errors.ts';
import { entryId, type LedgerId, ledgerId, NO_ENTRY } from '../lib/ids.ts';
import { entryDigest } from '../wire/digest.ts';
import type { AppendEntry, Bookie, LacResult, StoredEntry } from './bookie.ts';

/** A bookie under test. */
export interface BookieUnderTest {
  readonly bookie: Bookie;
  /** Closes the bookie and opens it again over the same data. */
  reopen(): Promise<Bookie>;
  /** Closes whatever is open, and removes the data. */
  end(): Promise<void>;
}

/** A master key of tests: 16 times the same byte. */
export function testKey(byte = 7): Buffer {
  return Buffer.alloc(16, byte);
}

/** An entry of a test; what is not given has a plausible value, the digest is right. */
export function testEntry(ledger: number, entry: number, fields: Partial<AppendEntry> = {}): AppendEntry {
  const payload = fields.payload ?? [Buffer.from(`ledger ${ledger} entry ${entry}`)];
  const payloadBytes = payload.reduce((bytes, piece) => bytes + piece.length, 0);
  const numbers = {
    ledgerId: ledgerId(ledger),
    entryId: entryId(entry),
    lac: fields.lac ?? entryId(entry - 1),
    length: fields.length ?? (entry + 1) * 100,
  };
  const digest = entryDigest({ ...numbers, payload });
  return { ...numbers, digest, masterKey: testKey(), recovery: false, payload, payloadBytes, ...fields };
}

/** Resolves when the entry is stored; rejects with what `done` is given. */
export async function appendEntry(bookie: Bookie, entry: AppendEntry): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    let returned = false;
    bookie.append(entry, (error?: MagnetarError) => {
      if (!returned) reject(new Error('done was called before append returned'));
      else if (error === undefined) resolve();
      else reject(error);
    });
    returned = true;
  });
}

/** Reads entries of a ledger as `StoredEntry`s, at most `maxEntries`. */
export async function readEntries(
  bookie: Bookie,
  ledger: number,
  first: number,
  limits: { maxEntries?: number; maxBytes?: number } = {},
): Promise<readonly StoredEntry[]> {
  return await bookie.read({
    ledgerId: ledgerId(ledger),
    firstEntryId: entryId(first),
    maxEntries: limits.maxEntries ?? 1_000,
    maxBytes: limits.maxBytes ?? 16_777_216,
  });
}

/** The entries' payloads as text. */
export function texts(entries: readonly StoredEntry[]): string[] {
  return entries.map(({ payload }) => payload.toString());
}

const fence = { masterKey: testKey() };

function code(expected: ErrorCode): { code: ErrorCode } {
  return { code: expected };
}

async function readLac(bookie: Bookie, ledger: number, fenced = false): Promise<LacResult> {
  return await bookie.readLac({ ledgerId: ledgerId(ledger), ...(fenced ? { fence } : {}) });
}

/** The id of an entry of ledger 1 that was stored; undefined when it was refused. */
async function attempt(bookie: Bookie, id: number): Promise<number | undefined> {
  try {
    await appendEntry(bookie, testEntry(1, id));
    return id;
  } catch {
    return undefined;
  }
}

async function idsOf(
  bookie: Bookie,
  first: number,
  limits: { maxEntries?: number; maxBytes?: number },
): Promise<number[]> {
  return (await readEntries(bookie, 1, first, limits)).map(({ entryId: id }) => id);
}

/** What every bookie does (LP-3, LP-8, LP-10, LP-11, LP-12, LP-16, LP-17). `open` gives a new, empty one. */
export function bookieContract(name: string, open: () => Promise<BookieUnderTest>): void {
  describe(`bookie contract: ${name}`, { tags: ['contract'] }, () => {
    let subject: BookieUnderTest;
    let bookie: Bookie;
    beforeEach(async () => {
      subject = await open();
      ({ bookie } = subject);
    });
    afterEach(async () => await subject.end());

    describe('append and read', () => {
      test('gives back what was stored, to the last byte', async () => {
        const entry = testEntry(1, 0, { payload: [Buffer.from('ab'), Buffer.alloc(0), Buffer.from('c')], length: 3 });
        await appendEntry(bookie, entry);
        const [stored] = await readEntries(bookie, 1, 0);
        const { checked: _, ...facts } = stored ?? {};
        const { entryId: id, lac, length, digest } = entry;
        expect(facts).toEqual({ entryId: id, lac, length, digest, payload: Buffer.from('abc') });
      });

      test('stores empty and large payloads', async () => {
        const large = Buffer.alloc(5_242_880 + 1_000, 'large');
        await Promise.all([
          appendEntry(bookie, testEntry(1, 0, { payload: [] })),
          appendEntry(bookie, testEntry(1, 1, { payload: [large.subarray(0, 99), large.subarray(99)] })),
          appendEntry(bookie, testEntry(1, 2)),
        ]);
        const entries: StoredEntry[] = [];
        while (entries.length < 3) entries.push(...(await readEntries(bookie, 1, entries.length)));
        expect(entries.map(({ payload }) => payload.length)).toEqual([0, large.length, 16]);
        expect(entries[1]?.payload.equals(large)).toBe(true);
      });

      test('answers reads with consecutive entries up to a gap, within the limits, at least one', async () => {
        const ids = [0, 1, 2, 3, 5];
        await Promise.all(ids.map(async (id) => await appendEntry(bookie, testEntry(1, id))));
        const bytes = 'ledger 1 entry 0'.length;
        expect(await idsOf(bookie, 0, {})).toEqual([0, 1, 2, 3]);
        expect(await idsOf(bookie, 1, { maxEntries: 2 })).toEqual([1, 2]);
        expect(await idsOf(bookie, 0, { maxBytes: 2 * bytes })).toEqual([0, 1]);
        expect(await idsOf(bookie, 0, { maxBytes: 2 * bytes - 1 })).toEqual([0]);
        expect(await idsOf(bookie, 2, { maxBytes: 0 })).toEqual([2]);
        expect(await idsOf(bookie, 5, {})).toEqual([5]);
      });

      test('says explicitly that it never stored a ledger, or an entry', async () => {
        await appendEntry(bookie, testEntry(1, 3));
        await expect(readEntries(bookie, 2, 0)).rejects.toMatchObject(code('NO_SUCH_LEDGER'));
        await expect(readLac(bookie, 2)).rejects.toMatchObject(code('NO_SUCH_LEDGER'));
        await expect(readEntries(bookie, 1, 2)).rejects.toMatchObject(code('NO_SUCH_ENTRY'));
        await expect(readEntries(bookie, 1, 4)).rejects.toMatchObject(code('NO_SUCH_ENTRY'));
      });

      test('stores the same entry again without complaint', async () => {
        await Promise.all([0, 0, 1, 1].map(async (id) => await appendEntry(bookie, testEntry(1, id))));
        await appendEntry(bookie, testEntry(1, 0));
        expect(texts(await readEntries(bookie, 1, 0))).toEqual(['ledger 1 entry 0', 'ledger 1 entry 1']);
      });

      test('takes entries in any order, of many ledgers at once', async () => {
        const places = Array.from({ length: 400 }, (_, at) => [at % 20, Math.floor(at / 20)] as const).toReversed();
        await Promise.all(places.map(async ([ledger, entry]) => await appendEntry(bookie, testEntry(ledger, entry))));
        for (let ledger = 0; ledger < 20; ledger++) {
          const expected = Array.from({ length: 20 }, (_, entry) => `ledger ${ledger} entry ${entry}`);
          expect(texts(await readEntries(bookie, ledger, 0))).toEqual(expected);
        }
      });

      test('refuses an entry that was damaged on its way', async () => {
        const entry = testEntry(1, 0);
        const damaged = { ...entry, digest: (entry.digest ^ 1) >>> 0 };
        await expect(appendEntry(bookie, damaged)).rejects.toMatchObject(code('CHECKSUM_MISMATCH'));
        await expect(readEntries(bookie, 1, 0)).rejects.toMatchObject(code('NO_SUCH_LEDGER'));
      });

      test('knows the highest last-add-confirmed and the last entry', async () => {
        await appendEntry(bookie, testEntry(1, 0));
        expect(await readLac(bookie, 1)).toEqual({ lac: NO_ENTRY, lastEntryId: 0 });
        await appendEntry(bookie, testEntry(1, 7, { lac: entryId(4) }));
        await appendEntry(bookie, testEntry(1, 2, { lac: entryId(1) }));
        expect(await readLac(bookie, 1)).toEqual({ lac: 4, lastEntryId: 7 });
      });
    });

    describe('fencing', () => {
      test('a fenced ledger takes no entries but those of recovery', async () => {
        await appendEntry(bookie, testEntry(1, 0));
        expect(await readLac(bookie, 1, true)).toEqual({ lac: NO_ENTRY, lastEntryId: 0 });
        await expect(appendEntry(bookie, testEntry(1, 1))).rejects.toMatchObject(code('LEDGER_FENCED'));
        await appendEntry(bookie, testEntry(1, 1, { recovery: true }));
        await appendEntry(bookie, testEntry(2, 0));
        expect(texts(await readEntries(bookie, 1, 0))).toEqual(['ledger 1 entry 0', 'ledger 1 entry 1']);
      });

      test('a ledger that was never seen can be fenced, also by a read', async () => {
        expect(await readLac(bookie, 1, true)).toEqual({ lac: NO_ENTRY, lastEntryId: NO_ENTRY });
        await expect(appendEntry(bookie, testEntry(1, 0))).rejects.toMatchObject(code('LEDGER_FENCED'));
        const read = { ledgerId: ledgerId(2), firstEntryId: entryId(0), maxEntries: 1, maxBytes: 1, fence };
        await expect(bookie.read(read)).rejects.toMatchObject(code('NO_SUCH_ENTRY'));
        await expect(appendEntry(bookie, testEntry(2, 0))).rejects.toMatchObject(code('LEDGER_FENCED'));
      });

      test('many fences of one ledger are all answered', async () => {
        await appendEntry(bookie, testEntry(1, 0));
        const answers = await Promise.all(Array.from({ length: 50 }, async () => await readLac(bookie, 1, true)));
        expect(new Set(answers.map(({ lastEntryId }) => lastEntryId))).toEqual(new Set([0]));
      });

      test('when a fence is answered, all that was accepted before it can be read, and nothing comes after it', async () => {
        const early = Array.from({ length: 100 }, (_, id) => attempt(bookie, id));
        const fenced = readLac(bookie, 1, true);
        const late = Array.from({ length: 100 }, (_, id) => attempt(bookie, 100 + id));
        const { lastEntryId } = await fenced;
        const seen = new Set<number>();
        for (let id = 0; id < 200; id++) {
          const entries = await readEntries(bookie, 1, id, { maxEntries: 1 }).catch(() => []);
          if (entries.length > 0) seen.add(id);
        }
        const acked = (await Promise.all([...early, ...late])).filter((id) => id !== undefined);
        expect(acked.filter((id) => !seen.has(id) || id > lastEntryId)).toEqual([]);
      });

      test('the first master key counts', async () => {
        const other = testKey(9);
        await appendEntry(bookie, testEntry(1, 0));
        const entry = testEntry(1, 1, { masterKey: other });
        await expect(appendEntry(bookie, entry)).rejects.toMatchObject(code('BAD_MASTER_KEY'));
        const request = { ledgerId: ledgerId(1), fence: { masterKey: other } };
        await expect(bookie.readLac(request)).rejects.toMatchObject(code('BAD_MASTER_KEY'));
        await appendEntry(bookie, testEntry(1, 1));
        await bookie.readLac({ ledgerId: ledgerId(2), fence: { masterKey: other } });
        const recovery = testEntry(2, 0, { recovery: true });
        await expect(appendEntry(bookie, recovery)).rejects.toMatchObject(code('BAD_MASTER_KEY'));
      });
    });

    describe('life', () => {
      test('entries, fences and keys survive a restart', async () => {
        const ledgers: LedgerId[] = [1, 2, 3].map(ledgerId);
        for (const ledger of ledgers) await appendEntry(bookie, testEntry(ledger, 0));
        await readLac(bookie, 2, true);
        for (let round = 0; round < 3; round++) {
          bookie = await subject.reopen();
          for (const ledger of ledgers)
            expect(texts(await readEntries(bookie, ledger, 0))[0]).toBe(`ledger ${ledger} entry 0`);
          await expect(appendEntry(bookie, testEntry(2, 1))).rejects.toMatchObject(code('LEDGER_FENCED'));
          const wrongKey = testEntry(1, 5, { masterKey: testKey(1) });
          await expect(appendEntry(bookie, wrongKey)).rejects.toMatchObject(code('BAD_MASTER_KEY'));
          await appendEntry(bookie, testEntry(3, round + 1));
        }
        expect(await readLac(bookie, 3)).toEqual({ lac: 2, lastEntryId: 3 });
        expect(texts(await readEntries(bookie, 3, 0))).toHaveLength(4);
      });

      test('closing answers what is under way, and nothing is taken after it', async () => {
        const outcomes = Promise.allSettled([0, 1, 2].map(async (id) => await appendEntry(bookie, testEntry(1, id))));
        await bookie.close();
        await outcomes;
        await bookie.close();
        expect(bookie.available).toBe(false);
        await expect(appendEntry(bookie, testEntry(1, 3))).rejects.toMatchObject(code('ALREADY_CLOSED'));
        await expect(readEntries(bookie, 1, 0)).rejects.toMatchObject(code('ALREADY_CLOSED'));
        await expect(readLac(bookie, 1)).rejects.toMatchObject(code('ALREADY_CLOSED'));
      });
    });
  });
}
