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
import { AheadBudget } from './ahead-budget.ts';
import type { DamageKind, DamageList } from './damage.ts';
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
  fetching: boolean;
  held: boolean;
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
  /** Least recently used first. */
  readonly #ahead = new Map<LedgerId, AheadOfReader>();
  readonly #budget: AheadBudget;
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
    this.#budget = new AheadBudget(options.aheadBytes);
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
    if (!hit) this.#budget.missed(ledgerId, bytesOf(span));
    let bytes: Buffer;
    try {
      bytes = await (hit ? ahead.bytes : this.#readBytes(span));
    } catch (error) {
      const what = isMissing(error) ? 'missing' : isMediaError(error) ? 'unreadable' : undefined;
      if (what === undefined) throw this.#failed(span.segment, error);
      if (!hit && span.entries.length === 1) throw this.#damaged(ledgerId, first, what);
      this.#drop(ledgerId);
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

  /** Fetches what will probably be asked for, as far as there is room: from `next` on, in spans that `plan` makes. */
  prefetch(ledgerId: LedgerId, next: EntryId, plan: (first: EntryId) => Span | undefined): void {
    if (this.#closed) return;
    const spans = this.#keepFrom(ledgerId, next);
    try {
      this.#fetchBehind(ledgerId, spans, next, plan);
    } finally {
      if (spans.length > 0) this.#ahead.set(ledgerId, { spans, usedAt: this.#environment.clock.monotonic() });
      if (spans.length > 0 || this.#budget.waiting > 0) this.#sweep ??= this.#letGoLater();
    }
  }

  #fetchBehind(ledgerId: LedgerId, spans: Ahead[], next: EntryId, plan: (first: EntryId) => Span | undefined): void {
    const last = spans.at(-1);
    let held = spans.reduce((sum, { span }) => sum + bytesOf(span), 0);
    let from = last === undefined ? next : ((lastOf(last.span) + 1) as EntryId);
    // To plan takes longer than to ask whether what was wished for last is to be had.
    while (spans.length < AHEAD_SPANS && this.#allowed(ledgerId, held, this.#budget.wish(ledgerId))) {
      const span = plan(from);
      if (span === undefined || bytesOf(span) > SPAN_BYTES) return this.#budget.forget(ledgerId);
      if (!this.#allowed(ledgerId, held, bytesOf(span))) return;
      spans.push(this.#fetch(ledgerId, span));
      held += bytesOf(span);
      from = (lastOf(span) + 1) as EntryId;
    }
  }

  /** What is held from `next` on, if there is no gap; the rest of it is let go. */
  #keepFrom(ledgerId: LedgerId, next: EntryId): Ahead[] {
    const held = this.#ahead.get(ledgerId)?.spans ?? [];
    this.#ahead.delete(ledgerId);
    const spans = held.filter(({ span }) => lastOf(span) >= next);
    if (spans[0] !== undefined && firstOf(spans[0].span) > next) spans.length = 0;
    for (const each of held) if (!spans.includes(each)) this.#release(each);
    return spans;
  }

  #allowed(ledgerId: LedgerId, held: number, bytes: number | undefined): boolean {
    if (bytes === undefined) return true;
    const ask = { held, bytes, now: this.#environment.clock.monotonic() };
    if (this.#budget.allows(ledgerId, ask)) return true;
    const since = this.#budget.starvedSince(ledgerId);
    if (since === undefined) return false;
    this.#letGo(since, bytes);
    return this.#budget.allows(ledgerId, ask);
  }

  #fetch(ledgerId: LedgerId, span: Span): Ahead {
    this.#budget.take(ledgerId, bytesOf(span));
    const ahead: Ahead = { span, bytes: this.#readBytes(span), fetching: true, held: true };
    const fetched = (): void => {
      ahead.fetching = false;
      if (!ahead.held) this.#budget.give(bytesOf(span));
    };
    ahead.bytes.then(fetched, () => {
      fetched();
      this.#drop(ledgerId); // Whoever needs the bytes reads them again and gets the error.
    });
    return ahead;
  }

  #drop(ledgerId: LedgerId): void {
    for (const each of this.#ahead.get(ledgerId)?.spans ?? []) this.#release(each);
    this.#ahead.delete(ledgerId);
  }

  /** What is being fetched takes its room until it is there. */
  #release(ahead: Ahead): void {
    if (ahead.held && !ahead.fetching) this.#budget.give(bytesOf(ahead.span));
    ahead.held = false;
  }

  #letGoLater(): Timer {
    return this.#environment.clock.after(AHEAD_MS, () => this.#sweepUp(), { unref: true });
  }

  #sweepUp(): void {
    this.#letGo(this.#environment.clock.monotonic() - AHEAD_MS, Number.POSITIVE_INFINITY);
    this.#sweep = this.#ahead.size > 0 || this.#budget.waiting > 0 ? this.#letGoLater() : undefined;
  }

  /** Lets go what was fetched for those who have not been there after this time: the oldest first, until there are so many bytes. */
  #letGo(until: number, bytes: number): void {
    this.#budget.forgetUntil(until);
    const enough = this.#budget.taken - bytes;
    for (const [ledgerId, { spans, usedAt }] of this.#ahead) {
      if (usedAt > until || this.#budget.taken <= enough) return;
      if (!spans.some(({ fetching }) => fetching)) this.#drop(ledgerId);
    }
  }

  async #readBytes(span: Span): Promise<Buffer> {
    this.#inUse.set(span.segment, (this.#inUse.get(span.segment) ?? 0) + 1);
    try {
      const file = await this.#open(span.segment);
      return await file.read(span.start, bytesOf(span));
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

function bytesOf(span: Span): number {
  return span.end - span.start;
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
