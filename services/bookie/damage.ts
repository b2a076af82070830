/** What is damaged in a bookie's segments: which bytes of which file, and which entries that costs. */
import { ProtoReader, ProtoWriter } from '../lib/bytes.ts';
import type { EntryId, LedgerId } from '../lib/ids.ts';
import type { Logger } from '../runtime/logger.ts';
import { PAGE_BYTES } from './segments/format.ts';

/**
 * What is wrong: bytes are not what was written; the file is gone, is another one than the one that was written, or lacks what was
 * written last (an old copy, or cut short); or the disk does not give the bytes.
 */
export type DamageKind = 'damaged' | 'missing' | 'foreign' | 'stale' | 'unreadable';

const KINDS: readonly DamageKind[] = ['damaged', 'missing', 'foreign', 'stale', 'unreadable'];
const TEXTS: Readonly<Record<DamageKind, string>> = {
  damaged: 'has damaged bytes',
  missing: 'is missing',
  foreign: 'is not the file that was written under this name',
  stale: 'is not as it was last written: cut short, or an old copy',
  unreadable: 'cannot be read by the disk',
};
const LOGGED_RANGES = 20;

/** Consecutive entries of a ledger. */
export interface EntryRange {
  readonly ledgerId: LedgerId;
  readonly firstEntryId: EntryId;
  readonly lastEntryId: EntryId;
}

/** One damage in a segment. */
export interface SegmentDamage {
  readonly what: DamageKind;
  readonly offset: number;
  readonly bytes: number;
  /** The entries that are lost here: known ones (none: it cost nothing), or nobody knows which. */
  readonly ledgers: readonly EntryRange[] | 'unknown';
  /** Of unknown ones: their ledgers are not above this; -1 where they are known. */
  readonly ledgersUpTo: number;
}

/** One damage. `file`: its path. */
export interface Damage extends SegmentDamage {
  readonly file: string;
}

/** A damage in words, without its file: "has damaged bytes at 12288 (80 bytes): entries 1-3 of ledger 7 are lost". */
export function damageText({ what, offset, bytes, ledgers, ledgersUpTo }: SegmentDamage): string {
  const place = what === 'missing' ? '' : ` at ${offset} (${bytes} bytes)`;
  return `${TEXTS[what]}${place}: ${lossText(ledgers, ledgersUpTo)}`;
}

function lossText(ledgers: SegmentDamage['ledgers'], upTo: number): string {
  if (ledgers === 'unknown') {
    return `${upTo >= Number.MAX_SAFE_INTEGER - 1 ? 'any ledger' : `ledgers up to ${upTo}`} may have lost entries`;
  }
  if (ledgers.length === 0) return 'no entry is lost';
  const named = ledgers.slice(0, LOGGED_RANGES).map(rangeText).join(', ');
  const more = ledgers.length > LOGGED_RANGES ? ` and ${ledgers.length - LOGGED_RANGES} more ranges` : '';
  return `lost ${named}${more}`;
}

function rangeText({ ledgerId, firstEntryId, lastEntryId }: EntryRange): string {
  if (firstEntryId === lastEntryId) return `entry ${firstEntryId} of ledger ${ledgerId}`;
  return `entries ${firstEntryId}-${lastEntryId} of ledger ${ledgerId}`;
}

/** True when no entry is lost by it. */
export function isHarmless({ ledgers }: SegmentDamage): boolean {
  return ledgers !== 'unknown' && ledgers.length === 0;
}

/** Entries as ranges, in order. */
export function entryRanges(
  entries: readonly { readonly ledgerId: LedgerId; readonly entryId: EntryId }[],
): readonly EntryRange[] {
  const ranges: { ledgerId: LedgerId; firstEntryId: EntryId; lastEntryId: EntryId }[] = [];
  for (const { ledgerId, entryId } of entries.toSorted((a, b) => a.ledgerId - b.ledgerId || a.entryId - b.entryId)) {
    const last = ranges.at(-1);
    if (last?.ledgerId === ledgerId && entryId <= last.lastEntryId + 1) last.lastEntryId = entryId;
    else ranges.push({ ledgerId, firstEntryId: entryId, lastEntryId: entryId });
  }
  return ranges;
}

function mergedRanges(a: readonly EntryRange[], b: readonly EntryRange[]): readonly EntryRange[] {
  const ranges: EntryRange[] = [];
  for (const range of [...a, ...b].toSorted((x, y) => x.ledgerId - y.ledgerId || x.firstEntryId - y.firstEntryId)) {
    const last = ranges.at(-1);
    if (last?.ledgerId !== range.ledgerId || range.firstEntryId > last.lastEntryId + 1) ranges.push(range);
    else if (range.lastEntryId > last.lastEntryId) {
      ranges[ranges.length - 1] = { ...last, lastEntryId: range.lastEntryId };
    }
  }
  return ranges;
}

