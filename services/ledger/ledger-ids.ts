/**
 * New ledger ids. They are taken from the metadata store's counter in blocks, and a block is used only while it is the newest
 * one: whoever creates a ledger compares the counter's revision. So of two ledgers, the one created later has the higher
 * id, whichever processes created them, and creating one mostly takes one transaction.
 */
import { MagnetarError } from '../lib/errors.ts';
import { type LedgerId, ledgerId } from '../lib/ids.ts';
import { keys } from '../metadata/keys.ts';
import type { Compare, MetadataStore } from '../metadata/store.ts';
import { ledgerCounter } from '../wire/records.ts';

const BLOCK = 64;
const ATTEMPTS = 16;

/** An id, and the condition under which it may be used. */
export interface TakenId {
  readonly id: LedgerId;
  readonly compare: Compare;
}

interface Block {
  next: number;
  readonly end: number;
  readonly revision: number;
}

export class LedgerIds {
  readonly #store: MetadataStore;
  #block: Block | undefined;
  #taking: Promise<Block> | undefined;

  constructor(store: MetadataStore) {
    this.#store = store;
  }

  /** The next id. An id that is not used is lost. @throws UNAVAILABLE, METADATA_CONFLICT, METADATA_DAMAGED */
  async take(): Promise<TakenId> {
    let block = this.#block;
    while (block === undefined || block.next >= block.end) {
      this.#taking ??= this.#takeBlock().finally(() => {
        this.#taking = undefined;
      });
      await this.#taking;
      block = this.#block;
    }
    return { id: ledgerId(block.next++), compare: { key: keys.nextLedgerId, modRevision: block.revision } };
  }

  /** Another process has taken a newer block: an id of the present one would come late. */
  overtaken(taken: TakenId): void {
    if (
      this.#block !== undefined &&
      'modRevision' in taken.compare &&
      this.#block.revision === taken.compare.modRevision
    ) {
      this.#block = undefined;
    }
  }

  async #takeBlock(): Promise<Block> {
    const key = keys.nextLedgerId;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const { items } = await this.#store.get([key]);
      const next = items[0] === undefined ? 0 : ledgerCounter.decode(items[0].value).next;
      const result = await this.#store.transact(
        [{ key, modRevision: items[0]?.modRevision ?? 0 }],
        [{ put: key, value: ledgerCounter.encode({ next: ledgerId(next + BLOCK) }) }],
      );
      if (!result.committed) continue;
      this.#block = { next, end: next + BLOCK, revision: result.revision };
      return this.#block;
    }
    throw new MagnetarError(
      'METADATA_CONFLICT',
      `no ledger id in ${ATTEMPTS} tries: others take them at the same time`,
    );
  }
}
