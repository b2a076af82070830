import { Level } from 'level';
import { MagnetarError } from '../../lib/errors.ts';
import type { Disk } from '../../runtime/disk.ts';
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

/**
 * Opens the index in a folder of the real file system. What `level` calls damaged is thrown away: the index can be rebuilt.
 *
 * @throws FOLDER_IN_USE, STORE_FAILED
 */
export async function openLevelIndex(disk: Disk, folder: string): Promise<IndexStore> {
  try {
    return new LevelIndex(await openLevel(folder));
  } catch (error) {
    const { code, text } = causeOf(error);
    if (code === 'LEVEL_LOCKED') {
      throw new MagnetarError('FOLDER_IN_USE', `${folder} is in use by another Magnetar`, { cause: error });
    }
    if (code !== 'LEVEL_CORRUPTION' && !DAMAGED.test(text.replace(/^IO error: /, ''))) {
      throw new MagnetarError('STORE_FAILED', `the index in ${folder} cannot be opened: ${text}`, { cause: error });
    }
  }
  for (const name of await disk.list(folder)) await disk.remove(`${folder}/${name}`);
  return new LevelIndex(await openLevel(folder));
}

class LevelIndex implements IndexStore {
  readonly #level: Level<Buffer, Buffer>;

  constructor(level: Level<Buffer, Buffer>) {
    this.#level = level;
  }

  get(key: Buffer): Buffer | undefined {
    return this.#level.getSync(key);
  }

  async write(rows: readonly IndexRow[]): Promise<void> {
    const operations = rows.map(({ key, value }) => ({ type: 'put' as const, key, value }));
    await this.#level.batch(operations, { sync: true });
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
