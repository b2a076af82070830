/**
 * Ids that Magnetar allocates, as branded numbers: safe integers, checked where they come off the wire or the disk.
 * Values that others choose (sequence ids) are bigints.
 */
import { MagnetarError } from './errors.ts';

declare const brand: unique symbol;
type Branded<Name extends string> = number & { readonly [brand]: Name };

/** A ledger, from 0. Rises strictly within a topic. */
export type LedgerId = Branded<'LedgerId'>;
/** An entry of a ledger, from 0; -1 where "none" is legal (LAC, last entry). */
export type EntryId = Branded<'EntryId'>;
/** The dense offset of a message in its topic, from 0. */
export type MessageIndex = Branded<'MessageIndex'>;
/** An owner's epoch. */
export type Epoch = Branded<'Epoch'>;
/** A revision of the metadata store; 0 is before the first transaction. */
export type Revision = Branded<'Revision'>;
/** Milliseconds: a span, or a time since 1970-01-01 UTC. */
export type Millis = Branded<'Millis'>;
/** A sequence id of a producer: 0 to 2^64-1. */
export type SequenceId = bigint & { readonly [brand]: 'SequenceId' };

/** No entry. */
export const NO_ENTRY: EntryId = -1 as EntryId;

function checked(name: string, value: number, lowest: number): number {
  if (Number.isSafeInteger(value) && value >= lowest) return value;
  throw new MagnetarError('INVALID_ARGUMENT', `${name} is ${value}; it must be an integer from ${lowest} to 2^53-1`);
}

/** @throws MagnetarError INVALID_ARGUMENT */
export function ledgerId(value: number): LedgerId {
  return checked('ledger id', value, 0) as LedgerId;
}

/** Takes -1, too. @throws MagnetarError INVALID_ARGUMENT */
export function entryId(value: number): EntryId {
  return checked('entry id', value, -1) as EntryId;
}

/** @throws MagnetarError INVALID_ARGUMENT */
export function messageIndex(value: number): MessageIndex {
  return checked('message index', value, 0) as MessageIndex;
}

/** @throws MagnetarError INVALID_ARGUMENT */
export function epoch(value: number): Epoch {
  return checked('epoch', value, 0) as Epoch;
}

/** @throws MagnetarError INVALID_ARGUMENT */
export function revision(value: number): Revision {
  return checked('revision', value, 0) as Revision;
}

/** @throws MagnetarError INVALID_ARGUMENT */
export function millis(value: number): Millis {
  return checked('milliseconds', value, 0) as Millis;
}

/** @throws MagnetarError INVALID_ARGUMENT */
export function sequenceId(value: bigint): SequenceId {
  if (value >= 0n && value < 1n << 64n) return value as SequenceId;
  throw new MagnetarError('INVALID_ARGUMENT', `sequence id is ${value}; it must be an integer from 0 to 2^64-1`);
}
