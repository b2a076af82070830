import { MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { Revision } from '../lib/ids.ts';
import type { LeasedKey } from './leases.ts';
import type { Database } from './level-database.ts';
import {
  decodeItem,
  decodeMark,
  decodeRow,
  type Digest,
  encodeMark,
  FLOOR_KEY,
  NEWEST_KEY,
  rowKey,
} from './level-format.ts';
import { eventKey } from './transaction.ts';

const SCAN_PAGE = 1_000;

/** What a store that was found whole holds. */
export interface Found {
  readonly floor: number;
  readonly newest: number;
  readonly digest: Digest;
  /** Bytes of each revision row, from the floor on. */
  readonly rowBytes: readonly number[];
  /** Keys that hang on leases. */
  readonly leased: readonly LeasedKey[];
}

/** The last change of a key in the rows. */
interface Last {
  readonly revision: number;
  /** Checksum of its value; undefined: it was deleted. */
  readonly crc: number | undefined;
}

function damaged(text: string): MagnetarError {
  return new MagnetarError('METADATA_DAMAGED', `the metadata store is damaged: ${text}`);
}

async function scanAll(database: Database, prefix: string, take: (key: string, value: Buffer) => void): Promise<void> {
  // '0' follows '/'.
  const scan = database.scan({ from: prefix, exclusive: false, to: `${prefix.slice(0, -1)}0` });
  try {
    for (;;) {
      const page = await scan.next(SCAN_PAGE);
      if (page.length === 0) return;
      for (const [key, value] of page) take(key, value);
    }
  } finally {
    await scan.close();
  }
}

/** Reads the rows: dense from the floor to the newest, each whole. Fills `last`. */
async function checkRows(
  database: Database,
  { floor, newest }: { floor: number; newest: number },
  last: Map<string, Last>,
): Promise<{ digest: Digest; rowBytes: number[] }> {
  let [next, digest] = [floor, { keys: 0, crcs: 0 }];
  const rowBytes: number[] = [];
  await scanAll(database, 'r/', (key, value) => {
    if (key !== rowKey(next)) {
      if (key > rowKey(next) && next <= newest) throw damaged(`revision ${next} is missing`);
      throw damaged(`${key} is outside of the history from revision ${floor} to ${newest}`);
    }
    const row = decodeRow(next as Revision, value);
    for (const [at, event] of row.events.entries()) last.set(eventKey(event), { revision: next, crc: row.crcs[at] });
    ({ digest } = row);
    rowBytes.push(value.length);
    next++;
  });
  if (next <= newest) throw damaged(`revision ${next} is missing`);
  return { digest, rowBytes };
}

/** Reads the current values: each whole, all that the newest row counts, each as the rows say. Uses `last` up. */
async function checkItems(
  database: Database,
  { floor, newest, digest }: { floor: number; newest: number; digest: Digest },
  last: Map<string, Last>,
): Promise<LeasedKey[]> {
  let [keys, crcs] = [0, 0];
  const leased: LeasedKey[] = [];
  await scanAll(database, 'k/', (storedKey, value) => {
    const { item, crc } = decodeItem(storedKey.slice(2), value);
    const { key, modRevision } = item;
    const change = last.get(key);
    if (change === undefined ? modRevision >= floor : change.crc !== crc || change.revision !== modRevision) {
      const truth = change?.revision ?? modRevision;
      throw damaged(`the value of ${JSON.stringify(key)} is not the one that revision ${truth} wrote`);
    }
    last.delete(key);
    keys++;
    crcs = (crcs ^ crc) >>> 0;
    if (item.lease !== undefined) leased.push({ key, lease: item.lease });
  });
  for (const [key, { revision, crc }] of last) {
    if (crc !== undefined) throw damaged(`${JSON.stringify(key)}, which revision ${revision} wrote, is missing`);
  }
  if (keys !== digest.keys || crcs !== digest.crcs) {
    throw damaged(`it has ${keys} keys that are not the ${digest.keys} that revision ${newest} left`);
  }
  return leased;
}

async function check(database: Database, witnessed: number | undefined): Promise<Found> {
  const marks = [FLOOR_KEY, NEWEST_KEY].map((key) => {
    const bytes = database.get(key);
    if (bytes === undefined) throw damaged(`${key} is missing`);
    return decodeMark(key, bytes);
  });
  const [floor = 0, newest = 0] = marks;
  if (newest > 0 && witnessed === undefined) throw damaged('its witness file is missing or unreadable');
  if (witnessed !== undefined && newest < witnessed) {
    throw damaged(`it ends at revision ${newest}, but revision ${witnessed} was durable`);
  }
  const last = new Map<string, Last>();
  const { digest, rowBytes } = await checkRows(database, { floor, newest }, last);
  const leased = await checkItems(database, { floor, newest, digest }, last);
  return { floor, newest, digest, rowBytes, leased };
}

async function isEmpty(database: Database): Promise<boolean> {
  const scan = database.scan({ from: '', exclusive: false, to: '\u{10ffff}' });
  try {
    return (await scan.next(1)).length === 0;
  } finally {
    await scan.close();
  }
}

/**
 * Reads the whole store and checks that nothing is missing or altered; makes a new one of an empty database.
 *
 * @param witnessed A revision that is known to have been durable; undefined: the store has no witness yet.
 * @throws METADATA_DAMAGED naming the revision or key
 */
export async function checkStore(database: Database, witnessed: number | undefined): Promise<Found> {
  try {
    if (await isEmpty(database)) {
      if (witnessed !== undefined) throw damaged(`it is empty, but revision ${witnessed} was durable`);
      await database.write([
        { type: 'put', key: FLOOR_KEY, value: encodeMark(FLOOR_KEY, 1) },
        { type: 'put', key: NEWEST_KEY, value: encodeMark(NEWEST_KEY, 0) },
      ]);
      return { floor: 1, newest: 0, digest: { keys: 0, crcs: 0 }, rowBytes: [], leased: [] };
    }
    return await check(database, witnessed);
  } catch (error) {
    if (error instanceof MagnetarError) throw error;
    throw new MagnetarError(
      'METADATA_DAMAGED',
      `the metadata store cannot be read: ${toMagnetarError(error).message}`,
      {
        cause: error,
      },
    );
  }
}
