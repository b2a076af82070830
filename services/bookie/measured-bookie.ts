import type { AppendEntry, Bookie, BookieId, LacResult, ReadEntries, ReadLac, StoredEntry } from '../ledger/bookie.ts';
import { type MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { Clock } from '../runtime/clock.ts';
import type { MetricSource } from '../runtime/metrics.ts';
import type { Damage } from './damage.ts';
import { BookieMetrics, type BookieStand, type BookieStats } from './metrics.ts';

/** A bookie in this process. */
export interface LocalBookie extends Bookie {
  readonly instance: Buffer;
  /** What is damaged in its segments, as far as it has been found: at the start, and by reads since. */
  readonly damage: readonly Damage[];
}

/** A bookie of this process, of which requests are counted and timed. */
export class MeasuredBookie implements LocalBookie {
  readonly id: BookieId;
  readonly instance: Buffer;
  /** What it tells about itself, also when it is closed. */
  readonly metrics: MetricSource;
  readonly #bookie: LocalBookie;
  readonly #clock: Clock;
  readonly #stats: BookieStats;

  constructor(
    bookie: LocalBookie,
    parts: { readonly clock: Clock; readonly stats: BookieStats; readonly stand: () => BookieStand },
  ) {
    const { clock, stats, stand } = parts;
    this.id = bookie.id;
    this.instance = bookie.instance;
    this.metrics = new BookieMetrics(bookie, stats, stand);
    this.#bookie = bookie;
    this.#clock = clock;
    this.#stats = stats;
  }

  get available(): boolean {
    return this.#bookie.available;
  }

  get damage(): readonly Damage[] {
    return this.#bookie.damage;
  }

  get full(): MagnetarError | undefined {
    return this.#bookie.full;
  }

  onFull(changed: () => void): () => void {
    return this.#bookie.onFull?.(changed) ?? (() => {});
  }

  append(entry: AppendEntry, done: (error?: MagnetarError) => void): void {
    const receivedAt = this.#clock.monotonic();
    this.#bookie.append(entry, (error) => {
      this.#stats.appended(entry.payloadBytes, this.#clock.monotonic() - receivedAt, error);
      done(error);
    });
  }

  async read(request: ReadEntries): Promise<readonly StoredEntry[]> {
    const receivedAt = this.#clock.monotonic();
    try {
      const entries = await this.#bookie.read(request);
      this.#stats.read(entries, this.#clock.monotonic() - receivedAt);
      return entries;
    } catch (error) {
      this.#stats.readFailed(this.#clock.monotonic() - receivedAt, toMagnetarError(error));
      throw error;
    }
  }

  async readLac(request: ReadLac): Promise<LacResult> {
    return await this.#bookie.readLac(request);
  }

  async close(): Promise<void> {
    await this.#bookie.close();
  }
}
