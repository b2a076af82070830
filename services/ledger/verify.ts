import type { EntryId, LedgerId } from '../lib/ids.ts';
import { entryDigest } from '../wire/digest.ts';
import type { StoredEntry } from './bookie.ts';

/** True when a copy is the entry that it should be: its id, and the digest over ids, numbers and payload (LP-3). */
export function isValid(ledgerId: LedgerId, entryId: EntryId, stored: StoredEntry): boolean {
  if (stored.entryId !== entryId) return false;
  if (stored.checked === true) return true; // by a bookie in this process, for this ledger
  const { lac, length, payload } = stored;
  return entryDigest({ ledgerId, entryId, lac, length, payload: [payload] }) === stored.digest;
}
