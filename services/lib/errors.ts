/**
 * The one table of error codes, and the one error class. A code is stable: it goes over the wire, apps switch on it.
 */

/** What a code means to machines. */
export interface ErrorTraits {
  /** Number of the gRPC status under which a failed call or stream carries the code. */
  readonly grpcStatus: number;
  /** The same request may succeed later, without anybody changing anything. */
  readonly retryable: boolean;
  /** Somebody else has taken over; the holder must stop. */
  readonly fencing: boolean;
}

const INVALID_ARGUMENT = 3;
const DEADLINE_EXCEEDED = 4;
const NOT_FOUND = 5;
const ALREADY_EXISTS = 6;
const RESOURCE_EXHAUSTED = 8;
const FAILED_PRECONDITION = 9;
const ABORTED = 10;
const UNIMPLEMENTED = 12;
const INTERNAL = 13;
const UNAVAILABLE = 14;
const DATA_LOSS = 15;
const CANCELLED = 1;

function traits(grpcStatus: number, flag: 'final' | 'retryable' | 'fencing'): ErrorTraits {
  return Object.freeze({ grpcStatus, retryable: flag === 'retryable', fencing: flag === 'fencing' });
}

/** A stable name of what went wrong. */
export type ErrorCode =
  | 'INVALID_ARGUMENT'
  | 'PROTOCOL_VIOLATION'
  | 'TOPIC_NAME_INVALID'
  | 'MESSAGE_TOO_LARGE'
  | 'TENANT_NOT_FOUND'
  | 'NAMESPACE_NOT_FOUND'
  | 'TOPIC_NOT_FOUND'
  | 'SUBSCRIPTION_NOT_FOUND'
  | 'POSITION_NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'NOT_EMPTY'
  | 'ALREADY_CLOSED'
  | 'UNSUPPORTED'
  | 'CREDIT_EXCEEDED'
  | 'PRODUCER_BUSY'
  | 'CONSUMER_BUSY'
  | 'TOPIC_BUSY'
  | 'PRODUCER_FENCED'
  | 'CONSUMER_FENCED'
  | 'SEQUENCE_OVERLAP'
  | 'BATCH_ABORTED'
  | 'QUEUE_FULL'
  | 'LEDGER_FENCED'
  | 'LEDGER_CLOSED'
  | 'NO_SUCH_LEDGER'
  | 'NO_SUCH_ENTRY'
  | 'ENTRY_UNKNOWN'
  | 'BAD_MASTER_KEY'
  | 'NOT_ENOUGH_BOOKIES'
  | 'CHECKSUM_MISMATCH'
  | 'DATA_LOSS'
  | 'STORE_FAILED'
  | 'DISK_FULL'
  | 'NOT_OWNER'
  | 'METADATA_CONFLICT'
  | 'METADATA_COMPACTED'
  | 'LEASE_LOST'
  | 'METADATA_DAMAGED'
  | 'DEADLINE_EXCEEDED'
  | 'UNAVAILABLE'
  | 'CANCELLED'
  | 'PORT_IN_USE'
  | 'FOLDER_IN_USE'
  | 'FOLDER_NOT_WRITABLE'
  | 'FOLDER_VERSION'
  | 'INTERNAL';