/** Ranges without one entry. The same array when it is not in them. */
function withoutEntry(ranges: readonly EntryRange[], id: LedgerId, entry: EntryId): readonly EntryRange[] {
  const at = ranges.findIndex(
    (range) => range.ledgerId === id && range.firstEntryId <= entry && entry <= range.lastEntryId,
  );
  const found = ranges[at];
  if (found === undefined) return ranges;
  const parts: EntryRange[] = [];
  if (found.firstEntryId < entry) parts.push({ ...found, lastEntryId: (entry - 1) as EntryId });
  if (found.lastEntryId > entry) parts.push({ ...found, firstEntryId: (entry + 1) as EntryId });
  return ranges.toSpliced(at, 1, ...parts);
}

/** Damages as one list, in order of their places: those of a kind that are not a page apart are one. */
export function mergedDamages(damages: readonly SegmentDamage[]): SegmentDamage[] {
  const merged: SegmentDamage[] = [];
  for (const damage of damages.toSorted((a, b) => a.offset - b.offset)) {
    const last = merged.at(-1);
    const near =
      last !== undefined && last.what === damage.what && damage.offset <= last.offset + last.bytes + PAGE_BYTES;
    if (!near || last.ledgers === 'unknown' || damage.ledgers === 'unknown') {
      merged.push(damage);
      continue;
    }
    const end = Math.max(last.offset + last.bytes, damage.offset + damage.bytes);
    const ledgers = mergedRanges(last.ledgers, damage.ledgers);
    merged[merged.length - 1] = { ...last, bytes: end - last.offset, ledgers };
  }
  return merged;
}

/** True when `known` says all that `damage` says. */
function covers(known: SegmentDamage, damage: SegmentDamage): boolean {
  if (known.offset > damage.offset || known.offset + known.bytes < damage.offset + damage.bytes) return false;
  const [outer, inner] = [known.ledgers, damage.ledgers];
  if (outer === 'unknown' || inner === 'unknown') return outer === inner && known.ledgersUpTo >= damage.ledgersUpTo;
  return inner.every((range) =>
    outer.some(
      ({ ledgerId, firstEntryId, lastEntryId }) =>
        ledgerId === range.ledgerId && firstEntryId <= range.firstEntryId && lastEntryId >= range.lastEntryId,
    ),
  );
}

/**
 * Encodes damages, as base-128 varints: count; per damage: kind; offset; length; 0 and the highest ledger id +1 when nobody knows what
 * is lost, else the count of ranges +1, and per range ledger id, first entry id, how many more.
 */
export function encodeDamages(damages: readonly SegmentDamage[]): Buffer {
  const writer = new ProtoWriter(16 + damages.length * 16);
  writer.rawVarint(damages.length);
  for (const { what, offset, bytes, ledgers, ledgersUpTo } of damages) {
    writer.rawVarint(KINDS.indexOf(what));
    writer.rawVarint(offset);
    writer.rawVarint(bytes);
    if (ledgers === 'unknown') {
      writer.rawVarint(0);
      writer.rawVarint(Math.min(ledgersUpTo, Number.MAX_SAFE_INTEGER - 1) + 1);
      continue;
    }
    writer.rawVarint(ledgers.length + 1);
    for (const { ledgerId, firstEntryId, lastEntryId } of ledgers) {
      writer.rawVarint(ledgerId);
      writer.rawVarint(firstEntryId);
      writer.rawVarint(lastEntryId - firstEntryId);
    }
  }
  return writer.finish();
}

/** @throws MagnetarError PROTOCOL_VIOLATION when it is malformed. */
export function decodeDamages(encoded: Buffer): SegmentDamage[] {
  const reader = new ProtoReader(encoded);
  const damages: SegmentDamage[] = [];
  for (let left = reader.rawVarint(); left > 0; left--) {
    const what = KINDS[reader.rawVarint()] ?? 'damaged';
    const [offset, bytes, count] = [reader.rawVarint(), reader.rawVarint(), reader.rawVarint()];
    if (count === 0) {
      damages.push({ what, offset, bytes, ledgers: 'unknown', ledgersUpTo: reader.rawVarint() - 1 });
      continue;
    }
    const ledgers: EntryRange[] = [];
    while (ledgers.length < count - 1) {
      const [ledger, first, more] = [reader.rawVarint(), reader.rawVarint(), reader.rawVarint()];
      ledgers.push({
        ledgerId: ledger as LedgerId,
        firstEntryId: first as EntryId,
        lastEntryId: (first + more) as EntryId,
      });
    }
    damages.push({ what, offset, bytes, ledgers, ledgersUpTo: -1 });
  }
  return damages;
}

