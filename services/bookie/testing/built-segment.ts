import { entryId, ledgerId, NO_ENTRY } from '../../lib/ids.ts';
import { entryDigest } from '../../wire/digest.ts';
import {
  commitMarkOffset,
  DATA_START,
  encodeCommitMark,
  encodeSegmentHeader,
  type SegmentHead,
  type SegmentIdentity,
  segmentIdentity,
} from '../segments/format.ts';
import { encodeDirectory } from '../segments/directory.ts';
import { encodeGroup, type GroupRecord } from '../segments/group.ts';
import { type FirstGroup, type ScanResult, scanSegment } from '../segments/scan.ts';

const ANY_LEDGER = 1_000_000_000;

/** A record of a test, with a right digest. */
export function testRecord(ledger: number, entry: number, payload: Buffer): GroupRecord {
  const numbers = {
    ledgerId: ledgerId(ledger),
    entryId: entryId(entry),
    lac: entryId(Math.max(-1, entry - 1)),
    length: entry * 10,
  };
  const isFence = entry === NO_ENTRY;
  return {
    ...numbers,
    type: isFence ? 'fence' : 'entry',
    lac: isFence ? NO_ENTRY : numbers.lac,
    length: isFence ? 0 : numbers.length,
    digest: isFence ? 0 : entryDigest({ ...numbers, payload: [payload] }),
    recovery: false,
    masterKey: Buffer.alloc(16, ledger),
    payload: [payload],
    payloadBytes: payload.length,
  };
}

/** A segment in memory, built group by group. */
export class BuiltSegment {
  readonly identity: SegmentIdentity;
  /** Offsets of the groups, and the end of the last one. */
  readonly bounds: number[] = [DATA_START];
  readonly records: { readonly record: GroupRecord; readonly offset: number }[] = [];
  #bytes: Buffer;
  #chain = 0;
  /** Of the last group. */
  #directory: Buffer = Buffer.alloc(0);
  #highest = -1;
  #markSequence = 1;

  constructor(salt: Buffer = Buffer.alloc(16, 3), id = 1) {
    this.identity = segmentIdentity(id, 1, salt);
    this.#bytes = Buffer.alloc(DATA_START);
    encodeSegmentHeader(this.identity).copy(this.#bytes);
    for (const sequence of [0, 1]) this.#writeMark(sequence, DATA_START);
  }

  #writeMark(sequence: number, committedUpTo: number): void {
    const mark = {
      sequence,
      committedUpTo,
      highestLedgerId: this.#highest,
      chain: this.#chain,
      directory: this.#directory,
    };
    encodeCommitMark(this.identity, mark).copy(this.#bytes, commitMarkOffset(sequence));
  }

  /** Appends a commit group. */
  add(...records: readonly GroupRecord[]): this {
    const offset = this.end;
    this.#highest = Math.max(this.#highest, ...records.map((record) => record.ledgerId));
    const place = {
      identity: this.identity,
      offset,
      committedUpTo: offset,
      highestLedgerId: this.#highest,
      previousChain: this.#chain,
      directory: this.#directory,
    };
    const group = encodeGroup(place, records);
    for (const [at, record] of records.entries()) this.records.push({ record, offset: group.offsets[at] ?? 0 });
    this.#bytes = Buffer.concat([this.#bytes, ...group.buffers]);
    this.#chain = group.chain;
    this.#directory = encodeDirectory(this.identity, offset, records);
    this.bounds.push(offset + group.bytes);
    return this;
  }

  /** Marks all groups committed, as an idle log does. */
  mark(): this {
    this.#writeMark(++this.#markSequence, this.end);
    return this;
  }

  get end(): number {
    return this.bounds.at(-1) ?? DATA_START;
  }

  get chain(): number {
    return this.#chain;
  }

  /** The file: the groups, and zeros behind them. */
  file(zeros = 16_384): Buffer {
    return Buffer.concat([this.#bytes, Buffer.alloc(zeros)]);
  }
}

/** What a scan of a file finds; the head and what is known from elsewhere are as of an intact first segment. */
export interface Scanned extends ScanResult {
  /** "ledger/entry" of each good record. */
  readonly found: readonly string[];
  /** Of each record that is known to have been there, and is damaged. */
  readonly lost: readonly string[];
}

/** Up to which ledger id records were lost that nobody can name; -1: none were. */
export function unknownUpTo({ damages }: ScanResult): number {
  return Math.max(-1, ...damages.map(({ ledgersUpTo }) => ledgersUpTo));
}

/** Scans a file's bytes. */
export async function scanBytes(file: Buffer, head: SegmentHead, next?: FirstGroup): Promise<Scanned> {
  const source = {
    read: async (offset: number, length: number) => await Promise.resolve(file.subarray(offset, offset + length)),
    unreadable: () => false,
  };
  const [found, lost]: [string[], string[]] = [[], []];
  const facts = { head, fileBytes: file.length, committedUpTo: 0, ledgersUpTo: ANY_LEDGER, previousChain: 0, next };
  const result = await scanSegment(source, facts, {
    record: ({ header }) => void found.push(`${header.ledgerId}/${header.entryId}`),
    lost: (place) => void lost.push(`${place.ledgerId}/${place.entryId}`),
  });
  return { ...result, found, lost };
}
