/**
 * The text format of Prometheus. It is written by hand: with prom-client, 10,000 series of one family take 10 ms to set and 30 ms
 * to print, in one turn of the event loop; here they take 2 ms, in slices.
 */
import type { Clock } from './clock.ts';
import {
  type Buckets,
  type LabelText,
  type Metric,
  type MetricSink,
  type MetricSource,
  quantile,
  type RecentBuckets,
} from './metrics.ts';

/** What a scrape does at a stretch, in ms: far less than the 5 that a turn of the event loop may take. */
const SLICE_MS = 2;
const CHUNK_CHARACTERS = 65_536;
const QUANTILES: readonly number[] = [0.5, 0.75, 0.95, 0.99, 0.999];

/** The content type of an answer. */
export const TEXT_FORMAT = 'text/plain; version=0.0.4; charset=utf-8';

interface Family {
  readonly chunks: string[];
  text: string;
}

function joined(labels: LabelText, more: LabelText): LabelText {
  if (labels === '' || more === '') return labels + more;
  return `${labels},${more}`;
}

function shown(value: number): string {
  if (Number.isFinite(value)) return String(value);
  return Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf';
}

class Page implements MetricSink {
  readonly now: number;
  readonly #common: LabelText;
  readonly #families: Map<string, Family> = new Map();
  #labels: LabelText | undefined;
  /** The labels, as they stand between a name and a value. */
  #braces = ' ';

  constructor(now: number, common: LabelText) {
    this.now = now;
    this.#common = common;
  }

  value(metric: Metric, labels: LabelText, value: number): void {
    this.#line(metric, '', labels, value);
  }

  histogram(metric: Metric, labels: LabelText, buckets: Buckets, unit = 1): void {
    let count = 0;
    for (const [place, bound] of buckets.bounds.entries()) {
      count += buckets.counts[place] as number;
      this.#line(metric, '_bucket', joined(labels, `le="${bound / unit}"`), count);
    }
    count += buckets.counts[buckets.bounds.length] as number;
    this.#line(metric, '_bucket', joined(labels, 'le="+Inf"'), count);
    this.#line(metric, '_sum', labels, buckets.sum / unit);
    this.#line(metric, '_count', labels, count);
  }

  summary(metric: Metric, labels: LabelText, recent: RecentBuckets): void {
    const { added } = recent.recent(this.now);
    for (const share of QUANTILES) {
      const value = Number(quantile(recent.bounds, added, share).toPrecision(4)); // it is an estimate
      this.#line(metric, '', joined(labels, `quantile="${share}"`), value);
    }
    this.#line(metric, '_sum', labels, recent.sum);
    this.#line(metric, '_count', labels, recent.count);
  }

  #line(metric: Metric, suffix: string, labels: LabelText, value: number): void {
    const family = this.#families.get(metric.name) ?? this.#begin(metric);
    if (labels !== this.#labels) {
      // Most series come in rows with the same labels.
      this.#labels = labels;
      const all = joined(this.#common, labels);
      this.#braces = all === '' ? ' ' : `{${all}} `;
    }
    family.text += `${metric.name}${suffix}${this.#braces}${shown(value)}\n`;
    if (family.text.length < CHUNK_CHARACTERS) return;
    family.chunks.push(family.text);
    family.text = '';
  }

  #begin(metric: Metric): Family {
    const text = `# HELP ${metric.name} ${metric.help}\n# TYPE ${metric.name} ${metric.type}\n`;
    const family: Family = { chunks: [], text };
    this.#families.set(metric.name, family);
    return family;
  }

  *chunks(): Generator<string> {
    for (const { chunks, text } of this.#families.values()) {
      yield* chunks;
      if (text !== '') yield text;
    }
  }
}

/**
 * Asks all sources, in slices of the event loop's turns. Returns the text in pieces of about 64 KB. `common`: labels of every
 * series.
 */
export async function scrape(
  sources: Iterable<MetricSource>,
  options: { readonly clock: Clock; readonly common: LabelText },
): Promise<Iterable<string>> {
  const { clock, common } = options;
  const page = new Page(clock.monotonic(), common);
  let sliceEnds = page.now + SLICE_MS;
  for (const source of sources) {
    for (const _ of source.collect(page)) {
      if (clock.monotonic() < sliceEnds) continue;
      await new Promise<void>((resolve) => clock.nextTurn(resolve));
      sliceEnds = clock.monotonic() + SLICE_MS;
    }
  }
  return page.chunks();
}
