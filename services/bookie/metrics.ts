/** What a bookie counts, and tells when it is scraped: BookKeeper's names where there is one. */
import type { Bookie } from '../ledger/bookie.ts';
import type { MagnetarError } from '../lib/errors.ts';
import type { Clock } from '../runtime/clock.ts';
import {
  Buckets,
  counter,
  ErrorCounts,
  gauge,
  HOW_MANY,
  labelText,
  LATENCY_MS,
  type Metric,
  type MetricSink,
  type MetricSource,
  RecentBuckets,
  SIZE_BYTES,
  untyped,
} from '../runtime/metrics.ts';

const metrics = {
  status: gauge('bookie_SERVER_STATUS', '1 while the bookie takes entries, else 0.'),
  add: { name: 'bookkeeper_server_ADD_ENTRY_REQUEST', type: 'summary', help: 'Milliseconds to store an entry.' },
  read: { name: 'bookkeeper_server_READ_ENTRY_REQUEST', type: 'summary', help: 'Milliseconds of one read of entries.' },
  writtenBytes: untyped('bookie_WRITE_BYTES', 'Bytes of entries that were stored.'),
  readBytes: untyped('bookie_READ_BYTES', 'Bytes of entries that were read.'),
  readEntries: counter('magnetar_bookie_read_entries_total', 'Entries that were read.'),
  errors: counter('magnetar_bookie_errors_total', 'What clients were refused, by operation and error code.'),
  sync: {
    name: 'bookie_journal_JOURNAL_SYNC',
    type: 'summary',
    help: 'Milliseconds that one commit of the log took: write and sync.',
  },
  queue: gauge('bookie_journal_JOURNAL_QUEUE_SIZE', 'Entries that wait for the disk.'),
  queueBytes: gauge('magnetar_bookie_pending_bytes', 'Bytes of entries that wait for the disk.'),
  groupEntries: { name: 'magnetar_bookie_group_entries', type: 'histogram', help: 'Entries of one commit group.' },
  groupBytes: {
    name: 'magnetar_bookie_group_size_bytes',
    type: 'histogram',
    help: 'Bytes of one commit group on disk.',
  },
  ledgers: untyped('bookie_ledgers_count', 'Ledgers that the bookie has entries or fences of.'),
  entries: untyped('bookie_entries_count', 'Entries that the bookie has; again for what recovery has written again.'),
  writable: gauge('bookie_ledger_writable_dirs', '1 while there is room on the disk for entries, else 0.'),
  usage: gauge('bookie_ledger_dir_usage', 'How full the disk is that the bookie is on, in percent.'),
  free: gauge('magnetar_bookie_disk_free_bytes', 'Bytes that are free on the disk that the bookie is on.'),
  limbo: gauge(
    'magnetar_bookie_limbo',
    '1 when records were lost, so that the bookie cannot say of every ledger what it never had; else 0.',
  ),
} as const satisfies Readonly<Record<string, Metric>>;

const SUCCESS = labelText({ success: 'true' });
const FAILURE = labelText({ success: 'false' });

/** What a bookie counts from its start on. */
export class BookieStats {
  /** Latencies in ms. */
  readonly #added: RecentBuckets;
  readonly #addFailed: RecentBuckets;
  readonly #read: RecentBuckets;
  readonly #readFailed: RecentBuckets;
  readonly #syncs: RecentBuckets;
  readonly #groupEntries = new Buckets(HOW_MANY);
  readonly #groupBytes = new Buckets(SIZE_BYTES);
  readonly #errors = new ErrorCounts();
  #writtenBytes = 0;
  #readEntries = 0;
  #readBytes = 0;

  constructor(clock: Clock) {
    const latency = (): RecentBuckets => new RecentBuckets(LATENCY_MS, clock.monotonic());
    this.#added = latency();
    this.#addFailed = latency();
    this.#read = latency();
    this.#readFailed = latency();
    this.#syncs = latency();
  }

  /** An entry was answered, so many ms after it had come. */
  appended(bytes: number, ms: number, error: MagnetarError | undefined): void {
    if (error === undefined) {
      this.#added.observe(ms);
      this.#writtenBytes += bytes;
    } else {
      this.#addFailed.observe(ms);
      this.#errors.add('append', error.code);
    }
  }

  read(entries: readonly { readonly payload: Buffer }[], ms: number): void {
    this.#read.observe(ms);
    this.#readEntries += entries.length;
    for (const { payload } of entries) this.#readBytes += payload.length;
  }

  readFailed(ms: number, error: MagnetarError): void {
    this.#readFailed.observe(ms);
    this.#errors.add('read', error.code);
  }

  /** A commit group is durable. */
  group(entries: number, bytes: number, ms: number): void {
    this.#groupEntries.observe(entries);
    this.#groupBytes.observe(bytes);
    this.#syncs.observe(ms);
  }

  collect(sink: MetricSink, bookie: string): void {
    sink.summary(metrics.add, `${bookie},${SUCCESS}`, this.#added);
    sink.summary(metrics.add, `${bookie},${FAILURE}`, this.#addFailed);
    sink.summary(metrics.read, `${bookie},${SUCCESS}`, this.#read);
    sink.summary(metrics.read, `${bookie},${FAILURE}`, this.#readFailed);
    sink.value(metrics.writtenBytes, bookie, this.#writtenBytes);
    sink.value(metrics.readBytes, bookie, this.#readBytes);
    sink.value(metrics.readEntries, bookie, this.#readEntries);
    this.#errors.collect(sink, metrics.errors, bookie);
    sink.summary(metrics.sync, `${bookie},${SUCCESS}`, this.#syncs);
    sink.histogram(metrics.groupEntries, bookie, this.#groupEntries);
    sink.histogram(metrics.groupBytes, bookie, this.#groupBytes);
  }
}

/** How a bookie stands. */
export interface BookieStand {
  readonly ledgers: number;
  readonly entries: number;
  /** Of the disk that its folder is on; 0 when that is not known. */
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly pendingEntries: number;
  readonly pendingBytes: number;
  readonly limbo: boolean;
}

type Observed = Pick<Bookie, 'id' | 'available' | 'full'>;

export class BookieMetrics implements MetricSource {
  readonly #labels: string;
  readonly #stats: BookieStats;
  readonly #bookie: Observed;
  readonly #stand: () => BookieStand;

  constructor(bookie: Observed, stats: BookieStats, stand: () => BookieStand) {
    this.#bookie = bookie;
    this.#labels = labelText({ bookie: bookie.id });
    this.#stats = stats;
    this.#stand = stand;
  }

  *collect(sink: MetricSink): Generator<void> {
    const { ledgers, entries, pendingEntries, pendingBytes, limbo, totalBytes, freeBytes } = this.#stand();
    sink.value(metrics.status, this.#labels, this.#bookie.available ? 1 : 0);
    sink.value(metrics.writable, this.#labels, this.#bookie.full === undefined ? 1 : 0);
    sink.value(metrics.free, this.#labels, freeBytes);
    sink.value(metrics.usage, this.#labels, totalBytes === 0 ? 0 : (1 - freeBytes / totalBytes) * 100);
    sink.value(metrics.ledgers, this.#labels, ledgers);
    sink.value(metrics.entries, this.#labels, entries);
    sink.value(metrics.queue, this.#labels, pendingEntries);
    sink.value(metrics.queueBytes, this.#labels, pendingBytes);
    sink.value(metrics.limbo, this.#labels, limbo ? 1 : 0);
    this.#stats.collect(sink, this.#labels);
    yield;
  }
}
