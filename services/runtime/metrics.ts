/**
 * What is measured. The parts of the system keep plain numbers where things happen; a scrape asks them, as sources, to put
 * the numbers into words. There is no registry: whoever composes a process knows its sources.
 */

/**
 * 'untyped' is for names of Pulsar's and BookKeeper's that the conventions reserve for another type (`pulsar_topics_count` is no
 * count of a histogram): dashboards find them, and linters pass over them.
 */
type MetricType = 'counter' | 'gauge' | 'histogram' | 'summary' | 'untyped';

/** A family of series. */
export interface Metric {
  readonly name: string;
  readonly type: MetricType;
  /** One line. */
  readonly help: string;
}

/** A count that only rises. */
export function counter(name: string, help: string): Metric {
  return { name, type: 'counter', help };
}

/** A figure that rises and falls. */
export function gauge(name: string, help: string): Metric {
  return { name, type: 'gauge', help };
}

/** A figure under a name of Pulsar's or BookKeeper's that breaks the conventions. */
export function untyped(name: string, help: string): Metric {
  return { name, type: 'untyped', help };
}

/** Labels as they stand between the braces of the text format; '' for none. */
export type LabelText = string;

/** Takes the figures of one scrape. */
export interface MetricSink {
  /** Monotonic time of the scrape, in ms. */
  readonly now: number;
  value(metric: Metric, labels: LabelText, value: number): void;
  /** Bounds and sum are divided by `unit`: 1,000 for seconds out of milliseconds. */
  histogram(metric: Metric, labels: LabelText, buckets: Buckets, unit?: number): void;
  /** Quantiles of the last minute or so, estimated within the buckets; sum and count of all time. */
  summary(metric: Metric, labels: LabelText, recent: RecentBuckets): void;
}

/** Something that can be scraped. */
export interface MetricSource {
  /** Yields wherever it may be interrupted: where there is much to tell, at least once per 100 µs of work. */
  collect(sink: MetricSink): Iterable<void>;
}

const ESCAPED: Readonly<Record<string, string>> = { '\\': '\\\\', '"': '\\"', '\n': '\\n' };

/** Labels for a sink. The values may be any text. */
export function labelText(labels: Readonly<Record<string, string>>): LabelText {
  return Object.entries(labels)
    .map(([name, value]) => `${name}="${value.replaceAll(/[\\"\n]/g, (character) => ESCAPED[character] ?? '')}"`)
    .join(',');
}

/** Upper bounds for latencies in milliseconds; Pulsar's are among them. */
export const LATENCY_MS: readonly number[] = [
  0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000,
];
/** Upper bounds for sizes in bytes; Pulsar's for entries are among them. */
export const SIZE_BYTES: readonly number[] = [
  128, 512, 1_024, 2_048, 4_096, 16_384, 102_400, 1_048_576, 4_194_304, 16_777_216,
];

/** Upper bounds for how many there are of something. */
export const HOW_MANY: readonly number[] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

/** Observations, counted by size. One takes some nanoseconds. */
export class Buckets {
  /** Rising. */
  readonly bounds: readonly number[];
  /** How many were above the bound before, up to this one; the last place is for those above all. */
  readonly counts: Float64Array;
  sum = 0;

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number): void {
    let [low, high] = [0, this.bounds.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (value <= (this.bounds[middle] as number)) high = middle;
      else low = middle + 1;
    }
    this.counts[low] = (this.counts[low] as number) + 1;
    this.sum += value;
  }

  /** How many there were. */
  get count(): number {
    let count = 0;
    for (const each of this.counts) count += each;
    return count;
  }
}

/** A window's begin moves on when it is so old: it reaches back one to two of these when it is asked often. */
export const WINDOW_STEP_MS = 30_000;

interface Mark {
  readonly at: number;
  readonly totals: Float64Array;
}

/**
 * What was added to running totals lately: in the last 30 to 60 seconds, or since it was asked last, where that is longer
 * ago. It costs nothing between two questions.
 */
export class Window {
  #begin: Mark;
  #next: Mark;

  /** @param now monotonic time since when the totals, which are 0, are counted */
  constructor(now: number, totals: number) {
    this.#begin = { at: now, totals: new Float64Array(totals) };
    this.#next = this.#begin;
  }

  /** The additions to each of the totals, and the seconds in which they came; 1 where it was less. */
  changes(totals: ArrayLike<number>, now: number): { readonly added: Float64Array; readonly seconds: number } {
    if (now - this.#next.at >= WINDOW_STEP_MS) {
      this.#begin = this.#next;
      this.#next = { at: now, totals: Float64Array.from(totals) };
    }
    const { at, totals: before } = this.#begin;
    const added = Float64Array.from(totals, (total, place) => total - (before[place] as number));
    return { added, seconds: Math.max(1, (now - at) / 1_000) };
  }
}

/** Buckets of which the recent past can be told. */
export class RecentBuckets extends Buckets {
  readonly #window: Window;

  constructor(bounds: readonly number[], now: number) {
    super(bounds);
    this.#window = new Window(now, bounds.length + 1);
  }

  /** As `counts`, of the last minute or so. */
  recent(now: number): { readonly added: Float64Array; readonly seconds: number } {
    return this.#window.changes(this.counts, now);
  }
}

/** Where a share of the observations lies, as far as their buckets tell: interpolated within one. NaN when there are none. */
export function quantile(bounds: readonly number[], counts: ArrayLike<number>, share: number): number {
  let all = 0;
  for (let place = 0; place < counts.length; place++) all += counts[place] as number;
  if (all === 0) return Number.NaN;
  let left = all * share;
  for (let place = 0; place < bounds.length; place++) {
    const here = counts[place] as number;
    const from = bounds[place - 1] ?? 0;
    if (left <= here && here > 0) return from + (((bounds[place] as number) - from) * left) / here;
    left -= here;
  }
  return bounds.at(-1) ?? Number.NaN;
}

/** Failures by what was asked for and by error code: as many series as there are codes, at most, per operation. */
export class ErrorCounts {
  readonly #counts: Map<string, { readonly operation: string; readonly code: string; count: number }> = new Map();

  add(operation: string, code: string): void {
    const key = `${operation} ${code}`;
    const known = this.#counts.get(key);
    if (known === undefined) this.#counts.set(key, { operation, code, count: 1 });
    else known.count++;
  }

  collect(sink: MetricSink, metric: Metric, labels: LabelText = ''): void {
    for (const { operation, code, count } of this.#counts.values()) {
      const own = labelText({ operation, code });
      sink.value(metric, labels === '' ? own : `${labels},${own}`, count);
    }
  }
}
