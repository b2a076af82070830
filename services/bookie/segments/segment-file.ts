import type { Environment } from '../../runtime/environment.ts';
import { type Disk, type DiskFile, isDiskFull } from '../../runtime/disk.ts';
import { MagnetarError } from '../../lib/errors.ts';
import type { DamageKind } from '../damage.ts';
import { decodeSeal, encodeFooter, type Footer, type Seal, SEAL_BYTES, type SealFacts, splitFooter } from './footer.ts';
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
import { type ByteSource, FileSource, isMediaError } from './source.ts';
import { ZeroFill } from './zero-fill.ts';

const NAME = /^(\d{10})\.seg$/;
const TEMPORARY = '.tmp';

/** The file name of a segment. */
export function segmentName(id: number): string {
  return `${String(id).padStart(10, '0')}.seg`;
}

/** Ids of the segments in a folder, rising. */
export async function segmentIds(disk: Disk, folder: string): Promise<number[]> {
  const names = (await disk.exists(folder)) ? await disk.list(folder) : [];
  return names.map((name) => NAME.exec(name)?.[1]).flatMap((id) => (id === undefined ? [] : [Number(id)]));
}

/** The same. Leftovers of segments that were never finished are removed. */
export async function listSegments(environment: Environment, folder: string): Promise<number[]> {
  for (const name of await environment.disk.list(folder)) {
    if (name.endsWith(TEMPORARY)) await environment.disk.remove(`${folder}/${name}`);
  }
  return await segmentIds(environment.disk, folder);
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
      const mark = { sequence, committedUpTo: DATA_START, highestLedgerId, chain: 0, directory: Buffer.alloc(0) };
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
    await this.file.commit([bytes], commitMarkOffset(this.#markSequence));
  }

  /** Writes footer and seal behind the groups; durable when it resolves. The file ends there. */
  async seal(parts: readonly Buffer[], facts: SealFacts): Promise<void> {
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
  facts: SealFacts,
): Promise<void> {
  const { buffers, bytes } = encodeFooter(identity, parts, facts);
  await file.write(buffers, facts.footerOffset);
  await file.truncate(facts.footerOffset + bytes);
  await file.sync();
}

/** Writes the first page anew; the marks stay. Durable when it resolves. */
export async function writeHeader(file: DiskFile, identity: SegmentIdentity): Promise<void> {
  await file.write([encodeSegmentHeader(identity)], 0);
  await file.sync();
}

/** A segment as it was found. */
export interface OpenedSegment {
  readonly id: number;
  readonly file: DiskFile;
  readonly source: ByteSource;
  readonly fileBytes: number;
  readonly head: SegmentHead;
  /** Undefined when it is not sealed, or the seal is damaged. */
  readonly seal: Seal | undefined;
}

/** Why a segment is none of ours to read. */
export interface UnopenedSegment {
  readonly what: DamageKind;
  readonly fileBytes: number;
}

/**
 * Opens a segment. `known`: what makes it the right one; with it, a segment whose first pages are lost is read all the same.
 * @throws MagnetarError FOLDER_VERSION when it is of a version that is not known; what the disk throws but for lost bytes.
 */
export async function openSegment(
  environment: Environment,
  folder: string,
  id: number,
  known?: SegmentIdentity,
): Promise<OpenedSegment | UnopenedSegment> {
  const path = `${folder}/${segmentName(id)}`;
  let file: DiskFile;
  try {
    file = await environment.disk.open(path, { direct: true });
  } catch (error) {
    const what = isMissing(error) ? 'missing' : 'unreadable';
    if (what === 'unreadable' && !isMediaError(error)) throw error;
    return { what, fileBytes: 0 };
  }
  let opened: OpenedSegment | UnopenedSegment | undefined;
  try {
    opened = await readSegment(file, path, id, known);
    return opened;
  } finally {
    if (opened === undefined || !('file' in opened)) await file.close();
  }
}

/** True for the error of a file that is not there. */
export function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

async function readSegment(
  file: DiskFile,
  path: string,
  id: number,
  known: SegmentIdentity | undefined,
): Promise<OpenedSegment | UnopenedSegment> {
  const fileBytes = await file.size();
  const source = new FileSource(file);
  const found = decodeSegmentHead(await source.read(0, DATA_START));
  if (found !== undefined && 'version' in found) {
    throw new MagnetarError(
      'FOLDER_VERSION',
      `${path} has version ${found.version}; this program reads ${FORMAT_VERSION}`,
    );
  }
  const head = found ?? (known === undefined ? undefined : headOf(known));
  if (head === undefined) return { what: 'damaged', fileBytes };
  if (head.identity.id !== id || !isSame(head.identity, known)) return { what: 'foreign', fileBytes };
  const end = await source.read(Math.max(0, fileBytes - SEAL_BYTES), SEAL_BYTES);
  return { id, file, source, fileBytes, head, seal: decodeSeal(end, fileBytes, head.identity) };
}

function headOf(identity: SegmentIdentity): SegmentHead {
  return { identity, mark: undefined, directories: [], headerDamaged: true };
}

function isSame(found: SegmentIdentity, known: SegmentIdentity | undefined): boolean {
  return known === undefined || (found.generation === known.generation && found.salt.equals(known.salt));
}

/** What the footer of a sealed segment holds. Undefined when it is damaged. */
export async function readFooter({ source }: OpenedSegment, seal: Seal): Promise<Footer | undefined> {
  return splitFooter(await source.read(seal.footerOffset, seal.footerBytes), seal);
}
