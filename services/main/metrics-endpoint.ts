/** GET /metrics: what all parts of a process tell, in Prometheus' text format. */
import { Readable } from 'node:stream';
import type { FastifyPluginAsync } from 'fastify';
import type { Clock } from '../runtime/clock.ts';
import { scrape, TEXT_FORMAT } from '../runtime/exposition.ts';
import { LoopProbe } from '../runtime/loop-probe.ts';
import {
  gauge,
  labelText,
  type LabelText,
  type Metric,
  type MetricSink,
  type MetricSource,
} from '../runtime/metrics.ts';
import type { About } from './http.ts';
import type { HttpPart } from './http-part.ts';

const metrics = {
  build: gauge('magnetar_build_info', '1; the labels say which version runs, and on what.'),
  delay: {
    name: 'magnetar_event_loop_delay_seconds',
    type: 'histogram',
    help: 'How long new work waits for the event loop while it is busy.',
  },
} as const satisfies Readonly<Record<string, Metric>>;

export interface MetricsEndpointOptions {
  readonly clock: Clock;
  readonly sources: readonly MetricSource[];
  readonly about: About;
  /** Of every series of the sources. */
  readonly common: LabelText;
}

/** What the endpoint needs while the process runs. */
export interface MetricsEndpoint {
  readonly part: HttpPart;
  close(): void;
}

/** Begins to watch the event loop, which it does until it is closed. */
export function metricsEndpoint(options: MetricsEndpointOptions): MetricsEndpoint {
  const { clock, sources, common } = options;
  const probe = new LoopProbe(clock, () => performance.eventLoopUtilization().active);
  const build = labelText({ ...options.about, node: process.version });
  const own: MetricSource = {
    *collect(sink: MetricSink): Generator<void> {
      sink.value(metrics.build, build, 1);
      sink.histogram(metrics.delay, '', probe.delays, 1_000);
      yield;
    },
  };
  let running: Promise<readonly string[]> | undefined;
  const plugin: FastifyPluginAsync = async (app) => {
    const { processMetrics } = await import('./process-metrics.ts');
    const ofProcess = processMetrics();
    app.addHook('onClose', async () => await Promise.resolve(ofProcess.close()));
    const collect = async (): Promise<readonly string[]> => {
      const [parts, text] = [await scrape([own, ...sources], { clock, common }), await ofProcess.text()];
      return [...parts, text];
    };
    /** Who asks while another's answer is being made gets the same. */
    const answer = async (): Promise<readonly string[]> => {
      running ??= collect().finally(() => {
        running = undefined;
      });
      return await running;
    };
    for (const path of ['/metrics', '/metrics/']) {
      app.get(path, async (_request, reply) => await reply.type(TEXT_FORMAT).send(Readable.from(await answer())));
    }
  };
  return { part: { paths: ['/metrics'], plugin }, close: () => probe.close() };
}
