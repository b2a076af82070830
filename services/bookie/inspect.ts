/**
 * What a bookie's folder holds, and what is damaged in it: everything is read, nothing is changed. For a folder that no bookie is
 * running on.
 */
import type { EntryId, LedgerId } from '../lib/ids.ts';
import type { Environment } from '../runtime/environment.ts';
import { readCookie } from './cookie.ts';
import { type Damage, type EntryRange, type SegmentDamage } from './damage.ts';
import { checkIndex, type IndexContent } from './index/check.ts';
import { entriesKey, openedRow, parseKey } from './index/rows.ts';
import type { IndexStore } from './index/store.ts';
import { type InspectedSegment, inspectSegment, type SegmentState } from './inspect-segment.ts';
import type { SealedRow } from './segment-check.ts';
import { decodeLedgerPart } from './segments/footer.ts';
import { segmentIds, segmentName } from './segments/segment-file.ts';
import { readWitness, type WitnessContent } from './witness.ts';

const ANY_LEDGER: number = Number.MAX_SAFE_INTEGER - 1;

/** One segment. */
interface SegmentReport {
  readonly segment: number;
  readonly file: string;
  readonly state: SegmentState;
  /** 0: not known. */
  readonly generation: number;
  readonly bytes: number;
  readonly groups: number;
  /** Those that are good. */
  readonly entries: number;
  readonly ledgers: number;
  readonly damages: number;
}

/** Entries of a ledger that are good, in one segment. */
interface PlacedRange extends EntryRange {
  readonly file: string;
  /** Of the first one. */
  readonly offset: number;
}

/** One ledger. */
export interface LedgerReport {
  readonly ledgerId: LedgerId;
  readonly fenced: boolean;
  /** In order of entries. */
  readonly ranges: readonly PlacedRange[];
  readonly lost: readonly EntryRange[];
}

/** A bookie's folder. */
export interface BookieReport {
  readonly folder: string;
  /** Undefined: `problems` says why. */
  readonly cookie: { readonly id: string; readonly instance: string } | undefined;
  readonly segments: readonly SegmentReport[];
  readonly index: { readonly rows: number; readonly ledgers: number; readonly agrees: boolean };
  readonly ledgers: readonly LedgerReport[];
  readonly damages: readonly Damage[];
  /** What is wrong beside the segments: one line each. */
  readonly problems: readonly string[];
}

/** What an inspection works with. */
export interface InspectBookie {
  readonly environment: Environment;
  readonly folder: string;
  /** The index, or a copy of it; undefined: there is none, or it cannot be opened, as `indexProblem` says. */
  readonly index: IndexStore | undefined;
  readonly indexProblem: string | undefined;
}

/** @throws what the disk throws but for lost bytes; FOLDER_VERSION */
export async function inspectBookie(options: InspectBookie): Promise<BookieReport> {
  return await new Inspection(options).run();
}

/** A ledger, while segments are read. */
interface Collected {
  fenced: boolean;
  readonly ranges: PlacedRange[];
}

class Inspection {
  readonly #environment: Environment;
  readonly #folder: string;
  readonly #segments: string;
  readonly #index: IndexStore | undefined;
  readonly #problems: string[] = [];
  readonly #ledgers = new Map<LedgerId, Collected>();
  readonly #reports: SegmentReport[] = [];
  readonly #damages: { readonly segment: number; readonly damage: SegmentDamage }[] = [];
  #content: IndexContent | undefined;
  #rows = 0;
  #agrees = true;

  constructor({ environment, folder, index, indexProblem }: InspectBookie) {
    this.#environment = environment;
    this.#folder = folder;
    this.#segments = `${folder}/segments`;
    this.#index = index;
    if (indexProblem !== undefined) this.#differs(indexProblem);
  }

