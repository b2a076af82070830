import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BuiltSegment, scanBytes, type Scanned, testRecord, unknownUpTo } from '../testing/built-segment.ts';
import {
  type CommitMark,
  DATA_START,
  decodeSegmentHead,
  GROUP_HEADER_BYTES,
  PAGE_BYTES,
  recordBytes,
  type SegmentHead,
} from './format.ts';

function headOf(file: Buffer): SegmentHead {
  const head = decodeSegmentHead(file.subarray(0, DATA_START));
  if (head === undefined || 'version' in head) throw new Error('the head is damaged');
  return head;
}

function names(segment: BuiltSegment): string[] {
  return segment.records.map(({ record }) => `${record.ledgerId}/${record.entryId}`);
}

/** A mark that says nothing of what was in the last group. */
function markAt(committedUpTo: number, highestLedgerId: number): CommitMark {
  return { sequence: 9, committedUpTo, highestLedgerId, chain: 0, directory: Buffer.alloc(0) };
}

/** What a flipped bit of a segment does to a scan of it. */
async function flipped(segment: BuiltSegment, bit: number): Promise<Scanned> {
  const file = segment.file();
  file[bit >> 3] = (file[bit >> 3] ?? 0) ^ (1 << (bit & 7));
  return await scanBytes(file, headOf(file));
}

function threeGroups(): BuiltSegment {
  return new BuiltSegment()
    .add(testRecord(1, 0, Buffer.alloc(100, 'a')), testRecord(2, 0, Buffer.alloc(5_000, 'b')))
    .add(testRecord(1, 1, Buffer.alloc(700, 'c')), testRecord(3, -1, Buffer.alloc(0)))
    .add(testRecord(2, 1, Buffer.alloc(30, 'd')), testRecord(4, 0, Buffer.alloc(4_300, 'e')));
}

describe('an intact segment', () => {
  test('gives every record in order, and its end', async () => {
    const segment = threeGroups();
    const scanned = await scanBytes(segment.file(), headOf(segment.file()));
    expect(scanned).toMatchObject({
      groups: 3,
      end: segment.end,
      chain: segment.chain,
      torn: false,
      highestLedgerId: 4,
    });
    expect(scanned.found).toEqual(names(segment));
    expect(scanned.damages).toEqual([]);
  });

  test('without a group is unused', async () => {
    const { file } = { file: new BuiltSegment().file() };
    expect(await scanBytes(file, headOf(file))).toMatchObject({ groups: 0, end: DATA_START, torn: false, found: [] });
  });
});

describe('a torn tail', () => {
  const segment = threeGroups();
  const last = segment.bounds.at(-2) ?? 0;
  const whole = segment.file(0);
  const kept = names(segment).slice(0, 4);
  const head = headOf(whole);

  test('is cut, whatever length of the last group was written', async () => {
    const body = (segment.records[5]?.offset ?? 0) + 80 + 4_300 - last; // Behind it there are zeros alone.
    for (let length = 0; length < body + 8; length++) {
      const zeros = Buffer.alloc(whole.length - last - length + PAGE_BYTES);
      const overwritten = await scanBytes(Buffer.concat([whole.subarray(0, last + length), zeros]), head);
      const appended = await scanBytes(whole.subarray(0, last + length), head);
      for (const scanned of [overwritten, appended]) {
        expect(scanned.damages, `${length} bytes`).toEqual([]);
        // Only the zeros at its end may be missing from a group that counts.
        const complete = scanned.found.length > kept.length;
        expect(scanned.found).toEqual(complete ? names(segment) : kept);
        expect(scanned).toMatchObject({ end: complete ? whole.length : last, torn: !complete && length > 0 });
      }
    }
  });

  test('is cut, whichever of its sectors were written', async () => {
    const sectors = Math.ceil((whole.length - last) / 512);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.boolean(), { minLength: sectors, maxLength: sectors }), async (written) => {
        const file = Buffer.from(whole);
        for (const [at, there] of written.entries()) if (!there) file.fill(0, last + at * 512, last + (at + 1) * 512);
        const scanned = await scanBytes(file, head);
        expect(scanned.damages).toEqual([]);
        expect([kept, names(segment)]).toContainEqual(scanned.found);
      }),
    );
  });
});

