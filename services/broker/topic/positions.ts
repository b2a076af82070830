import type { MessageIndex } from '../../lib/ids.ts';
import { assertNever } from '../../lib/assert.ts';
import type { Position } from '../../wire/frames.ts';
import type { LogReader } from './log-reader.ts';

/**
 * The index that a position stands for.
 *
 * @throws POSITION_NOT_FOUND for a message that is not there, and for an index below the oldest message or behind the end;
 * what reading throws.
 */
export async function resolvePosition(reader: LogReader, position: Position): Promise<MessageIndex> {
  switch (position.at) {
    case 'earliest':
      return reader.oldestIndex;
    case 'latest':
      return reader.endIndex;
    case 'time':
      return reader.indexAtTime(position.time);
    case 'index':
      if (position.index < reader.oldestIndex || position.index > reader.endIndex) {
        throw await reader.notFound(`index ${position.index}`);
      }
      return position.index;
    case 'messageId': {
      const { index } = position.id;
      if (index === undefined) return reader.indexOf(position.id);
      if (index < reader.oldestIndex || index >= reader.endIndex) {
        throw await reader.notFound(`message with index ${index}`);
      }
      return index;
    }
    default:
      return assertNever(position);
  }
}
