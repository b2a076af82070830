import { EventEmitter, once } from 'node:events';
import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Bookie } from '../ledger/bookie.ts';
import { appendEntry, readEntries, testEntry, testKey, texts } from '../ledger/bookie.contract.ts';
import { entryId, ledgerId } from '../lib/ids.ts';
import { crc32c } from '../lib/crc32c.ts';
import { openBookie } from './bookie.ts';
import { DATA_START, encodeSegmentHeader, PAGE_BYTES, segmentIdentity } from './segments/format.ts';
import { openSegment } from './segments/segment-file.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { until } from '../runtime/testing/until.ts';
import { CrashedBookie, lacOutcome, outcome } from './testing/crashed-bookie.ts';
import { testEnvironment } from './testing/environment.ts';
import { MemoryIndex } from './testing/memory-index.ts';
import { readWitness, type WitnessContent } from './witness.ts';

/** Holds every sync of a disk until it is let go. */
function holdSyncs(subject: CrashedBookie): { readonly held: Promise<unknown>; release(): void } {
  const events = new EventEmitter();
  let holding = true;
  const held = once(events, 'held');
  subject.disk.before = async ({ operation, path }) => {
    if (operation !== 'sync' || path.endsWith('witness') || !holding) return;
    events.emit('held');
    await once(events, 'released');
  };
  return {
    held,
    release() {
      holding = false;
      events.emit('released');
    },
  };
}

