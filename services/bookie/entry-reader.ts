/**
 * Reads entries out of segments: neighbours with one read of the file, and ahead for who reads in sequence. Every record is
 * checked before it is given out.
 */
import { MagnetarError } from '../lib/errors.ts';
import type { EntryId, LedgerId } from '../lib/ids.ts';
import type { StoredEntry } from '../ledger/bookie.ts';
import type { Timer } from '../runtime/clock.ts';
import type { DiskFile } from '../runtime/disk.ts';
import type { Environment } from '../runtime/environment.ts';
import type { DamageKind, DamageList } from './damage.ts';
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
import { isMissing, segmentName } from './segments/segment-file.ts';
import { isMediaError } from './segments/source.ts';

/** One read of a file takes so many bytes at most, unless a single record is larger. */
export const SPAN_BYTES = 1_048_576;
/** So many spans are fetched ahead of who reads a ledger in sequence: a disk is idle while one is being asked for. */
const AHEAD_SPANS = 4;
/** What was fetched for somebody who does not come for it is kept for so many ms, and for twice that at most. */
const AHEAD_MS = 5_000;
/** Foreign records between two wanted ones that are read along rather than skipped. */
const GAP_BYTES = 65_536;
const OPEN_FILES = 64;

/** Consecutive entries that one read of a file fetches. */
export interface Span {
  readonly segment: number;
  readonly start: number;
  readonly end: number;
  readonly entries: readonly SpanEntry[];
}

interface SpanEntry {
  readonly entryId: EntryId;
  readonly location: Location;
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

/** What makes a segment the one that was written; undefined: nobody knows. */
export type IdentityOf = (segment: number) => SegmentIdentity | undefined;

/** A span that was fetched ahead, or is being fetched. */
interface Ahead {
  readonly span: Span;
  readonly bytes: Promise<Buffer>;
}

interface AheadOfReader {
  /** In the order of their entries, each behind the one before. */
  readonly spans: readonly Ahead[];
  /** When somebody read there for the last time; on the monotonic clock. */
  readonly usedAt: number;
}

export class EntryReader {
  readonly #environment: Environment;
  readonly #folder: string;
  readonly #identityOf: IdentityOf;
  readonly #damage: DamageList;
  /** Least recently used first. Of files that are being opened, too. */
  readonly #files = new Map<number, Promise<DiskFile>>();
  readonly #inUse = new Map<number, number>();
  readonly #ahead: LruCache<LedgerId, AheadOfReader>;
  #sweep: Timer | undefined;
  #closed = false;

  constructor(
    environment: Environment,
    options: { readonly folder: string; readonly aheadBytes: number; readonly identityOf: IdentityOf },
    damage: DamageList,
  ) {
    this.#environment = environment;
    this.#folder = options.folder;
    this.#identityOf = options.identityOf;
    this.#damage = damage;
    this.#ahead = new LruCache(options.aheadBytes);
  }

  /**
   * The first entries of a span: all of them, or those that were fetched ahead, or those before a bad one; at least one.
   * @throws CHECKSUM_MISMATCH (the very first is damaged, or its file is gone), STORE_FAILED (the disk fails in another way).
   */
  async read(ledgerId: LedgerId, span: Span): Promise<StoredEntry[]> {
    const [first] = span.entries;
    if (first === undefined) return [];
    const firstEnd = first.location.offset + recordBytes(first.location.payloadBytes);
    const ahead = this.#ahead.get(ledgerId)?.spans.find((each) => covers(each.span, { ...span, end: firstEnd }));
    const hit = ahead !== undefined;
    let bytes: Buffer;
    try {
      bytes = await (hit ? ahead.bytes : this.#readBytes(span));
    } catch (error) {
      const what = isMissing(error) ? 'missing' : isMediaError(error) ? 'unreadable' : undefined;
      if (what === undefined) throw this.#failed(span.segment, error);
      if (!hit && span.entries.length === 1) throw this.#damaged(ledgerId, first, what);
      this.#ahead.delete(ledgerId);
      return await this.read(ledgerId, { ...span, end: firstEnd, entries: [first] });
    }
    const entries = this.#decode(ledgerId, span, bytes, hit ? ahead.span : span);
    if (entries.length === 0) throw this.#damaged(ledgerId, first, 'damaged');
    return entries;
  }

  /** Entries of a span up to the end of what was read, or to a bad one. */
  #decode(ledgerId: LedgerId, span: Span, bytes: Buffer, { start, end }: Range): StoredEntry[] {
    const identity = this.#identityOf(span.segment);
    const entries: StoredEntry[] = [];
    for (const { entryId, location } of span.entries) {
      if (identity === undefined || location.offset + recordBytes(location.payloadBytes) > end) break;
      const entry = decodeEntryAt(bytes, location.offset - start, { ledgerId, entryId, location, identity });
      if (entry === undefined) break;
      entries.push(entry);
      if (!this.#damage.empty) this.#damage.readAgain(span.segment, ledgerId, entryId);
    }
    return entries;
  }

  #damaged(ledgerId: LedgerId, { entryId, location }: SpanEntry, what: DamageKind): MagnetarError {
    const { segment, offset, payloadBytes } = location;
    const ledgers = [{ ledgerId, firstEntryId: entryId, lastEntryId: entryId }];
    this.#damage.found(segment, { what, offset, bytes: recordBytes(payloadBytes), ledgers, ledgersUpTo: -1 });
    const file = `${this.#folder}/${segmentName(segment)}`;
    return new MagnetarError(
      'CHECKSUM_MISMATCH',
      `entry ${entryId} of ledger ${ledgerId} is damaged in ${file} at byte ${offset}`,
      { details: { file, offset: `${offset}`, ledgerId: `${ledgerId}`, entryId: `${entryId}` } },
    );
  }

