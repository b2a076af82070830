import { NO_ENTRY } from '../../lib/ids.ts';
import { decodeDamages, type SegmentDamage } from '../damage.ts';
import { decodeLedgerRow, decodeSegmentRow, openedRow, parseKey, type SegmentRow } from './rows.ts';
import type { IndexRow, IndexStore } from './store.ts';

/** How much an index knows of. */
interface IndexSize {
  readonly ledgers: number;
  /** From the first to the last of each ledger in each segment: exact where the bookie has all of them. */
  readonly entries: number;
}

const EMPTY: IndexSize = { ledgers: 0, entries: 0 };

/** What a whole index says of segments. */
export interface IndexContent {
  readonly size: IndexSize;
  readonly segments: ReadonlyMap<number, SegmentRow>;
  /** Per segment. */
  readonly damages: ReadonlyMap<number, readonly SegmentDamage[]>;
  /** What is wrong with it; undefined: nothing. */
  readonly defect: string | undefined;
}

interface Counts {
  entries: number;
  ledgers: number;
}

class Check {
  readonly segments = new Map<number, SegmentRow>();
  readonly #counts = new Map<number, Counts>();
  #ledgers = 0;
  #entries = 0;
  readonly #damages = new Map<number, readonly SegmentDamage[]>();
  #defect: string | undefined;

  take({ key, value: sealed }: IndexRow): void {
    try {
      const parsed = parseKey(key);
      const value = openedRow(key, sealed);
      const [first = 0, second = 0] = parsed?.ids ?? [];
      if (parsed?.kind === 'damage') this.#damages.set(first, decodeDamages(value));
      else if (parsed?.kind === 'segment') this.segments.set(first, decodeSegmentRow(value));
      else if (parsed?.kind === 'entries') this.#count(second).entries++;
      else if (parsed?.kind === 'ledger') {
        this.#ledgers++;
        for (const { segment, first: from, last } of decodeLedgerRow(value).segments) {
          this.#count(segment).ledgers++;
          if (last !== NO_ENTRY) this.#entries += last - from + 1;
        }
      } else this.#defect = `row ${key.toString('hex')} is none of the index's`;
    } catch (error) {
      this.#defect = error instanceof Error ? error.message : String(error);
    }
  }

  #count(segment: number): Counts {
    const counts = this.#counts.get(segment) ?? { entries: 0, ledgers: 0 };
    this.#counts.set(segment, counts);
    return counts;
  }

  result(): IndexContent {
    for (const [id, row] of this.segments) {
      const { entries, ledgers } = this.#count(id);
      if (row.sealed && (entries !== row.ledgers || ledgers !== row.ledgers)) {
        this.#defect ??= `segment ${id} has ${row.ledgers} ledgers, the index holds ${entries} and ${ledgers} rows of them`;
      }
    }
    const size = { ledgers: this.#ledgers, entries: this.#entries };
    return { size, segments: this.segments, damages: this.#damages, defect: this.#defect };
  }
}

/** Reads all of an index, and counts: rows that `level` lost without saying so are missed here. */
export async function checkIndex(index: IndexStore): Promise<IndexContent> {
  const check = new Check();
  try {
    for await (const row of index.rows()) check.take(row);
  } catch (error) {
    const defect = `it cannot be read: ${error instanceof Error ? error.message : String(error)}`;
    return { size: EMPTY, segments: new Map(), damages: new Map(), defect };
  }
  return check.result();
}
