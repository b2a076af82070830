import { types } from 'node:util';
import { messageIndex } from '../lib/ids.ts';
import type { Position } from '../wire/frames.ts';
import { invalid } from './check.ts';
import { MessageId, toWire } from './message-id.ts';

/**
 * Where to begin: the oldest message that is kept, after the newest one, at a message (inclusive), at the first message
 * that the broker appended at or after a time, or at a message index (inclusive).
 */
export type StartPosition = 'earliest' | 'latest' | MessageId | Date | { readonly index: number };

const ALLOWED = "'earliest', 'latest', a MessageId, a Date from 1970 on, or { index } with an integer from 0 to 2^53-1";

function hasIndex(value: unknown): value is { readonly index: unknown } {
  return typeof value === 'object' && value !== null && 'index' in value;
}

/** The position as it travels. @throws MagnetarError INVALID_ARGUMENT */
export function toPosition(field: string, value: StartPosition): Position {
  if (value === 'earliest' || value === 'latest') return { at: value };
  if (value instanceof MessageId) return { at: 'messageId', id: toWire(value) };
  if (types.isDate(value)) {
    const time = value.getTime();
    if (!Number.isSafeInteger(time) || time < 0) throw invalid(field, value, ALLOWED);
    return { at: 'time', time };
  }
  if (hasIndex(value) && Number.isSafeInteger(value.index) && value.index >= 0) {
    return { at: 'index', index: messageIndex(value.index) };
  }
  throw invalid(field, value, ALLOWED);
}
