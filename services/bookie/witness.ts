/**
 * The witness: a small file beside the segments that knows which of them there are and how far they go, so that one that is lost, cut
 * short, exchanged, or replaced by an old copy of itself is missed. It is at most a second behind the log. When it is lost itself, it
 * is made anew from the segments, and says what they say.
 *
 * Integers are little-endian.
 *
 *   0, 4096   two pages, written in turn; the one with the higher sequence counts:
 *     0   u32  magic "MWIT"
 *     4   u32  format version
 *     8   u32  sequence
 *     12  u32  flags: 1 the log was closed, so that the segment below is the last one that holds something
 *     16  u64  the newest segment
 *     24  i64  no ledger above this id was ever stored; -1: none was
 *     32  u64  a segment, and
 *     40  u64  up to where it has been synced
 *     48  16 B instance id of the bookie
 *     64  u32  CRC of bytes 0 to 63
 *   8192 + 32 n  segment n + 1:
 *     0   u32  generation; 0: not known
 *     4   16 B salt
 *     20  u64  0
 *     28  u32  CRC of bytes 0 to 27, seeded with the segment's number
 */
import { crc32c } from '../lib/crc32c.ts';
import type { Timer } from '../runtime/clock.ts';
import { type DiskFile, isDiskFull } from '../runtime/disk.ts';
import type { Environment } from '../runtime/environment.ts';
import {
  PAGE_BYTES,
  readInt64,
  SALT_BYTES,
  type SegmentIdentity,
  segmentIdentity,
  writeInt64,
} from './segments/format.ts';
import { FileSource } from './segments/source.ts';

const MAGIC = 0x5449574d;
const VERSION = 1;
const STATUS_BYTES = 68;
const STATUS_CRC_AT = 64;
const INSTANCE_AT = 48;
const CLOSED_FLAG = 1;
const SLOTS_AT: number = 2 * PAGE_BYTES;
const SLOT_BYTES = 32;
const SLOT_CRC_AT = 28;
/** So far the witness may be behind. */
const DELAY_MS = 1_000;
/** Ledger ids are allowed in steps of so many: as many as a client of the ledgers takes at a time. */
const LEDGER_STEP = 64;

/** What the first pages say. */
export interface WitnessStatus {
  readonly closed: boolean;
  readonly lastSegment: number;
  readonly ledgersUpTo: number;
  /** A segment has been synced up to an offset. */
  readonly segment: number;
  readonly committedUpTo: number;
}

/** What a witness says. */
export interface WitnessContent {
  readonly status: WitnessStatus;
  readonly sequence: number;
  readonly identities: ReadonlyMap<number, SegmentIdentity>;
}

const NOTHING: WitnessStatus = { closed: false, lastSegment: 0, ledgersUpTo: -1, segment: 0, committedUpTo: 0 };

/** The path of a bookie's witness. */
export function witnessPath(folder: string): string {
  return `${folder}/witness`;
}

function encodeStatus(status: WitnessStatus, sequence: number, instance: Buffer): Buffer {
  const bytes = Buffer.alloc(STATUS_BYTES);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt32LE(VERSION, 4);
  bytes.writeUInt32LE(sequence, 8);
  bytes.writeUInt32LE(status.closed ? CLOSED_FLAG : 0, 12);
  writeInt64(bytes, status.lastSegment, 16);
  writeInt64(bytes, status.ledgersUpTo, 24);
  writeInt64(bytes, status.segment, 32);
  writeInt64(bytes, status.committedUpTo, 40);
  instance.copy(bytes, INSTANCE_AT);
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, STATUS_CRC_AT)), STATUS_CRC_AT);
  return bytes;
}

