/** A whole system in one process: metadata in `level`, bookies here or elsewhere, a broker, and its HTTP side. */
import { openBookie } from '../bookie/bookie.ts';
import { startBroker } from '../broker/broker.ts';
import type { Shell } from '../cli/shell.ts';
import { hasCode, MagnetarError } from '../lib/errors.ts';
import type { Bookie } from '../ledger/bookie.ts';
import { connectBookie } from '../ledger/grpc-bookie.ts';
import type { Quorum } from '../ledger/ledgers.ts';
import { openLedgers } from '../ledger/open-ledgers.ts';
import { openLevelStore } from '../metadata/level.ts';
import type { LogLevel } from '../runtime/node/logger.ts';
import { standaloneBanner } from './banner.ts';
import { type DataFolder, folderError, openDataFolder } from './data-folder.ts';
import { type RoleContext, runRole } from './server-process.ts';

const HOST = '127.0.0.1';
const MOST_COPIES = 3;

export interface StandaloneOptions {
  readonly data: string;
  /** Bookies in this process; undefined: as many as the data folder has, else one. Not with `remoteBookies`. */
  readonly bookies: number | undefined;
  /** Bookies elsewhere, as host:port; empty: in this process. */
  readonly remoteBookies: readonly string[];
  readonly port: number;
  readonly httpPort: number;
  readonly logLevel: LogLevel;
  readonly version: string;
}

/** Three copies of which two are waited for, or as many as there are bookies. */
export function standaloneQuorum(bookies: number): Quorum {
  const copies = Math.min(bookies, MOST_COPIES);
  return { ensembleSize: copies, writeQuorum: copies, ackQuorum: Math.floor(copies / 2) + 1 };
}

/** How many bookies to open here. @throws INVALID_ARGUMENT when some that hold data would be left out */
export function bookieCount(wanted: number | undefined, folder: DataFolder): number {
  const count = wanted ?? Math.max(1, folder.bookies);
  if (count >= folder.bookies) return count;
  throw new MagnetarError(
    'INVALID_ARGUMENT',
    `--bookies is ${count}, but the data folder ${folder.folder} holds ${folder.bookies} bookies; it must be at least ${folder.bookies}`,
    { details: { bookies: String(count), least: String(folder.bookies) } },
  );
}
