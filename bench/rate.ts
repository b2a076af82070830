/** What was moved in a time. */
export interface Rate {
  readonly msgPerSec: number;
  readonly mbPerSec: number;
  /** From send to acknowledgment, of one message in 500. 0 where it was not measured. */
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Computes a rate. `latencies` in milliseconds. */
export function rateOf(run: { messages: number; size: number; tookMs: number; latencies: number[] }): Rate {
  const sorted = run.latencies.toSorted((a, b) => a - b);
  const at = (share: number): number => Number((sorted[Math.floor(sorted.length * share)] ?? 0).toFixed(1));
  const perSec = (run.messages / run.tookMs) * 1000;
  return {
    msgPerSec: Math.round(perSec),
    mbPerSec: Math.round((perSec * run.size) / 1e6),
    p50Ms: at(0.5),
    p99Ms: at(0.99),
  };
}

/** The middle value of an odd number of values, or the mean of the two middle ones. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const high = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? 0) + high) / 2;
}
