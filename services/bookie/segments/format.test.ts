import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { entryId, ledgerId } from '../../lib/ids.ts';
import { BuiltSegment, scanBytes, testRecord } from '../testing/built-segment.ts';
import { EntryTable } from './entry-table.ts';
import {
  decodeLedgerPart,
  decodeSeal,
  encodeFooter,
  encodeLedgerPart,
  type Footer,
  SEAL_BYTES,
  splitFooter,
} from './footer.ts';
import {
  type CommitMark,
  decodeRecordHeader,
  decodeSegmentHead,
  encodeCommitMark,
  GROUP_HEADER_BYTES,
  PAGE_BYTES,
  segmentIdentity,
  recordBytes,
  RECORD_HEADER_BYTES,
} from './format.ts';
import { encodeGroup, groupBytes } from './group.ts';
import { planGroup } from './policy.ts';

const identity = segmentIdentity(5, 1, Buffer.alloc(16, 9));

function partOf(input: {
  ledger: number;
  fenced: boolean;
  keyLost: boolean;
  lac: number;
  last: number;
  entries: readonly { id: number; offset: number; length: number }[];
}): Parameters<typeof encodeLedgerPart>[0] {
  const entries = new EntryTable();
  for (const { id, offset, length } of input.entries) entries.put(entryId(id), offset * 8, length);
  const { fenced, keyLost } = input;
  return {
    ledgerId: ledgerId(input.ledger),
    masterKey: keyLost ? undefined : Buffer.alloc(16, input.ledger),
    fenced,
    lac: entryId(input.lac),
    lastEntryId: entryId(input.last),
    entries,
  };
}

const rows = (entries: EntryTable): number[][] =>
  Array.from({ length: entries.count }, (_, at) => [entries.idAt(at), entries.offsetAt(at), entries.lengthAt(at)]);

const sizes = (...payloads: readonly number[]): { payloadBytes: number }[] =>
  payloads.map((payloadBytes) => ({ payloadBytes }));

function mark(sequence: number): CommitMark {
  const directory = Buffer.alloc(sequence, sequence);
  return { sequence, committedUpTo: sequence * 100, highestLedgerId: sequence, chain: sequence, directory };
}

