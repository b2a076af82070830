import { beforeEach, expect, test } from 'vitest';
import type { DiskFile } from '../../runtime/disk.ts';
import { CrashDisk } from '../../runtime/testing/crash-disk.ts';
import { ManualClock } from '../../runtime/testing/manual-clock.ts';
import { ZeroFill } from './zero-fill.ts';

const MB = 1_048_576;
const FROM = 8_192;

/** Writes of zeros: from where, and how many bytes. */
let writes: [number, number][];
let clock: ManualClock;
let file: DiskFile;
/** Runs before each write of zeros. */
let before: () => Promise<void>;

beforeEach(async () => {
  writes = [];
  clock = new ManualClock();
  before = async () => await Promise.resolve();
  const real = await new CrashDisk().open('/segment', { create: true });
  file = Object.assign(Object.create(real) as DiskFile, {
    write: async (pieces: readonly Uint8Array[], offset: number) => {
      writes.push([offset, pieces.reduce((sum, piece) => sum + piece.length, 0)]);
      await before();
      await real.write(pieces, offset);
    },
  });
});

function fillUpTo(limit: number): ZeroFill {
  return new ZeroFill(clock, file, { from: FROM, limit, refused: () => undefined });
}

/** Lets so many chunks be written. */
async function pass(chunks: number): Promise<void> {
  for (let n = 0; n < chunks; n++) {
    await new Promise((resolve) => setImmediate(resolve));
    clock.advance(10);
  }
}

test('fills ahead in chunks, one after the other, and not more than is wanted', async () => {
  const fill = fillUpTo(64 * MB);
  fill.want(FROM + 3 * MB, true);
  await pass(10);
  expect(writes).toEqual([0, 1, 2].map((n) => [FROM + n * MB, MB]));
  expect([fill.covers(FROM + 3 * MB), fill.covers(FROM + 3 * MB + 1)]).toEqual([true, false]);
});

test('waits until a whole chunk is missing: a log that writes little is not followed page by page', async () => {
  const fill = fillUpTo(64 * MB);
  fill.want(FROM + 2 * MB, true);
  await pass(10);
  for (let at = 4_096; at < MB; at += 4_096) {
    fill.want(FROM + 2 * MB + at, at % 8_192 === 0);
    await pass(1);
  }
  expect(writes).toHaveLength(2);
  fill.want(FROM + 3 * MB, false);
  await pass(1);
  expect(writes.at(-1)).toEqual([FROM + 2 * MB, MB]);
});

test('fills what is left before the end, however little', async () => {
  const fill = fillUpTo(FROM + MB + 4_096);
  fill.want(FROM + 9 * MB, true);
  await pass(10);
  expect(writes).toEqual([
    [FROM, MB],
    [FROM + MB, 4_096],
  ]);
});

test('a writer that is faster waits for the chunk in flight, and is left alone until it is idle', async () => {
  const written: (() => void)[] = [];
  before = async () => await new Promise((resolve) => written.push(resolve));
  const fill = fillUpTo(64 * MB);
  fill.want(FROM + 4 * MB, true);
  let yielded = false;
  const yielding = fill.yieldTo(FROM + 5 * MB).then(() => (yielded = true));
  await pass(1);
  expect(yielded).toBe(false);
  written.shift()?.();
  await yielding;
  fill.want(FROM + 9 * MB, false);
  await pass(10);
  expect(writes).toEqual([[FROM, MB]]);
  fill.want(FROM + 9 * MB, true);
  expect(writes.at(-1)).toEqual([FROM + 5 * MB, MB]);
  written.shift()?.();
  await fill.stop();
});

test('a probe writes at once, and tells why it could not', async () => {
  const fill = fillUpTo(64 * MB);
  await fill.probe(MB);
  expect(writes).toEqual([[FROM, MB]]);
  const full = Object.assign(new Error('no space left'), { code: 'ENOSPC' });
  before = async () => await Promise.reject(full);
  await expect(fill.probe(MB)).rejects.toBe(full);
});

test('a chunk of a probe does not begin where a writer waits for its range', async () => {
  const written: (() => void)[] = [];
  before = async () => await new Promise((resolve) => written.push(resolve));
  const fill = fillUpTo(64 * MB);
  fill.want(FROM + 4 * MB, true);
  const probing = fill.probe(MB);
  const end = FROM + MB + 4_096;
  const yielding = fill.yieldTo(end);
  written.shift()?.();
  await yielding;
  await pass(1);
  expect(writes).toEqual([
    [FROM, MB],
    [end, MB],
  ]);
  written.shift()?.();
  await probing;
});

test('nor does it, when no chunk is in flight', async () => {
  const fill = fillUpTo(64 * MB);
  const end = FROM + 4_096;
  const yielding = fill.yieldTo(end);
  await Promise.all([fill.probe(MB), yielding]);
  expect(writes).toEqual([[end, MB]]);
});
