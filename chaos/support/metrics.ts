/** What a process tells at /metrics, taken apart and held against what was done to it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** The figures of one answer. */
export class Scrape {
  readonly text: string;
  readonly tookMs: number;
  /** By series, as in `name{label="value"}`. */
  readonly series: ReadonlyMap<string, number>;
  readonly #types: ReadonlyMap<string, string>;

  private constructor(text: string, tookMs: number) {
    this.text = text;
    this.tookMs = tookMs;
    const series = new Map<string, number>();
    const types = new Map<string, string>();
    for (const line of text.split('\n')) {
      const [, name, type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? [];
      if (name !== undefined && type !== undefined) types.set(name, type);
      if (line === '' || line.startsWith('#')) continue;
      const space = line.lastIndexOf(' ');
      series.set(line.slice(0, space), Number(line.slice(space + 1)));
    }
    this.series = series;
    this.#types = types;
  }

  /** Asks a server. @throws Error when it does not answer with figures */
  static async of(server: { readonly adminUrl: string }): Promise<Scrape> {
    const from = performance.now();
    const response = await fetch(`${server.adminUrl}/metrics`);
    const text = await response.text();
    const type = response.headers.get('content-type');
    if (response.status !== 200 || type?.startsWith('text/plain; version=0.0.4') !== true) {
      throw new Error(`/metrics answers ${response.status}, ${type}: ${text.slice(0, 200)}`);
    }
    return new Scrape(text, performance.now() - from);
  }

  /** The sum of all series of a name with these labels; undefined when there is none. */
  get(name: string, labels: Readonly<Record<string, string>> = {}): number | undefined {
    const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
    let sum: number | undefined;
    for (const [series, value] of this.series) {
      const [own, rest = ''] = series.split('{', 2);
      if (own === name && wanted.every((label) => rest.includes(label))) sum = (sum ?? 0) + value;
    }
    return sum;
  }

  /** Series that may never fall: counters, and the counts of histograms and summaries. */
  *rising(): Generator<[string, number]> {
    for (const [series, value] of this.series) {
      const name = series.split('{', 1)[0] ?? '';
      const family = name.replace(/_(bucket|sum|count)$/, '');
      const composed = this.#types.get(family) === 'histogram' || this.#types.get(family) === 'summary';
      if (this.#types.get(name) === 'counter' || (composed && family !== name)) yield [series, value];
    }
  }
}

/** What has fallen, or is gone, that must not between two answers of one process. */
export function fallen(before: Scrape, after: Scrape): string[] {
  const found: string[] = [];
  for (const [series, value] of before.rising()) {
    const now = after.series.get(series);
    if (now === undefined || now < value) found.push(`${series}: ${value}, then ${now}`);
  }
  return found;
}

/** What promtool has against the text; '' when it accepts it. */
export async function complaints(text: string): Promise<string> {
  const child = spawn('promtool', ['check', 'metrics'], { stdio: ['pipe', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    said += chunk;
  });
  child.stdin.on('error', () => {}); // it stops reading at the first line that it cannot parse
  child.stdin.end(text);
  const [code] = (await once(child, 'close')) as [number | null];
  return code === 0 && said === '' ? '' : `promtool ended with ${code}: ${said}`;
}

/** What was done with one namespace. */
export interface Done {
  readonly namespace: string;
  readonly published: number;
  /** Messages that clients were sent, at least. */
  readonly delivered: number;
  readonly acknowledged: number;
  /** Over all subscriptions. */
  readonly backlog: number;
  readonly topics: number;
  readonly subscriptions: number;
  readonly producers: number;
  readonly consumers: number;
}

/** Where the figures differ from what was done. */
export function differences(scrape: Scrape, done: Done): string[] {
  const { namespace } = done;
  const found: string[] = [];
  const expectation = (name: string, expected: number): void => {
    const told = scrape.get(name, { namespace });
    if (told !== expected) found.push(`${name} is ${told}, not ${expected}`);
  };
  expectation('pulsar_in_messages_total', done.published);
  expectation('pulsar_out_messages_total', done.delivered);
  expectation('magnetar_acknowledged_messages_total', done.acknowledged);
  expectation('pulsar_msg_backlog', done.backlog);
  expectation('pulsar_topics_count', done.topics);
  expectation('pulsar_subscriptions_count', done.subscriptions);
  expectation('pulsar_producers_count', done.producers);
  expectation('pulsar_consumers_count', done.consumers);
  return found;
}
