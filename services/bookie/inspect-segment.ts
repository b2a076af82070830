/** One segment, read from one end to the other without changing anything. */
import type { LedgerId } from '../lib/ids.ts';
import type { Environment } from '../runtime/environment.ts';
import { decodeDamages, entryRanges, isHarmless, mergedDamages, type SegmentDamage } from './damage.ts';
import type { SealedRow } from './segment-check.ts';
import type { RecordPlace } from './segments/directory.ts';
import { decodeLedgerPart, type Footer } from './segments/footer.ts';
import { GROUP_HEADER_BYTES, PAGE_BYTES, recordBytes, type SegmentIdentity } from './segments/format.ts';
import { type FirstGroup, readFirstGroup, type ScanResult, scanSegment } from './segments/scan.ts';
import { type OpenedSegment, openSegment, readFooter } from './segments/segment-file.ts';

/** What is known of a segment from elsewhere. */
export interface InspectedBefore {
  readonly environment: Environment;
  /** Of the segments. */
  readonly folder: string;
  readonly identity: (segment: number) => SegmentIdentity | undefined;
  /** What the index knows of it: undefined when it has it not as sealed, or is damaged. */
  readonly row: SealedRow | undefined;
  /** The encoded parts that the index has of it. Read where the segment's own footer is lost. */
  readonly indexed: () => Promise<readonly Buffer[]>;
  /** Up to here it had been synced, says the witness. */
  readonly committedUpTo: number;
  readonly ledgersUpTo: number;
  readonly previousChain: number | undefined;
}

/** What a segment is. */
export type SegmentState = 'sealed' | 'open' | 'empty' | 'missing' | 'foreign' | 'unreadable';

/** What a segment holds. */
export interface InspectedSegment {
  readonly id: number;
  readonly state: SegmentState;
  /** 0: not known. */
  readonly generation: number;
  /** Of the file. */
  readonly bytes: number;
  readonly groups: number;
  /** Those that are good. */
  readonly entries: readonly RecordPlace[];
  readonly fences: readonly LedgerId[];
  readonly ledgers: number;
  readonly damages: readonly SegmentDamage[];
  readonly footer: Footer | undefined;
  /** Chain value behind it; undefined: not known. */
  readonly chain: number | undefined;
  readonly highestLedgerId: number;
}

/** @throws what the disk throws but for lost bytes; FOLDER_VERSION */
export async function inspectSegment(id: number, known: InspectedBefore): Promise<InspectedSegment> {
  const { environment, folder } = known;
  const opened = await openSegment(environment, folder, id, known.identity(id));
  if (!('file' in opened)) return await unopened(id, known, opened.what, opened.fileBytes);
  try {
    return await inspectOpened(opened, known);
  } finally {
    await opened.file.close();
  }
}

async function unopened(
  id: number,
  known: InspectedBefore,
  what: SegmentDamage['what'],
  fileBytes: number,
): Promise<InspectedSegment> {
  const { row, ledgersUpTo } = known;
  const range = { what, offset: 0, bytes: Math.max(fileBytes, row?.end ?? 0) };
  const damage: SegmentDamage =
    row === undefined
      ? { ...range, ledgers: 'unknown', ledgersUpTo }
      : { ...range, ledgers: entryRanges(expectedEntries(await known.indexed())), ledgersUpTo: -1 };
  return {
    id,
    state: what === 'missing' || what === 'foreign' ? what : 'unreadable',
    generation: known.identity(id)?.generation ?? 0,
    bytes: fileBytes,
    groups: 0,
    entries: [],
    fences: [],
    ledgers: 0,
    damages: [damage],
    footer: undefined,
    chain: row?.chain,
    highestLedgerId: row?.highestLedgerId ?? -1,
  };
}

function expectedEntries(parts: readonly Buffer[]): RecordPlace[] {
  const places: RecordPlace[] = [];
  for (const bytes of parts) {
    const { ledgerId, entries } = decodeLedgerPart(bytes);
    for (let at = 0; at < entries.count; at++) {
      places.push({
        ledgerId,
        entryId: entries.idAt(at),
        offset: entries.offsetAt(at),
        payloadBytes: entries.lengthAt(at),
      });
    }
  }
  return places;
}

/** What a scan came by. */
interface Scanned {
  readonly result: ScanResult;
  readonly good: readonly RecordPlace[];
  readonly fences: readonly LedgerId[];
}