function decodeStatus(bytes: Buffer, instance: Buffer): { status: WitnessStatus; sequence: number } | undefined {
  if (bytes.length < STATUS_BYTES || bytes.readUInt32LE(0) !== MAGIC || bytes.readUInt32LE(4) !== VERSION)
    return undefined;
  if (bytes.readUInt32LE(STATUS_CRC_AT) !== crc32c(bytes.subarray(0, STATUS_CRC_AT))) return undefined;
  if (!bytes.subarray(INSTANCE_AT, STATUS_CRC_AT).equals(instance)) return undefined;
  const status = {
    closed: (bytes.readUInt32LE(12) & CLOSED_FLAG) !== 0,
    lastSegment: readInt64(bytes, 16),
    ledgersUpTo: readInt64(bytes, 24),
    segment: readInt64(bytes, 32),
    committedUpTo: readInt64(bytes, 40),
  };
  return { status, sequence: bytes.readUInt32LE(8) };
}

function encodeSlot({ id, generation, salt }: SegmentIdentity): Buffer {
  const bytes = Buffer.alloc(SLOT_BYTES);
  bytes.writeUInt32LE(generation, 0);
  salt.copy(bytes, 4);
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, SLOT_CRC_AT), id), SLOT_CRC_AT);
  return bytes;
}

function decodeSlots(bytes: Buffer): Map<number, SegmentIdentity> {
  const identities = new Map<number, SegmentIdentity>();
  for (let at = SLOTS_AT; at + SLOT_BYTES <= bytes.length; at += SLOT_BYTES) {
    const slot = bytes.subarray(at, at + SLOT_BYTES);
    const [id, generation] = [1 + (at - SLOTS_AT) / SLOT_BYTES, slot.readUInt32LE(0)];
    if (generation === 0 || slot.readUInt32LE(SLOT_CRC_AT) !== crc32c(slot.subarray(0, SLOT_CRC_AT), id)) continue;
    identities.set(id, segmentIdentity(id, generation, Buffer.from(slot.subarray(4, 4 + SALT_BYTES))));
  }
  return identities;
}

/** What a witness's bytes say. Undefined when they are damaged, or another bookie's. */
function decodeWitness(bytes: Buffer, instance: Buffer): WitnessContent | undefined {
  const pages = [0, PAGE_BYTES].map((at) => decodeStatus(bytes.subarray(at, at + STATUS_BYTES), instance));
  const newest = pages.filter((page) => page !== undefined).toSorted((a, b) => b.sequence - a.sequence)[0];
  return newest === undefined ? undefined : { ...newest, identities: decodeSlots(bytes) };
}

/** What the witness of a folder says, without changing it; undefined when it is missing, damaged, or another bookie's. */
export async function readWitness(
  { disk }: Environment,
  folder: string,
  instance: Buffer,
): Promise<WitnessContent | undefined> {
  const path = witnessPath(folder);
  if (!(await disk.exists(path))) return undefined;
  const file = await disk.open(path);
  try {
    return decodeWitness(await new FileSource(file).read(0, await file.size()), instance);
  } finally {
    await file.close();
  }
}

/** The witness of a bookie that runs. */
export class Witness {
  readonly #environment: Environment;
  readonly #file: DiskFile;
  readonly #instance: Buffer;
  readonly #identities: Map<number, SegmentIdentity>;
  #status: WitnessStatus;
  #sequence: number;
  #timer: Timer | undefined;
  #writing: Promise<void> = Promise.resolve();
  #closed = false;
  #failed: (error: unknown) => void = () => {};

  private constructor(environment: Environment, file: DiskFile, instance: Buffer, content: WitnessContent) {
    this.#environment = environment;
    this.#file = file;
    this.#instance = instance;
    this.#identities = new Map(content.identities);
    this.#status = content.status;
    this.#sequence = content.sequence;
  }

