/** Bounds and times of an ack log. */
export interface AckLogLimits {
  /** A ledger of so many bytes or entries is followed by a new one. */
  readonly rollBytes: number;
  readonly rollEntries: number;
  /** Bytes of one entry, about. */
  readonly entryBytes: number;
  /** Bytes of a snapshot that go out together, about; at most twice as much. */
  readonly partBytes: number;
  /** Acknowledgments and other requests that may wait, in items and in bytes; beyond that they fail with QUEUE_FULL. */
  readonly waitingItems: number;
  readonly waitingBytes: number;
  /** How long requests wait for a ledger to be made before the log fails. */
  readonly ledgerDeadlineMs: number;
  /** The first wait between two tries to make one, and the longest. */
  readonly retryFirstMs: number;
  readonly retryHighestMs: number;
}

export const DEFAULT_LIMITS: AckLogLimits = {
  rollBytes: 8_388_608,
  rollEntries: 20_000,
  entryBytes: 131_072,
  partBytes: 16_384,
  waitingItems: 65_536,
  waitingBytes: 4_194_304,
  ledgerDeadlineMs: 20_000,
  retryFirstMs: 50,
  retryHighestMs: 2_000,
};
