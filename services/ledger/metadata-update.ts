/**
 * Ledger metadata in the metadata store: read, decide, transform, compare-and-set (LP-1).
 */
import { MagnetarError } from '../lib/errors.ts';
import type { LedgerId } from '../lib/ids.ts';
import { keys } from '../metadata/keys.ts';
import type { MetadataStore } from '../metadata/store.ts';
import type { LedgerMetadata, Transition } from './protocol/ledger-metadata.ts';
import { decodeMetadata, encodeMetadata } from './records.ts';

/** So many conflicts in a row mean that something is wrong: a ledger has few clients, and each changes it seldom. */
const ATTEMPTS = 16;

/** Changes ledgers' metadata. */
export class LedgerUpdater {
  readonly #store: MetadataStore;

  constructor(store: MetadataStore) {
    this.#store = store;
  }

  /** @throws NO_SUCH_LEDGER, UNAVAILABLE, METADATA_DAMAGED */
  async read(id: LedgerId): Promise<LedgerMetadata> {
    return (await this.#read(id)).metadata;
  }

  /**
   * Applies a change; resolves with the metadata as it then is, changed or not.
   * @throws what the transition throws, NO_SUCH_LEDGER, METADATA_CONFLICT (too many conflicts), UNAVAILABLE (it may have happened)
   */
  async update(id: LedgerId, transition: Transition): Promise<LedgerMetadata> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const { metadata, modRevision } = await this.#read(id);
      const next = transition(metadata);
      if (next === undefined) return metadata;
      const key = keys.ledger(id);
      const result = await this.#store.transact([{ key, modRevision }], [{ put: key, value: encodeMetadata(next) }]);
      if (result.committed) return next;
    }
    throw new MagnetarError(
      'METADATA_CONFLICT',
      `ledger ${id} was changed ${ATTEMPTS} times while it was to be changed`,
    );
  }

  async #read(id: LedgerId): Promise<{ metadata: LedgerMetadata; modRevision: number }> {
    const { items } = await this.#store.get([keys.ledger(id)]);
    const item = items[0];
    if (item === undefined) throw new MagnetarError('NO_SUCH_LEDGER', `there is no ledger ${id}`);
    return { metadata: decodeMetadata(item.value), modRevision: item.modRevision };
  }
}