/** The n-th record's place as a damage that cost `names`. */
function damageOf(segment: BuiltSegment, nth: number): object {
  const { record, offset } = segment.records[nth] ?? {};
  if (record === undefined) throw new Error(`there is no record ${nth}`);
  const { ledgerId, entryId } = record;
  const ledgers = entryId === -1 ? [] : [{ ledgerId, firstEntryId: entryId, lastEntryId: entryId }];
  return { what: 'damaged', offset, bytes: recordBytes(record.payloadBytes), ledgers, ledgersUpTo: -1 };
}

describe('damage', () => {
  test('any flipped bit of a group that is marked, or followed, is detected: what is lost is named', async () => {
    const segment = threeGroups().mark();
    const bits = fc.integer({ min: DATA_START * 8, max: segment.end * 8 - 1 });
    await fc.assert(
      fc.asyncProperty(bits, async (bit) => {
        const scanned = await flipped(segment, bit);
        expect(scanned.end).toBe(segment.end);
        expect(unknownUpTo(scanned)).toBe(-1);
        expect([...scanned.found, ...scanned.lost].toSorted()).toEqual(names(segment).toSorted());
        for (const { offset, bytes } of scanned.damages) {
          expect(bit >> 3).toBeGreaterThanOrEqual(offset);
          expect(bit >> 3).toBeLessThan(offset + bytes);
        }
        expect(scanned.damages.length).toBeLessThanOrEqual(1);
      }),
      { numRuns: 2_000 },
    );
  });

  test('of any page costs what is in it, and is named by the group behind or by the mark', async () => {
    const segment = threeGroups().mark();
    for (let at = DATA_START; at < segment.end; at += PAGE_BYTES) {
      const scanned = await scanBytes(segment.file().fill(0, at, at + PAGE_BYTES), headOf(segment.file()));
      expect([at, unknownUpTo(scanned)]).toEqual([at, -1]);
      expect([...scanned.found, ...scanned.lost].toSorted()).toEqual(names(segment).toSorted());
      expect(scanned.lost.length).toBeLessThanOrEqual(2);
    }
  });

  test('of a payload costs this entry', async () => {
    const segment = threeGroups();
    const scanned = await flipped(segment, ((segment.records[1]?.offset ?? 0) + 200) * 8);
    expect(scanned).toMatchObject({ found: names(segment).filter((name) => name !== '2/0'), lost: ['2/0'] });
    expect(scanned.damages).toEqual([damageOf(segment, 1)]);
  });

  test('of a group header costs nothing, and is said', async () => {
    const segment = threeGroups();
    const offset = segment.bounds[1] ?? 0;
    const scanned = await flipped(segment, (offset + 9) * 8);
    expect(scanned).toMatchObject({ found: names(segment), lost: [] });
    expect(scanned.damages).toEqual([
      { what: 'damaged', offset, bytes: GROUP_HEADER_BYTES, ledgers: [], ledgersUpTo: -1 },
    ]);
  });

  test('of a record header costs this entry: the next group knows which one it was', async () => {
    const segment = threeGroups();
    const scanned = await flipped(segment, ((segment.records[0]?.offset ?? 0) + 17) * 8);
    expect(scanned).toMatchObject({ found: names(segment).filter((name) => name !== '1/0'), lost: ['1/0'] });
    expect(scanned.damages).toEqual([damageOf(segment, 0)]);
  });

  test('of a fence costs nothing: it is known to have been there', async () => {
    const segment = threeGroups();
    const scanned = await flipped(segment, ((segment.records[3]?.offset ?? 0) + 17) * 8);
    expect(scanned).toMatchObject({ lost: ['3/-1'], damages: [damageOf(segment, 3)] });
  });

  test('of two groups in a row: of the first, nobody knows what it held, but how far its ledgers went', async () => {
    const segment = threeGroups();
    const [first = 0, second = 0, third = 0] = segment.bounds;
    const file = segment
      .file()
      .fill(0xff, first, first + PAGE_BYTES)
      .fill(0xff, second, second + PAGE_BYTES);
    const scanned = await scanBytes(file, headOf(file));
    const unknown = { what: 'damaged', offset: first, bytes: second - first, ledgers: 'unknown', ledgersUpTo: 4 };
    expect(scanned.damages[0]).toEqual(unknown);
    expect(scanned.lost).toEqual(['1/1', '3/-1']);
    expect([scanned.end > third, unknownUpTo(scanned)]).toEqual([true, 4]);
  });

  test('without what the next group says, as in segments of old, leaves ledgers in doubt', async () => {
    const segment = threeGroups();
    const whole = segment.file();
    const last = segment.bounds[2] ?? 0;
    const torn = whole.fill(0, last, last + PAGE_BYTES);
    const scanned = await scanBytes(torn, { ...headOf(whole), mark: markAt(segment.end, 4) });
    expect(scanned).toMatchObject({ lost: [], end: segment.end });
    expect(scanned.damages).toEqual([
      { what: 'damaged', offset: last, bytes: segment.end - last, ledgers: 'unknown', ledgersUpTo: 4 },
    ]);
  });

  test('of the last group is a torn tail, unless it is marked', async () => {
    const unmarked = threeGroups();
    const bit = ((unmarked.records[5]?.offset ?? 0) + 1_000) * 8;
    expect(await flipped(unmarked, bit)).toMatchObject({ torn: true, damages: [], lost: [] });
    const marked = await flipped(threeGroups().mark(), bit);
    expect(marked).toMatchObject({ torn: false, end: unmarked.end, lost: ['4/0'] });
    expect(unknownUpTo(marked)).toBe(-1);
  });

  test('of the last group shows when the next segment goes on from it', async () => {
    const segment = threeGroups();
    const next = { previousChain: segment.chain, highestLedgerId: 9 };
    expect(await scanBytes(segment.file(), headOf(segment.file()), next)).toMatchObject({ damages: [] });
    const wiped = segment.file().fill(0, segment.bounds[2]);
    const scanned = await scanBytes(wiped, headOf(wiped), next);
    expect(scanned.damages).toMatchObject([{ what: 'stale', offset: segment.bounds[2], ledgersUpTo: 9 }]);
    expect(scanned.found).toEqual(names(segment).slice(0, 4));
    const flippedFile = segment.file();
    flippedFile[(segment.records[5]?.offset ?? 0) + 1_000] = 0;
    const precise = await scanBytes(flippedFile, headOf(flippedFile), next);
    expect(precise).toMatchObject({ lost: ['4/0'], damages: [damageOf(segment, 5)] });
  });

  test('of the header page loses nothing: marks repeat it', async () => {
    const segment = threeGroups().mark();
    const file = segment.file().fill(0xff, 0, PAGE_BYTES);
    expect((await scanBytes(file, headOf(file))).found).toEqual(names(segment));
    file.fill(0xff, PAGE_BYTES, 2 * PAGE_BYTES);
    expect((await scanBytes(file, headOf(file))).found).toEqual(names(segment));
    expect(decodeSegmentHead(file.fill(0xff, 0, DATA_START).subarray(0, DATA_START))).toBeUndefined();
  });
});

