/**
 * The segments of a folder together with their index: opens them (replaying only what is not sealed), makes new ones, seals full
 * ones.
 */
import { MagnetarError } from '../lib/errors.ts';
import type { Environment } from '../runtime/environment.ts';
import { checkIndex } from './index/check.ts';
import { bookieKey, encodeBookieRow, encodeSegmentRow, sealedRow, segmentKey, type SegmentRow } from './index/rows.ts';
import type { IndexRow, IndexStore } from './index/store.ts';
import type { LedgerTable } from './ledger-table.ts';
import type { SpaceWatch } from './space.ts';
import { decodeLedgerPart, encodeLedgerPart, type LedgerPart } from './segments/footer.ts';
import type { SegmentEnd } from './segments/log.ts';
import { type FirstGroup, readFirstGroup, type ScanResult, scanSegment } from './segments/scan.ts';
import {
  listSegments,
  type OpenedSegment,
  openSegment,
  readFooter,
  sealFile,
  SegmentFile,
} from './segments/segment-file.ts';

/** Rows of the index that one write takes. */
const ROWS_PER_WRITE = 2_000;

/** Where the log goes on. */
export interface LogStart {
  readonly active: SegmentFile;
  readonly chain: number;
  readonly highestLedgerId: number;
}

export class SegmentStore {
  readonly #environment: Environment;
  readonly #folder: string;
  readonly #index: IndexStore;
  readonly #table: LedgerTable;
  readonly #space: SpaceWatch;
  readonly #segmentBytes: number;
  #lastId = 0;
  #chain: number | undefined = 0;
  #highestLedgerId = -1;

  constructor(
    environment: Environment,
    folder: string,
    index: IndexStore,
    table: LedgerTable,
    options: { readonly segmentBytes: number; readonly space: SpaceWatch },
  ) {
    this.#environment = environment;
    this.#folder = folder;
    this.#index = index;
    this.#table = table;
    this.#segmentBytes = options.segmentBytes;
    this.#space = options.space;
  }

