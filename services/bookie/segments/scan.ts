/**
 * Replays a segment: finds its commit groups, and tells a torn tail (never acknowledged: cut) from damage (may have been
 * acknowledged: what is lost must not count as "never stored", LP-12, LP-29). Of damage it says as exactly as it can what was there:
 * from the headers of records, and from what the next group says of the one before.
 */
import { crc32c } from '../../lib/crc32c.ts';
import { NO_ENTRY } from '../../lib/ids.ts';
import { type DamageKind, mergedDamages, type SegmentDamage } from '../damage.ts';
import { decodeDirectory, type GroupDirectory, type RecordPlace } from './directory.ts';
import {
  DATA_START,
  decodeGroupHeader,
  decodeRecordHeader,
  digestHolds,
  GROUP_HEADER_BYTES,
  type GroupHeader,
  PAGE_BYTES,
  RECORD_HEADER_BYTES,
  type RecordHeader,
  recordBytes,
  type SegmentHead,
  type SegmentIdentity,
} from './format.ts';
import { type ByteRange, type ByteSource, type ScannedRecord, walkRecords, Window } from './source.ts';

const ZEROS: Buffer = Buffer.alloc(PAGE_BYTES);
const NO_DIRECTORY: GroupDirectory = { offset: -1, records: [] };

/** Who is told what a scan finds. */
export interface ScanVisitor {
  /** A record that is good. In the order of the log. */
  record(record: ScannedRecord): void;
  /** A record that is known to have been there, and is damaged. `header`: its header, where that is good. */
  lost(place: RecordPlace, header: RecordHeader | undefined): void;
}

/** What a scan found. */
export interface ScanResult {
  /** Good groups and damaged regions. 0: the segment is unused. */
  readonly groups: number;
  /** A page boundary behind everything that counts. */
  readonly end: number;
  /** Chain value behind the last group; undefined when that is lost. */
  readonly chain: number | undefined;
  /** Highest ledger id that headers and marks speak of; -1: none. */
  readonly highestLedgerId: number;
  /** In order of their places. */
  readonly damages: readonly SegmentDamage[];
  /** Something that is not a group stood behind the end and was cut. */
  readonly torn: boolean;
}

/** What is known from elsewhere. */
export interface ScanFacts {
  readonly head: SegmentHead;
  readonly fileBytes: number;
  /** Everything below was synced, says the index or the witness; 0: they do not say. */
  readonly committedUpTo: number;
  /** No ledger above it was stored; where headers, marks or the next segment say less, they count. */
  readonly ledgersUpTo: number;
  /** Chain value behind the segment before, 0 for the first; undefined: not known. */
  readonly previousChain: number | undefined;
  /** How the next segment's first group goes on from this one; undefined: there is none. */
  readonly next: FirstGroup | undefined;
}

/** What the first group of a segment says of the segment before. */
export interface FirstGroup {
  readonly previousChain: number;
  readonly highestLedgerId: number;
}

/** The records of a group, as far as their headers are good. */
interface InspectedGroup {
  readonly records: readonly ScannedRecord[];
  /** Those whose payloads are damaged. */
  readonly bad: readonly ScannedRecord[];
  /** All record headers are good. */
  readonly complete: boolean;
}

function inspectGroup(body: Buffer, group: GroupHeader, identity: SegmentIdentity): InspectedGroup {
  const records: ScannedRecord[] = [];
  const bad: ScannedRecord[] = [];
  const bodyOffset = group.offset + GROUP_HEADER_BYTES;
  let [at, crc, found] = [0, 0, 0];
  while (found < group.records) {
    const header = decodeRecordHeader(body, at, bodyOffset + at, identity);
    if (header === undefined || at + RECORD_HEADER_BYTES + header.payloadBytes > body.length) break;
    crc = crc32c(body.subarray(at, at + RECORD_HEADER_BYTES), crc);
    const payload = body.subarray(at + RECORD_HEADER_BYTES, at + RECORD_HEADER_BYTES + header.payloadBytes);
    const record = { header, offset: bodyOffset + at };
    if (digestHolds(header, payload)) records.push(record);
    else bad.push(record);
    at += recordBytes(header.payloadBytes);
    found++;
  }
  return { records, bad, complete: found === group.records && crc === group.recordsCrc && at === group.bodyBytes };
}

function isZero(page: Buffer): boolean {
  return page.equals(ZEROS.subarray(0, page.length));
}

function placeOf({ header, offset }: ScannedRecord): RecordPlace {
  const { ledgerId, entryId, payloadBytes } = header;
  return { ledgerId, entryId, payloadBytes, offset };
}

/** A part of the segment of whose records some headers are lost. */
interface Region {
  readonly from: number;
  readonly to: number;
  /** Offsets of the records whose headers are good. */
  readonly found: ReadonlySet<number>;
  /** Nothing was behind it: the file ends early. */
  readonly stale: boolean;
}

