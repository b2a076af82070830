import { toMagnetarError } from '../lib/errors.ts';

const UNITS = ['B', 'KB', 'MB', 'GB', 'TB'] as const;

/** A number of bytes for people: "1.2 MB". */
export function bytesText(bytes: number): string {
  let [value, unit] = [bytes, 0];
  while (value >= 1_000 && unit < UNITS.length - 1) {
    value /= 1_000;
    unit += 1;
  }
  return unit === 0 ? `${bytes} B` : `${value.toFixed(1)} ${UNITS[unit]}`;
}

/** A count for people: "12,345". */
export function countText(count: number): string {
  return Math.round(count).toLocaleString('en-US');
}

/** "1 message", "2 messages". */
export function messagesText(count: number): string {
  return `${countText(count)} message${count === 1 ? '' : 's'}`;
}

/** One line: what an error says, without what would break it. */
export function oneLine(text: string): string {
  return text.replaceAll(/\s*\n\s*/g, ' ').trim();
}

/** Why the platform cannot: the code of its error, such as ENOSPC, or else what the error says. */
export function platformReason(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : toMagnetarError(error).message;
}
