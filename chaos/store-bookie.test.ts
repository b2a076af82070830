/** What a bookie's process keeps over its death: entries, fences, and the difference between "never had" and "lost". */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import type { EntryId, LedgerId } from '../services/lib/ids.ts';
import { entryDigest } from '../services/wire/digest.ts';
import type { WireAppendEntry } from '../services/wire/frames.ts';
import { flipText } from './support/damage.ts';
import { type ServerProcess, startBookie } from './support/process.ts';
import { appendStream, HELLO, readStream } from './support/raw-stream.ts';

const KEY = Buffer.alloc(16, 7);
const OTHER_KEY = Buffer.alloc(16, 8);

function id(value: number): EntryId {
  return value as EntryId;
}

function textOf(ledger: number, number: number): string {
  return `ledger ${ledger}, entry ${number}, ${'.'.repeat(number % 100)}`;
}

function entry(ledger: number, entryId: number, more: Partial<WireAppendEntry> = {}): WireAppendEntry {
  const payload = [Buffer.from(textOf(ledger, entryId))];
  const payloadBytes = payload[0]?.length ?? 0;
  const numbers = { ledgerId: ledger as LedgerId, entryId: id(entryId), lac: id(entryId - 1), length: payloadBytes };
  const digest = entryDigest({ ...numbers, payload });
  const rest = { masterKey: KEY, recovery: false, payload, payloadBytes };
  return { request: entryId + 1, ...numbers, digest, ...rest, ...more };
}

/** Appends one after another; gives 'stored' or the code of each. */
async function append(bookie: ServerProcess, ...entries: readonly WireAppendEntry[]): Promise<string[]> {
  await using stream = appendStream(bookie.port);
  const numbered = entries.map((one, at) => ({ ...one, request: at + 1 }));
  stream.send({ hello: HELLO, entries: numbered });
  return await Promise.all(
    numbered.map(async ({ request }) => {
      const result = await stream.answer((frame) => frame.results?.find((one) => one.request === request));
      return result.error?.code ?? 'stored';
    }),
  );
}

/** The text of an entry, or the code of the error. */
async function read(bookie: ServerProcess, ledger: number, entryId: number): Promise<string> {
  await using stream = readStream(bookie.port);
  const wanted = { request: 1, ledgerId: ledger as LedgerId, firstEntryId: id(entryId), maxEntries: 1, maxBytes: 1 };
  stream.send({ hello: HELLO, reads: [{ ...wanted, fence: false, masterKey: KEY }] });
  const result = await stream.answer((frame) => frame.entries?.[0]);
  return result.error?.code ?? result.entries?.[0]?.payload.toString() ?? 'nothing';
}

/** "lac/last entry" of a ledger, or the code of the error. */
async function readLac(bookie: ServerProcess, ledger: number, fence?: Buffer): Promise<string> {
  await using stream = readStream(bookie.port);
  const asked = { request: 1, ledgerId: ledger as LedgerId, fence: fence !== undefined, masterKey: fence ?? KEY };
  stream.send({ hello: HELLO, lacs: [asked] });
  const result = await stream.answer((frame) => frame.lacs?.[0]);
  return result.error?.code ?? `${result.lac}/${result.lastEntryId}`;
}

const DEATHS = [
  ['kill -9', async (bookie: ServerProcess) => await bookie.kill()],
  ['an orderly stop', async (bookie: ServerProcess) => void (await bookie.stop())],
  [
    'kill -9 and the loss of its index',
    async (bookie: ServerProcess) => {
      await bookie.kill();
      await rm(path.join(bookie.data, 'bookie-0', 'index'), { recursive: true });
    },
  ],
  [
    'an orderly stop and the loss of its index',
    async (bookie: ServerProcess) => {
      await bookie.stop();
      await rm(path.join(bookie.data, 'bookie-0', 'index'), { recursive: true });
    },
  ],
] as const;