/** What is damaged now, per segment. Says each damage once in the log. */
export class DamageList {
  readonly #logger: Logger;
  readonly #fileOf: (segment: number) => string;
  readonly #segments = new Map<number, readonly SegmentDamage[]>();
  /** Highest ledger id that is in doubt, and ledgers that are known to have lost entries: most questions end here. */
  #doubtUpTo = -1;
  #lost = new Set<LedgerId>();
  /** Called when the damages of a segment have changed. */
  changed: (segment: number) => void = () => {};

  constructor(logger: Logger, fileOf: (segment: number) => string) {
    this.#logger = logger;
    this.#fileOf = fileOf;
  }

  /** True when nothing is damaged. */
  get empty(): boolean {
    return this.#segments.size === 0;
  }

  /** True when ledgers are in limbo. */
  get inDoubt(): boolean {
    return this.#doubtUpTo >= 0;
  }

  get all(): readonly Damage[] {
    const all: Damage[] = [];
    for (const [segment, damages] of [...this.#segments].toSorted(([a], [b]) => a - b)) {
      for (const damage of damages) all.push({ file: this.#fileOf(segment), ...damage });
    }
    return all;
  }

  /** The damages of a segment. */
  of(segment: number): readonly SegmentDamage[] {
    return this.#segments.get(segment) ?? [];
  }

  /** Segments that have damages. */
  get segments(): readonly number[] {
    return [...this.#segments.keys()];
  }

  /** Replaces the damages of a segment, without a word. */
  set(segment: number, damages: readonly SegmentDamage[]): void {
    if (damages.length === 0) this.#segments.delete(segment);
    else this.#segments.set(segment, damages);
    this.#doubtUpTo = -1;
    this.#lost = new Set();
    for (const { ledgers, ledgersUpTo } of [...this.#segments.values()].flat()) {
      if (ledgers === 'unknown') this.#doubtUpTo = Math.max(this.#doubtUpTo, ledgersUpTo);
      else for (const { ledgerId } of ledgers) this.#lost.add(ledgerId);
    }
  }

  /** Says all of it: one line each. */
  log(): void {
    for (const damage of this.all) this.#say(damage);
  }

  #say(damage: Damage): void {
    const { file, what, offset, bytes, ledgers, ledgersUpTo } = damage;
    const lost = ledgers === 'unknown' ? { ledgers, ledgersUpTo } : { ledgers: ledgers.slice(0, LOGGED_RANGES) };
    this.#logger.error(`${file} ${damageText(damage)}`, { file, what, offset, bytes, ...lost });
  }

  /** A damage that was found while the bookie runs. One that is known is not said again. */
  found(segment: number, damage: SegmentDamage): void {
    const before = this.of(segment);
    if (before.some((known) => covers(known, damage))) return;
    const merged = mergedDamages([...before, damage]);
    this.set(segment, merged);
    if (merged.length > before.length) this.#say({ file: this.#fileOf(segment), ...damage });
    this.changed(segment);
  }

  /** An entry that may have been lost is stored again. */
  restored(id: LedgerId, entry: EntryId): void {
    if (!this.#lost.has(id)) return;
    for (const segment of this.segments) this.#restoredIn(segment, id, entry);
  }

  /** An entry that a segment did not give can be read there again. */
  readAgain(segment: number, id: LedgerId, entry: EntryId): void {
    if (this.#lost.has(id)) this.#restoredIn(segment, id, entry);
  }

  #restoredIn(segment: number, id: LedgerId, entry: EntryId): void {
    const left: SegmentDamage[] = [];
    let changed = false;
    for (const damage of this.of(segment)) {
      const ledgers = damage.ledgers === 'unknown' ? damage.ledgers : withoutEntry(damage.ledgers, id, entry);
      changed ||= ledgers !== damage.ledgers;
      if (ledgers === damage.ledgers) left.push(damage);
      else if (ledgers.length > 0) left.push({ ...damage, ledgers });
    }
    if (!changed) return;
    this.set(segment, left);
    this.#logger.info(`entry ${entry} of ledger ${id}, which ${this.#fileOf(segment)} had lost, is there again`);
    this.changed(segment);
  }

  /** What makes it uncertain which entries of a ledger were stored (LP-29); undefined: nothing does. */
  doubt(id: LedgerId): Damage | undefined {
    if (id > this.#doubtUpTo) return undefined;
    for (const [segment, damages] of this.#segments) {
      for (const damage of damages) {
        if (damage.ledgers === 'unknown' && id <= damage.ledgersUpTo) return { file: this.#fileOf(segment), ...damage };
      }
    }
    return undefined;
  }
}
