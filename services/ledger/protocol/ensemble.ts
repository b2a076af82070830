/**
 * Which bookies a new ledger is written to.
 */
import { canWrite, type Quorum } from './distribution.ts';

/** A bookie as far as choosing goes. */
export interface Candidate {
  readonly id: string;
  readonly available: boolean;
}

/**
 * One bookie id per slot: available ones first, starting at another one for every ledger so that the load spreads; where
 * they do not suffice, unavailable ones fill up, as far apart as possible. Undefined when some write set would be left with
 * fewer than `ackQuorum` available bookies.
 */
export function chooseEnsemble(
  candidates: readonly Candidate[],
  quorum: Quorum,
  ledgerId: number,
): readonly string[] | undefined {
  const { ensembleSize } = quorum;
  if (candidates.length < ensembleSize) return undefined;
  const start = ledgerId % candidates.length;
  const rotated = [...candidates.slice(start), ...candidates.slice(0, start)];
  const up = rotated.filter((candidate) => candidate.available).slice(0, ensembleSize);
  const missing = ensembleSize - up.length;
  const down = rotated.filter((candidate) => !candidate.available).slice(0, missing);
  const downSlots = new Set(down.map((_, i) => Math.floor((i * ensembleSize) / missing)));
  const ensemble: string[] = [];
  let available = 0;
  for (let slot = 0; slot < ensembleSize; slot++) {
    const candidate = downSlots.has(slot) ? down.shift() : up.shift();
    if (candidate === undefined) return undefined;
    ensemble.push(candidate.id);
    if (candidate.available) available |= 1 << slot;
  }
  return canWrite(quorum, available) ? ensemble : undefined;
}
