/**
 * Replays a segment: finds its commit groups, and tells a torn tail (never acknowledged: cut) from damage (may have been
 * acknowledged: what is lost must not count as "never stored", LP-12, LP-29).
 */
import { crc32c } from '../../lib/crc32c.ts';
import type { LedgerId } from '../../lib/ids.ts';
import {
  DATA_START,
  decodeGroupHeader,
  decodeRecordHeader,
  digestHolds,
  GROUP_HEADER_BYTES,
  type GroupHeader,
  PAGE_BYTES,
  RECORD_HEADER_BYTES,
  RECORD_MAGIC,
  type RecordHeader,
  recordBytes,
  type SegmentHead,
  type SegmentIdentity,
} from './format.ts';

const WINDOW_BYTES = 4_194_304;
const ZEROS: Buffer = Buffer.alloc(PAGE_BYTES);

/** Where the bytes of a segment come from. */
export interface ByteSource {
  /** Bytes of the file; fewer only at its end. */
  read(offset: number, length: number): Promise<Buffer>;
}

/** A record that is good, and where it is. */
export interface ScannedRecord {
  readonly header: RecordHeader;
  readonly offset: number;
}

/** What is lost. */
interface Damage {
  /** These ledgers lost records; with their master keys. */
  readonly ledgers: Map<LedgerId, Buffer>;
  /** Whatever ledger up to this id may have lost records; -1: none. */
  ledgersUpTo: number;
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
  readonly damage: Damage;
  /** Something that is not a group stood behind the end and was cut. */
  readonly torn: boolean;
}

/** What is known from elsewhere. */
export interface ScanFacts {
  readonly head: SegmentHead;
  readonly fileBytes: number;
  /** Everything below was synced, says the index; 0: it does not say. */
  readonly committedUpTo: number;
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

/** Reads through a window, so that small steps cost no I/O. */
class Window {
  readonly #source: ByteSource;
  #start = 0;
  #buffer: Buffer = Buffer.alloc(0);

  constructor(source: ByteSource) {
    this.#source = source;
  }

  async bytes(offset: number, length: number): Promise<Buffer> {
    if (offset < this.#start || offset + length > this.#start + this.#buffer.length) {
      this.#buffer = await this.#source.read(offset, Math.max(length, WINDOW_BYTES));
      this.#start = offset;
    }
    return this.#buffer.subarray(offset - this.#start, offset - this.#start + length);
  }
}

/** The records of a group, as far as they are good. */
interface InspectedGroup {
  readonly records: readonly ScannedRecord[];
  /** All record headers are good: then `bad` names all ledgers that lost something. */
  readonly headersGood: boolean;
  readonly bad: readonly RecordHeader[];
}

function inspectGroup(body: Buffer, group: GroupHeader, identity: SegmentIdentity): InspectedGroup {
  const records: ScannedRecord[] = [];
  const bad: RecordHeader[] = [];
  const bodyOffset = group.offset + GROUP_HEADER_BYTES;
  let [at, crc, found] = [0, 0, 0];
  while (found < group.records) {
    const header = decodeRecordHeader(body, at, bodyOffset + at, identity);
    if (header === undefined || at + RECORD_HEADER_BYTES + header.payloadBytes > body.length) break;
    crc = crc32c(body.subarray(at, at + RECORD_HEADER_BYTES), crc);
    const payload = body.subarray(at + RECORD_HEADER_BYTES, at + RECORD_HEADER_BYTES + header.payloadBytes);
    if (digestHolds(header, payload)) records.push({ header, offset: bodyOffset + at });
    else bad.push(header);
    at += recordBytes(header.payloadBytes);
    found++;
  }
  const headersGood = found === group.records && crc === group.recordsCrc && at === group.bodyBytes;
  return { records, headersGood, bad };
}

function isZero(page: Buffer): boolean {
  return page.equals(ZEROS.subarray(0, page.length));
}

class Scan {
  readonly #window: Window;
  readonly #facts: ScanFacts;
  readonly #emit: (record: ScannedRecord) => void;
  readonly #damage: Damage = { ledgers: new Map(), ledgersUpTo: -1 };
  #at = DATA_START;
  #chain: number | undefined;
  #groups = 0;
  #committed: number;
  #highest: number;
  /** The last search for a header came by bytes that are not zero. */
  #somethingBehind = false;
  /** Damage whose reach only the next good header, or the end, will tell. */
  #everythingLost = false;

  constructor(source: ByteSource, facts: ScanFacts, emit: (record: ScannedRecord) => void) {
    this.#window = new Window(source);
    this.#facts = facts;
    this.#emit = emit;
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
        await this.#lose(this.#committed);
      } else {
        torn = this.#somethingBehind || !isZero(await this.#window.bytes(this.#at, PAGE_BYTES));
        break;
      }
    }
    await this.#checkTail();
    if (this.#everythingLost) this.#damage.ledgersUpTo = this.#highest;
    return {
      groups: this.#groups,
      end: this.#at,
      chain: this.#chain,
      highestLedgerId: this.#highest,
      damage: this.#damage,
      torn,
    };
  }

