/** What any process of Node tells: CPU, memory, garbage collection, under the names that dashboards for Node know. */
import { readdir } from 'node:fs/promises';
import { PerformanceObserver } from 'node:perf_hooks';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/** Upper bounds in seconds. */
const GC_BOUNDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1];
const GC_KINDS: Readonly<Record<number, string>> = { 1: 'minor', 4: 'major', 8: 'incremental', 16: 'weakcb' };

export interface ProcessMetrics {
  /** In Prometheus' text format. */
  text(): Promise<string>;
  close(): void;
}

/** Begins to watch the garbage collector; the rest is looked at when it is asked for. */
export function processMetrics(): ProcessMetrics {
  const registry = new Registry();
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number | Promise<number>): void => {
    const made: Gauge = new Gauge({ name, help, registers, collect: async () => made.set(await read()) });
  };
  const counter = (name: string, help: string, read: () => number): void => {
    const made: Counter = new Counter({
      name,
      help,
      registers,
      collect() {
        made.reset();
        made.inc(read());
      },
    });
  };
  const startedAt = Math.round((Date.now() - performance.now()) / 1_000);
  gauge('process_start_time_seconds', 'Start of the process, in seconds since 1970.', () => startedAt);
  counter('process_cpu_user_seconds_total', 'CPU time in user mode.', () => process.cpuUsage().user / 1e6);
  counter('process_cpu_system_seconds_total', 'CPU time in the kernel.', () => process.cpuUsage().system / 1e6);
  counter('process_cpu_seconds_total', 'CPU time in all.', () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  gauge('process_resident_memory_bytes', 'Memory that the process has in RAM.', () => process.memoryUsage.rss());
  gauge('process_open_fds', 'Open file descriptors.', openFiles);
  gauge('nodejs_heap_size_total_bytes', 'Size of the heap.', () => process.memoryUsage().heapTotal);
  gauge('nodejs_heap_size_used_bytes', 'What of the heap is in use.', () => process.memoryUsage().heapUsed);
  gauge('nodejs_external_memory_bytes', 'Memory outside of the heap, buffers included.', () => {
    return process.memoryUsage().external;
  });
  counter('nodejs_eventloop_active_seconds_total', 'Time in which the event loop had something to do.', () => {
    return performance.eventLoopUtilization().active / 1_000;
  });
  const observer = watchGc(registers);
  return { text: async () => await registry.metrics(), close: () => observer.disconnect() };
}

function watchGc(registers: Registry[]): PerformanceObserver {
  const collections = new Histogram({
    name: 'nodejs_gc_duration_seconds',
    help: 'Garbage collections, by kind.',
    labelNames: ['kind'],
    buckets: GC_BOUNDS,
    registers,
  });
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const { detail, duration } = entry as { detail?: { kind?: number }; duration: number };
      collections.observe({ kind: GC_KINDS[detail?.kind ?? 0] ?? 'other' }, duration / 1_000);
    }
  });
  observer.observe({ entryTypes: ['gc'] });
  return observer;
}

/** NaN where the platform does not tell. */
async function openFiles(): Promise<number> {
  try {
    return (await readdir('/proc/self/fd')).length;
  } catch {
    return Number.NaN;
  }
}
