/**
 * Reads confirmed entries of one ledger, from one replica as long as it works, else from the next (LP-3, LP-8, LP-12).
 */
import { hasCode, MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { EntryId, LedgerId } from '../lib/ids.ts';
import type { BookieId, StoredEntry } from './bookie.ts';
import type { BookieLane } from './bookie-lane.ts';
import type { LedgerEntry, LedgerReader } from './ledgers.ts';
import { inWriteSet, runInSlot } from './protocol/distribution.ts';
import { type Fragment, fragmentOf, type LedgerMetadata } from './protocol/ledger-metadata.ts';
import { isValid } from './verify.ts';

interface ReaderOptions {
  readonly id: LedgerId;
  readonly metadata: LedgerMetadata;
  readonly lane: (id: BookieId) => BookieLane | undefined;
  readonly upTo: () => EntryId;
}

/** What is wanted: entries first to last, of at most so many bytes. */
interface Span {
  readonly first: EntryId;
  readonly last: number;
  readonly maxBytes: number;
}

/** What the copies of one entry said, those that could not give it. */
interface Tally {
  negative: number;
  damaged: number;
  unknown: number;
  last: MagnetarError | undefined;
}

export class Reader implements LedgerReader {
  readonly ledgerId: LedgerId;
  readonly #options: ReaderOptions;
  /** The bookie that answered last: the next entries lie beside those on its disk, and in its caches. */
  #favourite: BookieId | undefined;

  constructor(options: ReaderOptions) {
    this.ledgerId = options.id;
    this.#options = options;
  }

  async read(first: EntryId, limits: { maxEntries: number; maxBytes: number }): Promise<readonly LedgerEntry[]> {
    const { metadata, upTo } = this.#options;
    const end = upTo();
    if (first < 0 || limits.maxEntries < 1) {
      const message = `cannot read ${limits.maxEntries} entries from entry ${first}: both must be at least 1 and 0`;
      throw new MagnetarError('INVALID_ARGUMENT', message);
    }
    if (first > end) {
      throw new MagnetarError(
        'NO_SUCH_ENTRY',
        `ledger ${this.ledgerId} ends at entry ${end}; there is no entry ${first}`,
      );
    }
    const { fragment, last = end } = fragmentOf(metadata, first);
    const until = Math.min(last, end, first + limits.maxEntries - 1);
    const entries: LedgerEntry[] = [];
    let bytes = 0;
    for (let next: number = first; next <= until && (entries.length === 0 || bytes < limits.maxBytes); ) {
      const span = { first: next as EntryId, last: until, maxBytes: Math.max(0, limits.maxBytes - bytes) };
      // What is there already is worth more than an error about what follows: the caller asks for that again.
      const found = entries.length === 0 ? await this.#readSpan(fragment, span) : await this.#readRest(fragment, span);
      for (const { entryId, payload } of found.entries) {
        bytes += payload.length;
        if (entries.length > 0 && bytes > limits.maxBytes) return entries;
        entries.push({ entryId, payload });
      }
      if (!found.whole) break;
      next += found.entries.length;
    }
    return entries;
  }

  async #readRest(fragment: Fragment, span: Span): Promise<{ entries: readonly StoredEntry[]; whole: boolean }> {
    try {
      return await this.#readSpan(fragment, span);
    } catch (error) {
      if (hasCode(error)) return { entries: [], whole: false };
      throw error;
    }
  }

  /** Entries from the first on that one replica holds; `whole`: it gave all that it was asked for. */
  async #readSpan(fragment: Fragment, span: Span): Promise<{ entries: readonly StoredEntry[]; whole: boolean }> {
    const { quorum } = this.#options.metadata;
    const tally: Tally = { negative: 0, damaged: 0, unknown: 0, last: undefined };
    for (const slot of this.#order(fragment, span.first)) {
      const bookie = fragment.bookies[slot] as BookieId;
      const count = runInSlot(quorum, span.first, slot, span.last - span.first + 1);
      const entries = await this.#readFrom(bookie, span, count, tally);
      if (entries.length > 0) {
        this.#favourite = bookie;
        return { entries, whole: entries.length === count };
      }
      if (this.#favourite === bookie) this.#favourite = undefined;
    }
    throw this.#failed(span.first, tally);
  }

  /** Slots that hold the entry, the most promising first. */
  #order(fragment: Fragment, entry: EntryId): number[] {
    const { metadata, lane } = this.#options;
    const ranks: { slot: number; rank: number }[] = [];
    fragment.bookies.forEach((bookie, slot) => {
      if (!inWriteSet(metadata.quorum, entry, slot)) return;
      const available = lane(bookie)?.available === true;
      ranks.push({ slot, rank: available ? (bookie === this.#favourite ? 0 : 1) : 2 });
    });
    // Ledgers begin at different replicas, so that readers spread.
    const shift = this.ledgerId % fragment.bookies.length;
    const turned = (slot: number): number => (slot - shift + fragment.bookies.length) % fragment.bookies.length;
    return ranks.toSorted((a, b) => a.rank - b.rank || turned(a.slot) - turned(b.slot)).map(({ slot }) => slot);
  }

  /** Valid entries from the first on; none when the first one cannot be had here, which the tally then knows. */
  async #readFrom(bookie: BookieId, span: Span, count: number, tally: Tally): Promise<readonly StoredEntry[]> {
    const { id, lane } = this.#options;
    try {
      const reachable = lane(bookie);
      if (reachable === undefined)
        throw new MagnetarError('UNAVAILABLE', `bookie ${bookie} is not known to this process`);
      const { first, maxBytes } = span;
      const stored = await reachable.read({ ledgerId: id, firstEntryId: first, maxEntries: count, maxBytes });
      let valid = 0;
      for (const entry of stored.slice(0, count)) {
        if (!isValid(id, (first + valid) as EntryId, entry)) break;
        valid++;
      }
      if (valid > 0) return stored.slice(0, valid);
      const message = `bookie ${bookie} has a damaged copy of entry ${first} of ledger ${id}`;
      throw new MagnetarError('CHECKSUM_MISMATCH', message);
    } catch (thrown) {
      const error = toMagnetarError(thrown);
      if (hasCode(error, 'NO_SUCH_ENTRY', 'NO_SUCH_LEDGER')) tally.negative++;
      else if (hasCode(error, 'CHECKSUM_MISMATCH')) tally.damaged++;
      else tally.unknown++;
      if (!hasCode(error, 'NO_SUCH_ENTRY', 'NO_SUCH_LEDGER')) tally.last = error;
      return [];
    }
  }

  /** LP-8: absent only when every copy says so; lost only when every copy is known and none is good. */
  #failed(entry: EntryId, tally: Tally): MagnetarError {
    const where = `entry ${entry} of ledger ${this.ledgerId}`;
    const counts = `${tally.negative} copies absent, ${tally.damaged} damaged, ${tally.unknown} out of reach`;
    const options = { cause: tally.last };
    if (tally.unknown > 0) {
      const why = tally.last === undefined ? '' : `: ${tally.last.message}`;
      return new MagnetarError('UNAVAILABLE', `cannot read ${where}: ${counts}${why}`, options);
    }
    if (tally.damaged > 0) return new MagnetarError('DATA_LOSS', `${where} is lost: ${counts}`, options);
    return new MagnetarError('NO_SUCH_ENTRY', `no bookie has ${where}`);
  }
}
