import { assert } from '../lib/assert.ts';
import { type MagnetarError, toMagnetarError } from '../lib/errors.ts';
import { MessageId } from './message-id.ts';

/** Where messages were stored together, as a receipt says. */
export interface Place {
  readonly ledgerId: number;
  readonly entryId: number;
  readonly index: number;
  readonly count: number;
}

/** Messages of an outcome that follow one another and are settled together. */
export interface OutcomePart {
  readonly count: number;
  result: Place | Error | undefined;
}

/** Told what became of messages that were posted, in their order, as many at a time as were settled together. */
export interface Tally {
  stored(count: number): void;
  failed(count: number, error: MagnetarError): void;
}

/** Messages that were posted one after another with the same tally. */
interface Run {
  readonly tally: Tally;
  count: number;
}

/**
 * What becomes of messages that were gathered into one batch, and the promises of all of them.
 *
 * There is one promise with its ends, and each message's is derived from it: the callbacks run in the order in which
 * they were added, so one callback, which counts, serves all. That halves what a message keeps in memory while it is
 * under way, against a promise of its own with ends, and memory is what sending costs.
 */
export class Outcome {
  readonly #settled: Promise<void>;
  #resolve: () => void = () => {};
  #parts: OutcomePart[] = [];
  /** Parts that are not settled. */
  #open = 0;
  // The next message whose promise is settled: its part, and its place within that.
  #part = 0;
  #at = 0;
  /** The run that goes on with the next message if that is posted, too. */
  #run: Run | undefined;

  constructor() {
    this.#settled = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  /** The promise of the next message. */
  promise(): Promise<MessageId> {
    this.#run = undefined;
    return this.#settled.then(this.#next);
  }

  /** Tells the next message's fate to somebody who has made a promise of it already. */
  tell(resolve: (id: MessageId) => void, reject: (error: unknown) => void): void {
    this.#run = undefined;
    void this.#settled.then(() => {
      try {
        resolve(this.#next());
      } catch (error) {
        reject(error);
      }
    });
  }

  /** Tells a tally the next message's fate: one callback for all that follow one another. */
  tally(tally: Tally): void {
    if (this.#run?.tally === tally) {
      this.#run.count++;
      return;
    }
    const run = { tally, count: 1 };
    this.#run = run;
    void this.#settled.then(() => this.#tell(run));
  }

  #tell({ tally, count }: Run): void {
    for (let left = count; left > 0; ) {
      const part = this.#parts[this.#part];
      assert(part?.result !== undefined, 'every message of an outcome belongs to a part that is settled');
      const settled = Math.min(left, part.count - this.#at);
      left -= settled;
      this.#at += settled;
      if (this.#at === part.count) {
        this.#part++;
        this.#at = 0;
      }
      if (part.result instanceof Error) tally.failed(settled, toMagnetarError(part.result));
      else tally.stored(settled);
    }
  }

  readonly #next = (): MessageId => {
    const part = this.#parts[this.#part];
    assert(part?.result !== undefined, 'every message of an outcome belongs to a part that is settled');
    const at = this.#at++;
    if (this.#at === part.count) {
      this.#part++;
      this.#at = 0;
    }
    const { result } = part;
    if (result instanceof Error) throw result;
    // A place of another count is not that of these messages.
    if (result.count !== part.count) return MessageId.unknown;
    return new MessageId(result.ledgerId, result.entryId, at, result.index + at);
  };

  /** Says how many messages there are; they are one part. */
  close(count: number): OutcomePart {
    const part = { count, result: undefined };
    this.#parts = [part];
    this.#open = 1;
    return part;
  }

  /** Has the first `count` messages of a part settled apart from the others. */
  split(part: OutcomePart, count: number): readonly [OutcomePart, OutcomePart] {
    const [first, second] = [
      { count, result: undefined },
      { count: part.count - count, result: undefined },
    ];
    this.#parts.splice(this.#parts.indexOf(part), 1, first, second);
    this.#open++;
    return [first, second];
  }

  /** A part was stored, or was not. The promises are settled when all parts are. */
  settle(part: OutcomePart, result: Place | Error): void {
    part.result = result;
    this.#open--;
    if (this.#open === 0) this.#resolve();
  }
}
