import { counter, gauge, type Metric, type MetricSink, type MetricSource, untyped } from '../runtime/metrics.ts';

/** Pulsar's names of what a broker tells about its connections. */
const pulsar = {
  active: gauge('pulsar_active_connections', 'gRPC connections that are open.'),
  created: untyped('pulsar_connection_created_total_count', 'gRPC connections since the start.'),
  closed: untyped('pulsar_connection_closed_total_count', 'gRPC connections that have ended.'),
} as const satisfies Readonly<Record<string, Metric>>;

const bookie = {
  active: gauge('magnetar_bookie_connections', 'gRPC connections that are open.'),
  created: counter('magnetar_bookie_connections_created_total', 'gRPC connections since the start.'),
  closed: counter('magnetar_bookie_connections_closed_total', 'gRPC connections that have ended.'),
} as const satisfies Readonly<Record<string, Metric>>;

/** The connections of a gRPC server. */
export class Connections implements MetricSource {
  readonly #metrics: typeof pulsar | typeof bookie;
  #created = 0;
  #closed = 0;

  constructor(of: 'broker' | 'bookie') {
    this.#metrics = of === 'broker' ? pulsar : bookie;
  }

  /** One has begun. */
  add(session: { on(event: 'close', listener: () => void): unknown }): void {
    this.#created++;
    session.on('close', this.#onClose);
  }

  readonly #onClose = (): void => {
    this.#closed++;
  };

  *collect(sink: MetricSink): Generator<void> {
    sink.value(this.#metrics.active, '', this.#created - this.#closed);
    sink.value(this.#metrics.created, '', this.#created);
    sink.value(this.#metrics.closed, '', this.#closed);
    yield;
  }
}
