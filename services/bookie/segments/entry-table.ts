import type { EntryId } from '../../lib/ids.ts';

const FIRST_CAPACITY = 8;
/** Offsets are multiples of this. */
export const RECORD_ALIGNMENT = 8;

/** Where the entries of one ledger are in one segment: entry id -> offset of the record, length of the payload. Sorted by id. */
export class EntryTable {
  #ids = new Float64Array(FIRST_CAPACITY);
  /** In units of the alignment. */
  #offsets = new Uint32Array(FIRST_CAPACITY);
  #lengths = new Uint32Array(FIRST_CAPACITY);
  #count = 0;

  /** How many entries. */
  get count(): number {
    return this.#count;
  }

  /** Memory that it takes, in bytes. */
  get bytes(): number {
    return 64 + this.#ids.length * 16;
  }

  /** The id at a place, from 0. */
  idAt(at: number): EntryId {
    return (this.#ids[at] ?? -1) as EntryId;
  }

  /** Offset of the record at a place. */
  offsetAt(at: number): number {
    return (this.#offsets[at] ?? 0) * RECORD_ALIGNMENT;
  }

  /** Payload length at a place. */
  lengthAt(at: number): number {
    return this.#lengths[at] ?? 0;
  }

  /** The place of the first id that is not below `id`; `count` when there is none. */
  #lowerBound(id: number): number {
    let [low, high] = [0, this.#count];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ids[middle] ?? 0) < id) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The place of an entry; -1 when it is not here. */
  find(id: EntryId): number {
    // Most tables hold consecutive ids: then the place follows from the first one.
    const guess = id - (this.#ids[0] ?? 0);
    if (guess >= 0 && guess < this.#count && this.#ids[guess] === id) return guess;
    const at = this.#lowerBound(id);
    return at < this.#count && this.#ids[at] === id ? at : -1;
  }

  /** Adds an entry; one that is there already is now at the new place. */
  put(id: EntryId, offset: number, length: number): void {
    const last = this.#count - 1;
    const at = last < 0 || id > (this.#ids[last] ?? 0) ? this.#count : this.#lowerBound(id);
    if (at === this.#count || this.#ids[at] !== id) this.#insert(at);
    this.#ids[at] = id;
    this.#offsets[at] = offset / RECORD_ALIGNMENT;
    this.#lengths[at] = length;
  }

  #insert(at: number): void {
    if (this.#count === this.#ids.length) this.#grow(this.#count * 2);
    if (at < this.#count) {
      this.#ids.copyWithin(at + 1, at, this.#count);
      this.#offsets.copyWithin(at + 1, at, this.#count);
      this.#lengths.copyWithin(at + 1, at, this.#count);
    }
    this.#count++;
  }

  #grow(capacity: number): void {
    const [ids, offsets, lengths] = [this.#ids, this.#offsets, this.#lengths];
    this.#ids = new Float64Array(capacity);
    this.#offsets = new Uint32Array(capacity);
    this.#lengths = new Uint32Array(capacity);
    this.#ids.set(ids);
    this.#offsets.set(offsets);
    this.#lengths.set(lengths);
  }

  /** A table with room for so many entries. */
  static withRoomFor(entries: number): EntryTable {
    const table = new EntryTable();
    if (entries > FIRST_CAPACITY) table.#grow(entries);
    return table;
  }
}