describe('a payload that looks like a segment', () => {
  test('a copy of this very segment, on page boundaries, does not make a torn tail look followed', async () => {
    const inner = threeGroups();
    const alignment = PAGE_BYTES - GROUP_HEADER_BYTES - 80;
    const copy = Buffer.concat([Buffer.alloc(alignment), inner.file(0), Buffer.alloc(100)]);
    const segment = threeGroups().add(testRecord(5, 0, copy));
    const file = segment.file();
    const at = segment.bounds[3] ?? 0;
    expect(file.subarray(at + PAGE_BYTES, at + PAGE_BYTES + 64)).toEqual(inner.file().subarray(0, 64));
    file.fill(0, at, at + 200);
    const scanned = await scanBytes(file, headOf(file));
    expect(scanned).toMatchObject({ torn: true, end: at, found: names(threeGroups()) });
  });

  test('records of another segment at the very same offsets are not taken for lost ones', async () => {
    const other = new BuiltSegment(Buffer.alloc(16, 4)).add(testRecord(8, 0, Buffer.alloc(9_000, 'x')));
    for (const entry of [0, 1, 2]) other.add(testRecord(9, entry, Buffer.alloc(100, 'y')));
    const segment = new BuiltSegment().add(testRecord(1, 0, Buffer.alloc(10)));
    // As on recycled space: the other segment's groups lie behind this one's only group.
    const file = Buffer.concat([segment.file(0), other.file(0).subarray(segment.end)]);
    const scanned = await scanBytes(file, headOf(file));
    expect(scanned).toMatchObject({ found: ['1/0'], end: segment.end, damages: [] });
  });
});
