/** The memory that a process may have in buffers: one budget for all of its roles. */
import { MagnetarError } from '../lib/errors.ts';
import { ByteBudget, type ShareLimits } from './byte-budget.ts';

/**
 * What buffers are held for. intake: frames that have not arrived completely, and opened windows of HTTP/2; firstIntake: frames
 * of clients that have never sent much. write: what came to be stored and is not answered. read: what was read and its reader
 * has not taken; firstRead: of readers that have never taken much. ack: acknowledgments that are not answered. recovery:
 * opening topics, recovering ledgers. cache: what can be done without.
 */
export type MemoryUse = 'intake' | 'firstIntake' | 'write' | 'read' | 'firstRead' | 'ack' | 'recovery' | 'cache';

export type MemoryBudget = ByteBudget<MemoryUse>;

const MiB: number = 1_048_576;
export const DEFAULT_MEMORY_BYTES: number = 256 * MiB;
/** Below this, one message of the largest size would not fit into what each use is granted. */
export const LEAST_MEMORY_BYTES: number = 64 * MiB;
const WAITERS: number = 100_000;

/** Parts of the whole: what is reserved for a use, and what it can hold at most. */
const PARTS: Readonly<Record<MemoryUse, readonly [reserve: number, limit: number]>> = {
  intake: [3 / 32, 3 / 16],
  firstIntake: [1 / 32, 1 / 8],
  write: [1 / 4, 1 / 2],
  read: [3 / 16, 3 / 8],
  firstRead: [1 / 16, 1 / 4],
  ack: [1 / 32, 1 / 8],
  recovery: [1 / 8, 1 / 4],
  cache: [1 / 16, 1 / 4],
};

/** The budget of a process. @throws INVALID_ARGUMENT when it is too small to work with */
export function memoryBudget(totalBytes: number = DEFAULT_MEMORY_BYTES): MemoryBudget {
  if (totalBytes < LEAST_MEMORY_BYTES) {
    const text = `a memory budget of ${totalBytes} bytes is too small; it must be at least ${LEAST_MEMORY_BYTES}`;
    throw new MagnetarError('INVALID_ARGUMENT', text);
  }
  const cut = (use: MemoryUse): ShareLimits => {
    const [reserve, limit] = PARTS[use];
    return { reserveBytes: Math.floor(totalBytes * reserve), limitBytes: Math.floor(totalBytes * limit) };
  };
  const shares: Readonly<Record<MemoryUse, ShareLimits>> = {
    intake: cut('intake'),
    firstIntake: cut('firstIntake'),
    write: cut('write'),
    read: cut('read'),
    firstRead: cut('firstRead'),
    ack: cut('ack'),
    recovery: cut('recovery'),
    cache: cut('cache'),
  };
  return new ByteBudget({ totalBytes, shares, waiters: WAITERS });
}
