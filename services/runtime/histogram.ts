/** Counts whole numbers from 1 on in buckets of bounded error: its memory does not grow with what is recorded. */
export interface Histogram {
  /** How many values were recorded. */
  readonly count: number;
  /** The highest value; meaningful when there is one. */
  readonly max: number;
  record(value: number): void;
  /** The value that `percent` percent of all do not exceed; `percent` above 0, up to 100. */
  percentile(percent: number): number;
  /** Adds what another one has recorded. */
  add(other: Histogram): void;
  reset(): void;
}
