import type { Environment } from '../../runtime/environment.ts';
import { type DiskFile, isDiskFull } from '../../runtime/disk.ts';
import { MagnetarError } from '../../lib/errors.ts';
import { decodeSeal, encodeFooter, type Seal, SEAL_BYTES, splitFooter } from './footer.ts';
import {
  type CommitMark,
  commitMarkOffset,
  DATA_START,
  decodeSegmentHead,
  encodeCommitMark,
  encodeSegmentHeader,
  FORMAT_VERSION,
  SALT_BYTES,
  type SegmentHead,
  type SegmentIdentity,
  segmentIdentity,
} from './format.ts';
import { ZeroFill } from './zero-fill.ts';

const NAME = /^(\d{10})\.seg$/;
const TEMPORARY = '.tmp';

/** The file name of a segment. */
export function segmentName(id: number): string {
  return `${String(id).padStart(10, '0')}.seg`;
}

/** Ids of the segments in a folder, rising. Leftovers of segments that were never finished are removed. */
export async function listSegments(environment: Environment, folder: string): Promise<number[]> {
  const ids: number[] = [];
  for (const name of await environment.disk.list(folder)) {
    const id = NAME.exec(name)?.[1];
    if (id !== undefined) ids.push(Number(id));
    else if (name.endsWith(TEMPORARY)) await environment.disk.remove(`${folder}/${name}`);
  }
  return ids;
}

interface NewSegment {
  readonly id: number;
  readonly segmentBytes: number;
  readonly highestLedgerId: number;
  /** Called when there is no room to fill it ahead. */
  readonly refused: (error: unknown) => void;
}

/** A segment that is being written. */
export class SegmentFile {
  readonly identity: SegmentIdentity;
  readonly file: DiskFile;
  readonly fill: ZeroFill;
  #markSequence: number;

  private constructor(file: DiskFile, identity: SegmentIdentity, fill: ZeroFill, markSequence: number) {
    this.file = file;
    this.identity = identity;
    this.fill = fill;
    this.#markSequence = markSequence;
  }

  /** Makes a segment; its name and its head are durable when this resolves. */
  static async create(environment: Environment, folder: string, options: NewSegment): Promise<SegmentFile> {
    const { disk, random, clock } = environment;
    const path = `${folder}/${segmentName(options.id)}`;
    const identity = segmentIdentity(options.id, 1, random.bytes(SALT_BYTES));
    const head = Buffer.alloc(DATA_START);
    encodeSegmentHeader(identity).copy(head);
    for (const sequence of [0, 1]) {
      const { highestLedgerId } = options;
      const mark = { sequence, committedUpTo: DATA_START, highestLedgerId, chain: 0 };
      encodeCommitMark(identity, mark).copy(head, commitMarkOffset(sequence));
    }
    const file = await disk.open(path + TEMPORARY, { create: true, direct: true });
    try {
      await file.write([head], 0);
      await file.sync();
      await disk.rename(path + TEMPORARY, path);
      await disk.syncFolder(folder);
    } catch (error) {
      await file.close();
      if (isDiskFull(error)) await disk.remove(path + TEMPORARY).catch(() => {}); // else the next start removes it
      throw error;
    }
    const { segmentBytes: limit, refused } = options;
    const fill = new ZeroFill(clock, file, { from: DATA_START, limit, refused });
    return new SegmentFile(file, identity, fill, 1);
  }

  /** Goes on with a segment that holds no group. */
  static reuse(
    environment: Environment,
    opened: OpenedSegment,
    { segmentBytes: limit, refused }: Pick<NewSegment, 'segmentBytes' | 'refused'>,
  ): SegmentFile {
    const { file, head, fileBytes } = opened;
    const fill = new ZeroFill(environment.clock, file, { from: Math.max(DATA_START, fileBytes), limit, refused });
    return new SegmentFile(file, head.identity, fill, head.mark?.sequence ?? 1);
  }

  /** Writes a commit mark; durable when it resolves. */
  async mark(mark: Omit<CommitMark, 'sequence'>): Promise<void> {
    this.#markSequence++;
    const bytes = encodeCommitMark(this.identity, { ...mark, sequence: this.#markSequence });
    await this.file.write([bytes], commitMarkOffset(this.#markSequence));
    await this.file.sync();
  }

  /** Writes footer and seal behind the groups; durable when it resolves. The file ends there. */
  async seal(
    parts: readonly Buffer[],
    facts: Pick<Seal, 'footerOffset' | 'chain' | 'highestLedgerId' | 'limboUpTo'>,
  ): Promise<void> {
    await this.fill.stop();
    await sealFile(this.file, this.identity, parts, facts);
  }

  async close(): Promise<void> {
    await this.fill.stop();
    await this.file.close();
  }
}

/** Writes footer and seal into an open file, and cuts it behind them. */
export async function sealFile(
  file: DiskFile,
  identity: SegmentIdentity,
  parts: readonly Buffer[],
  facts: Pick<Seal, 'footerOffset' | 'chain' | 'highestLedgerId' | 'limboUpTo'>,
): Promise<void> {
  const { buffers, bytes } = encodeFooter(identity, parts, facts);
  await file.write(buffers, facts.footerOffset);
  await file.truncate(facts.footerOffset + bytes);
  await file.sync();
}

/** A segment as it was found. */
export interface OpenedSegment {
  readonly id: number;
  readonly file: DiskFile;
  readonly fileBytes: number;
  readonly head: SegmentHead;
  /** Undefined when it is not sealed, or the seal is damaged. */
  readonly seal: Seal | undefined;
}

/**
 * Opens a segment that is there. Undefined when its first pages are so damaged that nothing in it can be trusted.
 * @throws MagnetarError FOLDER_VERSION when it is of a version that is not known
 */
export async function openSegment(
  environment: Environment,
  folder: string,
  id: number,
): Promise<OpenedSegment | undefined> {
  const path = `${folder}/${segmentName(id)}`;
  const file = await environment.disk.open(path, { direct: true });
  let opened: OpenedSegment | undefined;
  try {
    opened = await readSegment(file, path, id);
    return opened;
  } finally {
    if (opened === undefined) await file.close();
  }
}

async function readSegment(file: DiskFile, path: string, id: number): Promise<OpenedSegment | undefined> {
  const fileBytes = await file.size();
  const head = decodeSegmentHead(await file.read(0, DATA_START));
  if (head !== undefined && 'version' in head) {
    throw new MagnetarError(
      'FOLDER_VERSION',
      `${path} has version ${head.version}; this program reads ${FORMAT_VERSION}`,
    );
  }
  if (head === undefined || head.identity.id !== id) return undefined;
  const end = await file.read(Math.max(0, fileBytes - SEAL_BYTES), SEAL_BYTES);
  return { id, file, fileBytes, head, seal: decodeSeal(end, fileBytes, head.identity) };
}

/** The encoded parts of a sealed segment. Undefined when the footer is damaged. */
export async function readFooter(segment: OpenedSegment, seal: Seal): Promise<Buffer[] | undefined> {
  return splitFooter(await segment.file.read(seal.footerOffset, seal.footerBytes), seal);
}