  /** Opens the witness of a folder; a new one where there is none, or it is damaged: then `known` is false. */
  static async open(
    environment: Environment,
    folder: string,
    instance: Buffer,
  ): Promise<{ readonly witness: Witness; readonly known: boolean }> {
    const { disk } = environment;
    const path = witnessPath(folder);
    const there = await disk.exists(path);
    const file = await disk.open(path, { create: true });
    try {
      const bytes = await new FileSource(file).read(0, await file.size());
      const content = decodeWitness(bytes, instance);
      if (content === undefined) {
        await file.truncate(0);
        await file.sync();
        if (!there) await disk.syncFolder(folder);
      }
      const start = content ?? { status: NOTHING, sequence: 0, identities: new Map<number, SegmentIdentity>() };
      return { witness: new Witness(environment, file, instance, start), known: content !== undefined };
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  get status(): WitnessStatus {
    return this.#status;
  }

  /** What makes a segment the one that was written under its number; undefined: not known. */
  identity(segment: number): SegmentIdentity | undefined {
    return this.#identities.get(segment);
  }

  /** From here on the segments are missed when they are not there, or others are. */
  async addSegments(identities: readonly SegmentIdentity[]): Promise<void> {
    let { lastSegment } = this.#status;
    for (const identity of identities) {
      const { id } = identity;
      this.#identities.set(id, identity);
      lastSegment = Math.max(lastSegment, id);
      await this.#file.write([encodeSlot(identity)], SLOTS_AT + SLOT_BYTES * (id - 1));
    }
    await this.#set({ lastSegment });
  }

  /** The bookie begins to store. `failed`: called when a write fails that nobody waits for. */
  async begin(
    start: { lastSegment: number; highestLedgerId: number },
    failed: (error: unknown) => void,
  ): Promise<void> {
    this.#failed = failed;
    const { ledgersUpTo } = this.#status;
    await this.#set({
      closed: false,
      lastSegment: start.lastSegment,
      ledgersUpTo: Math.max(ledgersUpTo, stepAbove(start.highestLedgerId)),
    });
  }

  /** True when a ledger of this id may be stored. */
  allows(ledgerId: number): boolean {
    return ledgerId <= this.#status.ledgersUpTo;
  }

  /** Allows ledgers up to this id; durable when it resolves. */
  async allow(ledgerId: number): Promise<void> {
    await this.#set({ ledgersUpTo: stepAbove(ledgerId) });
  }

  /** The log has synced a segment up to an offset; written down before long. */
  progress(segment: number, committedUpTo: number): void {
    const rolled = segment !== this.#status.segment;
    this.#status = { ...this.#status, segment, committedUpTo };
    if (rolled) this.#write();
    else this.#timer ??= this.#environment.clock.after(DELAY_MS, () => this.#write(), { unref: true });
  }

  #write(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#set({}).catch((error: unknown) => {
      if (!isDiskFull(error)) this.#failed(error); // Without room it stays behind for a while.
    });
  }

  async #set(change: Partial<WitnessStatus>): Promise<void> {
    const write = this.#writing.then(async () => {
      // Nothing counts before it is durable. A write that failed is repeated on its own page: the other one is whole.
      const sequence = this.#sequence + 1;
      const bytes = encodeStatus({ ...this.#status, ...change }, sequence, this.#instance);
      await this.#file.write([bytes], PAGE_BYTES * (sequence % 2));
      await this.#file.sync();
      this.#sequence = sequence;
      this.#status = { ...this.#status, ...change }; // The log may have gone on meanwhile.
    });
    this.#writing = write.catch(() => {});
    await write;
  }

  /** Closes the file. `inOrder`: the log is closed. Idempotent. */
  async close(inOrder: boolean): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#timer?.cancel();
    try {
      if (inOrder) await this.#set({ closed: true });
      else await this.#writing;
    } catch (error) {
      if (!isDiskFull(error)) throw error; // Then it looks as after a crash.
    } finally {
      await this.#file.close();
    }
  }
}

/** The end of the step that an id is in, so that not each new ledger has to be allowed. */
function stepAbove(ledgerId: number): number {
  const steps = Math.floor(ledgerId / LEDGER_STEP) + 1;
  return ledgerId < 0 ? -1 : Math.min(Number.MAX_SAFE_INTEGER - 1, steps * LEDGER_STEP - 1);
}