  /** Replays what has to be, seals it, and says where the log goes on. Called once, first. */
  async open(): Promise<LogStart> {
    const ids = await listSegments(this.#environment, this.#folder);
    const rows = await this.#openIndex(ids);
    const limboBefore = this.#table.limboUpTo;
    this.#lastId = Math.max(0, ...ids, ...rows.keys());
    const present = new Set(ids);
    let active: SegmentFile | undefined;
    for (let id = 1; id <= this.#lastId; id++) {
      const row = rows.get(id);
      if (!present.has(id)) this.#lost(id, row, 'is missing');
      else if (row?.sealed === true) this.#passed(row.chain, row.highestLedgerId);
      else active = await this.#openOne(id, present.has(id + 1));
    }
    try {
      if (this.#table.limboUpTo !== limboBefore) await this.#writeLimbo();
    } catch (error) {
      await active?.close();
      throw error;
    }
    active ??= await this.createNext(this.#highestLedgerId);
    return { active, chain: this.#chain ?? 0, highestLedgerId: this.#highestLedgerId };
  }

  #passed(chain: number | undefined, highestLedgerId: number): void {
    this.#chain = chain;
    this.#highestLedgerId = Math.max(this.#highestLedgerId, highestLedgerId);
  }

  async #openIndex(ids: readonly number[]): Promise<ReadonlyMap<number, SegmentRow>> {
    const { size, segments, limboUpTo, defect } = await checkIndex(this.#index);
    this.#table.limboUpTo = limboUpTo;
    if (defect === undefined && (segments.size > 0 || ids.length === 0)) {
      this.#table.ledgers = size.ledgers;
      this.#table.entries = size.entries;
      return segments;
    }
    this.#environment.logger.warn('rebuilding the index from the segments', { reason: defect ?? 'it is empty' });
    await this.#index.clear();
    await this.#writeLimbo();
    return new Map();
  }

  async #writeLimbo(): Promise<void> {
    await this.#index.write([sealedRow(bookieKey(), encodeBookieRow(this.#table.limboUpTo))]);
  }

  /** Nothing of this segment can be read: whatever it held, or may have held, is unknown from now on (LP-12, LP-29). */
  #lost(id: number, row: SegmentRow | undefined, how: string): void {
    const upTo = row?.sealed === true ? row.highestLedgerId : Number.MAX_SAFE_INTEGER;
    this.#environment.logger.error(`segment ${id} ${how}; its ledgers are in limbo`, { ledgersUpTo: upTo });
    this.#table.limboUpTo = Math.max(this.#table.limboUpTo, upTo);
    this.#chain = undefined;
  }

  /** Opens a segment that is not in the index as sealed. Returns it when it is the unused last one. */
  async #openOne(id: number, followed: boolean): Promise<SegmentFile | undefined> {
    const opened = await openSegment(this.#environment, this.#folder, id);
    if (opened === undefined) {
      this.#lost(id, undefined, 'has no readable header');
      return undefined;
    }
    let reused: SegmentFile | undefined;
    try {
      if (await this.#indexFromFooter(opened)) return undefined;
      if ((await this.#replay(opened, followed)) === 'sealed') return undefined;
      await this.#writeUnsealed(id);
      reused = SegmentFile.reuse(this.#environment, opened, {
        segmentBytes: this.#segmentBytes,
        refused: this.#refused,
      });
      return reused;
    } finally {
      if (reused === undefined) await opened.file.close();
    }
  }

  async #indexFromFooter(opened: OpenedSegment): Promise<boolean> {
    const { id, seal } = opened;
    const encoded = seal === undefined ? undefined : await readFooter(opened, seal);
    if (seal === undefined || encoded === undefined) return false;
    const parts = encoded.map((bytes) => ({ part: decodeLedgerPart(bytes), bytes }));
    this.#table.limboUpTo = Math.max(this.#table.limboUpTo, seal.limboUpTo);
    await this.#writeRows(id, parts, seal);
    for (const { part } of parts) this.#table.forget(part.ledgerId);
    this.#passed(seal.chain, seal.highestLedgerId);
    return true;
  }

  async #replay(opened: OpenedSegment, followed: boolean): Promise<'unused' | 'sealed'> {
    const { id, file, head, fileBytes, seal } = opened;
    const next = followed ? await this.#firstGroupOf(id + 1) : undefined;
    const committedUpTo = seal?.footerOffset ?? 0;
    const facts = { head, fileBytes, committedUpTo, previousChain: this.#chain, next };
    const result = await scanSegment(file, facts, ({ header, offset }) => this.#table.replay(id, header, offset));
    this.#passed(result.chain, result.highestLedgerId);
    this.#report(id, result);
    for (const [ledgerId, masterKey] of result.damage.ledgers) this.#table.putIntoLimbo(id, ledgerId, masterKey);
    this.#table.limboUpTo = Math.max(this.#table.limboUpTo, result.damage.ledgersUpTo);
    if (result.groups === 0 && !result.torn && id === this.#lastId) return 'unused';
    const end = { footerOffset: result.end, chain: result.chain ?? 0, highestLedgerId: this.#highestLedgerId };
    await this.#sealAndIndex(id, end, onceOnly, async (parts) => {
      await sealFile(file, head.identity, parts, { ...end, limboUpTo: this.#table.limboUpTo });
    });
    return 'sealed';
  }

  async #firstGroupOf(id: number): Promise<FirstGroup | undefined> {
    const opened = await openSegment(this.#environment, this.#folder, id);
    if (opened === undefined) return undefined;
    try {
      return await readFirstGroup(opened.file, opened.head.identity);
    } finally {
      await opened.file.close();
    }
  }

  #report(id: number, { damage, torn, end, groups }: ScanResult): void {
    const { logger } = this.#environment;
    if (damage.ledgers.size > 0 || damage.ledgersUpTo >= 0) {
      const ledgers = [...damage.ledgers.keys()].slice(0, 20);
      logger.error(`segment ${id} is damaged; ledgers are in limbo`, { ledgers, ledgersUpTo: damage.ledgersUpTo });
    }
    if (torn) logger.warn(`segment ${id} ends in a group that was never committed; it is cut`, { end });
    if (groups > 0) logger.debug(`replayed segment ${id}`, { groups, end });
  }

  /** Makes the segment behind the last one; durable and known to the index when it resolves. */
  async createNext(highestLedgerId: number): Promise<SegmentFile> {
    const id = this.#lastId + 1;
    const options = { id, segmentBytes: this.#segmentBytes, highestLedgerId, refused: this.#refused };
    const segment = await SegmentFile.create(this.#environment, this.#folder, options);
    try {
      await this.#writeUnsealed(id);
    } catch (error) {
      await segment.close();
      throw error;
    }
    this.#lastId = id;
    return segment;
  }

  readonly #refused = (error: unknown): void => void this.#space.refused(error);

  /** From here on the segment is missed when it is not there. */
  async #writeUnsealed(id: number): Promise<void> {
    await this.#index.write([sealedRow(segmentKey(id), encodeSegmentRow({ sealed: false }))]);
  }

  /** Seals a segment that the log is done with, and closes it. */
  async seal(segment: SegmentFile, end: SegmentEnd): Promise<void> {
    const { id } = segment.identity;
    const patiently: Attempt = async (work) => await this.#space.persist(work);
    try {
      await this.#sealAndIndex(id, end, patiently, async (parts) => {
        await patiently(async () => await segment.seal(parts, { ...end, limboUpTo: this.#table.limboUpTo }));
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

/** The error for a segment that cannot be read from any more. */
export function segmentUnknown(id: number, cause?: unknown): MagnetarError {
  return new MagnetarError('ENTRY_UNKNOWN', `segment ${id} of the bookie cannot be read`, { cause });
}
