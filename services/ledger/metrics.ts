/** What a client of ledgers counts, and tells when it is scraped. */
import {
  Buckets,
  counter,
  gauge,
  labelText,
  LATENCY_MS,
  type Metric,
  type MetricSink,
  type MetricSource,
} from '../runtime/metrics.ts';
import type { BookieLane } from './bookie-lane.ts';

const metrics = {
  append: {
    name: 'magnetar_ledger_append_duration_seconds',
    type: 'histogram',
    help: 'From handing an entry to a ledger until it was confirmed: on its ack quorum, behind all before it.',
  },
  read: {
    name: 'magnetar_ledger_read_duration_seconds',
    type: 'histogram',
    help: 'How long one read of a bookie took.',
  },
  created: counter('magnetar_ledgers_created_total', 'Ledgers that were made.'),
  closed: counter('magnetar_ledgers_closed_total', 'Ledgers that their writer closed.'),
  failed: counter('magnetar_ledger_writer_failures_total', 'Ledgers that could not be written any more.'),
  missing: counter(
    'magnetar_ledger_missing_copies_total',
    'Copies that bookies did not get, of ledgers that were closed.',
  ),
  recovery: {
    name: 'magnetar_ledger_recovery_duration_seconds',
    type: 'histogram',
    help: 'How long it took to find the end of a ledger that another writer had left, and to close it.',
  },
  recoveryFailures: counter('magnetar_ledger_recovery_failures_total', 'Ledgers that could not be recovered.'),
  open: gauge('magnetar_ledger_writers', 'Ledgers that are being written.'),
  available: gauge('magnetar_bookie_available', '1 while a bookie can be written to, as its clients see it, else 0.'),
  inFlight: gauge(
    'magnetar_bookie_client_pending_entries',
    'Copies that a bookie was sent, or is to be, without an answer.',
  ),
  lagging: gauge('magnetar_bookie_client_lagging_bytes', 'Bytes that a bookie owes of entries confirmed without it.'),
} as const satisfies Readonly<Record<string, Metric>>;

/** What a client of ledgers counts from its start on. Latencies are in ms. */
export class LedgerStats {
  readonly appendLatency: Buckets = new Buckets(LATENCY_MS);
  readonly readLatency: Buckets = new Buckets(LATENCY_MS);
  readonly recovery: Buckets = new Buckets(LATENCY_MS);
  created = 0;
  closed = 0;
  failed = 0;
  missingCopies = 0;
  recoveryFailures = 0;
}

export class LedgerMetrics implements MetricSource {
  readonly #stats: LedgerStats;
  readonly #lanes: ReadonlyMap<string, BookieLane>;
  readonly #writers: ReadonlySet<unknown>;

  constructor(stats: LedgerStats, lanes: ReadonlyMap<string, BookieLane>, writers: ReadonlySet<unknown>) {
    this.#stats = stats;
    this.#lanes = lanes;
    this.#writers = writers;
  }

  *collect(sink: MetricSink): Generator<void> {
    const stats = this.#stats;
    sink.histogram(metrics.append, '', stats.appendLatency, 1_000);
    sink.histogram(metrics.read, '', stats.readLatency, 1_000);
    sink.value(metrics.created, '', stats.created);
    sink.value(metrics.closed, '', stats.closed);
    sink.value(metrics.failed, '', stats.failed);
    sink.value(metrics.missing, '', stats.missingCopies);
    sink.histogram(metrics.recovery, '', stats.recovery, 1_000);
    sink.value(metrics.recoveryFailures, '', stats.recoveryFailures);
    sink.value(metrics.open, '', this.#writers.size);
    for (const [id, lane] of this.#lanes) {
      const labels = labelText({ bookie: id });
      sink.value(metrics.available, labels, lane.available ? 1 : 0);
      sink.value(metrics.inFlight, labels, lane.pendingEntries);
      sink.value(metrics.lagging, labels, lane.laggingBytes);
    }
    yield;
  }
}
