import type { Metric, MetricSink, MetricSource } from '../runtime/metrics.ts';

/** Pulsar's names of what a broker tells about its connections. */
const pulsar = {
  active: { name: 'pulsar_active_connections', type: 'gauge', help: 'gRPC connections that are open.' },
  created: {
    name: 'pulsar_connection_created_total_count',
    type: 'untyped',
    help: 'gRPC connections since the start.',
  },
  closed: { name: 'pulsar_connection_closed_total_count', type: 'untyped', help: 'gRPC connections that have ended.' },
} as const satisfies Readonly<Record<string, Metric>>;

const bookie = {
  active: { name: 'magnetar_bookie_connections', type: 'gauge', help: 'gRPC connections that are open.' },
  created: {
    name: 'magnetar_bookie_connections_created_total',
    type: 'counter',
    help: 'gRPC connections since the start.',
  },
  closed: {
    name: 'magnetar_bookie_connections_closed_total',
    type: 'counter',
    help: 'gRPC connections that have ended.',
  },
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
