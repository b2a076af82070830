import type { MemoryBudget } from './memory.ts';
import { gauge, labelText, type Metric, type MetricSink, type MetricSource } from './metrics.ts';

const metrics = {
  total: gauge('magnetar_memory_budget_bytes', 'Bytes that the process may have in buffers.'),
  used: gauge('magnetar_memory_used_bytes', 'Bytes of the budget that are in use, by what for.'),
  limit: gauge('magnetar_memory_limit_bytes', 'Bytes of the budget that a use can have at most.'),
  waiting: gauge('magnetar_memory_waiters', 'Who waits for bytes of the budget, by what for.'),
} as const satisfies Readonly<Record<string, Metric>>;

/** What the memory budget of a process tells. */
export class MemoryMetrics implements MetricSource {
  readonly #budget: MemoryBudget;

  constructor(budget: MemoryBudget) {
    this.#budget = budget;
  }

  *collect(sink: MetricSink): Generator<void> {
    sink.value(metrics.total, '', this.#budget.totalBytes);
    for (const { name, usedBytes, limits, waiting } of this.#budget) {
      const labels = labelText({ use: name });
      sink.value(metrics.used, labels, usedBytes);
      sink.value(metrics.limit, labels, limits.limitBytes);
      sink.value(metrics.waiting, labels, waiting);
    }
    yield;
  }
}
