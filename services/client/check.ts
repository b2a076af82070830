/** Checks of what an app passes in. Every error names the field, its value and what is allowed. */
import { types } from 'node:util';
import { MagnetarError } from '../lib/errors.ts';

const SHOWN_CHARACTERS = 80;

/** In quotes, on one line. */
function quoted(value: string): string {
  const text = JSON.stringify(value.slice(0, SHOWN_CHARACTERS + 1));
  return text.replace(/[\u007f-\u009f\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function shown(value: unknown): string {
  let text: string;
  if (typeof value === 'string') text = quoted(value);
  else if (typeof value === 'bigint' || typeof value === 'number' || typeof value === 'boolean') text = String(value);
  else if (value === null || value === undefined) text = String(value);
  else if (types.isDate(value)) text = 'a Date that is no valid time';
  else if (Array.isArray(value)) text = 'an array';
  else text = `a value of type ${typeof value}`;
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}…` : text;
}

/** The error for a field with a value that is not allowed. */
export function invalid(field: string, value: unknown, allowed: string): MagnetarError {
  return new MagnetarError('INVALID_ARGUMENT', `${field} is ${shown(value)}; it must be ${allowed}`, {
    details: { field, allowed },
  });
}

/** The object itself, once it is seen to have none but known fields. @throws MagnetarError INVALID_ARGUMENT */
export function checkFields<T extends object>(what: string, value: T, known: readonly string[]): T {
  if (typeof value !== 'object' || value === null) throw invalid(what, value, `an object with ${known.join(', ')}`);
  for (const field of Object.keys(value)) {
    if (!known.includes(field)) {
      const text = `${what} has no field ${JSON.stringify(field)}; it has ${known.join(', ')}`;
      throw new MagnetarError('INVALID_ARGUMENT', text, { details: { field, allowed: known.join(', ') } });
    }
  }
  return value;
}

/** An integer from `lowest` to `highest`, or the fallback where it is absent. @throws MagnetarError INVALID_ARGUMENT */
export function checkInteger(
  field: string,
  value: number | undefined,
  limits: { fallback: number; lowest: number; highest: number },
): number {
  if (value === undefined) return limits.fallback;
  if (Number.isSafeInteger(value) && value >= limits.lowest && value <= limits.highest) return value;
  throw invalid(field, value, `an integer from ${limits.lowest} to ${limits.highest}`);
}

/** @throws MagnetarError INVALID_ARGUMENT */
export function checkBoolean(field: string, value: boolean | undefined, fallback: boolean): boolean {
  if (value === undefined) return fallback;
  if (typeof value === 'boolean') return value;
  throw invalid(field, value, 'true or false');
}

const LONGEST_TEXT = 4_096;
const CONTROL = /[\p{Cc}\p{Zl}\p{Zp}]/u;

/**
 * A name of something. What characters it may have is the broker's to say; here it is seen to fit on a line and into a
 * frame. @throws MagnetarError INVALID_ARGUMENT
 */
export function checkText(field: string, value: string | undefined): string {
  if (typeof value === 'string' && value !== '' && value.length <= LONGEST_TEXT && !CONTROL.test(value)) return value;
  throw invalid(field, value, `a string of 1 to ${LONGEST_TEXT} characters, none of them a control character`);
}

/** Text, or '' where it is absent. @throws MagnetarError INVALID_ARGUMENT */
export function checkOptionalText(field: string, value: string | undefined): string {
  return value === undefined ? '' : checkText(field, value);
}

/** An object with these methods. @throws MagnetarError INVALID_ARGUMENT */
export function checkMethods<T extends object>(field: string, value: T, methods: readonly (keyof T & string)[]): T {
  const isObject = typeof value === 'object' && value !== null;
  if (isObject && methods.every((name) => typeof value[name] === 'function')) return value;
  throw invalid(field, value, `an object with the methods ${methods.join(', ')}`);
}