class Scan {
  readonly #source: ByteSource;
  readonly #window: Window;
  readonly #facts: ScanFacts;
  readonly #identity: SegmentIdentity;
  readonly #visitor: ScanVisitor;
  readonly #damages: SegmentDamage[] = [];
  /** Regions that the next good group, or the end, says more about. */
  #regions: Region[] = [];
  #at = DATA_START;
  #chain: number | undefined;
  #groups = 0;
  #committed: number;
  #highest: number;
  /** The last search for a header came by bytes that are not zero. */
  #somethingBehind = false;

  constructor(source: ByteSource, facts: ScanFacts, visitor: ScanVisitor) {
    this.#source = source;
    this.#window = new Window(source);
    this.#facts = facts;
    this.#identity = facts.head.identity;
    this.#visitor = visitor;
    this.#committed = Math.max(facts.committedUpTo, facts.head.mark?.committedUpTo ?? 0);
    this.#chain = facts.previousChain;
    this.#highest = Math.max(facts.head.mark?.highestLedgerId ?? -1, facts.next?.highestLedgerId ?? -1);
  }

  async run(): Promise<ScanResult> {
    let torn = false;
    for (;;) {
      const group = await this.#headerAt(this.#at);
      const next = group === undefined ? await this.#nextHeader(this.#at + PAGE_BYTES) : undefined;
      if (group !== undefined) {
        if (!(await this.#takeGroup(group))) {
          torn = true;
          break;
        }
      } else if (next !== undefined) {
        await this.#lose(next.offset);
      } else if (this.#committed > this.#at) {
        await this.#lose(this.#committed, !this.#somethingBehind);
      } else if (this.#source.unreadable({ offset: this.#at, bytes: PAGE_BYTES })) {
        await this.#lose(this.#at + PAGE_BYTES); // What the disk does not give may have been a group.
      } else {
        torn = this.#somethingBehind || !isZero(await this.#window.bytes(this.#at, PAGE_BYTES));
        break;
      }
    }
    await this.#checkTail();
    const directories = this.#facts.head.directories.map((encoded) => decodeDirectory(encoded, this.#identity));
    const { head, ledgersUpTo, next } = this.#facts;
    const bounded = next !== undefined || this.#at <= (head.mark?.committedUpTo ?? 0);
    this.#settleRegions(directories, bounded ? this.#highest : Math.max(this.#highest, ledgersUpTo));
    return {
      groups: this.#groups,
      end: this.#at,
      chain: this.#chain,
      highestLedgerId: this.#highest,
      damages: mergedDamages(this.#damages),
      torn,
    };
  }

  async #headerAt(offset: number): Promise<GroupHeader | undefined> {
    const bytes = await this.#window.bytes(offset, GROUP_HEADER_BYTES);
    const group = decodeGroupHeader(bytes, 0, offset, this.#identity);
    return group !== undefined && group.end <= this.#facts.fileBytes ? group : undefined;
  }

  /** The first good group header on a page boundary from `offset` on. */
  async #nextHeader(offset: number): Promise<GroupHeader | undefined> {
    this.#somethingBehind = false;
    for (let at = offset; at + PAGE_BYTES <= this.#facts.fileBytes; at += PAGE_BYTES) {
      if (isZero(await this.#window.bytes(at, PAGE_BYTES))) continue;
      this.#somethingBehind = true;
      const group = await this.#headerAt(at);
      if (group !== undefined) return group;
    }
    return undefined;
  }

  /** Takes the group at the current place. False: it is a torn tail. */
  async #takeGroup(group: GroupHeader): Promise<boolean> {
    const bytes = await this.#window.bytes(group.offset, group.end - group.offset);
    const directoryAt = GROUP_HEADER_BYTES + group.bodyBytes;
    const inspected = inspectGroup(bytes.subarray(GROUP_HEADER_BYTES, directoryAt), group, this.#identity);
    const directory = this.#directoryOf(group, bytes);
    const good = inspected.complete && inspected.bad.length === 0 && directory !== undefined;
    if (!good && this.#committed <= group.offset && !this.#source.unreadable(rangeOf(group))) {
      if ((await this.#nextHeader(group.end)) === undefined && !this.#namedByNextSegment(group)) return false;
    }
    this.#checkChain(group);
    this.#settleRegions([directory], group.highestLedgerId);
    if (directory === undefined) this.#harmless(directoryRange(group));
    this.#committed = Math.max(this.#committed, group.committedUpTo);
    this.#highest = Math.max(this.#highest, group.highestLedgerId);
    this.#chain = group.chain;
    this.#groups++;
    if (inspected.complete) {
      for (const record of inspected.bad) this.#lost(placeOf(record), record.header);
      for (const record of inspected.records) this.#visitor.record(record);
    } else {
      await this.#salvage(group.offset, group.offset + directoryAt);
    }
    this.#at = group.end;
    return true;
  }

  /** True when the next segment goes on from this group: then it had been synced. */
  #namedByNextSegment(group: GroupHeader): boolean {
    return group.chain === this.#facts.next?.previousChain;
  }

  #checkChain({ offset, previousChain, highestLedgerId }: GroupHeader): void {
    if (this.#chain === undefined || previousChain === this.#chain) return;
    this.#damages.push({ what: 'damaged', offset, bytes: 0, ledgers: 'unknown', ledgersUpTo: highestLedgerId });
  }

  /** What a group says of the one before: nothing, in the first one of a segment. Undefined when that is damaged. */
  #directoryOf(group: GroupHeader, bytes: Buffer): GroupDirectory | undefined {
    if (group.directoryBytes === 0) return NO_DIRECTORY;
    const { offset } = directoryRange(group);
    const at = offset - group.offset;
    return decodeDirectory(bytes.subarray(at, at + group.directoryBytes), this.#identity);
  }

  #harmless(range: ByteRange): void {
    this.#damages.push({ what: this.#kind(range), ...range, ledgers: [], ledgersUpTo: -1 });
  }

  #kind(range: ByteRange): DamageKind {
    if (this.#source.unreadable(range)) return 'unreadable';
    return range.offset + range.bytes > this.#facts.fileBytes ? 'stale' : 'damaged';
  }

  #lost(place: RecordPlace, header: RecordHeader | undefined): void {
    this.#visitor.lost(place, header);
    const { ledgerId, entryId, offset } = place;
    const range = { offset, bytes: recordBytes(place.payloadBytes) };
    const ledgers = entryId === NO_ENTRY ? [] : [{ ledgerId, firstEntryId: entryId, lastEntryId: entryId }];
    this.#damages.push({ what: this.#kind(range), ...range, ledgers, ledgersUpTo: -1 });
  }

  /** The region from here to `end` had been synced, and is not good any more. */
  async #lose(end: number, stale = false): Promise<void> {
    await this.#salvage(this.#at, end, stale);
    this.#groups++;
    this.#chain = undefined;
    this.#at = end;
  }

  /** Keeps the good records of a region; which ones are lost, others have to say. */
  async #salvage(from: number, to: number, stale = false): Promise<void> {
    const found = new Set<number>();
    const range = { from, to: Math.min(to, this.#facts.fileBytes) };
    await walkRecords(this.#window, this.#identity, range, (record, good) => {
      found.add(record.offset);
      this.#highest = Math.max(this.#highest, record.header.ledgerId);
      if (good) this.#visitor.record(record);
      else this.#lost(placeOf(record), record.header);
    });
    this.#regions.push({ from, to, found, stale });
  }

  /** The next segment names the last group of this one. When it is not the one that we ended with, the tail is lost. */
  async #checkTail(): Promise<void> {
    const { next, fileBytes } = this.#facts;
    if (next === undefined || next.previousChain === this.#chain) return;
    if (this.#chain === undefined && this.#regions.length > 0) return; // What is lost reaches up to here.
    const end = Math.max(this.#at, Math.ceil(fileBytes / PAGE_BYTES) * PAGE_BYTES);
    await this.#salvage(this.#at, end, true);
    this.#groups++;
    this.#at = end;
    this.#chain = next.previousChain;
  }

  #settleRegions(directories: readonly (GroupDirectory | undefined)[], ledgersUpTo: number): void {
    const regions = this.#regions;
    this.#regions = [];
    for (const region of regions) {
      const { from, to, stale } = region;
      const directory = directories.find((one) => one !== undefined && one.offset >= from && one.offset < to);
      const known = directory === undefined ? to : this.#nameLost(region, directory);
      if (known === from) continue;
      const range = { offset: from, bytes: known - from };
      const what = stale ? 'stale' : this.#kind(range);
      this.#damages.push({ what, ...range, ledgers: 'unknown', ledgersUpTo });
    }
  }

  /** Names what the last group of a region lost. Returns where that group begins: before it, nobody knows. */
  #nameLost({ from, found }: Region, { offset, records }: GroupDirectory): number {
    const lost = records.filter((place) => !found.has(place.offset));
    for (const place of lost) this.#lost(place, undefined);
    if (lost.length === 0 && offset === from) this.#harmless({ offset, bytes: GROUP_HEADER_BYTES });
    return offset;
  }
}

function directoryRange({ offset, bodyBytes, directoryBytes }: GroupHeader): ByteRange {
  return { offset: offset + GROUP_HEADER_BYTES + bodyBytes, bytes: directoryBytes };
}

function rangeOf({ offset, end }: GroupHeader): ByteRange {
  return { offset, bytes: end - offset };
}

/**
 * Scans the groups of a segment that is not sealed, or whose seal is lost. @throws what the source throws.
 */
export async function scanSegment(source: ByteSource, facts: ScanFacts, visitor: ScanVisitor): Promise<ScanResult> {
  return await new Scan(source, facts, visitor).run();
}

/** What the first group of a segment says of the one before; undefined when there is none, or it is damaged. */
export async function readFirstGroup(source: ByteSource, identity: SegmentIdentity): Promise<FirstGroup | undefined> {
  const bytes = await source.read(DATA_START, GROUP_HEADER_BYTES);
  return decodeGroupHeader(bytes, 0, DATA_START, identity);
}
