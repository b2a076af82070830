import type { Bookie } from '../../ledger/bookie.ts';
import { hasCode } from '../../lib/errors.ts';
import { entryId, ledgerId } from '../../lib/ids.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Environment } from '../../runtime/environment.ts';
import type { Logger } from '../../runtime/logger.ts';
import { nodeClock } from '../../runtime/node/clock.ts';
import { CrashDisk } from '../../runtime/testing/crash-disk.ts';
import { type BookieOptions, openBookie } from '../bookie.ts';
import type { MeasuredBookie } from '../measured-bookie.ts';
import { DATA_START, PAGE_BYTES, RECORD_MAGIC } from '../segments/format.ts';
import { segmentName } from '../segments/segment-file.ts';
import { testEnvironment } from './environment.ts';
import { MemoryIndex } from './memory-index.ts';

/** A bookie on a disk in memory: it can be crashed, damaged and opened again. */
export class CrashedBookie {
  readonly disk: CrashDisk = new CrashDisk();
  readonly fatal: Error[] = [];
  readonly environment: Environment;
  index: MemoryIndex = new MemoryIndex();
  readonly #options: BookieOptions;
  readonly #lines: string[] = [];

  constructor(options: BookieOptions = {}, clock: Clock = nodeClock) {
    this.environment = { ...testEnvironment(this.disk, this.fatal), clock, logger: loggerTo(this.#lines) };
    this.#options = { segmentBytes: 262_144, markDelayMs: 60_000, ...options };
  }

  async open(id = 'local-0'): Promise<MeasuredBookie> {
    return await openBookie({
      environment: this.environment,
      folder: '/bookie',
      id,
      options: this.#options,
      openIndex: async () => await Promise.resolve(this.index),
    });
  }

  path(segment: number): string {
    return `/bookie/segments/${segmentName(segment)}`;
  }

  /** Flips a bit of the `nth` record (from 0) of a segment, `at` bytes behind its start. */
  async damageRecord(segment: number, nth: number, at: number): Promise<void> {
    const bytes = await this.disk.readFile(this.path(segment));
    const records: number[] = [];
    for (let offset = 0; offset + 4 <= bytes.length; offset += 8) {
      if (bytes.readUInt32LE(offset) === RECORD_MAGIC) records.push(offset);
    }
    const record = records[nth];
    if (record === undefined) throw new Error(`segment ${segment} has ${records.length} records`);
    this.disk.flipBit(this.path(segment), (record + at) * 8);
  }

  /** Zeroes pages of a segment, from the `nth` one of its groups on. */
  async wipePages(segment: number, nth: number, pages: number): Promise<void> {
    await this.overwrite(this.path(segment), DATA_START + nth * PAGE_BYTES, Buffer.alloc(pages * PAGE_BYTES));
  }

  /** Writes bytes into a file, durably. */
  async overwrite(path: string, offset: number, bytes: Buffer): Promise<void> {
    const file = await this.disk.open(path, { create: true });
    await file.write([bytes], offset);
    await file.sync();
    await file.close();
  }

  /** Cuts a file, durably. */
  async cut(path: string, size: number): Promise<void> {
    const file = await this.disk.open(path);
    await file.truncate(size);
    await file.sync();
    await file.close();
  }

  /** Puts a file in the place of another, durably; without content, removes it. */
  async replace(path: string, content: Buffer | undefined): Promise<void> {
    if (await this.disk.exists(path)) await this.disk.remove(path);
    if (content !== undefined) await this.overwrite(path, 0, content);
    await this.disk.syncFolder(path.slice(0, path.lastIndexOf('/')));
  }

  /** What was logged since it was asked last: "level message". */
  get lines(): string[] {
    return this.#lines.splice(0);
  }
}

function loggerTo(lines: string[]): Logger {
  const add =
    (level: string) =>
    (message: string): void =>
      void lines.push(`${level} ${message}`);
  const logger: Logger = {
    debug: () => {},
    info: add('info'),
    warn: add('warn'),
    error: add('error'),
    child: () => logger,
  };
  return logger;
}

/** What reading one entry comes to: its text, or the code of the error. */
export async function outcome(bookie: Bookie, ledger: number, entry: number): Promise<string> {
  try {
    const place = { ledgerId: ledgerId(ledger), firstEntryId: entryId(entry) };
    const [stored] = await bookie.read({ ...place, maxEntries: 1, maxBytes: 0 });
    return stored?.payload.toString() ?? 'nothing';
  } catch (error) {
    return hasCode(error) ? error.code : String(error);
  }
}

/** What asking for the last-add-confirmed comes to: it, with "unsure" when the ledger is in limbo, or the code of the error. */
export async function lacOutcome(bookie: Bookie, ledger: number): Promise<number | string> {
  try {
    const { lac, unsure } = await bookie.readLac({ ledgerId: ledgerId(ledger) });
    return unsure === true ? `${lac} unsure` : lac;
  } catch (error) {
    return hasCode(error) ? error.code : String(error);
  }
}
