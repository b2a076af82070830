import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import type { Histogram } from '../histogram.ts';

const HIGHEST = 3_600_000_000;

class NodeHistogram implements Histogram {
  readonly #histogram: RecordableHistogram = createHistogram({ lowest: 1, highest: HIGHEST, figures: 3 });

  get count(): number {
    return this.#histogram.count;
  }

  get max(): number {
    return this.#histogram.max;
  }

  record(value: number): void {
    this.#histogram.record(Math.min(Math.max(Math.round(value), 1), HIGHEST));
  }

  percentile(percent: number): number {
    return this.#histogram.percentile(percent);
  }

  add(other: NodeHistogram): void {
    this.#histogram.add(other.#histogram);
  }

  reset(): void {
    this.#histogram.reset();
  }
}

/** A histogram of values up to an hour in microseconds, to three figures; what is out of range counts at its end. */
export function newHistogram(): Histogram {
  return new NodeHistogram();
}
