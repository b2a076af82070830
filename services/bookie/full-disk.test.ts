import { describe, expect, test } from 'vitest';
import type { Bookie } from '../ledger/bookie.ts';
import { appendEntry, testEntry, testKey } from '../ledger/bookie.contract.ts';
import { hasCode, type MagnetarError, toMagnetarError } from '../lib/errors.ts';
import { ledgerId, NO_ENTRY } from '../lib/ids.ts';
import type { Clock } from '../runtime/clock.ts';
import { nodeClock } from '../runtime/node/clock.ts';
import type { BookieOptions } from './bookie.ts';
import { CrashedBookie, outcome } from './testing/crashed-bookie.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { until } from '../runtime/testing/until.ts';

const RESERVE = 1_000_000;
/** Timers go off soon. */
const hastyClock: Clock = {
  ...nodeClock,
  after: (ms, callback, options) => nodeClock.after(Math.min(ms, 2), callback, options),
};
const fence = { masterKey: testKey() };
const payload = [Buffer.alloc(20_000, 'x')];

function newSubject(options: BookieOptions = {}): CrashedBookie {
  return new CrashedBookie({ segmentBytes: 400_000, reserveBytes: RESERVE, ...options }, hastyClock);
}

/** Leaves so much room on the disk. */
function leave(subject: CrashedBookie, bytes: number): void {
  subject.disk.capacityBytes = subject.disk.usedBytes + bytes;
}

/** How often the bookie has asked for the room on the disk since this was called. */
function countLooks({ disk }: CrashedBookie): () => number {
  const space = disk.space.bind(disk);
  let looks = 0;
  disk.space = async (folder) => {
    looks++;
    return await space(folder);
  };
  return () => looks;
}

async function refusal(bookie: Bookie, ledger: number, entry: number): Promise<MagnetarError | undefined> {
  try {
    await appendEntry(bookie, testEntry(ledger, entry, { payload }));
    return undefined;
  } catch (error) {
    return toMagnetarError(error);
  }
}

/** Appends to a ledger until that is refused; returns how many entries were stored. */
async function appendUntilFull(bookie: Bookie, ledger: number): Promise<number> {
  for (let entry = 0; entry < 1_000; entry++) {
    const error = await refusal(bookie, ledger, entry);
    if (error === undefined) continue;
    expect(error.code).toBe('DISK_FULL');
    return entry;
  }
  throw new Error('the disk is never full');
}

async function lac(bookie: Bookie, ledger: number): Promise<number | string> {
  try {
    return (await bookie.readLac({ ledgerId: ledgerId(ledger), fence })).lac;
  } catch (error) {
    return toMagnetarError(error).code;
  }
}

describe('a disk that is nearly full', () => {
  test('refuses entries before it is full, with the folder, what is free, and what is needed', async () => {
    const subject = newSubject();
    const bookie = await subject.open();
    leave(subject, 3_000_000);
    const stored = await appendUntilFull(bookie, 1);
    const { freeBytes } = await subject.disk.space('/bookie');
    expect(freeBytes).toBeGreaterThan(RESERVE / 2);
    expect(bookie.available).toBe(false);
    const error = await refusal(bookie, 1, stored);
    expect(error).toMatchObject({ code: 'DISK_FULL', retryable: true });
    expect(error?.message).toBe(
      `bookie local-0 takes no entries because its disk is full: /bookie has ${freeBytes} bytes free, and needs 1250000`,
    );
    expect(error?.details).toEqual({ folder: '/bookie', freeBytes: `${freeBytes}`, neededBytes: '1250000' });
    expect(subject.fatal).toEqual([]);
    await bookie.close();
  });

  test('serves reads, fences and the rewrites of recovery from its reserve, also after kill -9', async () => {
    const subject = newSubject();
    let bookie = await subject.open();
    leave(subject, 3_000_000);
    const stored = await appendUntilFull(bookie, 1);
    for (let life = 0; life < 2; life++) {
      expect(await outcome(bookie, 1, stored - 1)).toBe(payload.toString());
      expect(await outcome(bookie, 1, stored)).toBe(life === 0 ? 'NO_SUCH_ENTRY' : payload.toString());
      expect(await lac(bookie, 1)).toBe(stored - 2 + life);
      expect(await lac(bookie, 100 + life)).toBe(NO_ENTRY); // a ledger that it has never seen
      await appendEntry(bookie, testEntry(1, stored, { payload, recovery: true }));
      expect(await refusal(bookie, 1, stored + 1)).toMatchObject({ code: 'LEDGER_FENCED' });
      expect(await refusal(bookie, 2, 0)).toMatchObject({ code: 'DISK_FULL' });
      expect(await outcome(bookie, 2, 0)).toBe('NO_SUCH_LEDGER');
      subject.disk.crash();
      bookie = await subject.open();
      expect(bookie.available).toBe(false);
    }
    await bookie.close();
  });

  test('takes entries again by itself when there is room, and not for a few bytes more than the reserve', async () => {
    const subject = newSubject();
    const bookie = await subject.open();
    leave(subject, 3_000_000);
    const stored = await appendUntilFull(bookie, 1);
    leave(subject, RESERVE + 100_000);
    const looks = countLooks(subject);
    await until(() => looks() >= 3); // one that was due already, one at least by itself; both are through
    expect(bookie.available).toBe(false);
    leave(subject, 5_000_000);
    await until(() => bookie.available);
    expect(await refusal(bookie, 1, stored)).toBeUndefined();
    await bookie.close();
  });
});