  #failed(segment: number, cause: unknown): MagnetarError {
    const reason = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    const file = `${this.#folder}/${segmentName(segment)}`;
    return new MagnetarError('STORE_FAILED', `${file} cannot be read: ${reason}`, { details: { file }, cause });
  }

  /** Fetches what will probably be asked for: from `next` on, in spans that `plan` makes. */
  prefetch(ledgerId: LedgerId, next: EntryId, plan: (first: EntryId) => Span | undefined): void {
    if (this.#closed) return;
    const held = this.#ahead.get(ledgerId)?.spans ?? [];
    const spans = held.filter(({ span }) => lastOf(span) >= next);
    if (spans[0] !== undefined && firstOf(spans[0].span) > next) spans.length = 0;
    const last = spans.at(-1);
    let from = last === undefined ? next : ((lastOf(last.span) + 1) as EntryId);
    while (spans.length < AHEAD_SPANS) {
      const span = plan(from);
      if (span === undefined || span.end - span.start > SPAN_BYTES) break;
      const bytes = this.#readBytes(span);
      bytes.catch(() => this.#ahead.delete(ledgerId)); // Whoever needs the bytes reads them again and gets the error.
      spans.push({ span, bytes });
      from = (lastOf(span) + 1) as EntryId;
    }
    const total = spans.reduce((sum, { span }) => sum + span.end - span.start, 0);
    if (total === 0) this.#ahead.delete(ledgerId);
    else this.#keep(ledgerId, spans, total);
  }

  #keep(ledgerId: LedgerId, spans: readonly Ahead[], bytes: number): void {
    this.#ahead.set(ledgerId, { spans, usedAt: this.#environment.clock.monotonic() }, bytes);
    this.#sweep ??= this.#letGoLater();
  }

  #letGoLater(): Timer {
    return this.#environment.clock.after(AHEAD_MS, () => this.#letGo(), { unref: true });
  }

  #letGo(): void {
    const since = this.#environment.clock.monotonic() - AHEAD_MS;
    this.#ahead.deleteWhile(({ usedAt }) => usedAt <= since);
    this.#sweep = this.#ahead.bytes > 0 ? this.#letGoLater() : undefined;
  }

  async #readBytes(span: Span): Promise<Buffer> {
    this.#inUse.set(span.segment, (this.#inUse.get(span.segment) ?? 0) + 1);
    try {
      const file = await this.#open(span.segment);
      return await file.read(span.start, span.end - span.start);
    } finally {
      const left = (this.#inUse.get(span.segment) ?? 1) - 1;
      if (left === 0) this.#inUse.delete(span.segment);
      else this.#inUse.set(span.segment, left);
      this.#closeOldest();
    }
  }

  async #open(segment: number): Promise<DiskFile> {
    const held = this.#files.get(segment);
    const opening = held ?? this.#environment.disk.open(`${this.#folder}/${segmentName(segment)}`, { direct: true });
    this.#files.delete(segment);
    this.#files.set(segment, opening);
    if (held === undefined) opening.catch(() => this.#files.delete(segment));
    return await opening;
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
    this.#sweep?.cancel();
    const files = [...this.#files.values()];
    this.#files.clear();
    await Promise.all(files.map(closeFile));
  }
}

async function closeFile(opening: Promise<DiskFile>): Promise<void> {
  try {
    await (await opening).close();
  } catch {
    // It was only read from.
  }
}

function firstOf(span: Span): number {
  return span.entries[0]?.entryId ?? Number.POSITIVE_INFINITY;
}

function lastOf(span: Span): number {
  return span.entries.at(-1)?.entryId ?? -1;
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
    checked: true,
  };
}
