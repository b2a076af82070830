/**
 * The segments of a folder together with their index and their witness: opens them (replaying only what is not sealed), finds out what
 * is damaged, makes new ones, seals full ones.
 */
import { isDiskFull } from '../runtime/disk.ts';
import type { Environment } from '../runtime/environment.ts';
import {
  type DamageKind,
  type DamageList,
  damageText,
  decodeDamages,
  encodeDamages,
  isHarmless,
  mergedDamages,
  type SegmentDamage,
} from './damage.ts';
import { checkIndex, type IndexContent } from './index/check.ts';
import {
  damageKey,
  decodeSegmentRow,
  encodeSegmentRow,
  openedRow,
  parseKey,
  sealedRow,
  segmentKey,
} from './index/rows.ts';
import type { IndexRow, IndexStore } from './index/store.ts';
import type { LedgerTable } from './ledger-table.ts';
import { type CheckContext, checkEntries, checkSeals, type SealedRow } from './segment-check.ts';
import { decodeLedgerPart, encodeLedgerPart, type LedgerPart, type Seal, type SealFacts } from './segments/footer.ts';
import type { SegmentEnd } from './segments/log.ts';
import { DATA_START, PAGE_BYTES, type SegmentIdentity } from './segments/format.ts';
import { type FirstGroup, readFirstGroup, type ScanResult, scanSegment } from './segments/scan.ts';
import {
  listSegments,
  type OpenedSegment,
  openSegment,
  readFooter,
  sealFile,
  segmentName,
  SegmentFile,
  type UnopenedSegment,
  writeHeader,
} from './segments/segment-file.ts';
import type { SpaceWatch } from './space.ts';
import type { Witness } from './witness.ts';

/** Rows of the index that one write takes. */
const ROWS_PER_WRITE = 2_000;
const NOTHING: Buffer = Buffer.alloc(0);
const ANY_LEDGER: number = Number.MAX_SAFE_INTEGER - 1;

/** Where the log goes on. */
export interface LogStart {
  readonly active: SegmentFile;
  readonly chain: number;
  readonly highestLedgerId: number;
}

/** What a store is made of. */
export interface StoreParts {
  readonly environment: Environment;
  /** Of the segments. */
  readonly folder: string;
  readonly index: IndexStore;
  readonly table: LedgerTable;
  readonly damage: DamageList;
  readonly witness: Witness;
  /** False: the witness was made anew, and says nothing. */
  readonly witnessKnown: boolean;
  readonly space: SpaceWatch;
  readonly segmentBytes: number;
}

export class SegmentStore {
  readonly #parts: StoreParts;
  readonly #environment: Environment;
  readonly #folder: string;
  readonly #index: IndexStore;
  readonly #table: LedgerTable;
  readonly #damage: DamageList;
  readonly #witness: Witness;
  #lastId = 0;
  /** The next segment, which is not known everywhere yet. */
  #made: SegmentFile | undefined;
  #chain: number | undefined = 0;
  #highestLedgerId = -1;
  /** Lost segments of which the one behind them will say how far their ledgers went. */
  #lost: { readonly id: number; readonly what: DamageKind; readonly bytes: number }[] = [];
  /** Segments that were read from one end to the other already. */
  readonly #replayed = new Set<number>();
  #saving: Promise<void> | undefined;
  readonly #unsaved = new Set<number>();

  constructor(parts: StoreParts) {
    this.#parts = parts;
    this.#environment = parts.environment;
    this.#folder = parts.folder;
    this.#index = parts.index;
    this.#table = parts.table;
    this.#damage = parts.damage;
    this.#witness = parts.witness;
  }

