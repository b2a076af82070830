/**
 * Errors on their way over the wire: in band as `WireError`, and as the status of a failed call or stream, with
 * google.rpc.ErrorInfo in `grpc-status-details-bin`. Both directions go by the one table of lib/errors.ts.
 */
import { Metadata, status, type StatusObject } from '@grpc/grpc-js';

import { ProtoReader, ProtoWriter } from '../lib/bytes.ts';
import {
  type ErrorCode,
  type ErrorDetails,
  errorTable,
  isErrorCode,
  MagnetarError,
  toMagnetarError,
} from '../lib/errors.ts';
import { readMapEntry, writeStringMap } from './common-codec.ts';
import type { WireError } from './frames.ts';

const LONGEST_TEXT = 1_000;
const DOMAIN = 'magnetar';
const DETAILS_KEY = 'grpc-status-details-bin';
const ERROR_INFO = 'type.googleapis.com/google.rpc.ErrorInfo';

/** What stands in `details` of an error whose code this version does not know. */
const UNKNOWN_CODE = 'code';

/** For an item of a stream. */
export function toWireError(error: MagnetarError): WireError {
  return { code: error.code, message: error.message, retryable: error.retryable, details: error.details };
}

/** A code that this version does not know becomes INTERNAL, with the code in `details.code`. */
export function fromWireError(error: WireError): MagnetarError {
  return fromCode(error.code, error.message, error.details);
}

function fromCode(code: string, message: string, details: ErrorDetails): MagnetarError {
  if (isErrorCode(code)) return new MagnetarError(code, message, { details });
  return new MagnetarError('INTERNAL', message, { details: { ...details, [UNKNOWN_CODE]: code } });
}

/** HTTP/2 trailers have room for some 64 KB, and a value that an error names may be of any length. */
function shortened(text: string): string {
  return text.length <= LONGEST_TEXT ? text : `${text.slice(0, LONGEST_TEXT)}…`;
}

/**
 * The status that ends a call or stream because of an error. Whatever is no MagnetarError becomes INTERNAL. Texts of more
 * than 1,000 characters are cut.
 */
export function toStatus(error: unknown): StatusObject {
  const { code, message: whole, details: facts } = toMagnetarError(error);
  const message = shortened(whole);
  const details = Object.fromEntries(Object.entries(facts).map(([name, value]) => [name, shortened(value)]));
  const grpcStatus = status[status[errorTable[code].grpcStatus] as keyof typeof status];
  const writer = new ProtoWriter();
  writer.varint(1, grpcStatus);
  writer.string(2, message);
  writer.message(3, (any) => {
    any.string(1, ERROR_INFO);
    any.message(2, (info) => {
      info.string(1, code);
      info.string(2, DOMAIN);
      writeStringMap(info, 3, details);
    });
  });
  const metadata = new Metadata();
  metadata.set(DETAILS_KEY, Buffer.from(writer.finish()));
  return { code: grpcStatus, details: message, metadata };
}

/** What a failed call or stream reports, as far as `fromStatus` looks at it. */
export type FailedStatus = Partial<Pick<StatusObject, 'code' | 'details' | 'metadata'>> & { readonly message?: string };

/**
 * The error of a failed call or stream: what `toStatus` was given on the other side, or else what gRPC's own status says,
 * in one line. `cause` is the original.
 */
export function fromStatus(error: FailedStatus): MagnetarError {
  const info = errorInfo(error.metadata);
  const text = error.details ?? error.message ?? 'no reason given';
  if (info !== undefined) return fromCode(info.reason, text, info.details);
  if (CONNECTION_LOST.test(text)) return new MagnetarError('UNAVAILABLE', 'the connection was lost', { cause: error });
  return new MagnetarError(plainCodes.get(error.code) ?? 'INTERNAL', plainText(text), { cause: error });
}

/**
 * What grpc-js says, under several codes, of a stream that broke off. An app that cancels reads 'Cancelled on client', and
 * our servers end streams with an ErrorInfo.
 */
