/**
 * The cookie: a small file that says which bookie a folder belongs to, so that neither an empty disk nor another bookie's is
 * ever taken for this bookie's own (LP-27).
 *
 *   0   8 B  magic "MAGNBOOK"
 *   8   u32  format version, little-endian
 *   12  16 B instance id, random
 *   28  u16  length of the bookie id
 *   30  ...  bookie id, UTF-8
 *   ...  u32 CRC32C of everything before
 */
import type { BookieId } from '../ledger/bookie.ts';
import { crc32c } from '../lib/crc32c.ts';
import { MagnetarError } from '../lib/errors.ts';
import type { Disk } from '../runtime/disk.ts';
import type { Environment } from '../runtime/environment.ts';
import { witnessPath } from './witness.ts';

const MAGIC = Buffer.from('MAGNBOOK');
/** Of the folder's layout. */
const VERSION = 1;
const INSTANCE_BYTES = 16;
const FIXED_BYTES = 30;
const CRC_BYTES = 4;

function encodeCookie(id: BookieId, instance: Buffer): Buffer {
  const name = Buffer.from(id);
  const bytes = Buffer.alloc(FIXED_BYTES + name.length + CRC_BYTES);
  MAGIC.copy(bytes);
  bytes.writeUInt32LE(VERSION, 8);
  instance.copy(bytes, 12);
  bytes.writeUInt16LE(name.length, 28);
  name.copy(bytes, FIXED_BYTES);
  const end = bytes.length - CRC_BYTES;
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, end)), end);
  return bytes;
}

function decodeCookie(bytes: Buffer, path: string): { id: BookieId; instance: Buffer } {
  if (bytes.length < 12 || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw new MagnetarError('DATA_LOSS', `${path} is not a bookie's cookie; restore it from a backup`);
  }
  const version = bytes.readUInt32LE(8);
  if (version !== VERSION) {
    throw new MagnetarError('FOLDER_VERSION', `${path} has version ${version}; this program reads version ${VERSION}`);
  }
  const end = bytes.length - CRC_BYTES;
  if (end < FIXED_BYTES || bytes.readUInt32LE(end) !== crc32c(bytes.subarray(0, end))) {
    throw new MagnetarError('DATA_LOSS', `${path} is damaged; restore it from a backup`);
  }
  const id = bytes.toString('utf8', FIXED_BYTES, FIXED_BYTES + bytes.readUInt16LE(28));
  return { id, instance: Buffer.from(bytes.subarray(12, 12 + INSTANCE_BYTES)) };
}

/** What the cookie of a folder says. @throws FOLDER_VERSION; DATA_LOSS when it is missing or damaged */
export async function readCookie(disk: Disk, folder: string): Promise<{ id: BookieId; instance: Buffer }> {
  const path = `${folder}/cookie`;
  if (await disk.exists(path)) return decodeCookie(await disk.readFile(path), path);
  throw new MagnetarError('DATA_LOSS', `${path} is missing; restore it from a backup`);
}

/**
 * Checks the cookie of a folder, and makes one in a folder that holds no data: a new one, even where there is a cookie, since a
 * bookie that was ever opened has a segment. Resolves with its instance id.
 * @throws FOLDER_VERSION; DATA_LOSS (data without a cookie, a damaged cookie); INVALID_ARGUMENT (another bookie's folder)
 */
export async function checkCookie(environment: Environment, folder: string, id: BookieId): Promise<Buffer> {
  const { disk, random } = environment;
  const path = `${folder}/cookie`;
  const held = await dataFiles(disk, folder);
  if (await disk.exists(path)) {
    const found = decodeCookie(await disk.readFile(path), path);
    if (found.id !== id) {
      throw new MagnetarError('INVALID_ARGUMENT', `${folder} belongs to bookie "${found.id}", not to "${id}"`);
    }
    if (held > 0) return found.instance;
  } else if (held > 0) {
    const text = `${path} is missing, but ${folder} holds ${held} files of data; restore the cookie, or empty the folder`;
    throw new MagnetarError('DATA_LOSS', text);
  }
  const instance = random.bytes(INSTANCE_BYTES);
  await disk.writeFileAtomically(path, encodeCookie(id, instance));
  return instance;
}

/** How many files there are of segments and index, and with the witness, which says what there was. */
async function dataFiles(disk: Disk, folder: string): Promise<number> {
  let files = (await disk.exists(witnessPath(folder))) ? 1 : 0;
  for (const inner of ['segments', 'index']) {
    if (await disk.exists(`${folder}/${inner}`)) files += (await disk.list(`${folder}/${inner}`)).length;
  }
  return files;
}