describe('group commit', () => {
  test('nothing is answered before its sync; what comes meanwhile shares the next one', async () => {
    const subject = new CrashedBookie();
    const bookie = await subject.open();
    const barrier = holdSyncs(subject);
    const acked: number[] = [];
    const append = async (id: number): Promise<void> => {
      await appendEntry(bookie, testEntry(1, id));
      acked.push(id);
    };
    const first = append(0);
    await barrier.held;
    let fenced = false;
    const others = Promise.all([1, 2, 3].map(append));
    const fence = bookie
      .readLac({ ledgerId: ledgerId(2), fence: { masterKey: testKey() } })
      .then(() => (fenced = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect([acked, fenced, await outcome(bookie, 1, 0)]).toEqual([[], false, 'NO_SUCH_ENTRY']);
    let syncs = 0;
    barrier.release();
    subject.disk.before = ({ operation, path }) => {
      if (operation === 'sync' && !path.endsWith('witness')) syncs++;
    };
    await Promise.all([first, others, fence]);
    expect([acked, syncs]).toEqual([[0, 1, 2, 3], 1]);
    await bookie.close();
  });

  test('more than may wait is refused, fences are not, and there is room again afterwards', async () => {
    const subject = new CrashedBookie({ maxPendingEntries: 3, maxPendingBytes: 1_000 });
    const bookie = await subject.open();
    const barrier = holdSyncs(subject);
    const waiting = [0, 1, 2].map(async (id) => await appendEntry(bookie, testEntry(1, id)));
    await expect(appendEntry(bookie, testEntry(1, 3))).rejects.toMatchObject({ code: 'QUEUE_FULL' });
    const fence = bookie.readLac({ ledgerId: ledgerId(2), fence: { masterKey: testKey() } });
    barrier.release();
    await Promise.all([...waiting, fence]);
    await appendEntry(bookie, testEntry(1, 3));
    const large = testEntry(1, 4, { payload: [Buffer.alloc(5_000)] });
    await appendEntry(bookie, large); // Alone, an entry above the bound is taken.
    await bookie.close();
  });

  test('what is submitted when a record is settled is on its way at once, without the clock', async () => {
    const subject = new CrashedBookie({}, new ManualClock());
    const bookie = await subject.open();
    await new Promise<void>((resolve) => {
      bookie.append(testEntry(1, 0), () => bookie.append(testEntry(1, 1), () => resolve()));
    });
    expect(await outcome(bookie, 1, 1)).toBe('ledger 1 entry 1');
    await bookie.close();
  });

  test('a group does not wait for the mark of an idle log; the end of the segment does', async () => {
    const clock = new ManualClock();
    const subject = new CrashedBookie({ segmentBytes: DATA_START + 3 * PAGE_BYTES, markDelayMs: 20 }, clock);
    const bookie = await subject.open();
    await appendEntry(bookie, testEntry(1, 0));
    const events = new EventEmitter();
    const held = once(events, 'held');
    const steps: string[] = [];
    subject.disk.before = async ({ operation, path, offset = 0 }) => {
      if (!path.startsWith(subject.path(1))) return; // It has kept its first name.
      if (operation === 'truncate') steps.push('sealed');
      if (operation !== 'write' || offset === 0 || offset >= DATA_START) return;
      events.emit('held');
      await once(events, 'released');
      steps.push('marked');
    };
    clock.advance(20);
    await held;
    for (const id of [1, 2]) await appendEntry(bookie, testEntry(1, id)); // The segment is full.
    const inTheNext = appendEntry(bookie, testEntry(1, 3));
    await new Promise((resolve) => setImmediate(resolve));
    steps.push('released');
    events.emit('released');
    await inTheNext;
    await bookie.close();
    expect(steps).toEqual(['released', 'marked', 'sealed']);
  });
});

describe('a disk that fails', () => {
  test.each(['write', 'sync'] as const)('on %s: nothing more is acknowledged, reads go on', async (failing) => {
    const subject = new CrashedBookie();
    const bookie = await subject.open();
    await appendEntry(bookie, testEntry(1, 0));
    subject.disk.before = ({ operation }) => {
      if (operation === failing) throw Object.assign(new Error('EIO'), { code: 'EIO' });
    };
    const failed = { code: 'STORE_FAILED' };
    const outcomes = await Promise.allSettled([1, 2, 3].map(async (id) => await appendEntry(bookie, testEntry(1, id))));
    for (const result of outcomes) expect(result).toMatchObject({ status: 'rejected', reason: failed });
    subject.disk.before = () => {};
    await expect(appendEntry(bookie, testEntry(1, 4))).rejects.toMatchObject(failed);
    const fence = bookie.readLac({ ledgerId: ledgerId(1), fence: { masterKey: testKey() } });
    await expect(fence).rejects.toMatchObject(failed);
    expect(await outcome(bookie, 1, 0)).toBe('ledger 1 entry 0');
    expect(subject.fatal).toHaveLength(1);
    expect(bookie.available).toBe(false);
    await bookie.close();
    expect(subject.fatal).toHaveLength(1);
  });

  test('on the sync of the next segment, made ahead: ends at once, and not in order', async () => {
    const subject = new CrashedBookie();
    const bookie = await subject.open();
    subject.disk.before = ({ operation, path }) => {
      if (operation !== 'sync' || !path.startsWith(subject.path(2))) return;
      throw Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' });
    };
    // More than half of a segment, and not all of it.
    await appendEntry(bookie, testEntry(1, 0, { payload: [Buffer.alloc(150_000)] }));
    await until(() => subject.fatal.length > 0);
    expect(subject.fatal).toMatchObject([{ code: 'STORE_FAILED' }]);
    await expect(appendEntry(bookie, testEntry(1, 1))).rejects.toMatchObject({ code: 'STORE_FAILED' });
    subject.disk.before = () => {};
    await bookie.close();
    const { status } = await witnessOf(subject, bookie.instance);
    expect([subject.fatal.length, status.closed]).toEqual([1, false]);
  });

  test('on read: the entry counts as damaged while the disk does not give it; nothing else stops', async () => {
    const subject = new CrashedBookie();
    const bookie = await subject.open();
    await appendEntry(bookie, testEntry(1, 0));
    subject.disk.before = ({ operation }) => {
      if (operation === 'read') throw Object.assign(new Error('EIO'), { code: 'EIO' });
    };
    const open = subject.disk.openFiles;
    for (let i = 0; i < 3; i++) expect(await outcome(bookie, 1, 0)).toBe('CHECKSUM_MISMATCH');
    expect(subject.lines.filter((line) => line.startsWith('error'))).toEqual([
      expect.stringMatching(/0000000001.seg cannot be read by the disk .*: lost entry 0 of ledger 1$/),
    ]);
    expect(bookie.damage).toMatchObject([{ file: subject.path(1), what: 'unreadable' }]);
    expect(subject.disk.openFiles).toBe(open + 1);
    subject.disk.before = () => {};
    expect(await outcome(bookie, 1, 0)).toBe('ledger 1 entry 0');
    expect([bookie.damage, subject.fatal]).toEqual([[], []]);
    await bookie.close();
    expect(subject.disk.openFiles).toBe(0);
  });
});

async function witnessOf({ environment }: CrashedBookie, instance: Buffer): Promise<WitnessContent> {
  const content = await readWitness(environment, '/bookie', instance);
  if (content === undefined) throw new Error('there is no witness');
  return content;
}

/** A bookie that crashed with segments to replay, one that is sealed, and one that nobody can read. */
async function crashed(): Promise<CrashedBookie> {
  const subject = new CrashedBookie({ segmentBytes: 20_480 });
  const bookie = await subject.open();
  for (let id = 0; id < 8; id++) await appendEntry(bookie, testEntry(1, id));
  subject.disk.crash();
  subject.index = new MemoryIndex();
  const wiped = await subject.disk.open(subject.path(2));
  await wiped.write([Buffer.alloc(DATA_START)], 0);
  await wiped.sync();
  await wiped.close();
  return subject;
}

describe('open files', () => {
  test('are closed whichever operation of a start fails, and all but the active segment when none does', async () => {
    for (let failing = 0; ; failing++) {
      const subject = await crashed();
      let left = failing;
      subject.disk.before = () => {
        if (left-- === 0) throw Object.assign(new Error('EIO'), { code: 'EIO' });
      };
      const opened = await subject.open().catch(() => undefined);
      subject.disk.before = () => {};
      // The active segment, and the witness.
      expect([failing, subject.disk.openFiles]).toEqual([failing, opened === undefined ? 0 : 2]);
      await opened?.close();
      expect([failing, subject.disk.openFiles]).toEqual([failing, 0]);
      if (left >= 0) break;
    }
  });

  test('are closed when a segment cannot be read: of another version, without a head, with a disk that fails', async () => {
    const subject = await crashed();
    const { disk, environment } = subject;
    const { length } = await disk.readFile(subject.path(2));
    expect(await openSegment(environment, '/bookie/segments', 2)).toEqual({ what: 'damaged', fileBytes: length });
    expect(disk.openFiles).toBe(0);
    disk.before = ({ operation }) => {
      if (operation === 'read') throw Object.assign(new Error('EMFILE'), { code: 'EMFILE' });
    };
    await expect(openSegment(environment, '/bookie/segments', 1)).rejects.toThrow('EMFILE');
    expect(disk.openFiles).toBe(0);
    disk.before = () => {};
    const file = await disk.open(subject.path(2));
    await file.write([newerHead()], 0);
    await file.close();
    await expect(openSegment(environment, '/bookie/segments', 2)).rejects.toMatchObject({ code: 'FOLDER_VERSION' });
    expect(disk.openFiles).toBe(0);
  });
});

/** The first page of a segment of a version that this program does not know. */
function newerHead(): Buffer {
  const head = encodeSegmentHeader(segmentIdentity(2, 1, Buffer.alloc(16)));
  head.writeUInt32LE(2, 4);
  head.writeUInt32LE(crc32c(head.subarray(0, 60)), 60);
  return head;
}

function payload(id: number): Buffer {
  return Buffer.alloc(3_000 + id, `${id};`);
}

describe('many segments', () => {
  test('are rolled through, read across, and opened again without replay', async () => {
    const subject = new CrashedBookie({ segmentBytes: 65_536 });
    let bookie: Bookie = await subject.open();
    for (let id = 0; id < 300; id += 5) {
      const batch = [0, 1, 2, 3, 4].map((more) => testEntry(1, id + more, { payload: [payload(id + more)] }));
      await Promise.all([...batch, testEntry(2, id)].map(async (entry) => await appendEntry(bookie, entry)));
    }
    const check = async (): Promise<void> => {
      let next = 0;
      while (next < 300) {
        const entries = await readEntries(bookie, 1, next, { maxBytes: 20_000 });
        for (const entry of entries) {
          expect(entry.entryId).toBe(next);
          expect(entry.payload.equals(payload(next++))).toBe(true);
        }
      }
      expect(await lacOutcome(bookie, 1)).toBe(298);
      expect(await outcome(bookie, 2, 295)).toBe('ledger 2 entry 295');
    };
    await check();
    await bookie.close();
    expect((await subject.disk.list('/bookie/segments')).length).toBeGreaterThan(14);
    const reads = new Map<string, number>();
    subject.disk.before = ({ operation, path }) => {
      if (operation === 'read') reads.set(path, (reads.get(path) ?? 0) + 1);
    };
    bookie = await subject.open();
    // Head and seal of each, and of the empty one that was made ahead its first page.
    expect([...reads.values()].filter((count) => count > 2).length).toBeLessThanOrEqual(1);
    await check();
    await bookie.close();
  });

  test('what was read ahead serves who comes for it, and leaves when nobody does', async () => {
    const clock = new ManualClock();
    const subject = new CrashedBookie({ segmentBytes: 8_388_608 }, clock);
    const bookie = await subject.open();
    const whole = Buffer.alloc(500_000, 'x');
    const append = async (ledger: number, id: number): Promise<void> =>
      await appendEntry(bookie, testEntry(ledger, id, { payload: [whole] }));
    for (const id of [0, 1, 2, 3, 4, 5, 6]) await append(1, id);
    for (const id of [0, 1, 2]) await append(2, id);
    let reads = 0;
    subject.disk.before = ({ operation }) => {
      if (operation === 'read') reads++;
    };
    const readsOf = async (ledger: number, id: number): Promise<number> => {
      const before = reads;
      const [entry] = await readEntries(bookie, ledger, id, { maxBytes: 1 });
      expect(entry?.payload.equals(whole)).toBe(true);
      return reads - before;
    };
    for (const id of [0, 1]) {
      for (const ledger of [1, 2]) expect(await readsOf(ledger, id)).toBeGreaterThan(0);
    }
    for (const id of [2, 3]) expect(await readsOf(1, id)).toBe(0);
    clock.advance(4_000);
    expect(await readsOf(1, 4)).toBe(0);
    clock.advance(5_000);
    expect(await readsOf(1, 5)).toBe(0); // somebody was there less than 5 s before the last look
    expect(await readsOf(2, 2)).toBeGreaterThan(0); // and nobody here
    clock.advance(10_000);
    expect(await readsOf(1, 6)).toBeGreaterThan(0);
    await bookie.close();
  });

  test.each([2, 6, 20])(
    '%i that are read side by side: each byte is fetched once, and few are held',
    async (ledgers) => {
      const [entries, answerBytes, readAheadBytes] = [32, 262_144, 4_194_304];
      const subject = new CrashedBookie({ segmentBytes: 8_388_608, readAheadBytes });
      const bookie = await subject.open();
      const whole = Buffer.alloc(65_536, 'x');
      for (let id = 0; id < entries; id++) {
        const round = Array.from({ length: ledgers }, (_, ledger) => testEntry(ledger, id, { payload: [whole] }));
        await Promise.all(round.map(async (entry) => await appendEntry(bookie, entry)));
      }
      let [fetched, served, most] = [0, 0, 0];
      subject.disk.before = async ({ operation, bytes }) => {
        if (operation !== 'read') return;
        fetched += bytes;
        most = Math.max(most, fetched - served);
        await new Promise((resolve) => setImmediate(resolve));
      };
      const readAll = async (_: unknown, ledger: number): Promise<void> => {
        for (let next = 0; next < entries; ) {
          const answer = await readEntries(bookie, ledger, next, { maxBytes: answerBytes });
          next += answer.length;
          for (const { payload: bytes } of answer) served += bytes.length;
        }
      };
      await Promise.all(Array.from({ length: ledgers }, readAll));
      expect(served).toBe(ledgers * entries * whole.length);
      expect(fetched / served).toBeLessThan(1.3);
      expect(most).toBeLessThanOrEqual(readAheadBytes + ledgers * answerBytes * 1.01);
      await bookie.close();
    },
  );

  test('what nobody comes for makes room for who reads on, before its time', async () => {
    const clock = new ManualClock();
    const subject = new CrashedBookie({ segmentBytes: 33_554_432, readAheadBytes: 4_194_304 }, clock);
    const bookie = await subject.open();
    const whole = [Buffer.alloc(1_000_000, 'x')];
    for (const id of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) {
      for (const ledger of [1, 2]) await appendEntry(bookie, testEntry(ledger, id, { payload: whole }));
    }
    await readEntries(bookie, 1, 0, { maxEntries: 1 });
    await readEntries(bookie, 1, 1, { maxEntries: 1 });
    let reads = 0;
    subject.disk.before = ({ operation }) => {
      if (operation === 'read') reads++;
    };
    const readsOf: number[] = [];
    for (const id of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) {
      clock.advance(1);
      const before = reads;
      await readEntries(bookie, 2, id, { maxEntries: 1 });
      readsOf.push(reads - before);
    }
    // One by one, until that was as much as there is room for; then ahead, and out of that.
    expect(readsOf).toEqual([1, 1, 1, 1, 1, 1, 4, 0, 0, 0]);
    await bookie.close();
  });

  test('a newer copy of an entry counts', async () => {
    const subject = new CrashedBookie({ segmentBytes: 16_384 });
    const bookie = await subject.open();
    for (const word of ['one', 'two', 'three']) {
      await appendEntry(bookie, testEntry(1, 0, { payload: [Buffer.from(word)], recovery: true }));
      await appendEntry(bookie, testEntry(2, 0, { payload: [Buffer.alloc(9_000)], recovery: true }));
      expect(await outcome(bookie, 1, 0)).toBe(word);
    }
    await bookie.close();
    const again = await subject.open();
    expect(await outcome(again, 1, 0)).toBe('three');
    await again.close();
  });
});

describe('the folder', () => {
  test('is of one bookie; without its cookie it is not opened', async () => {
    const subject = new CrashedBookie();
    const bookie = await subject.open();
    await appendEntry(bookie, testEntry(1, 0));
    await bookie.close();
    await expect(subject.open('local-1')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', message: /"local-0"/ });
    const cookie = await subject.disk.readFile('/bookie/cookie');
    const newer = Buffer.from(cookie);
    newer.writeUInt32LE(2, 8);
    await subject.disk.writeFileAtomically('/bookie/cookie', newer);
    await expect(subject.open()).rejects.toMatchObject({ code: 'FOLDER_VERSION', message: /version 2/ });
    await subject.disk.writeFileAtomically('/bookie/cookie', cookie.subarray(0, 20));
    await expect(subject.open()).rejects.toMatchObject({ code: 'DATA_LOSS' });
    await subject.disk.remove('/bookie/cookie');
    await expect(subject.open()).rejects.toMatchObject({ code: 'DATA_LOSS', message: /cookie is missing/ });
    await subject.disk.writeFileAtomically('/bookie/cookie', cookie);
    const again = await subject.open();
    expect(await outcome(again, 1, 0)).toBe('ledger 1 entry 0');
    expect(again.instance).toEqual(bookie.instance);
    await again.close();
  });

  test('that holds no data any more is another one, although its cookie is there', async () => {
    const subject = new CrashedBookie();
    const bookie = await subject.open();
    await appendEntry(bookie, testEntry(1, 0));
    await bookie.close();
    for (const name of await subject.disk.list('/bookie/segments'))
      await subject.disk.remove(`/bookie/segments/${name}`);
    await subject.disk.remove('/bookie/witness');
    subject.index = new MemoryIndex();
    const emptied = await subject.open();
    expect(emptied.instance).not.toEqual(bookie.instance);
    await emptied.close();
    expect((await subject.open()).instance).toEqual(emptied.instance);
  });

  test('is locked; an index that is lost or corrupt is built again', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'bookie-'));
    const open = async (): Promise<Bookie> =>
      await openBookie({ environment: testEnvironment(), folder, id: 'b', options: { segmentBytes: 1_048_576 } });
    let bookie = await open();
    await appendEntry(bookie, testEntry(1, 0));
    await expect(open()).rejects.toMatchObject({ code: 'FOLDER_IN_USE' });
    await bookie.close();
    const harm = [
      async () => await rm(join(folder, 'index'), { recursive: true }),
      async () => await writeFile(join(folder, 'index', 'CURRENT'), 'nonsense'),
      async () => await appendFile(join(folder, 'index', 'CURRENT'), 'nonsense'),
    ];
    for (const [at, damage] of harm.entries()) {
      await damage();
      bookie = await open();
      await appendEntry(bookie, testEntry(1, at + 1));
      expect(texts(await readEntries(bookie, 1, 0))).toHaveLength(at + 2);
      await bookie.close();
    }
    await rm(folder, { recursive: true });
  });
});

describe('arguments', () => {
  test('that make no sense are refused, and nothing is stored', async () => {
    const subject = new CrashedBookie();
    const bookie = await subject.open();
    const bad = [
      testEntry(1, 0, { masterKey: Buffer.alloc(15) }),
      testEntry(1, 0, { lac: entryId(0) }),
      testEntry(1, Number.MAX_SAFE_INTEGER), // the next start could not read its row
      { ...testEntry(1, 0), payloadBytes: 3 },
    ];
    for (const entry of bad)
      await expect(appendEntry(bookie, entry)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    const large = testEntry(1, 0, { payload: [Buffer.alloc(16_777_216)] });
    await expect(appendEntry(bookie, large)).rejects.toMatchObject({ code: 'MESSAGE_TOO_LARGE' });
    await expect(readEntries(bookie, 1, 0, { maxEntries: 0 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await lacOutcome(bookie, 1)).toBe('NO_SUCH_LEDGER');
    await bookie.close();
  });
});
