import { type BatchOptions, type DatabaseOptions, Level } from 'level';
import { MagnetarError } from '../lib/errors.ts';
import { isDiskFull } from '../runtime/disk.ts';

/** A scan reads ahead so many bytes. */
const SCAN_BYTES = 262_144;

/** One operation of a batch. */
export type BatchOperation =
  | { readonly type: 'put'; readonly key: string; readonly value: Buffer }
  | { readonly type: 'del'; readonly key: string };

/** A moment of the database to read from. */
export interface Snapshot {
  close(): Promise<void>;
}

/** Reads keys in order. */
interface Scan {
  /** The next so many pairs at most; none at the end. */
  next(size: number): Promise<readonly (readonly [string, Buffer])[]>;
  close(): Promise<void>;
}

/** What the level store needs of LevelDB. Reads see whole batches only, and only those that are durable. */
export interface Database<S extends Snapshot = Snapshot> {
  /** All operations or none; durable when it resolves. */
  write(operations: BatchOperation[]): Promise<void>;
  get(key: string, snapshot?: S): Buffer | undefined;
  snapshot(): S;
  /** Keys from `from` on (behind it, when exclusive) up to `to`, exclusive. */
  scan(range: { from: string; exclusive: boolean; to: string }, snapshot?: S): Scan;
  close(): Promise<void>;
}

type LevelSnapshot = ReturnType<Level<string, Buffer>['snapshot']>;

class LevelDatabase implements Database<LevelSnapshot> {
  readonly #level: Level<string, Buffer>;

  constructor(level: Level<string, Buffer>) {
    this.#level = level;
  }

  async write(operations: BatchOperation[]): Promise<void> {
    const options: BatchOptions<string, Buffer> = { sync: true };
    await this.#level.batch(operations, options);
  }

  get(key: string, snapshot?: LevelSnapshot): Buffer | undefined {
    return this.#level.getSync(key, { snapshot });
  }

  snapshot(): LevelSnapshot {
    return this.#level.snapshot();
  }

  scan({ from, exclusive, to }: { from: string; exclusive: boolean; to: string }, snapshot?: LevelSnapshot): Scan {
    const iterator = this.#level.iterator({
      ...(exclusive ? { gt: from } : { gte: from }),
      lt: to,
      snapshot,
      highWaterMarkBytes: SCAN_BYTES,
    });
    return {
      next: async (size) => await iterator.nextv(size),
      close: async () => await iterator.close(),
    };
  }

  async close(): Promise<void> {
    await this.#level.close();
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}

/** What stands in the way of opening a folder, in one line. */
export function folderError(error: unknown, folder: string): MagnetarError {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  const text = (cause instanceof Error ? cause.message : String(cause)).split('\n', 1)[0] ?? '';
  if (codeOf(cause) === 'LEVEL_LOCKED') {
    return new MagnetarError('FOLDER_IN_USE', `the metadata folder ${folder} is in use by another Magnetar`, { cause });
  }
  if (
    /permission denied|read-only file system/i.test(text) ||
    ['EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EEXIST'].includes(codeOf(cause) ?? '')
  ) {
    return new MagnetarError('FOLDER_NOT_WRITABLE', `the metadata folder ${folder} cannot be written to: ${text}`, {
      cause,
    });
  }
  if (isDiskFull(cause)) {
    return new MagnetarError(
      'DISK_FULL',
      `the metadata folder ${folder} has no room for the store to be opened: ${text}`,
      {
        cause,
      },
    );
  }
  if (codeOf(cause) === 'LEVEL_CORRUPTION' || /^(corruption|invalid argument|not found)/i.test(text)) {
    return new MagnetarError('METADATA_DAMAGED', `the metadata store in ${folder} is damaged: ${text}`, { cause });
  }
  return new MagnetarError('STORE_FAILED', `the metadata store in ${folder} cannot be opened: ${text}`, { cause });
}

/**
 * Opens LevelDB in a folder; with `create`, makes what is not there.
 *
 * @throws FOLDER_IN_USE, FOLDER_NOT_WRITABLE, METADATA_DAMAGED, DISK_FULL, STORE_FAILED
 */
export async function openDatabase(folder: string, { create }: { create: boolean }): Promise<Database> {
  const options: DatabaseOptions<string, Buffer> = {
    keyEncoding: 'utf8',
    valueEncoding: 'buffer',
    createIfMissing: create,
  };
  const level = new Level<string, Buffer>(folder, options);
  try {
    await level.open();
  } catch (error) {
    throw folderError(error, folder);
  }
  return new LevelDatabase(level);
}