async function scan(opened: OpenedSegment, known: InspectedBefore): Promise<Scanned> {
  const { id, source, head, fileBytes, seal } = opened;
  const end = seal?.footerOffset ?? known.row?.end;
  const next = await firstGroupOf(id + 1, known);
  const good: RecordPlace[] = [];
  const fences: LedgerId[] = [];
  const facts = {
    head,
    fileBytes: Math.min(fileBytes, end ?? fileBytes),
    committedUpTo: end ?? known.committedUpTo,
    ledgersUpTo: known.ledgersUpTo,
    previousChain: known.previousChain,
    next,
  };
  const result = await scanSegment(source, facts, {
    record: ({ header, offset }) => {
      const { type, ledgerId, entryId, payloadBytes } = header;
      if (type === 'fence') fences.push(ledgerId);
      else good.push({ ledgerId, entryId, offset, payloadBytes });
    },
    lost: () => {}, // the damages of the result say it
  });
  return { result, good, fences };
}

async function firstGroupOf(id: number, known: InspectedBefore): Promise<FirstGroup | undefined> {
  const opened = await openSegment(known.environment, known.folder, id, known.identity(id));
  if (!('file' in opened)) return undefined;
  try {
    return await readFirstGroup(opened.source, opened.head.identity);
  } finally {
    await opened.file.close();
  }
}

async function inspectOpened(opened: OpenedSegment, known: InspectedBefore): Promise<InspectedSegment> {
  const { id, head, fileBytes, seal } = opened;
  const footer = seal === undefined ? undefined : await readFooter(opened, seal);
  const { result, good, fences } = await scan(opened, known);
  const sealed = seal !== undefined || known.row !== undefined;
  const parts = footer?.parts ?? (known.row === undefined ? undefined : await known.indexed());
  const lost = parts === undefined ? result.damages : lostOf(opened, parts, good, result);
  const recorded = footer?.damages === undefined ? [] : decodeDamages(footer.damages);
  return {
    id,
    state: sealed ? 'sealed' : result.groups === 0 ? 'empty' : 'open',
    generation: head.identity.generation,
    bytes: fileBytes,
    groups: result.groups,
    entries: good,
    fences,
    ledgers: new Set([...good, ...fences.map((ledgerId) => ({ ledgerId }))].map(({ ledgerId }) => ledgerId)).size,
    damages: mergedDamages([
      ...harmlessOf(opened, known, footer),
      ...lost,
      ...recorded.filter(({ ledgers }) => ledgers === 'unknown'),
    ]),
    footer,
    chain: seal?.chain ?? known.row?.chain ?? result.chain,
    highestLedgerId: Math.max(seal?.highestLedgerId ?? -1, result.highestLedgerId),
  };
}

/** What is missing of the entries that a footer, or the index, speaks of; and damage that costs none. */
function lostOf(
  { source, fileBytes }: OpenedSegment,
  parts: readonly Buffer[],
  good: readonly RecordPlace[],
  { damages }: ScanResult,
): SegmentDamage[] {
  const found = new Set(good.map(({ offset }) => offset));
  const lost = expectedEntries(parts).filter(({ offset }) => !found.has(offset));
  const named = lost.map(({ ledgerId, entryId, offset, payloadBytes }): SegmentDamage => {
    const range = { offset, bytes: recordBytes(payloadBytes) };
    const beyond = offset + range.bytes > fileBytes;
    const what = source.unreadable(range) ? 'unreadable' : beyond ? 'stale' : 'damaged';
    const ledgers = [{ ledgerId, firstEntryId: entryId, lastEntryId: entryId }];
    return { what, ...range, ledgers, ledgersUpTo: -1 };
  });
  return [...named, ...damages.filter(isHarmless)];
}

/** Damage to what only describes the segment. */
function harmlessOf(
  { head, fileBytes, seal }: OpenedSegment,
  { row }: InspectedBefore,
  footer: Footer | undefined,
): SegmentDamage[] {
  const damages: SegmentDamage[] = [];
  const add = (what: SegmentDamage['what'], offset: number, end: number): void => {
    damages.push({ what, offset, bytes: Math.max(0, end - offset), ledgers: [], ledgersUpTo: -1 });
  };
  if (head.headerDamaged) add('damaged', 0, Math.min(PAGE_BYTES, GROUP_HEADER_BYTES));
  if (seal === undefined && row !== undefined) add(fileBytes <= row.end ? 'stale' : 'damaged', row.end, fileBytes);
  if (seal !== undefined && footer === undefined)
    add('damaged', seal.footerOffset, seal.footerOffset + seal.footerBytes);
  return damages;
}
