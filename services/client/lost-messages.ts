import { hasCode } from '../lib/errors.ts';

/** Messages that are lost. */
export interface LostMessages {
  /** Index of the first one. */
  readonly firstIndex: number;
  /** Index of the last one. */
  readonly lastIndex: number;
}

/** Which messages a DATA_LOSS is about that was given in their place; undefined for any other error. */
export function lostMessages(error: unknown): LostMessages | undefined {
  if (!hasCode(error, 'DATA_LOSS')) return undefined;
  const [firstIndex, lastIndex] = [Number(error.details['firstIndex']), Number(error.details['lastIndex'])];
  return firstIndex >= 0 && lastIndex >= firstIndex ? { firstIndex, lastIndex } : undefined;
}