  /** Replays what has to be, seals it, looks what is damaged, and says where the log goes on. Called once, first. */
  async open(failed: (error: unknown) => void): Promise<LogStart> {
    const present = new Set(await listSegments(this.#environment, this.#folder));
    const { segments: rows, damages } = await this.#openIndex(present.size);
    for (const [segment, before] of damages) this.#damage.set(segment, before);
    const { status } = this.#witness;
    this.#lastId = Math.max(0, ...present, ...rows.keys(), status.lastSegment);
    if (!this.#parts.witnessKnown && this.#lastId > 0) {
      this.#environment.logger.warn('making the witness of the segments anew: it is missing or damaged');
    }
    let active: SegmentFile | undefined;
    try {
      const sealed = new Map<number, SealedRow>();
      for (const [id, row] of rows) if (row.sealed) sealed.set(id, row);
      await this.#learnIdentities(sealed.keys());
      for (let id = 1; id <= this.#lastId; id++) {
        const row = sealed.get(id);
        if (row !== undefined) this.#passed(row.chain, row.highestLedgerId);
        else active = await this.#openOne(id, present.has(id + 1));
      }
      this.#settleLost(status.ledgersUpTo < 0 ? ANY_LEDGER : status.ledgersUpTo);
      await this.#checkSealed(sealed);
      await this.#witness.begin({ lastSegment: this.#lastId, highestLedgerId: this.#highestLedgerId }, failed);
      active ??= await this.createNext(this.#highestLedgerId);
      const touched = new Set([...damages.keys(), ...this.#damage.segments]);
      if (touched.size > 0) await this.#index.write([...touched].map((segment) => this.#damageRow(segment)));
    } catch (error) {
      await active?.close();
      await this.#made?.close();
      throw error;
    }
    this.#damage.log();
    this.#damage.changed = (segment) => this.#save(segment, failed);
    return { active, chain: this.#chain ?? 0, highestLedgerId: this.#highestLedgerId };
  }

  /** A witness that was made anew takes the segments as they are. */
  async #learnIdentities(ids: Iterable<number>): Promise<void> {
    const identities: SegmentIdentity[] = [];
    for (const id of ids) {
      if (this.#witness.identity(id) !== undefined) continue;
      const opened = await this.#openSegment(id);
      if (!('file' in opened)) continue;
      await opened.file.close();
      identities.push(opened.head.identity);
    }
    if (identities.length > 0) await this.#witness.addSegments(identities);
  }

  async #openSegment(id: number): Promise<OpenedSegment | UnopenedSegment> {
    return await openSegment(this.#environment, this.#folder, id, this.#witness.identity(id));
  }

  /** The log has got so far. */
  #passed(chain: number | undefined, highestLedgerId: number): void {
    this.#chain = chain;
    this.#highestLedgerId = Math.max(this.#highestLedgerId, highestLedgerId);
    this.#settleLost(highestLedgerId);
  }

  async #openIndex(segments: number): Promise<Pick<IndexContent, 'segments' | 'damages'>> {
    const content = await checkIndex(this.#index);
    if (content.defect === undefined && (content.segments.size > 0 || segments === 0)) {
      this.#table.ledgers = content.size.ledgers;
      this.#table.entries = content.size.entries;
      return content;
    }
    const reason = content.defect ?? 'it is empty';
    this.#environment.logger.warn('rebuilding the index from the segments', { reason });
    await this.#index.clear();
    return { segments: new Map(), damages: new Map() };
  }

  /** Nothing of this segment can be read, and nobody knows what was in it (LP-12, LP-29). */
  #lose(id: number, what: DamageKind, bytes: number): void {
    this.#chain = undefined;
    this.#lost.push({ id, what, bytes });
  }

  #settleLost(ledgersUpTo: number): void {
    for (const { id, what, bytes } of this.#lost.splice(0)) {
      this.#damage.set(id, [{ what, offset: 0, bytes, ledgers: 'unknown', ledgersUpTo }]);
    }
  }

  /** Opens a segment that is not in the index as sealed. Returns it when it is the unused last one. */
  async #openOne(id: number, followed: boolean): Promise<SegmentFile | undefined> {
    const opened = await this.#openSegment(id);
    if (!('file' in opened)) {
      await this.#unopened(id, opened);
      return undefined;
    }
    let reused: SegmentFile | undefined;
    try {
      this.#damage.set(id, []); // What was said of it before is found again, if it is still so.
      const { identity, headerDamaged } = opened.head;
      if (this.#witness.identity(id) === undefined) await this.#witness.addSegments([identity]);
      if (headerDamaged) await writeHeader(opened.file, identity);
      if (await this.#indexFromFooter(opened)) return undefined;
      if ((await this.#replay(opened, followed)) === 'sealed') return undefined;
      await this.#writeUnsealed(id);
      reused = SegmentFile.reuse(this.#environment, opened, {
        segmentBytes: this.#parts.segmentBytes,
        refused: this.#refused,
      });
      return reused;
    } finally {
      if (reused === undefined) await opened.file.close();
    }
  }

  async #unopened(id: number, { what, fileBytes }: UnopenedSegment): Promise<void> {
    const { status } = this.#witness;
    // Closed in order, the log had sealed whatever held something.
    if (what === 'missing' && status.closed && id === this.#lastId && id > status.segment) {
      this.#environment.logger.warn(`segment ${id}, which was empty, is missing; it is made anew`);
      this.#lastId--;
      return;
    }
    this.#lose(id, what, fileBytes);
    await this.#writeUnsealed(id);
  }

  async #indexFromFooter(opened: OpenedSegment): Promise<boolean> {
    const { id, seal } = opened;
    const footer = seal === undefined ? undefined : await readFooter(opened, seal);
    if (seal === undefined) return false;
    if (footer === undefined) {
      this.#environment.logger.warn(`the footer of segment ${id} is damaged; its groups are read again`);
      return false;
    }
    const parts = footer.parts.map((bytes) => ({ part: decodeLedgerPart(bytes), bytes }));
    this.#damage.set(id, damagesAtSeal(footer.damages, seal));
    await this.#writeRows(id, parts, seal);
    for (const { part } of parts) this.#table.forget(part.ledgerId);
    this.#passed(seal.chain, seal.highestLedgerId);
    return true;
  }

  async #replay(opened: OpenedSegment, followed: boolean): Promise<'unused' | 'sealed'> {
    const { id, file, head, seal } = opened;
    const result = await this.#scan(opened, followed);
    this.#replayed.add(id);
    const lost = result.damages.filter((damage) => !isHarmless(damage));
    this.#damage.set(id, lost);
    this.#report(id, seal === undefined ? result : { ...result, torn: false });
    // Where the end is lost, so is what it would have said of ledgers.
    const bounds = result.chain === undefined ? lost.map(({ ledgersUpTo }) => ledgersUpTo) : [];
    const highest = [result.highestLedgerId, ...bounds.filter((bound) => bound < ANY_LEDGER)];
    this.#highestLedgerId = Math.max(this.#highestLedgerId, ...highest);
    this.#chain = result.chain;
    if (result.groups > 0) this.#settleLost(this.#highestLedgerId);
    if (result.groups === 0 && !result.torn && id === this.#lastId) return 'unused';
    const end = { footerOffset: result.end, chain: result.chain ?? 0, highestLedgerId: this.#highestLedgerId };
    await this.#sealAndIndex(id, end, onceOnly, async (parts) => {
      await sealFile(file, head.identity, parts, this.#sealFacts(id, end));
    });
    return 'sealed';
  }

  async #scan({ id, source, head, fileBytes, seal }: OpenedSegment, followed: boolean): Promise<ScanResult> {
    const { status } = this.#witness;
    const next = followed ? await this.#firstGroupOf(id + 1) : undefined;
    const witnessed = status.segment === id ? status.committedUpTo : 0;
    // The first pages are durable before a segment has its name.
    const cut = fileBytes < DATA_START && !(status.closed && id > status.segment);
    const committedUpTo = Math.max(seal?.footerOffset ?? 0, witnessed, cut ? DATA_START + PAGE_BYTES : 0);
    const ledgersUpTo = seal?.highestLedgerId ?? (status.ledgersUpTo < 0 ? ANY_LEDGER : status.ledgersUpTo);
    const facts = { head, fileBytes, committedUpTo, ledgersUpTo, previousChain: this.#chain, next };
    return await scanSegment(source, facts, {
      record: ({ header, offset }) => this.#table.replay(id, header, offset),
      lost: (place, header) => this.#table.replayLost(id, place, header),
    });
  }

  async #firstGroupOf(id: number): Promise<FirstGroup | undefined> {
    const opened = await this.#openSegment(id);
    if (!('file' in opened)) return undefined;
    try {
      return await readFirstGroup(opened.source, opened.head.identity);
    } finally {
      await opened.file.close();
    }
  }

  #report(id: number, { torn, end, groups, damages }: ScanResult): void {
    const { logger } = this.#environment;
    for (const damage of damages) {
      if (!isHarmless(damage)) continue;
      const { offset, bytes, what } = damage;
      const file = `${this.#folder}/${segmentName(id)}`;
      logger.error(`${file} ${damageText(damage)}`, { file, what, offset, bytes });
    }
    if (torn) logger.warn(`segment ${id} ends in a group that was never committed; it is cut`, { end });
    if (groups > 0) logger.debug(`replayed segment ${id}`, { groups, end });
  }

  /** Looks at the sealed segments, closely where something is or was wrong. */
  async #checkSealed(sealed: ReadonlyMap<number, SealedRow>): Promise<void> {
    const context: CheckContext = {
      environment: this.#environment,
      folder: this.#folder,
      witness: this.#witness,
      index: this.#index,
      locate: (ledgerId, entryId) => this.#table.locate(this.#table.get(ledgerId), entryId),
    };
    const defects = await checkSeals(context, sealed);
    for (const id of new Set([...defects.keys(), ...this.#damage.segments])) {
      const row = sealed.get(id) ?? this.#sealedRow(id);
      if (row === undefined || this.#replayed.has(id)) continue;
      const before = this.#damage.of(id);
      const lost = await checkEntries(context, id, row, defects.get(id));
      const unknown = before.filter(({ ledgers }) => ledgers === 'unknown');
      this.#damage.set(id, mergedDamages([...lost, ...unknown]));
      if (defects.has(id) && lost.length === 0) await this.#sealAnew(id, row);
      if (before.length > 0 && this.#damage.of(id).length === 0) {
        this.#environment.logger.info(`segment ${id}, which was damaged, is whole again`);
      }
    }
  }

  #sealedRow(id: number): SealedRow | undefined {
    const key = segmentKey(id);
    const value = this.#index.get(key);
    const row = value === undefined ? undefined : decodeSegmentRow(openedRow(key, value));
    return row?.sealed === true ? row : undefined;
  }

  /** Header or footer are damaged, and nothing else: both follow from what is known. */
  async #sealAnew(id: number, row: SealedRow): Promise<void> {
    const opened = await this.#openSegment(id);
    if (!('file' in opened)) return;
    try {
      const parts: Buffer[] = [];
      for await (const { key, value } of this.#index.rows()) {
        const parsed = parseKey(key);
        if (parsed?.kind === 'entries' && parsed.ids[1] === id) parts.push(openedRow(key, value));
      }
      const end = { footerOffset: row.end, chain: row.chain, highestLedgerId: row.highestLedgerId };
      await writeHeader(opened.file, opened.head.identity);
      await sealFile(opened.file, opened.head.identity, parts, this.#sealFacts(id, end));
      this.#environment.logger.warn(`the header or footer of segment ${id} was damaged; both are written anew`);
    } finally {
      await opened.file.close();
    }
  }

  #sealFacts(id: number, end: SegmentEnd): SealFacts {
    const damages = this.#damage.of(id);
    const limboUpTo = Math.max(-1, ...damages.map(({ ledgersUpTo }) => ledgersUpTo));
    return { ...end, limboUpTo, damages: damages.length === 0 ? NOTHING : encodeDamages(damages) };
  }

  /** Writes down what is damaged in a segment, soon, and one at a time. Without room it is found again after a restart. */
  #save(segment: number, failed: (error: unknown) => void): void {
    this.#unsaved.add(segment);
    this.#saving ??= this.#saveAll().catch((error: unknown) => {
      if (!isDiskFull(error)) failed(error);
    });
  }

  async #saveAll(): Promise<void> {
    try {
      while (this.#unsaved.size > 0) {
        await Promise.resolve();
        const segments = [...this.#unsaved];
        this.#unsaved.clear();
        await this.#index.write(segments.map((segment) => this.#damageRow(segment)));
      }
    } finally {
      this.#saving = undefined; // In the same turn as the last look: what comes later begins anew.
    }
  }

  #damageRow(segment: number): IndexRow {
    return sealedRow(damageKey(segment), encodeDamages(this.#damage.of(segment)));
  }

  /** Makes the segment behind the last one; durable, and missed if it is lost, when it resolves. */
  async createNext(highestLedgerId: number): Promise<SegmentFile> {
    const id = this.#lastId + 1;
    const options = { id, segmentBytes: this.#parts.segmentBytes, highestLedgerId, refused: this.#refused };
    const segment = this.#made ?? (await SegmentFile.create(this.#environment, this.#folder, options));
    this.#made = segment;
    // Where there is no room for these, the next try goes on with this very segment: the witness may know it.
    await this.#witness.addSegments([segment.identity]);
    await this.#writeUnsealed(id);
    this.#made = undefined;
    this.#lastId = id;
    return segment;
  }

  readonly #refused = (error: unknown): void => void this.#parts.space.refused(error);

  async #writeUnsealed(id: number): Promise<void> {
    await this.#index.write([sealedRow(segmentKey(id), encodeSegmentRow({ sealed: false }))]);
  }

  /** Seals a segment that the log is done with, and closes it. */
  async seal(segment: SegmentFile, end: SegmentEnd): Promise<void> {
    const { id } = segment.identity;
    const patiently: Attempt = async (work) => await this.#parts.space.persist(work);
    try {
      await this.#sealAndIndex(id, end, patiently, async (parts) => {
        await patiently(async () => await segment.seal(parts, this.#sealFacts(id, end)));
      });
    } finally {
      await segment.close();
    }
  }

  /** Footer first, index after it: what the index says can always be built again. */
  async #sealAndIndex(
    id: number,
    end: SegmentEnd,
    attempt: Attempt,
    seal: (parts: readonly Buffer[]) => Promise<void>,
  ): Promise<void> {
    const parts: EncodedPart[] = [];
    for (const part of this.#table.parts(id)) {
      parts.push({ part, bytes: encodeLedgerPart(part) });
      if (parts.length % ROWS_PER_WRITE === 0) await this.#nextTurn();
    }
    await seal(parts.map(({ bytes }) => bytes));
    await attempt(async () => await this.#writeRows(id, parts, end));
    this.#table.sealed(id);
  }

  async #nextTurn(): Promise<void> {
    await new Promise<void>((resolve) => this.#environment.clock.nextTurn(resolve));
  }

  /** Writes a sealed segment's rows; the segment's own comes last, so that half of them count as none. */
  async #writeRows(id: number, parts: readonly EncodedPart[], end: SegmentEnd): Promise<void> {
    let rows: IndexRow[] = [];
    for (const { part, bytes } of parts) {
      rows.push(...this.#table.rows(id, part, bytes));
      if (rows.length < ROWS_PER_WRITE) continue;
      await this.#index.write(rows);
      rows = [];
    }
    const { footerOffset, chain, highestLedgerId } = end;
    const row = { sealed: true, ledgers: parts.length, end: footerOffset, chain, highestLedgerId } as const;
    rows.push(sealedRow(segmentKey(id), encodeSegmentRow(row)));
    await this.#index.write(rows);
  }

  /** Waits for what is being written down. */
  async close(): Promise<void> {
    await this.#saving;
    await this.#made?.close();
  }
}

/** Does something that may fail for want of room. */
type Attempt = (work: () => Promise<void>) => Promise<void>;

async function onceOnly(work: () => Promise<void>): Promise<void> {
  await work();
}

interface EncodedPart {
  readonly part: LedgerPart;
  readonly bytes: Buffer;
}

function damagesAtSeal(encoded: Buffer | undefined, { limboUpTo, footerOffset }: Seal): readonly SegmentDamage[] {
  if (encoded !== undefined) return decodeDamages(encoded);
  if (limboUpTo < 0) return [];
  return [{ what: 'damaged', offset: 0, bytes: footerOffset, ledgers: 'unknown', ledgersUpTo: limboUpTo }];
}
