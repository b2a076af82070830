import { describe, expect, test } from 'vitest';
import { scrape } from './exposition.ts';
import { Buckets, type Metric, type MetricSink, type MetricSource, RecentBuckets } from './metrics.ts';
import { nodeClock } from './node/clock.ts';
import { ManualClock } from './testing/manual-clock.ts';

const gauge: Metric = { name: 'level', type: 'gauge', help: 'How high it is.' };
const histogram: Metric = { name: 'wait_seconds', type: 'histogram', help: 'How long it took.' };
const summary: Metric = { name: 'load_times', type: 'summary', help: 'How long it took.' };

function source(collect: (sink: MetricSink) => Iterable<void>): MetricSource {
  return { collect };
}

function level(labels: string, value: number): MetricSource {
  return source(function* (sink) {
    sink.value(gauge, labels, value);
    sink.value({ ...gauge, name: `other_${value}` }, '', value);
    yield;
  });
}

async function textOf(sources: readonly MetricSource[], common = ''): Promise<string> {
  return [...(await scrape(sources, { clock: new ManualClock(), common }))].join('');
}

describe('the text format', () => {
  test('keeps the series of a family together, whoever tells them', async () => {
    expect(await textOf([level('side="left"', 1), level('side="right"', 2.5)], 'cluster="c"')).toBe(
      [
        '# HELP level How high it is.',
        '# TYPE level gauge',
        'level{cluster="c",side="left"} 1',
        'level{cluster="c",side="right"} 2.5',
        '# HELP other_1 How high it is.',
        '# TYPE other_1 gauge',
        'other_1{cluster="c"} 1',
        '# HELP other_2.5 How high it is.',
        '# TYPE other_2.5 gauge',
        'other_2.5{cluster="c"} 2.5',
        '',
      ].join('\n'),
    );
  });

  test('histograms are cumulative, in the unit asked for', async () => {
    const buckets = new Buckets([0.1, 0.5, 10]);
    for (const ms of [0.05, 0.4, 0.5, 7, 2_000]) buckets.observe(ms);
    const text = await textOf([
      source(function* (sink) {
        sink.histogram(histogram, 'kind="x"', buckets, 1_000);
        yield;
      }),
    ]);
    expect(text.split('\n').slice(2)).toEqual([
      'wait_seconds_bucket{kind="x",le="0.0001"} 1',
      'wait_seconds_bucket{kind="x",le="0.0005"} 3',
      'wait_seconds_bucket{kind="x",le="0.01"} 4',
      'wait_seconds_bucket{kind="x",le="+Inf"} 5',
      'wait_seconds_sum{kind="x"} 2.00795',
      'wait_seconds_count{kind="x"} 5',
      '',
    ]);
  });

  test('a summary of nothing says so', async () => {
    const text = await textOf([
      source(function* (sink) {
        sink.summary(summary, '', new RecentBuckets([1], 0));
        yield;
      }),
    ]);
    expect(text).toContain('load_times{quantile="0.99"} NaN\n');
    expect(text).toContain('load_times_count 0\n');
  });
});

/** 2,000 series in one family. */
function many(yieldEvery: number): MetricSource {
  return source(function* (sink) {
    for (let n = 0; n < 2_000; n++) {
      sink.value(gauge, `topic="persistent://public/default/topic-${n}"`, n);
      if (n % yieldEvery === 0) yield;
    }
  });
}

/** Scrapes on a clock that goes on by 0.1 ms whenever it is asked. Returns how often others could run meanwhile. */
async function turnsDuring(
  scraped: MetricSource,
): Promise<{ readonly turns: number; readonly told: readonly string[] }> {
  let [now, turns] = [0, 0];
  const clock = {
    ...nodeClock,
    monotonic: () => (now += 0.1),
    nextTurn(callback: () => void): void {
      turns++;
      nodeClock.nextTurn(callback);
    },
  };
  return { told: [...(await scrape([scraped], { clock, common: '' }))], turns };
}

describe('a scrape of many series', () => {
  test('lets others run every two milliseconds, and comes in pieces', async () => {
    const { turns, told } = await turnsDuring(many(1));
    expect(turns).toBeGreaterThan(40);
    expect(told.join('').split('\n')).toHaveLength(2_003);
    expect(told.length).toBeGreaterThan(1);
    expect(Math.max(...told.map((piece) => piece.length))).toBeLessThan(70_000);
  });

  test('sabotage: a source that never yields holds everybody up', async () => {
    expect((await turnsDuring(many(1_000_000))).turns).toBe(0);
  });
});
