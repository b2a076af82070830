import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BuiltSegment, counted, scanBytes, type Scanned, testRecord } from '../testing/built-segment.ts';
import { DATA_START, decodeSegmentHead, GROUP_HEADER_BYTES, PAGE_BYTES, type SegmentHead } from './format.ts';

function headOf(file: Buffer): SegmentHead {
  const head = decodeSegmentHead(file.subarray(0, DATA_START));
  if (head === undefined || 'version' in head) throw new Error('the head is damaged');
  return head;
}

function names(segment: BuiltSegment): string[] {
  return segment.records.map(({ record }) => `${record.ledgerId}/${record.entryId}`);
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
    expect(scanned.damage).toEqual({ ledgers: new Map(), ledgersUpTo: -1 });
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
        expect(scanned.damage, `${length} bytes`).toEqual({ ledgers: new Map(), ledgersUpTo: -1 });
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
        expect(scanned.damage).toEqual({ ledgers: new Map(), ledgersUpTo: -1 });
        expect([kept, names(segment)]).toContainEqual(scanned.found);
      }),
    );
  });
});

describe('damage', () => {
  test('any flipped bit of a group that is marked, or followed, is detected: what is lost is counted', async () => {
    const segment = threeGroups().mark();
    const bits = fc.integer({ min: 0, max: segment.end * 8 - 1 });
    await fc.assert(
      fc.asyncProperty(bits, async (bit) => {
        const scanned = await flipped(segment, bit);
        expect(scanned.end).toBe(segment.end);
        for (const { record } of segment.records) {
          const found = scanned.found.includes(`${record.ledgerId}/${record.entryId}`);
          expect(found || counted(scanned, record.ledgerId)).toBe(true);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test('of a payload costs its own ledger alone', async () => {
    const segment = threeGroups();
    const { offset } = segment.records[1] ?? { offset: 0 };
    const scanned = await flipped(segment, (offset + 200) * 8);
    expect(scanned.found).toEqual(names(segment).filter((name) => name !== '2/0'));
    expect([...scanned.damage.ledgers]).toEqual([[2, Buffer.alloc(16, 2)]]);
    expect(scanned.damage.ledgersUpTo).toBe(-1);
  });

  test('of a group header keeps the good records, and puts all ledgers so far in doubt', async () => {
    const segment = threeGroups();
    const scanned = await flipped(segment, ((segment.bounds[1] ?? 0) + 9) * 8);
    expect(scanned.found).toEqual(names(segment));
    expect(scanned.damage.ledgersUpTo).toBe(4);
  });

  test('of a record header keeps the records behind it', async () => {
    const segment = threeGroups();
    const scanned = await flipped(segment, ((segment.bounds[0] ?? 0) + GROUP_HEADER_BYTES + 17) * 8);
    expect(scanned.found).toEqual(names(segment).filter((name) => name !== '1/0'));
    expect(scanned.damage.ledgersUpTo).toBe(4);
  });

  test('of the last group is a torn tail, unless it is marked', async () => {
    const unmarked = threeGroups();
    const bit = ((unmarked.records[5]?.offset ?? 0) + 1_000) * 8;
    expect(await flipped(unmarked, bit)).toMatchObject({ torn: true, damage: { ledgersUpTo: -1 } });
    const marked = await flipped(threeGroups().mark(), bit);
    expect(marked).toMatchObject({ torn: false, end: unmarked.end });
    expect([...marked.damage.ledgers.keys()]).toEqual([4]);
  });

  test('of the last group shows when the next segment goes on from it', async () => {
    const segment = threeGroups();
    const next = { previousChain: segment.chain, highestLedgerId: 9 };
    expect(await scanBytes(segment.file(), headOf(segment.file()), next)).toMatchObject({
      damage: { ledgersUpTo: -1 },
    });
    const wiped = segment.file().fill(0, segment.bounds[2]);
    const scanned = await scanBytes(wiped, headOf(wiped), next);
    expect(scanned.damage.ledgersUpTo).toBe(9);
    expect(scanned.found).toEqual(names(segment).slice(0, 4));
    const flippedFile = segment.file();
    flippedFile[(segment.records[5]?.offset ?? 0) + 1_000] = 0;
    const precise = await scanBytes(flippedFile, headOf(flippedFile), next);
    expect([...precise.damage.ledgers.keys()]).toEqual([4]);
    expect(precise.damage.ledgersUpTo).toBe(-1);
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
    expect(scanned).toMatchObject({ found: ['1/0'], end: segment.end, damage: { ledgersUpTo: -1 } });
  });
});
