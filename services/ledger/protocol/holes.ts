/**
 * Copies of confirmed entries that were not stored: what repair has to look at. Runs of entries per slot, bounded: when
 * there are too many, neighbours are joined, so that it may say too much and never too little.
 */

/** Entries `first` to `last` lack the copy of this slot. */
export interface Hole {
  readonly slot: number;
  readonly bookie: string;
  readonly first: number;
  readonly last: number;
}

interface Run {
  first: number;
  last: number;
}

const RUNS_PER_COPY = 64;

export class Holes {
  readonly #runs = new Map<string, { slot: number; bookie: string; runs: Run[] }>();

  /** Records one missing copy. Entries come in about rising order. */
  add(slot: number, bookie: string, entry: number): void {
    const key = `${slot} ${bookie}`;
    let copy = this.#runs.get(key);
    if (copy === undefined) {
      copy = { slot, bookie, runs: [] };
      this.#runs.set(key, copy);
    }
    const { runs } = copy;
    let at = runs.length;
    while (at > 0 && (runs[at - 1] as Run).first > entry) at--;
    const before = runs[at - 1];
    if (before !== undefined && entry <= before.last + 1) {
      before.last = Math.max(before.last, entry);
    } else {
      runs.splice(at, 0, { first: entry, last: entry });
      at++;
    }
    const run = runs[at - 1] as Run;
    const after = runs[at];
    if (after !== undefined && after.first <= run.last + 1) {
      run.last = Math.max(run.last, after.last);
      runs.splice(at, 1);
    }
    if (runs.length > RUNS_PER_COPY) joinClosest(runs);
  }

  list(): readonly Hole[] {
    return [...this.#runs.values()].flatMap(({ slot, bookie, runs }) => runs.map((run) => ({ slot, bookie, ...run })));
  }
}

/** Joins the two neighbours with the smallest gap. */
function joinClosest(runs: Run[]): void {
  let best = 1;
  let gap = Number.POSITIVE_INFINITY;
  for (let at = 1; at < runs.length; at++) {
    const here = (runs[at] as Run).first - (runs[at - 1] as Run).last;
    if (here < gap) [best, gap] = [at, here];
  }
  (runs[best - 1] as Run).last = (runs[best] as Run).last;
  runs.splice(best, 1);
}
