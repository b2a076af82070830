/** Checks of sealed segments against what the index says of them. */
import type { EntryId, LedgerId } from '../lib/ids.ts';
import type { Environment } from '../runtime/environment.ts';
import { type DamageKind, entryRanges, mergedDamages, type SegmentDamage } from './damage.ts';
import { openedRow, parseKey, type SegmentRow } from './index/rows.ts';
import type { IndexStore } from './index/store.ts';
import type { Location } from './ledger-table.ts';
import type { RecordPlace } from './segments/directory.ts';
import { decodeLedgerPart } from './segments/footer.ts';
import { RECORD_ALIGNMENT } from './segments/entry-table.ts';
import { DATA_START, recordBytes } from './segments/format.ts';
import { type OpenedSegment, openSegment, type UnopenedSegment } from './segments/segment-file.ts';
import { walkRecords, Window } from './segments/source.ts';
import type { Witness } from './witness.ts';

/** Segments that are looked at at the same time. */
const AT_ONCE = 16;

/** What the index knows of a sealed segment. */
export type SealedRow = Extract<SegmentRow, { sealed: true }>;

/** Where the index says that an entry is, newest copy. */
type Locate = (ledgerId: LedgerId, entryId: EntryId) => Location | undefined;

/** What the checks work with. */
export interface CheckContext {
  readonly environment: Environment;
  readonly folder: string;
  readonly witness: Witness;
  readonly index: IndexStore;
  readonly locate: Locate;
}

/** Looks at the ends of sealed segments: which of them are not, as a whole, what the index says? A few reads each. */
export async function checkSeals(
  context: CheckContext,
  rows: ReadonlyMap<number, SealedRow>,
): Promise<ReadonlyMap<number, DamageKind>> {
  const defects = new Map<number, DamageKind>();
  const left = [...rows].values();
  const work = async (): Promise<void> => {
    for (const [id, row] of left) {
      const defect = await sealDefect(context, id, row);
      if (defect !== undefined) defects.set(id, defect);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return defects;
}

async function open(
  { environment, folder, witness }: CheckContext,
  id: number,
): Promise<OpenedSegment | UnopenedSegment> {
  return await openSegment(environment, folder, id, witness.identity(id));
}

async function sealDefect(context: CheckContext, id: number, row: SealedRow): Promise<DamageKind | undefined> {
  const opened = await open(context, id);
  if (!('file' in opened)) return opened.what;
  await opened.file.close();
  if (opened.head.headerDamaged) return 'damaged';
  const { seal } = opened;
  if (seal !== undefined) return seal.chain === row.chain && seal.footerOffset === row.end ? undefined : 'stale';
  return opened.fileBytes > row.end ? 'damaged' : 'stale';
}

/**
 * Reads a sealed segment from one end to the other: which of the entries that the index places there cannot be given any
 * more? `defect`: what is wrong with it as a whole; when no entry is lost by it, the segment can be sealed anew.
 */
export async function checkEntries(
  context: CheckContext,
  id: number,
  row: SealedRow,
  defect: DamageKind | undefined,
): Promise<SegmentDamage[]> {
  const opened = await open(context, id);
  if (!('file' in opened)) {
    const all = await entriesIn(context, id, () => false);
    const ledgers = entryRanges(all);
    return [{ what: opened.what, offset: 0, bytes: row.end, ledgers, ledgersUpTo: -1 }];
  }
  try {
    const { source } = opened;
    const good = await goodRecords(opened, row.end);
    const lost = await entriesIn(context, id, (offset) => good.has(offset));
    const damages = lost.map(({ ledgerId, entryId, offset, payloadBytes }): SegmentDamage => {
      const range = { offset, bytes: recordBytes(payloadBytes) };
      const what = source.unreadable(range) ? 'unreadable' : defect === 'stale' ? 'stale' : 'damaged';
      const ledgers = [{ ledgerId, firstEntryId: entryId, lastEntryId: entryId }];
      return { what, ...range, ledgers, ledgersUpTo: -1 };
    });
    return mergedDamages(damages);
  } finally {
    await opened.file.close();
  }
}

/** Offsets in a segment, as a set of bits. */
class OffsetSet {
  readonly #bits: Uint8Array;

  constructor(end: number) {
    this.#bits = new Uint8Array(Math.ceil(end / RECORD_ALIGNMENT / 8));
  }

  add(offset: number): void {
    const at = offset / RECORD_ALIGNMENT;
    this.#bits[at >> 3] = (this.#bits[at >> 3] ?? 0) | (1 << (at & 7));
  }

  has(offset: number): boolean {
    const at = offset / RECORD_ALIGNMENT;
    return ((this.#bits[at >> 3] ?? 0) & (1 << (at & 7))) !== 0;
  }
}

async function goodRecords({ source, head, fileBytes }: OpenedSegment, end: number): Promise<OffsetSet> {
  const good = new OffsetSet(end);
  const range = { from: DATA_START, to: Math.min(end, fileBytes) };
  await walkRecords(new Window(source), head.identity, range, ({ offset }, isGood) => {
    if (isGood) good.add(offset);
  });
  return good;
}

/** The entries whose newest copy the index places in a segment, without those at the offsets of `isGood`. */
async function entriesIn(
  { index, locate }: CheckContext,
  id: number,
  isGood: (offset: number) => boolean,
): Promise<RecordPlace[]> {
  const places: RecordPlace[] = [];
  for await (const { key, value } of index.rows()) {
    const parsed = parseKey(key);
    if (parsed?.kind !== 'entries' || parsed.ids[1] !== id) continue;
    const { ledgerId, entries } = decodeLedgerPart(openedRow(key, value));
    for (let at = 0; at < entries.count; at++) {
      const [entryId, offset] = [entries.idAt(at), entries.offsetAt(at)];
      if (isGood(offset) || locate(ledgerId, entryId)?.segment !== id) continue;
      places.push({ ledgerId, entryId, offset, payloadBytes: entries.lengthAt(at) });
    }
  }
  return places;
}
