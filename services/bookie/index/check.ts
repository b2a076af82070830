import { NO_ENTRY } from '../../lib/ids.ts';
import {
  bookieKey,
  decodeBookieRow,
  decodeLedgerRow,
  decodeSegmentRow,
  openedRow,
  parseKey,
  type SegmentRow,
} from './rows.ts';
import type { IndexRow, IndexStore } from './store.ts';

/** How much an index knows of. */
interface IndexSize {
  readonly ledgers: number;
  /** From the first to the last of each ledger in each segment: exact where the bookie has all of them. */
  readonly entries: number;
}

const EMPTY: IndexSize = { ledgers: 0, entries: 0 };

/** What a whole index says of segments and bookie. */
export interface IndexContent {
  readonly size: IndexSize;
  readonly segments: ReadonlyMap<number, SegmentRow>;
  readonly limboUpTo: number;
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
  #limboUpTo = -1;
  #defect: string | undefined;

  take({ key, value: sealed }: IndexRow): void {
    try {
      const parsed = parseKey(key);
      const value = openedRow(key, sealed);
      const [first = 0, second = 0] = parsed?.ids ?? [];
      if (parsed?.kind === 'bookie') this.#limboUpTo = decodeBookieRow(value);
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
    return { size, segments: this.segments, limboUpTo: this.#limboUpTo, defect: this.#defect };
  }
}

/** Reads all of an index, and counts: rows that `level` lost without saying so are missed here. */
export async function checkIndex(index: IndexStore): Promise<IndexContent> {
  const check = new Check();
  try {
    for await (const row of index.rows()) check.take(row);
  } catch (error) {
    const defect = `it cannot be read: ${error instanceof Error ? error.message : String(error)}`;
    return { size: EMPTY, segments: new Map(), limboUpTo: readLimbo(index), defect };
  }
  return check.result();
}

function readLimbo(index: IndexStore): number {
  try {
    const sealed = index.get(bookieKey());
    return sealed === undefined ? -1 : decodeBookieRow(openedRow(bookieKey(), sealed));
  } catch {
    return -1;
  }
}
