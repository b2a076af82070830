/**
 * The index's store: a small sorted map of bytes, durable when a write resolves. It only speeds up what the segments' footers say.
 */

/** A row. */
export interface IndexRow {
  readonly key: Buffer;
  readonly value: Buffer;
}

/** A sorted map of bytes. Methods throw what the platform throws; damage shows as an error, or as rows that are missing. */
export interface IndexStore {
  get(key: Buffer): Buffer | undefined;
  /** Writes rows, all or none, durably. */
  write(rows: readonly IndexRow[]): Promise<void>;
  /** Every row, in order of the keys' bytes. */
  rows(): AsyncIterable<IndexRow>;
  /** Removes every row. */
  clear(): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}
