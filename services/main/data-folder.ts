/**
 * The data folder: DATA/{VERSION,metadata/,bookie-N/}. VERSION is one line, "magnetar data folder 1": magic, then the
 * version of the layout. It is the first thing that is written, so whatever else is there was written by a Magnetar that
 * knew the version.
 */
import path from 'node:path';
import { MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { Disk } from '../runtime/disk.ts';

/** The layout that this program writes, and the newest that it reads. */
const DATA_FOLDER_VERSION = 1;
const VERSION_FILE = 'VERSION';
const MAGIC = 'magnetar data folder';
const OURS = /^(metadata|offload|bookie-\d+)$/;
const BOOKIE = /^bookie-(\d+)$/;
const REFUSED = [
  'EACCES',
  'EPERM',
  'EROFS',
  'ENOTDIR',
  'EEXIST',
  'ENOSPC',
  'EDQUOT',
  'ENAMETOOLONG',
  'ELOOP',
  'ENOENT',
  'EINVAL',
];

/** What a data folder holds. */
export interface DataFolder {
  readonly folder: string;
  readonly metadataFolder: string;
  /** How many bookies have a folder here. */
  readonly bookies: number;
  readonly bookieFolder: (number: number) => string;
}

function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
}

/** An error of the platform as FOLDER_NOT_WRITABLE, where it is one. */
export function folderError(folder: string, error: unknown): MagnetarError {
  const code = errorCode(error);
  if (!REFUSED.includes(code)) return toMagnetarError(error);
  return new MagnetarError(
    'FOLDER_NOT_WRITABLE',
    `the data folder ${folder} cannot be written to (${code}); name one that can with --data`,
    { details: { folder, reason: code }, cause: error },
  );
}

/** @throws FOLDER_VERSION when the file VERSION says something that this program does not read */
export function checkVersion(folder: string, content: string): void {
  const text = content.trim();
  const version = text.startsWith(`${MAGIC} `) ? Number(text.slice(MAGIC.length)) : Number.NaN;
  const where = `the data folder ${folder}`;
  if (!Number.isSafeInteger(version) || version < 1) {
    throw new MagnetarError(
      'FOLDER_VERSION',
      `${where} has a file VERSION that says ${JSON.stringify(text.slice(0, 60))}; a Magnetar data folder says "${MAGIC} ${DATA_FOLDER_VERSION}"`,
      { details: { folder, newest: String(DATA_FOLDER_VERSION) } },
    );
  }
  if (version > DATA_FOLDER_VERSION) {
    throw new MagnetarError(
      'FOLDER_VERSION',
      `${where} has version ${version}; the newest that this program reads is ${DATA_FOLDER_VERSION}: use a newer Magnetar`,
      { details: { folder, version: String(version), newest: String(DATA_FOLDER_VERSION) } },
    );
  }
}

async function prepare(disk: Disk, folder: string): Promise<readonly string[]> {
  await disk.makeFolder(folder);
  const names = await disk.list(folder);
  const file = path.join(folder, VERSION_FILE);
  if (names.includes(VERSION_FILE)) {
    checkVersion(folder, (await disk.readFile(file)).toString('utf8'));
    return names;
  }
  const found = names.find((name) => OURS.test(name));
  if (found !== undefined) {
    throw new MagnetarError(
      'FOLDER_VERSION',
      `the data folder ${folder} holds ${found} but no file VERSION, so nobody can say what wrote it; restore VERSION, or name another folder with --data`,
      { details: { folder, newest: String(DATA_FOLDER_VERSION) } },
    );
  }
  await disk.writeFileAtomically(file, Buffer.from(`${MAGIC} ${DATA_FOLDER_VERSION}\n`));
  return names;
}

/**
 * Makes the data folder where there is none, and checks its version. Its lock is that of the stores in it.
 *
 * @throws FOLDER_NOT_WRITABLE, FOLDER_VERSION
 */
export async function openDataFolder(disk: Disk, folder: string): Promise<DataFolder> {
  let names: readonly string[];
  try {
    names = await prepare(disk, folder);
  } catch (error) {
    throw folderError(folder, error);
  }
  const numbers = names.map((name) => Number(BOOKIE.exec(name)?.[1] ?? -1));
  return {
    folder,
    metadataFolder: path.join(folder, 'metadata'),
    bookies: Math.max(0, ...numbers.map((number) => number + 1)),
    bookieFolder: (number) => path.join(folder, `bookie-${number}`),
  };
}

/**
 * Sees to it that a folder with bookies has the metadata that says what is in them: without it, a new and empty system would
 * begin there.
 *
 * @throws DATA_LOSS
 */
export async function requireMetadata(disk: Disk, { folder, metadataFolder, bookies }: DataFolder): Promise<void> {
  const level = path.join(metadataFolder, 'level');
  if (bookies === 0 || (await disk.exists(level))) return;
  throw new MagnetarError(
    'DATA_LOSS',
    `the data folder ${folder} holds ${bookies === 1 ? 'a bookie' : `${bookies} bookies`}, but ${level} is missing, without which nobody can say what they hold; restore it, or name another folder with --data`,
    { details: { folder, missing: level } },
  );
}
