/** Message ids and positions as Pulsar's REST API writes them. */
import { MagnetarError } from '../lib/errors.ts';
import type { AdminPosition } from '../wire/administration.ts';

/** Pulsar's MessageIdImpl, or its ResetCursorData. */
interface MessageIdJson {
  readonly ledgerId: number;
  readonly entryId: number;
  readonly batchIndex?: number | undefined;
  readonly isExcluded?: boolean | undefined;
  readonly excluded?: boolean | undefined;
}

export type PositionJson = 'earliest' | 'latest' | MessageIdJson;

const number = (description: string): object => ({ type: 'number', description });

const word = { type: 'string', enum: ['earliest', 'latest'] };
const messageId = {
  type: 'object',
  required: ['ledgerId', 'entryId'],
  properties: {
    ledgerId: number('Ledger'),
    entryId: number('Entry of the ledger'),
    partitionIndex: number('Ignored: a partition is a topic'),
    batchIndex: number('Message of the entry; not given, or -1: all of it'),
    isExcluded: { type: 'boolean', description: 'The position behind the message is meant' },
    excluded: { type: 'boolean', description: 'The same' },
  },
};
const described = {
  description: 'A message id. (-1, -1) stands for the earliest message, 2^63-1 for the latest; so do the two words',
  examples: [{ ledgerId: -1, entryId: -1 }],
};

type Schema = Readonly<Record<string, unknown>>;

export const positionSchema: Schema = { ...described, anyOf: [word, messageId] };
export const optionalPositionSchema: Schema = { ...described, anyOf: [word, { ...messageId, nullable: true }] };

function isPlace(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

/** @throws INVALID_ARGUMENT */
export function positionOf(json: PositionJson): AdminPosition {
  if (typeof json === 'string') return { at: json };
  const { ledgerId, entryId, batchIndex = -1, isExcluded = false, excluded = false } = json;
  if (ledgerId === -1 && entryId === -1) return { at: 'earliest' };
  if (ledgerId > Number.MAX_SAFE_INTEGER) return { at: 'latest' }; // 2^63-1, as precise as JSON numbers are
  if (isPlace(ledgerId) && isPlace(entryId) && (batchIndex === -1 || isPlace(batchIndex))) {
    const at = batchIndex === -1 ? undefined : batchIndex;
    return { at: 'message', ledgerId, entryId, batchIndex: at, excluded: isExcluded || excluded };
  }
  throw new MagnetarError(
    'INVALID_ARGUMENT',
    `message id ${ledgerId}:${entryId}:${batchIndex} is not valid; ledger, entry and batch index are whole numbers from 0 on`,
  );
}
