/**
 * Which folder stands behind a bookie's name, as the cluster knows it (LP-27). A bookie whose folder was emptied denies what it
 * had stored, which would count as proof that it was never stored; and one bookie under two names would count for two copies.
 */
import { MagnetarError } from '../lib/errors.ts';
import { keys } from '../metadata/keys.ts';
import type { KeyValue, MetadataStore } from '../metadata/store.ts';
import { bookieCookie } from '../wire/records.ts';
import type { BookieId } from './bookie.ts';

const INSTANCE_BYTES = 16;

export class BookieIdentities {
  readonly #store: MetadataStore;
  /** One check at a time: two names of one bookie are told apart from two bookies only then. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(store: MetadataStore) {
    this.#store = store;
  }

  /**
   * Writes a bookie's instance id down when it is seen for the first time; from then on it has to be the same.
   *
   * @throws DATA_LOSS for another one than before, or none; INVALID_ARGUMENT for one that is known under another name; what
   * the store throws.
   */
  async check(id: BookieId, instance: Buffer | undefined): Promise<void> {
    const run = this.#last.then(async () => this.#check(id, instance));
    this.#last = run.catch(() => undefined);
    await run;
  }

  async #check(id: BookieId, instance: Buffer | undefined): Promise<void> {
    const key = keys.bookieCookie(id);
    const { items } = await this.#store.get([key]);
    const [known] = items;
    if (known !== undefined) {
      if (instance !== undefined && bookieCookie.decode(known.value).instance.equals(instance)) return;
      const text = `bookie ${id} is not the one that the cluster knows by this name: its folder was emptied or replaced`;
      throw new MagnetarError('DATA_LOSS', `${text}; bring the folder back, or start the new one under another name`);
    }
    if (instance?.length !== INSTANCE_BYTES) {
      throw new MagnetarError('DATA_LOSS', `bookie ${id} does not say which folder it has, as this version asks it to`);
    }
    const other = await this.#nameOf(instance);
    if (other !== undefined) {
      throw new MagnetarError('INVALID_ARGUMENT', `bookie ${id} is the one that the cluster knows as ${other}`);
    }
    const result = await this.#store.transact(
      [{ key, modRevision: 0 }],
      [{ put: key, value: bookieCookie.encode({ instance }) }],
    );
    if (!result.committed) await this.#check(id, instance);
  }

  /** The names that the cluster knows. */
  async names(): Promise<BookieId[]> {
    const names: BookieId[] = [];
    for await (const { key } of this.#known()) names.push(key.slice(keys.bookieCookies.length));
    return names;
  }

  async #nameOf(instance: Buffer): Promise<BookieId | undefined> {
    for await (const item of this.#known()) {
      if (bookieCookie.decode(item.value).instance.equals(instance)) return item.key.slice(keys.bookieCookies.length);
    }
    return undefined;
  }

  async *#known(): AsyncGenerator<KeyValue, void, undefined> {
    const prefix = keys.bookieCookies;
    for (let after: string | undefined; ; ) {
      const { items, more } = await this.#store.range({ prefix, ...(after === undefined ? {} : { after }) });
      yield* items;
      if (!more) return;
      after = items.at(-1)?.key;
    }
  }
}