describe('groups', () => {
  const records = fc.array(
    fc.record({
      ledger: fc.nat(1e15),
      entry: fc.nat(1e12),
      pieces: fc.array(fc.uint8Array({ maxLength: 900 }), { maxLength: 4 }),
    }),
    { minLength: 1, maxLength: 12 },
  );

  test('every record is found at its offset, whole, in whole pages', () => {
    fc.assert(
      fc.property(records, fc.nat(1_000), fc.uint8Array(), (inputs, page, before) => {
        const group = inputs.map(({ ledger, entry, pieces }) => {
          const payload = pieces.map((piece) => Buffer.from(piece));
          return { ...testRecord(ledger, entry, Buffer.concat(payload)), payload };
        });
        const directory = Buffer.from(before);
        const numbers = { offset: page * PAGE_BYTES, committedUpTo: 0, highestLedgerId: 0, previousChain: 1 };
        const place = { identity, ...numbers, directory };
        const encoded = encodeGroup(place, group);
        const bytes = Buffer.concat(encoded.buffers);
        expect(bytes.length).toBe(encoded.bytes);
        const body = group.reduce((sum, record) => sum + recordBytes(record.payloadBytes), 0);
        expect(bytes.length).toBe(groupBytes(body + directory.length));
        const directoryAt = GROUP_HEADER_BYTES + body;
        expect(bytes.subarray(directoryAt, directoryAt + directory.length).equals(directory)).toBe(true);
        expect(bytes.length % PAGE_BYTES).toBe(0);
        for (const [at, record] of group.entries()) {
          const offset = encoded.offsets[at] ?? 0;
          const start = offset - place.offset;
          const { payload, ...header } = record;
          expect(decodeRecordHeader(bytes, start, offset, identity)).toEqual(header);
          const end = start + RECORD_HEADER_BYTES;
          expect(bytes.subarray(end, end + record.payloadBytes).equals(Buffer.concat(payload))).toBe(true);
          expect(decodeRecordHeader(bytes, start, offset + 8, identity)).toBeUndefined();
        }
      }),
    );
  });

  test('large payloads are written as the very pieces that were given', () => {
    const piece = Buffer.alloc(100_000);
    const record = { ...testRecord(1, 0, piece), payload: [piece.subarray(0, 40_000), piece.subarray(40_000)] };
    const numbers = { offset: 0, committedUpTo: 0, highestLedgerId: 0, previousChain: 1 };
    const place = { identity, ...numbers, directory: Buffer.alloc(0) };
    const { buffers } = encodeGroup(place, [record]);
    expect(buffers.filter(({ buffer }) => buffer === piece.buffer).map(({ length }) => length)).toEqual([
      40_000, 60_000,
    ]);
  });

  test('a scan finds what was built', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(records, { minLength: 1, maxLength: 5 }), async (groups) => {
        const segment = new BuiltSegment();
        for (const group of groups) {
          segment.add(...group.map(({ ledger, entry, pieces }) => testRecord(ledger, entry, Buffer.concat(pieces))));
        }
        const file = segment.file();
        const head = decodeSegmentHead(file.subarray(0, 3 * PAGE_BYTES));
        if (head === undefined || 'version' in head) throw new Error('no head');
        const { found, end } = await scanBytes(file, head);
        expect(found).toEqual(segment.records.map(({ record }) => `${record.ledgerId}/${record.entryId}`));
        expect(end).toBe(segment.end);
      }),
      { numRuns: 30 },
    );
  });
});

describe('heads', () => {
  test('the mark with the higher sequence counts, and a torn one does not', () => {
    const pages = Buffer.alloc(3 * PAGE_BYTES);
    encodeCommitMark(identity, mark(6)).copy(pages, PAGE_BYTES);
    encodeCommitMark(identity, mark(7)).copy(pages, 2 * PAGE_BYTES);
    expect(decodeSegmentHead(pages)).toEqual({
      identity,
      mark: mark(7),
      directories: [mark(6).directory, mark(7).directory],
      headerDamaged: true,
    });
    pages.fill(0, 2 * PAGE_BYTES + 30, 2 * PAGE_BYTES + 40);
    expect(decodeSegmentHead(pages)).toEqual({
      identity,
      mark: mark(6),
      directories: [mark(6).directory],
      headerDamaged: true,
    });
  });

  test('a directory that does not fit into the page of a mark is left out', () => {
    const encoded = encodeCommitMark(identity, { ...mark(2), directory: Buffer.alloc(PAGE_BYTES) });
    const pages = Buffer.alloc(3 * PAGE_BYTES);
    encoded.copy(pages, PAGE_BYTES);
    expect(decodeSegmentHead(pages)).toMatchObject({ mark: { sequence: 2, directory: Buffer.alloc(0) } });
  });
});

