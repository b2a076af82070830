/**
 * Which folder stands behind a bookie's name, as the cluster knows it (LP-27). A bookie whose folder was emptied denies what it
 * had stored, which would count as proof that it was never stored; and one bookie under two names would count for two copies.
 */
import { ProtoReader, ProtoWriter } from '../lib/bytes.ts';
import { MagnetarError } from '../lib/errors.ts';
import { keys } from '../metadata/keys.ts';
import type { KeyValue, MetadataStore } from '../metadata/store.ts';
import type { BookieId } from './bookie.ts';

const FORMAT = 1;
const INSTANCE_BYTES = 16;

/** What stands under `bookies/cookies/ID`: 1 format version, 2 instance id. */
function encode(instance: Buffer): Buffer {
  const writer = new ProtoWriter(32);
  writer.varint(1, FORMAT);
  writer.bytes(2, instance);
  return writer.finish();
}

function decode({ key, value }: KeyValue): Buffer {
  const reader = new ProtoReader(value);
  let [format, instance] = [0, Buffer.alloc(0)];
  while (reader.next()) {
    if (reader.field === 1) format = reader.varint();
    else if (reader.field === 2) instance = Buffer.from(reader.bytes());
    else reader.skip();
  }
  if (format === FORMAT) return instance;
  throw new MagnetarError('UNSUPPORTED', `${key} has format ${format}; this version knows format ${FORMAT}`);
}

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
      if (instance !== undefined && decode(known).equals(instance)) return;
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
    const result = await this.#store.transact([{ key, modRevision: 0 }], [{ put: key, value: encode(instance) }]);
    if (!result.committed) await this.#check(id, instance);
  }

  async #nameOf(instance: Buffer): Promise<BookieId | undefined> {
    const prefix = keys.bookieCookies;
    for (let after: string | undefined; ; ) {
      const { items, more } = await this.#store.range({ prefix, ...(after === undefined ? {} : { after }) });
      const found = items.find((item) => decode(item).equals(instance));
      if (found !== undefined) return found.key.slice(prefix.length);
      if (!more) return undefined;
      after = items.at(-1)?.key;
    }
  }
}
