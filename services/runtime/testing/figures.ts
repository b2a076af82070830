import { scrape } from '../exposition.ts';
import type { MetricSource } from '../metrics.ts';
import { nodeClock } from '../node/clock.ts';

/** What a source tells: values by series, as in `name{label="value"}`. */
export async function figures(source: MetricSource): Promise<ReadonlyMap<string, number>> {
  const text = [...(await scrape([source], { clock: nodeClock, common: '' }))].join('');
  const series = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    series.map((line) => {
      const space = line.lastIndexOf(' ');
      return [line.slice(0, space), Number(line.slice(space + 1))];
    }),
  );
}