const CONNECTION_LOST =
  /RST_STREAM|^Call cancelled$|^Connection dropped$|^Channel closed before call started$|^read E[A-Z]+$|^Bandwidth exhausted/;

/** gRPC's own statuses, where they mean something of ours; every other one is INTERNAL. */
const plainCodes: ReadonlyMap<number | undefined, ErrorCode> = new Map<number | undefined, ErrorCode>([
  [status.UNAVAILABLE, 'UNAVAILABLE'],
  [status.CANCELLED, 'CANCELLED'],
  [status.DEADLINE_EXCEEDED, 'DEADLINE_EXCEEDED'],
  [status.RESOURCE_EXHAUSTED, 'MESSAGE_TOO_LARGE'], // grpc-js says so of messages beyond its limit, and of nothing else
  [status.UNIMPLEMENTED, 'UNSUPPORTED'],
  [status.INVALID_ARGUMENT, 'INVALID_ARGUMENT'],
  [status.OUT_OF_RANGE, 'INVALID_ARGUMENT'],
]);

const CONNECT_FAILED = /connect (E[A-Z]+) (\S+?)[.,;)\]]*(?:\s|$)/;
const RESOLUTION_FAILED = /Name resolution failed for target (?:dns:)?(\S+?)[.,;]*(?:\s|$)/;
const reasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  EHOSTUNREACH: 'host unreachable',
  ENETUNREACH: 'network unreachable',
  ENOENT: 'no such socket',
  ETIMEDOUT: 'no answer',
};

/** What is said where something else than gRPC is at a port. */
export const NO_GRPC = 'what answers there does not speak gRPC';

/** grpc-js's text without its internals: the address and the reason, or its first line. */
function plainText(text: string): string {
  const connect = CONNECT_FAILED.exec(text);
  if (connect !== null) {
    const [, code = '', address = ''] = connect;
    return `cannot connect to ${address}: ${reasons[code] ?? code}`;
  }
  const resolution = RESOLUTION_FAILED.exec(text);
  if (resolution !== null) return `cannot connect to ${resolution[1] ?? ''}: no such host`;
  if (/Last error: (?:Error: )?Protocol error/.test(text)) return NO_GRPC;
  const line = text.split('\n', 1)[0] ?? '';
  return line.replace(/\s*(?:Resolution note:|Last error:).*$/, '');
}

/** ErrorInfo of our domain out of a status's details; undefined when there is none that can be read. */
function errorInfo(metadata: Metadata | undefined): { reason: string; details: ErrorDetails } | undefined {
  const [bytes] = metadata?.get(DETAILS_KEY) ?? [];
  if (!Buffer.isBuffer(bytes)) return undefined;
  try {
    return readStatus(new ProtoReader(bytes));
  } catch {
    return undefined; // somebody else's details: the plain status counts
  }
}

function readStatus(reader: ProtoReader): { reason: string; details: ErrorDetails } | undefined {
  while (reader.next()) {
    if (reader.field === 3) {
      const info = readAny(reader.message());
      if (info !== undefined) return info;
    } else reader.skip();
  }
  return undefined;
}

function readAny(reader: ProtoReader): { reason: string; details: ErrorDetails } | undefined {
  let type = '';
  let value: ProtoReader | undefined;
  while (reader.next()) {
    if (reader.field === 1) type = reader.string();
    else if (reader.field === 2) value = reader.message();
    else reader.skip();
  }
  if (type !== ERROR_INFO || value === undefined) return undefined;
  let [reason, domain] = ['', ''];
  const details = new Map<string, string>();
  while (value.next()) {
    if (value.field === 1) reason = value.string();
    else if (value.field === 2) domain = value.string();
    else if (value.field === 3) readMapEntry(value.message(), details);
    else value.skip();
  }
  return domain === DOMAIN ? { reason, details: Object.fromEntries(details) } : undefined;
}