  async run(): Promise<BookieReport> {
    const cookie = await this.#cookie();
    const witness = cookie === undefined ? undefined : await this.#witness(cookie.instance);
    await this.#checkIndex();
    await this.#readSegments(witness);
    return {
      folder: this.#folder,
      cookie: cookie === undefined ? undefined : { id: cookie.id, instance: cookie.instance.toString('hex') },
      segments: this.#reports,
      index: { rows: this.#rows, ledgers: this.#content?.size.ledgers ?? 0, agrees: this.#agrees },
      damages: this.#damagesLeft(),
      ledgers: this.#ledgerReports(),
      problems: this.#problems,
    };
  }

  async #cookie(): Promise<{ readonly id: string; readonly instance: Buffer } | undefined> {
    try {
      return await readCookie(this.#environment.disk, this.#folder);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      this.#problems.push(`${text}; a bookie does not start without it`);
      return undefined;
    }
  }

  async #witness(instance: Buffer): Promise<WitnessContent | undefined> {
    const content = await readWitness(this.#environment, this.#folder, instance);
    const what = `${this.#folder}/witness is missing, damaged, or another bookie's`;
    if (content === undefined) this.#problems.push(`${what}; the next start makes it anew from the segments`);
    return content;
  }

  /** Whatever differs is repaired at the next start: the segments decide. */
  #differs(how: string): void {
    if (this.#agrees) this.#problems.push(`the index ${how}; the next start builds it anew from the segments`);
    this.#agrees = false;
  }

  async #checkIndex(): Promise<void> {
    if (this.#index === undefined) return;
    const content = await checkIndex(this.#index);
    if (content.defect !== undefined) return this.#differs(`is damaged: ${content.defect}`);
    this.#content = content;
    for await (const { key } of this.#index.rows()) if (key.length > 0) this.#rows++;
  }

  async #readSegments(witness: WitnessContent | undefined): Promise<void> {
    const ids = await segmentIds(this.#environment.disk, this.#segments);
    const rows = this.#content?.segments ?? new Map<number, SealedRow>();
    const last = Math.max(0, ...ids, ...rows.keys(), witness?.status.lastSegment ?? 0);
    let chain: number | undefined = 0;
    for (let id = 1; id <= last; id++) {
      const row = rows.get(id);
      const status = witness?.status;
      const segment = await inspectSegment(id, {
        environment: this.#environment,
        folder: this.#segments,
        identity: (segmentId) => witness?.identities.get(segmentId),
        row: row?.sealed === true ? row : undefined,
        indexed: async () => await this.#indexedParts(id),
        committedUpTo: status?.segment === id ? status.committedUpTo : 0,
        ledgersUpTo: status === undefined || status.ledgersUpTo < 0 ? ANY_LEDGER : status.ledgersUpTo,
        previousChain: chain,
      });
      // Closed in order, the log had sealed whatever held something.
      const unused = segment.state === 'missing' && status?.closed === true && id > status.segment;
      if (!unused) this.#take(segment);
      this.#compare(segment, row?.sealed === true ? row : undefined);
      chain = segment.chain;
    }
  }

  async #indexedParts(segment: number): Promise<Buffer[]> {
    const parts: Buffer[] = [];
    for await (const { key, value } of this.#index?.rows() ?? []) {
      const parsed = parseKey(key);
      if (parsed?.kind === 'entries' && parsed.ids[1] === segment) parts.push(openedRow(key, value));
    }
    return parts;
  }

  #take(segment: InspectedSegment): void {
    const { id, state, generation, bytes, groups, entries, ledgers, damages } = segment;
    const file = `${this.#segments}/${segmentName(id)}`;
    for (const damage of damages) this.#damages.push({ segment: id, damage });
    const counts = { groups, entries: entries.length, ledgers, damages: damages.length };
    this.#reports.push({ segment: id, file, state, generation, bytes, ...counts });
    for (const { ledgerId, entryId, offset } of entries) this.#place(ledgerId, { file, entryId, offset });
    for (const ledgerId of segment.fences) this.#ledger(ledgerId).fenced = true;
    for (const part of segment.footer?.parts ?? []) {
      const { ledgerId, fenced } = decodeLedgerPart(part);
      if (fenced) this.#ledger(ledgerId).fenced = true;
    }
  }

  #ledger(id: LedgerId): Collected {
    let ledger = this.#ledgers.get(id);
    if (ledger === undefined) {
      ledger = { fenced: false, ranges: [] };
      this.#ledgers.set(id, ledger);
    }
    return ledger;
  }