describe.each(DEATHS)('after %s', (_, end) => {
  test('a fence holds; recovery may write; what never was there still never was', async () => {
    await using bookie = await startBookie();
    expect(await append(bookie, entry(1, 0), entry(1, 1), entry(2, 0))).toEqual(['stored', 'stored', 'stored']);
    expect(await readLac(bookie, 1, KEY)).toBe('0/1');
    expect(await readLac(bookie, 3, KEY)).toBe('-1/-1'); // a ledger that it has never seen
    for (let life = 0; life < 2; life++) {
      await end(bookie);
      await bookie.start();
      const adds = [entry(1, 2), entry(3, 0), entry(2, life + 1)];
      expect(await append(bookie, ...adds)).toEqual(['LEDGER_FENCED', 'LEDGER_FENCED', 'stored']);
      expect(await append(bookie, entry(1, 2, { masterKey: OTHER_KEY }))).toEqual(['BAD_MASTER_KEY']);
      expect(await readLac(bookie, 1, OTHER_KEY)).toBe('BAD_MASTER_KEY');
      const found = await Promise.all([read(bookie, 1, 1), read(bookie, 1, 9), read(bookie, 9, 0)]);
      expect(found).toEqual([textOf(1, 1), 'NO_SUCH_ENTRY', 'NO_SUCH_LEDGER']);
      expect(await append(bookie, entry(1, 1, { recovery: true }))).toEqual(['stored']);
      expect(await readLac(bookie, 1)).toBe('0/1');
    }
    expect(await append(bookie, entry(1, 2, { recovery: true }))).toEqual(['stored']);
    expect(await read(bookie, 1, 2)).toBe(textOf(1, 2));
  });

  test('every entry that was acknowledged is there', async () => {
    await using bookie = await startBookie();
    await using stream = appendStream(bookie.port);
    const LEDGERS = 20;
    const PER_LEDGER = 400;
    stream.send({ hello: HELLO });
    for (let number = 0; number < PER_LEDGER; number++) {
      const entries = Array.from({ length: LEDGERS }, (_unused, ledger) =>
        entry(ledger, number, { request: number * LEDGERS + ledger }),
      );
      stream.send({ entries });
    }
    const isStored = (count: number): boolean => count >= (LEDGERS * PER_LEDGER) / 4;
    await stream.until((frames) =>
      isStored(frames.flatMap(({ results }) => results ?? []).length) ? true : undefined,
    );
    await end(bookie);
    const acknowledged = stream.frames
      .flatMap((frame) => frame.results ?? [])
      .filter(({ error }) => error === undefined);
    await bookie.start();
    await using reads = readStream(bookie.port);
    reads.send({ hello: HELLO });
    for (let ledger = 0; ledger < LEDGERS; ledger++) {
      const wanted = acknowledged.filter(({ request }) => request % LEDGERS === ledger).length;
      const bounds = { maxEntries: wanted, maxBytes: 1_000_000, fence: false, masterKey: KEY };
      reads.send({ reads: [{ request: ledger, ledgerId: ledger as LedgerId, firstEntryId: id(0), ...bounds }] });
      const result = await reads.answer((frame) => frame.entries?.find(({ request }) => request === ledger));
      const texts = result.entries?.map(({ payload }) => payload.toString());
      expect(texts).toEqual(Array.from({ length: wanted }, (_unused, number) => textOf(ledger, number)));
    }
  });
});

describe('what was lost', () => {
  test.each([
    ['replayed', async (bookie: ServerProcess) => await bookie.kill()],
    ['sealed', async (bookie: ServerProcess) => void (await bookie.stop())],
  ])('is never taken for what never was there (%s)', async (_, end) => {
    await using bookie = await startBookie();
    for (const ledger of [1, 2]) for (const number of [0, 1, 2]) await append(bookie, entry(ledger, number));
    await append(bookie, entry(9, 0)); // marks what came before as committed
    await end(bookie);
    await flipText(path.join(bookie.data, 'bookie-0'), textOf(1, 1));
    await bookie.start();
    expect([await read(bookie, 1, 0), await read(bookie, 1, 2)]).toEqual([textOf(1, 0), textOf(1, 2)]);
    expect([await read(bookie, 1, 1), await read(bookie, 1, 3)]).toEqual(['CHECKSUM_MISMATCH', 'NO_SUCH_ENTRY']);
    expect([await read(bookie, 2, 1), await read(bookie, 2, 3)]).toEqual([textOf(2, 1), 'NO_SUCH_ENTRY']);
    for (const ledger of [1, 2]) expect(await append(bookie, entry(ledger, 3))).toEqual(['stored']);
  });
});
