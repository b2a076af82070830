/**
 * The batches of one producer that are not settled, in the order in which they must be stored.
 *
 *   oldest ── given to the stream, waiting for receipts ── | ── not given to the stream ── newest
 *
 * Invariant: receipts of a stream answer the batches given to it one by one, in order. A batch that was given up
 * (its send timed out) while its receipt is outstanding leaves its place behind, so that later receipts still find
 * theirs; it is never given to another stream, so it cannot be stored behind a later batch.
 */
import { MagnetarError } from '../../lib/errors.ts';
import type { SequenceId } from '../../lib/ids.ts';

/** What the window has to know of a batch. */
export interface Sequenced {
  readonly firstSequenceId: SequenceId;
  readonly lastSequenceId: SequenceId;
}

interface Place<B> {
  readonly lastSequenceId: SequenceId;
  /** Absent: given up. */
  batch: B | undefined;
}

const COMPACT_FROM = 64;

export class InFlight<B extends Sequenced> {
  #places: Place<B>[] = [];
  /** Places before this one are settled. */
  #head = 0;
  /** Places from the head up to this one were given to the stream. */
  #unsent = 0;
  #live = 0;

  /** How many batches are not settled. */
  get size(): number {
    return this.#live;
  }

  /** True while the stream owes receipts. */
  get awaitsReceipts(): boolean {
    return this.#unsent > this.#head;
  }

  /** How many receipts the stream owes. */
  get underWay(): number {
    return this.#unsent - this.#head;
  }

  /** The oldest batch that is not settled. */
  get oldest(): B | undefined {
    for (let i = this.#head; i < this.#places.length; i++) {
      const batch = this.#places[i]?.batch;
      if (batch !== undefined) return batch;
    }
    return undefined;
  }

  /** Puts a batch behind all others. */
  push(batch: B): void {
    this.#places.push({ lastSequenceId: batch.lastSequenceId, batch });
    this.#live++;
  }

  /** The batch to give to the stream next. */
  get next(): B | undefined {
    return this.#places[this.#unsent]?.batch;
  }

  /** Says that `next` was given to the stream. */
  sent(): void {
    this.#unsent++;
  }

  /** Takes `next` out: it is not to be given to any stream. */
  dropNext(): void {
    if (this.#places.splice(this.#unsent, 1)[0]?.batch !== undefined) this.#live--;
  }

  /**
   * A receipt came: the batch that it is for, undefined when that one was given up. It stays until `settle`.
   *
   * @throws MagnetarError PROTOCOL_VIOLATION when the receipt is for no batch, or not for the one that is due
   */
  due(lastSequenceId: SequenceId): B | undefined {
    const place = this.#head < this.#unsent ? this.#places[this.#head] : undefined;
    if (place === undefined) {
      throw new MagnetarError('PROTOCOL_VIOLATION', `a receipt for sequence id ${lastSequenceId} answers no batch`);
    }
    if (place.lastSequenceId !== lastSequenceId) {
      const text = `a receipt for sequence id ${lastSequenceId} came where ${place.lastSequenceId} was due`;
      throw new MagnetarError('PROTOCOL_VIOLATION', text);
    }
    return place.batch;
  }

  /** Takes out the batch that was due. */
  settle(): void {
    if (this.#places[this.#head++]?.batch !== undefined) this.#live--;
    this.#compact();
  }

  #compact(): void {
    if (this.#head < COMPACT_FROM || this.#head * 2 < this.#places.length) return;
    this.#places = this.#places.slice(this.#head);
    this.#unsent -= this.#head;
    this.#head = 0;
  }

  /** The stream is gone, or the producer is to be opened anew: everything that is not settled is to be given again. */
  restart(): void {
    this.#places = this.#places.slice(this.#head).filter((place) => place.batch !== undefined);
    this.#head = 0;
    this.#unsent = 0;
  }

  /** Gives everything up; returns the batches, oldest first. */
  abandon(): B[] {
    const batches: B[] = [];
    for (let i = this.#head; i < this.#places.length; i++) {
      const place = this.#places[i];
      if (place?.batch === undefined) continue;
      batches.push(place.batch);
      place.batch = undefined;
    }
    this.#places.length = this.#unsent;
    this.#live = 0;
    return batches;
  }

  /**
   * Cuts every batch that has sequence ids on both sides of `watermark` (at or below; above) in two, for which `cut` is
   * called. To be called while nothing is given to the stream, that is after `restart`.
   */
  cutAt(watermark: SequenceId, cut: (batch: B) => readonly [B, B]): void {
    for (let i = 0; i < this.#places.length; i++) {
      const batch = this.#places[i]?.batch;
      if (batch === undefined || batch.firstSequenceId > watermark || batch.lastSequenceId <= watermark) continue;
      const parts = cut(batch).map((part): Place<B> => ({ lastSequenceId: part.lastSequenceId, batch: part }));
      this.#places.splice(i, 1, ...parts);
      this.#live++;
      i++;
    }
  }
}
