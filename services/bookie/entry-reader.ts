/**
 * Reads entries out of segments: neighbours with one read of the file, and ahead for who reads in sequence. Every record is
 * checked before it is given out.
 */
import { MagnetarError } from '../lib/errors.ts';
import type { EntryId, LedgerId } from '../lib/ids.ts';
import type { StoredEntry } from '../ledger/bookie.ts';
import type { DiskFile } from '../runtime/disk.ts';
import type { Environment } from '../runtime/environment.ts';
import { LruCache } from './index/lru.ts';
import type { Location } from './ledger-table.ts';
import {
  DATA_START,
  decodeRecordHeader,
  digestHolds,
  RECORD_HEADER_BYTES,
  recordBytes,
  type SegmentIdentity,
} from './segments/format.ts';
import { openSegment, segmentName } from './segments/segment-file.ts';
import { segmentUnknown } from './segment-store.ts';

/** One read of a file takes so many bytes at most, unless a single record is larger. */
export const SPAN_BYTES = 1_048_576;
/** Foreign records between two wanted ones that are read along rather than skipped. */
const GAP_BYTES = 65_536;
const OPEN_FILES = 64;

/** Consecutive entries that one read of a file fetches. */
export interface Span {
  readonly segment: number;
  readonly start: number;
  readonly end: number;
  readonly entries: readonly { readonly entryId: EntryId; readonly location: Location }[];
}

/**
 * The longest run of entries from `first` on that is one span, of at most `limits`. Empty when the first one has no location.
 * The first entry always counts, however large.
 */
export function planSpan(
  locate: (id: EntryId) => Location | undefined,
  first: EntryId,
  limits: { readonly entries: number; readonly payloadBytes: number },
): Span | undefined {
  const head = locate(first);
  if (head === undefined) return undefined;
  const entries = [{ entryId: first, location: head }];
  let end = head.offset + recordBytes(head.payloadBytes);
  let payloadBytes = head.payloadBytes;
  for (let id = first + 1; entries.length < limits.entries; id++) {
    const location = locate(id as EntryId);
    if (location === undefined || location.segment !== head.segment) break;
    const recordEnd = location.offset + recordBytes(location.payloadBytes);
    payloadBytes += location.payloadBytes;
    if (payloadBytes > limits.payloadBytes) break;
    if (location.offset < end || location.offset - end > GAP_BYTES || recordEnd - head.offset > SPAN_BYTES) break;
    entries.push({ entryId: id as EntryId, location });
    end = recordEnd;
  }
  return { segment: head.segment, start: head.offset, end, entries };
}

interface OpenFile {
  readonly file: DiskFile;
  readonly identity: SegmentIdentity;
}

interface Ahead {
  readonly span: Span;
  readonly bytes: Promise<Buffer>;
}

export class EntryReader {
  readonly #environment: Environment;
  readonly #folder: string;
  /** Least recently used first. Of files that are being opened, too. */
  readonly #files = new Map<number, Promise<OpenFile>>();
  readonly #inUse = new Map<number, number>();
  readonly #ahead: LruCache<LedgerId, Ahead>;
  #closed = false;

  constructor(environment: Environment, folder: string, aheadBytes: number) {
    this.#environment = environment;
    this.#folder = folder;
    this.#ahead = new LruCache(aheadBytes);
  }