  async #headerAt(offset: number): Promise<GroupHeader | undefined> {
    const bytes = await this.#window.bytes(offset, GROUP_HEADER_BYTES);
    const group = decodeGroupHeader(bytes, 0, offset, this.#facts.head.identity);
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
    const body = await this.#window.bytes(group.offset + GROUP_HEADER_BYTES, group.bodyBytes);
    const { records, headersGood, bad } = inspectGroup(body, group, this.#facts.head.identity);
    const good = headersGood && bad.length === 0;
    if (!good && this.#committed <= group.offset && (await this.#nextHeader(group.end)) === undefined) {
      if (!this.#namedByNextSegment(group)) return false;
    }
    if (this.#chain !== undefined && group.previousChain !== this.#chain) this.#everythingLost = true;
    this.#committed = Math.max(this.#committed, group.committedUpTo);
    this.#highest = Math.max(this.#highest, group.highestLedgerId);
    this.#chain = group.chain;
    this.#groups++;
    if (headersGood) {
      for (const { ledgerId, masterKey } of bad) this.#damage.ledgers.set(ledgerId, masterKey);
      for (const record of records) this.#emit(record);
    } else {
      await this.#salvage(group.offset, group.end);
    }
    this.#at = group.end;
    return true;
  }

  /** True when the next segment goes on from this group: then it had been synced. */
  #namedByNextSegment(group: GroupHeader): boolean {
    return group.chain === this.#facts.next?.previousChain;
  }

  /** The region from here to `end` had been synced, and is not good any more. */
  async #lose(end: number): Promise<void> {
    await this.#salvage(this.#at, Math.min(end, this.#facts.fileBytes));
    this.#groups++;
    this.#chain = undefined;
    this.#at = end;
  }

  /** Keeps the good records of a region; which ones are lost, nobody can say. */
  async #salvage(from: number, to: number): Promise<void> {
    this.#everythingLost = true;
    const { identity } = this.#facts.head;
    let at = from;
    while (at + RECORD_HEADER_BYTES <= to) {
      const bytes = await this.#window.bytes(at, RECORD_HEADER_BYTES);
      const header = decodeRecordHeader(bytes, 0, at, identity);
      if (header !== undefined) {
        const record = await this.#window.bytes(at, RECORD_HEADER_BYTES + header.payloadBytes);
        const payload = record.subarray(RECORD_HEADER_BYTES);
        const whole = payload.length === header.payloadBytes && digestHolds(header, payload);
        if (whole) this.#emit({ header, offset: at });
        this.#highest = Math.max(this.#highest, header.ledgerId);
        at += whole ? recordBytes(header.payloadBytes) : 8;
      } else {
        at += 8 * (await this.#emptySteps(at + 8, to));
      }
    }
  }

  /** How many steps of 8 bytes to go from `at - 8` to the next one that begins with the magic of a record. */
  async #emptySteps(at: number, to: number): Promise<number> {
    const bytes = await this.#window.bytes(at, Math.min(PAGE_BYTES, to - at));
    let steps = 1;
    for (let i = 0; i + 4 <= bytes.length; i += 8, steps++) {
      if (bytes.readUInt32LE(i) === RECORD_MAGIC) break;
    }
    return steps;
  }

  /** The next segment names the last group of this one. When it is not the one that we ended with, the tail is lost. */
  async #checkTail(): Promise<void> {
    const { next, fileBytes } = this.#facts;
    if (next === undefined || next.previousChain === this.#chain) return;
    if (this.#chain === undefined && this.#everythingLost) return;
    await this.#salvage(this.#at, fileBytes);
    this.#groups++;
    this.#at = Math.max(this.#at, Math.ceil(fileBytes / PAGE_BYTES) * PAGE_BYTES);
    this.#chain = next.previousChain;
  }
}

/**
 * Scans the groups of a segment that is not sealed, or whose seal is lost. Calls `emit` for every good record, in the order of the
 * log. @throws what the source throws.
 */
export async function scanSegment(
  source: ByteSource,
  facts: ScanFacts,
  emit: (record: ScannedRecord) => void,
): Promise<ScanResult> {
  return await new Scan(source, facts, emit).run();
}

/** What the first group of a segment says of the one before; undefined when there is none, or it is damaged. */
export async function readFirstGroup(source: ByteSource, identity: SegmentIdentity): Promise<FirstGroup | undefined> {
  const bytes = await source.read(DATA_START, GROUP_HEADER_BYTES);
  return decodeGroupHeader(bytes, 0, DATA_START, identity);
}
