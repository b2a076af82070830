/**
 * Reads confirmed entries of one ledger, from one replica as long as it works, else from the next (LP-3, LP-8, LP-12, LP-31).
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
  /** It is there and damaged, or the bookie is in limbo: it has answered, and this copy is gone. */
  gone: number;
  unreachable: number;
  last: MagnetarError | undefined;
}

function newTally(): Tally {
  return { negative: 0, gone: 0, unreachable: 0, last: undefined };
}

/** So many entries behind a lost one are looked at in one go, and so many of them at the same time. */
const MOST_PROBES = 8_192;
const PROBES_AT_ONCE = 16;

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
      const tally = newTally();
      const found = await this.#readSpan(fragment, span, tally);
      if (found === undefined && entries.length === 0) {
        if (tally.unreachable > 0) throw this.#unreadable(first, tally);
        throw this.#lost(first, tally);
      }
      // What is there already is worth more than an error about what follows: the caller asks for that again.
      if (found === undefined) break;
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

  /**
   * Entries from the first on that one replica holds; `whole`: it gave all that it was asked for. Undefined: none has the first
   * one; the tally knows why.
   */
  async #readSpan(
    fragment: Fragment,
    span: Span,
    tally: Tally,
  ): Promise<{ entries: readonly StoredEntry[]; whole: boolean } | undefined> {
    const { quorum } = this.#options.metadata;
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
    return undefined;
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
      else if (hasCode(error, 'CHECKSUM_MISMATCH', 'ENTRY_UNKNOWN')) tally.gone++;
      else tally.unreachable++;
      if (!hasCode(error, 'NO_SUCH_ENTRY', 'NO_SUCH_LEDGER')) tally.last = error;
      return [];
    }
  }

  /** LP-8: a copy that nobody could ask may be good. */
  #unreadable(entry: EntryId, tally: Tally): MagnetarError {
    const where = `entry ${entry} of ledger ${this.ledgerId}`;
    const why = tally.last === undefined ? '' : `: ${tally.last.message}`;
    return new MagnetarError('UNAVAILABLE', `cannot read ${where}: ${countsOf(tally)}${why}`, { cause: tally.last });
  }

  /** LP-31: every copy was asked for, and none is good. */
  #lost(entry: EntryId, tally: Tally): MagnetarError {
    const why = tally.last === undefined ? '' : `: ${tally.last.message}`;
    const details = { ...tally.last?.details, ledgerId: String(this.ledgerId), entryId: String(entry) };
    const text = `entry ${entry} of ledger ${this.ledgerId} is lost: ${countsOf(tally)}${why}`;
    return new MagnetarError('DATA_LOSS', text, { details, cause: tally.last });
  }

  async lostUpTo(first: EntryId): Promise<EntryId> {
    const { metadata, upTo } = this.#options;
    const { fragment, last = upTo() } = fragmentOf(metadata, first);
    const limit = Math.min(last, upTo(), first + MOST_PROBES);
    let end: number = first;
    // Never asks for many that turn out to be good.
    for (let width = 1; end < limit; width = Math.min(2 * width, PROBES_AT_ONCE)) {
      const wanted = Array.from({ length: Math.min(width, limit - end) }, (_, i) => end + 1 + i);
      const lost = await Promise.all(wanted.map(async (entry) => this.#isLost(fragment, entry as EntryId)));
      const good = lost.indexOf(false);
      if (good >= 0) return (end + good) as EntryId;
      end += lost.length;
    }
    return end as EntryId;
  }

  async #isLost(fragment: Fragment, entry: EntryId): Promise<boolean> {
    const tally = newTally();
    const found = await this.#readSpan(fragment, { first: entry, last: entry, maxBytes: 1 }, tally);
    return found === undefined && tally.unreachable === 0;
  }
}

function countsOf({ negative, gone, unreachable }: Tally): string {
  return `${negative} copies are absent, ${gone} damaged, ${unreachable} out of reach`;
}
