import type { Millis } from '../lib/ids.ts';
import { toMagnetarError } from '../lib/errors.ts';
import type { Clock } from '../runtime/clock.ts';
import {
  Buckets,
  counter,
  ErrorCounts,
  labelText,
  LATENCY_MS,
  type Metric,
  type MetricSink,
  type MetricSource,
} from '../runtime/metrics.ts';
import type {
  Compare,
  KeyValue,
  Lease,
  MetadataStore,
  RangeQuery,
  RangeResult,
  TransactResult,
  WatchBatch,
  Write,
} from './store.ts';

const metrics = {
  duration: {
    name: 'magnetar_metadata_duration_seconds',
    type: 'histogram',
    help: 'How long the metadata store took to answer, by operation.',
  },
  errors: counter(
    'magnetar_metadata_errors_total',
    'What the metadata store has failed with, by operation and error code.',
  ),
  conflicts: counter(
    'magnetar_metadata_conflicts_total',
    'Transactions whose conditions did not hold: somebody else was first.',
  ),
} as const satisfies Readonly<Record<string, Metric>>;

/** A metadata store that measures another one. */
export class MeasuredStore implements MetadataStore, MetricSource {
  readonly #store: MetadataStore;
  readonly #clock: Clock;
  readonly #durations = {
    get: new Buckets(LATENCY_MS),
    range: new Buckets(LATENCY_MS),
    transact: new Buckets(LATENCY_MS),
  };
  readonly #errors = new ErrorCounts();
  #conflicts = 0;

  constructor(store: MetadataStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  async #measured<T>(operation: 'get' | 'range' | 'transact', work: Promise<T>): Promise<T> {
    const startedAt = this.#clock.monotonic();
    try {
      return await work;
    } catch (error) {
      this.#errors.add(operation, toMagnetarError(error).code);
      throw error;
    } finally {
      this.#durations[operation].observe(this.#clock.monotonic() - startedAt);
    }
  }

  async get(keys: readonly string[]): ReturnType<MetadataStore['get']> {
    return await this.#measured('get', this.#store.get(keys));
  }

  async range(query: RangeQuery): Promise<RangeResult> {
    return await this.#measured('range', this.#store.range(query));
  }

  async transact(compares: readonly Compare[], writes: readonly Write[]): Promise<TransactResult> {
    const result = await this.#measured('transact', this.#store.transact(compares, writes));
    if (!result.committed) this.#conflicts++;
    return result;
  }

  watch(options: Parameters<MetadataStore['watch']>[0]): AsyncIterable<WatchBatch> {
    return this.#store.watch(options);
  }

  async compact(below: KeyValue['modRevision']): Promise<void> {
    await this.#store.compact(below);
  }

  async grantLease(ttl: Millis): Promise<Lease> {
    return await this.#store.grantLease(ttl);
  }

  async close(): Promise<void> {
    await this.#store.close();
  }

  *collect(sink: MetricSink): Generator<void> {
    for (const [operation, buckets] of Object.entries(this.#durations)) {
      sink.histogram(metrics.duration, labelText({ operation }), buckets, 1_000);
    }
    this.#errors.collect(sink, metrics.errors);
    sink.value(metrics.conflicts, '', this.#conflicts);
    yield;
  }
}
