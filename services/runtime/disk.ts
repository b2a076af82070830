/**
 * Files, injected, so that a simulation can lose un-synced writes and flip bits.
 *
 * Errors are the platform's own (`code` 'ENOSPC', 'EIO', 'ENOENT', …). After a failed `sync` the state of the file is
 * unknown: the caller ends the process (or calls the lifecycle's fatal hook) and never tries again.
 */
export interface Disk {
  /**
   * Opens for reading and writing; with `create`, makes the file where there is none. `direct`: it is written once and in
   * large pieces, and need not be kept in memory for those who read it.
   */
  open(path: string, options?: { create?: boolean; direct?: boolean }): Promise<DiskFile>;
  /** The whole file. */
  readFile(path: string): Promise<Buffer>;
  /** Writes a small file so that after a crash either the old or the new content is there: temporary name, sync, rename, sync of the folder. */
  writeFileAtomically(path: string, content: Uint8Array): Promise<void>;
  /** Names in a folder, sorted. */
  list(folder: string): Promise<string[]>;
  /** Makes a folder and those above it, durably. */
  makeFolder(folder: string): Promise<void>;
  /** Moves a file; durable after `syncFolder`. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file; durable after `syncFolder`. */
  remove(path: string): Promise<void>;
  /** Makes creations, renames and removals in a folder durable. */
  syncFolder(folder: string): Promise<void>;
  /** True when there is a file or folder of this name. */
  exists(path: string): Promise<boolean>;
  /** The room on the file system of a folder. */
  space(folder: string): Promise<DiskSpace>;
}

/** Bytes of a file system. */
export interface DiskSpace {
  /** What this process may still use. */
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** LevelDB's words for ENOSPC and EDQUOT: it gives no codes. */
const NO_ROOM = /no space left on device|disk quota exceeded/i;

/**
 * True for an error, of a disk or of `level`, that says that there is no room. Never for a failed sync of a file: after that
 * nothing is known of what it holds.
 */
export function isDiskFull(error: unknown): error is Error {
  if (!(error instanceof Error)) return false;
  const { code, syscall } = error as { readonly code?: unknown; readonly syscall?: unknown };
  if (syscall === 'fsync' || syscall === 'fdatasync') return false;
  if (code === 'ENOSPC' || code === 'EDQUOT') return true;
  return (code === 'LEVEL_IO_ERROR' && NO_ROOM.test(error.message)) || isDiskFull(error.cause);
}

/** An open file. Offsets and lengths in bytes. */
export interface DiskFile {
  /**
   * Writes the buffers one after another from `offset` on. Borrows them until it resolves. When it fails, some of the bytes may
   * have been written; with `isDiskFull`, what follows may be written to the same place.
   */
  write(buffers: readonly Uint8Array[], offset: number): Promise<void>;
  /** Reads up to `length` bytes; fewer only at the end of the file. The buffer is the caller's. */
  read(offset: number, length: number): Promise<Buffer>;
  /** Makes written data durable (fdatasync). */
  sync(): Promise<void>;
  /** Writes, as `write` does, and makes what was written by this call durable: in one go where the platform can. */
  commit(buffers: readonly Uint8Array[], offset: number): Promise<void>;
  /** Current size. */
  size(): Promise<number>;
  truncate(size: number): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}
