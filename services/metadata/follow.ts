import { MagnetarError } from '../lib/errors.ts';
import type { Revision } from '../lib/ids.ts';
import type { Clock } from '../runtime/clock.ts';
import type { WatchBatch, WatchEvent } from './store.ts';
import { eventKey } from './transaction.ts';

/** So many revisions are looked at in one turn of the event loop when nothing in them is wanted. */
const REVISIONS_PER_TURN = 256;

/** The past that a store remembers, for its watches. */
export interface History {
  /** The first revision that it remembers. */
  readonly floor: number;
  /** The newest durable revision. */
  readonly newest: number;
  /** What a revision between them changed. */
  changes(revision: number): readonly WatchEvent[];
}

/** Watches that wait for the next revision. */
export class Followers {
  readonly #wakers = new Set<() => void>();

  /** Wakes all: there are new revisions, or the store has ended. */
  wake(): void {
    const wakers = [...this.#wakers];
    this.#wakers.clear();
    for (const waker of wakers) waker();
  }

  /** Resolves at the next `wake`, or when the signal aborts. */
  async wait(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const waker = (): void => {
        signal.removeEventListener('abort', waker);
        this.#wakers.delete(waker);
        resolve();
      };
      this.#wakers.add(waker);
      signal.addEventListener('abort', waker, { once: true });
    });
  }
}

/** What `follow` needs. `check` throws when the store has ended. */
export interface FollowOptions {
  readonly history: History;
  readonly followers: Followers;
  readonly clock: Clock;
  readonly check: () => void;
  readonly prefix: string;
  readonly from: number;
  readonly signal: AbortSignal;
}

/**
 * The changes under a prefix, from a revision on. A watch is a place in the history and holds no buffer: a slow reader
 * costs nothing, and fails with METADATA_COMPACTED when the history has been cut behind it.
 */
export async function* follow(options: FollowOptions): AsyncGenerator<WatchBatch, void, undefined> {
  const { history, followers, clock, check, prefix, signal } = options;
  let next = Math.max(1, options.from);
  let looked = 0;
  while (!signal.aborted) {
    check();
    if (next < history.floor) {
      throw new MagnetarError('METADATA_COMPACTED', `revision ${next} is gone: the history begins at ${history.floor}`);
    }
    if (next > history.newest) {
      await followers.wait(signal);
      looked = 0;
    } else if (looked++ >= REVISIONS_PER_TURN) {
      await new Promise<void>((resolve) => clock.nextTurn(resolve));
      looked = 0;
    } else {
      const events = history.changes(next).filter((event) => eventKey(event).startsWith(prefix));
      const revision = next++ as Revision;
      if (events.length > 0) yield { revision, events };
    }
  }
}
