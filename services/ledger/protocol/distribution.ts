/**
 * Which slots of an ensemble hold which entry, and what a set of answers proves (LP-2, LP-14).
 *
 * Sets of slots are bit masks: bit s stands for slot s.
 */
import { MagnetarError } from '../../lib/errors.ts';

/** How many copies. 1 <= ackQuorum <= writeQuorum <= ensembleSize <= 30. */
export interface Quorum {
  readonly ensembleSize: number;
  readonly writeQuorum: number;
  readonly ackQuorum: number;
}

/** Slots of an ensemble fit into the bits of a small integer. */
const LARGEST_ENSEMBLE = 30;

/** @throws MagnetarError INVALID_ARGUMENT */
export function checkQuorum(quorum: Quorum): void {
  const { ensembleSize, writeQuorum, ackQuorum } = quorum;
  const whole = [ensembleSize, writeQuorum, ackQuorum].every(Number.isInteger);
  if (whole && ackQuorum >= 1 && ackQuorum <= writeQuorum && writeQuorum <= ensembleSize) {
    if (ensembleSize <= LARGEST_ENSEMBLE) return;
  }
  throw new MagnetarError(
    'INVALID_ARGUMENT',
    `quorum is ensemble ${ensembleSize}, write ${writeQuorum}, ack ${ackQuorum}; ` +
      `it must hold 1 <= ack <= write <= ensemble <= ${LARGEST_ENSEMBLE}`,
  );
}

/** The write set of an entry: `writeQuorum` consecutive slots from `entry mod ensembleSize` on (LP-2). */
export function writeSet(quorum: Quorum, entry: number): number {
  const { ensembleSize, writeQuorum } = quorum;
  const first = entry % ensembleSize;
  const run = ((1 << writeQuorum) - 1) << first;
  // What the shift pushes beyond the last slot is masked away; it comes back from slot 0 on.
  const wrapped = Math.max(0, first + writeQuorum - ensembleSize);
  return (run & ((1 << ensembleSize) - 1)) | ((1 << wrapped) - 1);
}

/** True when the slot holds a copy of the entry. */
export function inWriteSet(quorum: Quorum, entry: number, slot: number): boolean {
  return (writeSet(quorum, entry) & (1 << slot)) !== 0;
}

/** How many consecutive entries from `entry` on the slot holds, at most `limit`. */
export function runInSlot(quorum: Quorum, entry: number, slot: number, limit: number): number {
  if (quorum.writeQuorum === quorum.ensembleSize) return limit;
  let run = 0;
  while (run < limit && inWriteSet(quorum, entry + run, slot)) run++;
  return run;
}

/** Number of slots in a set. */
export function slotCount(slots: number): number {
  let count = 0;
  for (let rest = slots; rest !== 0; rest &= rest - 1) count++;
  return count;
}

/** The most slots of a set that fall into one write set. */
function mostInAWriteSet(quorum: Quorum, slots: number): number {
  let most = 0;
  for (let entry = 0; entry < quorum.ensembleSize; entry++) {
    most = Math.max(most, slotCount(writeSet(quorum, entry) & slots));
  }
  return most;
}

/** Every slot of an ensemble. */
function allSlots(quorum: Quorum): number {
  return (1 << quorum.ensembleSize) - 1;
}

/**
 * The coverage rule (LP-14): true when no entry can reach its ack quorum without one of the `known` slots, so that fenced
 * slots stop every write. That is so when in every write set fewer than `ackQuorum` slots are unknown.
 */
export function covers(quorum: Quorum, known: number): boolean {
  return mostInAWriteSet(quorum, allSlots(quorum) & ~known) < quorum.ackQuorum;
}

/** True when every write set has at least `ackQuorum` of the `available` slots: every entry can be written. */
export function canWrite(quorum: Quorum, available: number): boolean {
  return mostInAWriteSet(quorum, allSlots(quorum) & ~available) <= quorum.writeQuorum - quorum.ackQuorum;
}

/**
 * Explicit negatives that prove an entry was never acknowledged, and never will be when they are fenced: as many as leave
 * fewer than `ackQuorum` other copies (LP-16).
 */
export function negativesNeeded(quorum: Quorum): number {
  return quorum.writeQuorum - quorum.ackQuorum + 1;
}
