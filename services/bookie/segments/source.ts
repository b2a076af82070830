/** Reading the bytes of a segment that may be damaged. */
import type { DiskFile } from '../../runtime/disk.ts';
import {
  decodeRecordHeader,
  digestHolds,
  PAGE_BYTES,
  RECORD_HEADER_BYTES,
  RECORD_MAGIC,
  type RecordHeader,
  recordBytes,
  type SegmentIdentity,
} from './format.ts';

const WINDOW_BYTES = 4_194_304;
/** What stands for bytes that the disk does not give: neither zeros nor a magic. */
const POISON = 0xee;
/** What a disk says of a block that it lost, and a file system of one whose checksum does not hold. */
const MEDIA_ERRORS: readonly string[] = ['EIO', 'EUCLEAN', 'EBADMSG'];

/** True for an error that says that bytes are lost, and not that something else is wrong. */
export function isMediaError(error: unknown): boolean {
  return error instanceof Error && 'code' in error && MEDIA_ERRORS.includes(String(error.code));
}

/** Bytes in a file. */
export interface ByteRange {
  readonly offset: number;
  readonly bytes: number;
}

/** Where the bytes of a segment come from. */
export interface ByteSource {
  /** Bytes of the file; fewer only at its end. */
  read(offset: number, length: number): Promise<Buffer>;
  /** True when the disk did not give some of these bytes. */
  unreadable(range: ByteRange): boolean;
}

/** A file as a source. Pages that the disk does not give count as damaged; other errors are thrown. */
export class FileSource implements ByteSource {
  readonly #file: DiskFile;
  readonly #lost = new Set<number>();

  constructor(file: DiskFile) {
    this.#file = file;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    try {
      return await this.#file.read(offset, length);
    } catch (error) {
      if (!isMediaError(error)) throw error;
      return await this.#readPages(offset, length);
    }
  }

  async #readPages(offset: number, length: number): Promise<Buffer> {
    const end = Math.min(offset + length, await this.#file.size());
    const pieces: Buffer[] = [];
    for (let at = offset; at < end; ) {
      const next = Math.min(end, (Math.floor(at / PAGE_BYTES) + 1) * PAGE_BYTES);
      pieces.push(await this.#readPage(at, next - at));
      at = next;
    }
    return Buffer.concat(pieces);
  }

  async #readPage(offset: number, length: number): Promise<Buffer> {
    try {
      return await this.#file.read(offset, length);
    } catch (error) {
      if (!isMediaError(error)) throw error;
      this.#lost.add(Math.floor(offset / PAGE_BYTES));
      return Buffer.alloc(length, POISON);
    }
  }

  unreadable({ offset, bytes }: ByteRange): boolean {
    if (this.#lost.size === 0) return false;
    for (let at = Math.floor(offset / PAGE_BYTES); at * PAGE_BYTES < offset + bytes; at++) {
      if (this.#lost.has(at)) return true;
    }
    return false;
  }
}

/** Reads through a window, so that small steps cost no I/O. */
export class Window {
  readonly #source: ByteSource;
  #start = 0;
  #buffer: Buffer = Buffer.alloc(0);

  constructor(source: ByteSource) {
    this.#source = source;
  }

  async bytes(offset: number, length: number): Promise<Buffer> {
    if (offset < this.#start || offset + length > this.#start + this.#buffer.length) {
      this.#buffer = await this.#source.read(offset, Math.max(length, WINDOW_BYTES));
      this.#start = offset;
    }
    return this.#buffer.subarray(offset - this.#start, offset - this.#start + length);
  }
}

/** A record whose header is good, and where it is. */
export interface ScannedRecord {
  readonly header: RecordHeader;
  readonly offset: number;
}

/** Called with each record whose header is good; `good`: its payload is, too. */
export type RecordVisitor = (record: ScannedRecord, good: boolean) => void;

/** Finds every record from `from` up to `to`, whatever stands between them. */
export async function walkRecords(
  window: Window,
  identity: SegmentIdentity,
  { from, to }: { readonly from: number; readonly to: number },
  visit: RecordVisitor,
): Promise<void> {
  let at = from;
  while (at + RECORD_HEADER_BYTES <= to) {
    const header = decodeRecordHeader(await window.bytes(at, RECORD_HEADER_BYTES), 0, at, identity);
    if (header === undefined) {
      at += 8 * (await emptySteps(window, at + 8, to));
      continue;
    }
    const record = await window.bytes(at, RECORD_HEADER_BYTES + header.payloadBytes);
    const payload = record.subarray(RECORD_HEADER_BYTES);
    visit({ header, offset: at }, payload.length === header.payloadBytes && digestHolds(header, payload));
    at += recordBytes(header.payloadBytes);
  }
}

/** How many steps of 8 bytes to go from `at - 8` to the next one that begins with the magic of a record. */
async function emptySteps(window: Window, at: number, to: number): Promise<number> {
  const bytes = await window.bytes(at, Math.min(PAGE_BYTES, to - at));
  let steps = 1;
  for (let i = 0; i + 4 <= bytes.length; i += 8, steps++) {
    if (bytes.readUInt32LE(i) === RECORD_MAGIC) break;
  }
  return steps;
}