  #place(ledgerId: LedgerId, at: { readonly file: string; readonly entryId: EntryId; readonly offset: number }): void {
    const { ranges } = this.#ledger(ledgerId);
    const last = ranges.at(-1);
    const { file, entryId, offset } = at;
    if (last?.file === file && entryId === last.lastEntryId + 1) {
      ranges[ranges.length - 1] = { ...last, lastEntryId: entryId };
    } else ranges.push({ ledgerId, firstEntryId: entryId, lastEntryId: entryId, file, offset });
  }

  /** Does the index say of a segment what its footer says? */
  #compare({ id, state, footer, chain }: InspectedSegment, row: SealedRow | undefined): void {
    if (this.#content === undefined || this.#index === undefined || footer === undefined) return;
    if (row === undefined) return this.#differs(`does not know that segment ${id} is sealed`);
    if (state !== 'sealed' || row.chain !== chain || row.ledgers !== footer.parts.length) {
      return this.#differs(`does not know segment ${id} as it is`);
    }
    for (const part of footer.parts) {
      const { ledgerId } = decodeLedgerPart(part);
      const key = entriesKey(ledgerId, id);
      const value = this.#index.get(key);
      if (value === undefined || !openedRow(key, value).equals(part)) {
        return this.#differs(`has other entries of ledger ${ledgerId} in segment ${id} than its footer`);
      }
    }
  }

  /** Damages; an entry of which another copy is good is not lost. */
  #damagesLeft(): Damage[] {
    return this.#damages.map(({ segment, damage }) => {
      const file = `${this.#segments}/${segmentName(segment)}`;
      if (damage.ledgers === 'unknown') return { file, ...damage };
      return { file, ...damage, ledgers: damage.ledgers.flatMap((range) => this.#withoutGood(range)) };
    });
  }

  #withoutGood(range: EntryRange): EntryRange[] {
    let left: EntryRange[] = [range];
    for (const good of this.#ledgers.get(range.ledgerId)?.ranges ?? []) {
      left = left.flatMap((part) => cutOut(part, good));
    }
    return left;
  }

  #ledgerReports(): LedgerReport[] {
    const lost = new Map<LedgerId, EntryRange[]>();
    for (const { ledgers } of this.#damagesLeft()) {
      if (ledgers === 'unknown') continue;
      for (const range of ledgers) lost.set(range.ledgerId, [...(lost.get(range.ledgerId) ?? []), range]);
    }
    const ids = [...new Set([...this.#ledgers.keys(), ...lost.keys()])].toSorted((a, b) => a - b);
    return ids.map((ledgerId) => {
      const { fenced = false, ranges = [] } = this.#ledgers.get(ledgerId) ?? {};
      const sorted = ranges.toSorted((a, b) => a.firstEntryId - b.firstEntryId);
      return { ledgerId, fenced, ranges: sorted, lost: lost.get(ledgerId) ?? [] };
    });
  }
}

/** What is left of a range without another one. */
function cutOut(range: EntryRange, { firstEntryId, lastEntryId }: EntryRange): EntryRange[] {
  if (lastEntryId < range.firstEntryId || firstEntryId > range.lastEntryId) return [range];
  const parts: EntryRange[] = [];
  if (range.firstEntryId < firstEntryId) parts.push({ ...range, lastEntryId: (firstEntryId - 1) as EntryId });
  if (range.lastEntryId > lastEntryId) parts.push({ ...range, firstEntryId: (lastEntryId + 1) as EntryId });
  return parts;
}