describe('a disk that is full to the last byte', () => {
  test('stores what fits into the space that was filled ahead, and refuses the rest, fences too, until there is room', async () => {
    const subject = newSubject({ reserveBytes: 0 });
    const bookie = await subject.open();
    await refusal(bookie, 1, 0);
    leave(subject, 0);
    const stored = await appendUntilFull(bookie, 2);
    expect(await outcome(bookie, 2, stored - 1)).toBe(payload.toString());
    let fences = 0;
    for (; (await lac(bookie, 100 + fences)) !== 'DISK_FULL'; fences++) expect(fences).toBeLessThan(200);
    expect(subject.fatal).toEqual([]);
    leave(subject, 5_000_000);
    await until(() => bookie.available);
    expect(await lac(bookie, 100 + fences)).toBe(NO_ENTRY);
    expect(await refusal(bookie, 2, stored)).toBeUndefined();
    subject.disk.crash();
    const again = await subject.open();
    expect(await outcome(again, 2, stored)).toBe(payload.toString());
    expect(await refusal(again, 100 + fences, 0)).toMatchObject({ code: 'LEDGER_FENCED' });
    await again.close();
  });

  test('a quota that the disk does not tell of keeps it from taking entries until a write succeeds', async () => {
    const subject = newSubject({ reserveBytes: 0 });
    const bookie = await subject.open();
    const quota = { exceeded: true, tries: 0 };
    subject.disk.before = ({ operation, path }) => {
      if (operation !== 'write' || !path.includes('/segments/') || !quota.exceeded) return;
      quota.tries++;
      throw Object.assign(new Error('EDQUOT: disk quota exceeded, write'), { code: 'EDQUOT' });
    };
    const error = await refusal(bookie, 1, 0);
    expect(error?.message).toMatch(
      /^bookie local-0 takes no entries .*; a write failed: EDQUOT: disk quota exceeded, write$/,
    );
    await until(() => quota.tries >= 5); // it goes on trying
    expect(bookie.available).toBe(false);
    quota.exceeded = false;
    await until(() => bookie.available);
    expect(await refusal(bookie, 1, 0)).toBeUndefined();
    await bookie.close();
  });

  test('nothing is sealed while there is no room, nothing is lost, and an orderly end waits for none', async () => {
    const subject = newSubject({ reserveBytes: 0 });
    const bookie = await subject.open();
    subject.index.full = true;
    let stored = 0;
    for (; (await refusal(bookie, 1, stored)) === undefined; stored++) expect(stored).toBeLessThan(100);
    expect(await outcome(bookie, 1, stored - 1)).toBe(payload.toString());
    await bookie.close();
    expect(subject.disk.openFiles).toBe(0);
    subject.index.full = false;
    const again = await subject.open();
    for (let entry = 0; entry < stored; entry++) expect(await outcome(again, 1, entry)).toBe(payload.toString());
    await again.close();
    expect(subject.fatal).toEqual([]);
  });

  test('what could not be sealed at an orderly end is replayed', async () => {
    const subject = newSubject({ reserveBytes: 0 });
    const bookie = await subject.open();
    let stored = 0;
    for (; stored < 15; stored++) await refusal(bookie, 1, stored);
    subject.disk.before = ({ operation, path }) => {
      if (operation === 'truncate' && path.includes('/segments/')) {
        throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC', syscall: 'write' });
      }
    };
    await bookie.close();
    subject.disk.before = () => {};
    const again = await subject.open();
    for (let entry = 0; entry < stored; entry++) expect(await outcome(again, 1, entry)).toBe(payload.toString());
    await again.close();
    expect(subject.fatal).toEqual([]);
  });

  test('a ledger that the witness had no room for is written down before anything of it is stored', async () => {
    const subject = new CrashedBookie({ reserveBytes: 0 }, new ManualClock());
    const bookie = await subject.open();
    await appendEntry(bookie, testEntry(1, 0));
    const places: (number | undefined)[] = [];
    subject.disk.before = ({ operation, path, offset }) => {
      if (operation !== 'write' || !path.endsWith('witness')) return;
      places.push(offset);
      if (places.length === 1) throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
    };
    expect(await lac(bookie, 100)).toBe('DISK_FULL');
    expect(await lac(bookie, 100)).toBe(NO_ENTRY);
    expect([places.length, new Set(places).size]).toEqual([2, 1]); // the page that says what held before is left alone
    subject.disk.crash();
    subject.disk.before = () => {};
    await subject.replace(subject.path(1), undefined);
    const again = await subject.open();
    expect(await outcome(again, 100, 0)).toBe('ENTRY_UNKNOWN'); // and not that there never was such a ledger
    await again.close();
  });

  test('a failed sync is the end, whatever it says', async () => {
    const subject = newSubject();
    const bookie = await subject.open();
    subject.disk.before = ({ operation }) => {
      if (operation === 'sync') throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC', syscall: 'fdatasync' });
    };
    expect(await refusal(bookie, 1, 0)).toMatchObject({ code: 'STORE_FAILED' });
    expect(hasCode(subject.fatal[0], 'STORE_FAILED')).toBe(true);
    await bookie.close();
  });
});