describe('footers', () => {
  const part = fc.record({
    ledger: fc.nat(1e15),
    fenced: fc.boolean(),
    keyLost: fc.boolean(),
    lac: fc.integer({ min: -1, max: 1e12 }),
    last: fc.integer({ min: -1, max: 1e12 }),
    entries: fc.array(fc.record({ id: fc.nat(1e9), offset: fc.nat(16_777_216), length: fc.nat(5_000_000) }), {
      maxLength: 40,
    }),
  });

  test('a part comes back as it was', () => {
    fc.assert(
      fc.property(part, (input) => {
        const original = partOf(input);
        const { entries, ...rest } = decodeLedgerPart(encodeLedgerPart(original));
        const { entries: expected, ...expectedRest } = original;
        expect(rest).toEqual(expectedRest);
        expect(rows(entries)).toEqual(rows(expected));
      }),
    );
  });

  test('consecutive entries take few bytes', () => {
    const entries = Array.from({ length: 1_000 }, (_, id) => ({ id, offset: id * 26, length: 128 }));
    const encoded = encodeLedgerPart(partOf({ ledger: 1, fenced: false, keyLost: false, lac: 1, last: 2, entries }));
    expect(encoded.length).toBeLessThan(4_100);
  });

  test('a seal is found at the end of its own file alone, and any flipped bit of footer or seal is seen', () => {
    const parts = [1, 2, 300].map((ledger) =>
      encodeLedgerPart(
        partOf({ ledger, fenced: true, keyLost: false, lac: 4, last: 5, entries: [{ id: 5, offset: 7, length: 8 }] }),
      ),
    );
    const damages = Buffer.from('damages');
    const facts = { footerOffset: 40_960, chain: 77, highestLedgerId: 300, limboUpTo: -1, damages };
    const { buffers, bytes } = encodeFooter(identity, parts, facts);
    const file = Buffer.concat(buffers);
    expect(file.length).toBe(bytes);
    const read = (content: Buffer, fileBytes = 40_960 + bytes): Footer | undefined => {
      const seal = decodeSeal(content.subarray(-SEAL_BYTES), fileBytes, identity);
      return seal === undefined ? undefined : splitFooter(content.subarray(0, -SEAL_BYTES), seal);
    };
    expect(read(file)).toEqual({ parts, damages });
    expect(read(file, 40_960 + bytes + 8)).toBeUndefined();
    for (let bit = 0; bit < file.length * 8; bit++) {
      const damaged = Buffer.from(file);
      damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(read(damaged)).toBeUndefined();
    }
  });
});

describe('entry tables', () => {
  test('hold what a map holds, in order, whatever the order of coming', () => {
    const entry = fc.record({ id: fc.nat(60), offset: fc.nat(1_000), length: fc.nat(1_000) });
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 200 }), (entries) => {
        const [table, model] = [new EntryTable(), new Map<number, number[]>()];
        for (const { id, offset, length } of entries) {
          table.put(entryId(id), offset * 8, length);
          model.set(id, [offset * 8, length]);
        }
        expect(table.count).toBe(model.size);
        for (let id = 0; id <= 61; id++) {
          const at = table.find(entryId(id));
          expect(at < 0 ? undefined : [table.offsetAt(at), table.lengthAt(at)]).toEqual(model.get(id));
        }
      }),
    );
  });
});

describe('the group-commit policy', () => {
  const limits = { records: 3, bytes: 10_000 };
  const roomy = { directoryBytes: 0, room: 1_000_000, empty: false };

  test('takes what waits, up to the limits, and a record above them alone', () => {
    expect(planGroup(sizes(1, 1), limits, roomy)).toEqual({ take: 2, roll: false });
    expect(planGroup(sizes(1, 1, 1, 1), limits, roomy)).toEqual({ take: 3, roll: false });
    expect(planGroup(sizes(5_000, 5_000), limits, roomy)).toEqual({ take: 1, roll: false });
    expect(planGroup(sizes(50_000, 1), limits, roomy)).toEqual({ take: 1, roll: false });
  });

  test('rolls when not even one record fits, and lets an empty segment take a record of any size', () => {
    const tight = { directoryBytes: 0, room: 2 * PAGE_BYTES, empty: false };
    expect(planGroup(sizes(3_000, 3_000, 3_000), limits, tight)).toEqual({ take: 2, roll: false });
    expect(planGroup(sizes(3_000, 3_000), limits, { ...tight, directoryBytes: 3_000 }).take).toBe(1);
    expect(planGroup(sizes(9_000), limits, tight)).toEqual({ take: 0, roll: true });
    expect(planGroup(sizes(9_000, 1), limits, { ...tight, empty: true })).toEqual({ take: 1, roll: false });
  });
});
