/** What `magnetar inspect` finds out about a folder. */
import type { BookieReport } from '../bookie/inspect.ts';
import type { LedgerId } from '../lib/ids.ts';

/** A topic, as the metadata knows it. */
export interface InspectedTopic {
  readonly topic: string;
  /** Of its messages, and of its acknowledgments. */
  readonly ledgers: readonly LedgerId[];
  readonly ackLedgers: readonly LedgerId[];
}

/** What a folder holds. */
export interface FolderReport {
  readonly folder: string;
  /** The first line of VERSION; undefined for the folder of a bookie alone. */
  readonly version: string | undefined;
  readonly bookies: readonly BookieReport[];
  /** Undefined: there is none here. */
  readonly metadata: { readonly problem: string | undefined; readonly topics: readonly InspectedTopic[] } | undefined;
}

/** Nothing is damaged: for the exit code, and for what is printed. */
export function isHealthy({ bookies, metadata }: FolderReport): boolean {
  const whole = bookies.every(({ damages, problems }) => damages.length === 0 && problems.length === 0);
  return whole && metadata?.problem === undefined;
}