/** Every code that Magnetar reports. */
export const errorTable: Readonly<Record<ErrorCode, ErrorTraits>> = {
  // What a caller got wrong.
  INVALID_ARGUMENT: traits(INVALID_ARGUMENT, 'final'),
  PROTOCOL_VIOLATION: traits(INVALID_ARGUMENT, 'final'),
  TOPIC_NAME_INVALID: traits(INVALID_ARGUMENT, 'final'),
  MESSAGE_TOO_LARGE: traits(INVALID_ARGUMENT, 'final'),
  TENANT_NOT_FOUND: traits(NOT_FOUND, 'final'),
  NAMESPACE_NOT_FOUND: traits(NOT_FOUND, 'final'),
  TOPIC_NOT_FOUND: traits(NOT_FOUND, 'final'),
  SUBSCRIPTION_NOT_FOUND: traits(NOT_FOUND, 'final'),
  POSITION_NOT_FOUND: traits(NOT_FOUND, 'final'),
  ALREADY_EXISTS: traits(ALREADY_EXISTS, 'final'),
  NOT_EMPTY: traits(FAILED_PRECONDITION, 'final'),
  ALREADY_CLOSED: traits(FAILED_PRECONDITION, 'final'),
  UNSUPPORTED: traits(UNIMPLEMENTED, 'final'),
  CREDIT_EXCEEDED: traits(RESOURCE_EXHAUSTED, 'final'),
  // Producers and consumers.
  PRODUCER_BUSY: traits(FAILED_PRECONDITION, 'retryable'),
  CONSUMER_BUSY: traits(FAILED_PRECONDITION, 'retryable'),
  TOPIC_BUSY: traits(FAILED_PRECONDITION, 'retryable'),
  PRODUCER_FENCED: traits(FAILED_PRECONDITION, 'fencing'),
  CONSUMER_FENCED: traits(FAILED_PRECONDITION, 'fencing'),
  SEQUENCE_OVERLAP: traits(FAILED_PRECONDITION, 'final'),
  BATCH_ABORTED: traits(ABORTED, 'retryable'),
  QUEUE_FULL: traits(RESOURCE_EXHAUSTED, 'retryable'),
  // Ledgers.
  LEDGER_FENCED: traits(FAILED_PRECONDITION, 'fencing'),
  LEDGER_CLOSED: traits(FAILED_PRECONDITION, 'final'),
  NO_SUCH_LEDGER: traits(NOT_FOUND, 'final'),
  NO_SUCH_ENTRY: traits(NOT_FOUND, 'final'),
  ENTRY_UNKNOWN: traits(UNAVAILABLE, 'retryable'),
  BAD_MASTER_KEY: traits(FAILED_PRECONDITION, 'final'),
  NOT_ENOUGH_BOOKIES: traits(UNAVAILABLE, 'retryable'),
  CHECKSUM_MISMATCH: traits(DATA_LOSS, 'final'),
  DATA_LOSS: traits(DATA_LOSS, 'final'),
  STORE_FAILED: traits(UNAVAILABLE, 'final'),
  DISK_FULL: traits(RESOURCE_EXHAUSTED, 'retryable'),
  // Metadata.
  NOT_OWNER: traits(UNAVAILABLE, 'retryable'),
  METADATA_CONFLICT: traits(ABORTED, 'retryable'),
  METADATA_COMPACTED: traits(FAILED_PRECONDITION, 'final'),
  LEASE_LOST: traits(FAILED_PRECONDITION, 'fencing'),
  METADATA_DAMAGED: traits(DATA_LOSS, 'final'),
  // Processes and their surroundings.
  DEADLINE_EXCEEDED: traits(DEADLINE_EXCEEDED, 'retryable'),
  UNAVAILABLE: traits(UNAVAILABLE, 'retryable'),
  CANCELLED: traits(CANCELLED, 'final'),
  PORT_IN_USE: traits(FAILED_PRECONDITION, 'final'),
  FOLDER_IN_USE: traits(FAILED_PRECONDITION, 'final'),
  FOLDER_NOT_WRITABLE: traits(FAILED_PRECONDITION, 'final'),
  FOLDER_VERSION: traits(FAILED_PRECONDITION, 'final'),
  INTERNAL: traits(INTERNAL, 'final'),
};

/** True for a string that is a code of the table. */
export function isErrorCode(value: string): value is ErrorCode {
  return Object.hasOwn(errorTable, value);
}

/** Facts for machines beside an error: field, value, what is allowed. */
export type ErrorDetails = Readonly<Record<string, string>>;

/** Every error that Magnetar throws on purpose. The message is one line and says what, which value, what is allowed. */
export class MagnetarError extends Error {
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, options: { details?: ErrorDetails; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'MagnetarError';
    this.code = code;
    this.details = options.details ?? {};
  }

  get retryable(): boolean {
    return errorTable[this.code].retryable;
  }

  get fencing(): boolean {
    return errorTable[this.code].fencing;
  }
}

/** True for a MagnetarError with one of these codes; with none given, for every MagnetarError. */
export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): error is MagnetarError {
  return error instanceof MagnetarError && (codes.length === 0 || codes.includes(error.code));
}

/** Any thrown value as a MagnetarError: itself, or INTERNAL with the value as its cause. */
export function toMagnetarError(error: unknown): MagnetarError {
  if (error instanceof MagnetarError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new MagnetarError('INTERNAL', text.split('\n', 1)[0] ?? '', { cause: error });
}