  /**
   * The first entries of a span: all of them, or those that were fetched ahead, or those before a bad one; at least one.
   * @throws CHECKSUM_MISMATCH (the very first is bad), ENTRY_UNKNOWN, STORE_FAILED.
   */
  async read(ledgerId: LedgerId, span: Span): Promise<StoredEntry[]> {
    const first = span.entries[0];
    if (first === undefined) return [];
    const ahead = this.#ahead.get(ledgerId);
    const firstEnd = first.location.offset + recordBytes(first.location.payloadBytes);
    const hit = ahead !== undefined && covers(ahead.span, { ...span, end: firstEnd });
    if (hit && span.end >= ahead.span.end) this.#ahead.delete(ledgerId);
    const [start, end] = hit ? [ahead.span.start, ahead.span.end] : [span.start, span.end];
    const bytes = await (hit ? ahead.bytes : this.#readBytes(span));
    const { identity } = await this.#open(span.segment);
    const entries: StoredEntry[] = [];
    for (const { entryId, location } of span.entries) {
      if (location.offset + recordBytes(location.payloadBytes) > end) break;
      const entry = decodeEntryAt(bytes, location.offset - start, { ledgerId, entryId, location, identity });
      if (entry === undefined) break;
      entries.push(entry);
    }
    if (entries.length === 0) {
      const { entryId, location } = first;
      const file = `${this.#folder}/${segmentName(span.segment)}`;
      throw new MagnetarError(
        'CHECKSUM_MISMATCH',
        `entry ${entryId} of ledger ${ledgerId} is damaged in ${file} at byte ${location.offset}`,
        { details: { file, offset: `${location.offset}`, ledgerId: `${ledgerId}`, entryId: `${entryId}` } },
      );
    }
    return entries;
  }

  /** Fetches a span that will probably be asked for next. */
  prefetch(ledgerId: LedgerId, span: Span): void {
    const held = this.#ahead.get(ledgerId);
    if (this.#closed || (held !== undefined && covers(held.span, { ...span, end: span.start + 1 }))) return;
    const bytes = this.#readBytes(span);
    bytes.catch(() => this.#ahead.delete(ledgerId)); // Whoever needs the bytes reads them again and gets the error.
    this.#ahead.set(ledgerId, { span, bytes }, span.end - span.start);
  }

  async #readBytes(span: Span): Promise<Buffer> {
    this.#inUse.set(span.segment, (this.#inUse.get(span.segment) ?? 0) + 1);
    try {
      const { file } = await this.#open(span.segment);
      return await file.read(span.start, span.end - span.start);
    } catch (error) {
      if (error instanceof MagnetarError) throw error;
      throw new MagnetarError('STORE_FAILED', `segment ${span.segment} of the bookie cannot be read`, { cause: error });
    } finally {
      const left = (this.#inUse.get(span.segment) ?? 1) - 1;
      if (left === 0) this.#inUse.delete(span.segment);
      else this.#inUse.set(span.segment, left);
      this.#closeOldest();
    }
  }

  async #open(segment: number): Promise<OpenFile> {
    const held = this.#files.get(segment);
    const opening = held ?? this.#openFile(segment);
    this.#files.delete(segment);
    this.#files.set(segment, opening);
    if (held === undefined) opening.catch(() => this.#files.delete(segment));
    return await opening;
  }

  async #openFile(segment: number): Promise<OpenFile> {
    try {
      const opened = await openSegment(this.#environment, this.#folder, segment);
      if (opened !== undefined) return { file: opened.file, identity: opened.head.identity };
    } catch (error) {
      throw segmentUnknown(segment, error);
    }
    throw segmentUnknown(segment);
  }

  #closeOldest(): void {
    for (const [segment, opening] of this.#files) {
      if (this.#files.size <= OPEN_FILES) return;
      if (this.#inUse.has(segment)) continue;
      this.#files.delete(segment);
      void closeFile(opening);
    }
  }

  /** Closes the files. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    const files = [...this.#files.values()];
    this.#files.clear();
    await Promise.all(files.map(closeFile));
  }
}

async function closeFile(opening: Promise<OpenFile>): Promise<void> {
  try {
    await (await opening).file.close();
  } catch {
    // It was only read from.
  }
}

type Range = Pick<Span, 'segment' | 'start' | 'end'>;

function covers(outer: Range, inner: Range): boolean {
  return outer.segment === inner.segment && outer.start <= inner.start && outer.end >= inner.end;
}

interface Wanted {
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  readonly location: Location;
  readonly identity: SegmentIdentity;
}

/** The entry at `at` of `bytes`; undefined when it is not, to the last bit, the one that is wanted. */
function decodeEntryAt(bytes: Buffer, at: number, wanted: Wanted): StoredEntry | undefined {
  const { location } = wanted;
  if (location.offset < DATA_START) return undefined;
  const header = decodeRecordHeader(bytes, at, location.offset, wanted.identity);
  if (header === undefined || header.ledgerId !== wanted.ledgerId || header.entryId !== wanted.entryId)
    return undefined;
  const payload = bytes.subarray(at + RECORD_HEADER_BYTES, at + RECORD_HEADER_BYTES + header.payloadBytes);
  if (payload.length !== location.payloadBytes || !digestHolds(header, payload)) return undefined;
  return {
    entryId: header.entryId,
    lac: header.lac,
    length: header.length,
    digest: header.digest,
    payload,
  };
}
