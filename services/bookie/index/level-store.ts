import { Level } from 'level';
import { MagnetarError } from '../../lib/errors.ts';
import { type Disk, isDiskFull } from '../../runtime/disk.ts';
import type { IndexRow, IndexStore } from './store.ts';

/** Rows that one step of a listing holds. */
const PAGE_ROWS = 256;

/** LevelDB's words for files that contradict each other, or are not there. */
const DAMAGED = /^(corruption|invalid argument|not ?found)|no such file/i;

function causeOf(error: unknown): { readonly code: string; readonly text: string } {
  const cause = error instanceof Error ? (error.cause ?? error) : error;
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  return { code, text: (cause instanceof Error ? cause.message : String(cause)).split('\n', 1)[0] ?? '' };
}

async function openLevel(folder: string): Promise<Level<Buffer, Buffer>> {
  const level = new Level<Buffer, Buffer>(folder, { keyEncoding: 'buffer', valueEncoding: 'buffer' });
  await level.open();
  return level;
}

/** With so much room an index can be opened again: LevelDB writes its log anew when it opens. */
const REOPEN_BYTES = 16_777_216;

/**
 * Opens the index in a folder of the real file system. What `level` calls damaged is thrown away: the index can be rebuilt.
 *
 * @throws FOLDER_IN_USE, STORE_FAILED, and what the disk throws when it is full
 */
export async function openLevelIndex(disk: Disk, folder: string): Promise<IndexStore> {
  try {
    return new LevelIndex(disk, folder, await openLevel(folder));
  } catch (error) {
    const { code, text } = causeOf(error);
    if (code === 'LEVEL_LOCKED') {
      throw new MagnetarError('FOLDER_IN_USE', `${folder} is in use by another Magnetar`, { cause: error });
    }
    if (isDiskFull(error)) throw error;
    if (code !== 'LEVEL_CORRUPTION' && !DAMAGED.test(text.replace(/^IO error: /, ''))) {
      throw new MagnetarError('STORE_FAILED', `the index in ${folder} cannot be opened: ${text}`, { cause: error });
    }
  }
  for (const name of await disk.list(folder)) await disk.remove(`${folder}/${name}`);
  return new LevelIndex(disk, folder, await openLevel(folder));
}

class LevelIndex implements IndexStore {
  readonly #disk: Disk;
  readonly #folder: string;
  readonly #level: Level<Buffer, Buffer>;
  /**
   * A write found no room. What LevelDB writes behind such a one it may not find again at the next opening, so nothing is
   * written before it was opened anew.
   */
  #refusal: Error | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(disk: Disk, folder: string, level: Level<Buffer, Buffer>) {
    this.#disk = disk;
    this.#folder = folder;
    this.#level = level;
  }

  get(key: Buffer): Buffer | undefined {
    return this.#level.getSync(key);
  }

  async write(rows: readonly IndexRow[]): Promise<void> {
    const run = this.#last.then(async () => await this.#write(rows));
    this.#last = run.catch(() => {});
    await run;
  }

  async #write(rows: readonly IndexRow[]): Promise<void> {
    if (this.#refusal !== undefined) await this.#reopen(this.#refusal);
    const operations = rows.map(({ key, value }) => ({ type: 'put' as const, key, value }));
    try {
      await this.#level.batch(operations, { sync: true });
    } catch (error) {
      if (isDiskFull(error)) this.#refusal = error;
      throw error;
    }
  }

  /** Until there is room the index stays open, for reads. */
  async #reopen(refusal: Error): Promise<void> {
    const { freeBytes } = await this.#disk.space(this.#folder);
    if (freeBytes < REOPEN_BYTES) throw refusal;
    await this.#level.close();
    await this.#level.open();
    this.#refusal = undefined;
  }

  async *rows(): AsyncIterable<IndexRow> {
    const iterator = this.#level.iterator({ fillCache: false });
    try {
      for (let page = await iterator.nextv(PAGE_ROWS); page.length > 0; page = await iterator.nextv(PAGE_ROWS)) {
        for (const [key, value] of page) yield { key, value };
      }
    } finally {
      await iterator.close();
    }
  }

  async clear(): Promise<void> {
    await this.#level.clear();
  }

  async close(): Promise<void> {
    await this.#level.close();
  }
}
