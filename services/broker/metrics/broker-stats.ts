import type { Clock } from '../../runtime/clock.ts';
import { Buckets, ErrorCounts, LATENCY_MS, RecentBuckets } from '../../runtime/metrics.ts';
import type { TopicName } from '../protocol/topic-name.ts';
import { NamespaceTraffic, Traffic } from './traffic.ts';

/** What a broker counts, from its start on. Whoever does something adds to it; the broker's metrics tell of it. */
export class BrokerStats {
  /** By name, as "tenant/namespace": all that had an open topic since the start. */
  readonly namespaces: Map<string, NamespaceTraffic> = new Map();
  /** From the moment when a batch was read from its stream to its receipt, in ms. */
  readonly publishLatency: Buckets = new Buckets(LATENCY_MS);
  /** How long topics took to open, recovery included, in ms. */
  readonly topicOpening: RecentBuckets;
  topicOpenFailures = 0;
  /** Topics that ended other than by being closed: a ledger or the lease was lost. */
  topicsFailed = 0;
  /** What clients were told: per operation and error code. */
  readonly errors: ErrorCounts = new ErrorCounts();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.topicOpening = new RecentBuckets(LATENCY_MS, clock.monotonic());
  }

  /** Counting for a topic that is being opened. */
  topic({ tenant, namespace }: TopicName): Traffic {
    const now = this.#clock.monotonic();
    const name = `${tenant}/${namespace}`;
    let all = this.namespaces.get(name);
    if (all === undefined) {
      all = new NamespaceTraffic(now);
      this.namespaces.set(name, all);
    }
    return new Traffic(now, all);
  }
}
