/**
 * A topic's record in the metadata, as its owner changes it.
 *
 * Every transaction compares the owner key and the record's version (LP-22): whoever is no longer the owner, or works
 * from an old record, changes nothing and learns it. One change runs at a time.
 */
import type { LedgerId, Revision } from '../../lib/ids.ts';
import { MagnetarError } from '../../lib/errors.ts';
import type { Ledgers, LedgerWriter } from '../../ledger/ledgers.ts';
import type { Compare, KeyValue, MetadataStore, Write } from '../../metadata/store.ts';
import type { Clock } from '../../runtime/clock.ts';
import { type TopicLedger, type TopicRecord, topicLedgerChunk, topicRecord } from '../../wire/records.ts';
import type { Ownership } from '../ownership/ownership.ts';
import type { TopicName } from '../protocol/topic-name.ts';
import {
  chunkKey,
  decodeTopicRecord,
  deleteTopicRecord,
  deletingKey,
  finishDeletion,
  isOwner,
  topicKey,
  topicNotFound,
} from './topic-deletion.ts';

/** The record of one open topic. */
export interface TopicRecordHandle {
  /** The record as it was last read or written by this handle. */
  readonly record: TopicRecord;
  /** The ledgers that had been moved to chunks when the topic was opened, oldest first. */
  readonly olderLedgers: readonly TopicLedger[];
  /**
   * Writes what `transform` makes of the record, together with `extraWrites`, in one transaction.
   * @throws NOT_OWNER when somebody else owns the topic or has changed the record: the topic must be unloaded; UNAVAILABLE and
   * DEADLINE_EXCEEDED when it is unknown whether it happened: it may be called again.
   */
  change(transform: (record: TopicRecord) => TopicRecord, extraWrites?: readonly Write[]): Promise<void>;
  /**
   * Creates a ledger that appears in the metadata together with the record that lists it.
   * @throws what `change` does, and NOT_ENOUGH_BOOKIES.
   */
  createLedger(link: (record: TopicRecord, id: LedgerId) => TopicRecord): Promise<LedgerWriter>;
  /**
   * Deletes the topic: once it resolves, every change fails with TOPIC_NOT_FOUND.
   * @throws what `deleteTopicRecord` does; then the topic is as it was, or it is unknown whether it is.
   */
  delete(): Promise<void>;
}

export interface TopicRecordOptions {
  readonly store: MetadataStore;
  readonly ledgers: Ledgers;
  readonly ownership: Ownership;
  readonly clock: Clock;
  readonly name: TopicName;
  /** Ledgers that the record lists at most; older ones move into chunks. */
  readonly maxListedLedgers: number;
  /** What has to hold for a topic to be made: its namespace is there. */
  readonly namespace: Compare;
}

/** Chunks that are read in one go: their values together stay far below what a store answers at once. */
const CHUNKS_PER_READ: number = 16;

/** A write of the record whose outcome is not known. */
interface Attempt {
  readonly record: TopicRecord;
  readonly value: Buffer;
  /** It linked a ledger whose writer got lost with the answer. */
  readonly createdLedger: boolean;
}

class RecordHandle implements TopicRecordHandle {
  record: TopicRecord;
  readonly olderLedgers: readonly TopicLedger[];
  readonly #options: TopicRecordOptions;
  readonly #key: string;
  #value: Buffer;
  /** The version to compare; not known after a write whose answer did not carry it. */
  #modRevision: Revision | undefined;
  #attempt: Attempt | undefined;
  #failure: MagnetarError | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: TopicRecordOptions, item: KeyValue, record: TopicRecord, older: readonly TopicLedger[]) {
    this.#options = options;
    this.#key = item.key;
    this.#value = item.value;
    this.#modRevision = item.modRevision;
    this.record = record;
    this.olderLedgers = older;
  }

  async change(transform: (record: TopicRecord) => TopicRecord, extraWrites: readonly Write[] = []): Promise<void> {
    return this.#inTurn(async () => {
      const version = await this.#version();
      const { attempt, writes } = this.#prepare(transform(this.record), false);
      let result;
      try {
        result = await this.#options.store.transact(this.#compares(version), [...writes, ...extraWrites]);
      } catch (error) {
        this.#forgetVersion(attempt);
        throw error;
      }
      if (!result.committed) throw this.#fence(result.current);
      this.#adopt(attempt, result.revision);
    });
  }

  async createLedger(link: (record: TopicRecord, id: LedgerId) => TopicRecord): Promise<LedgerWriter> {
    return this.#inTurn(async () => {
      const version = await this.#version();
      let linked: Attempt | undefined;
      let writer: LedgerWriter;
      try {
        writer = await this.#options.ledgers.create((id) => {
          const { attempt, writes } = this.#prepare(link(this.record, id), true);
          linked = attempt;
          return { compares: this.#compares(version), writes };
        });
      } catch (error) {
        this.#forgetVersion(linked);
        throw error;
      }
      if (linked === undefined)
        throw new MagnetarError('INTERNAL', `a ledger of ${this.#name} was made without its link`);
      this.#adopt(linked, undefined);
      return writer;
    });
  }

  async delete(): Promise<void> {
    return this.#inTurn(async () => {
      await deleteTopicRecord(this.#options, this.#options.name);
      this.#failure = topicNotFound(this.#options.name, 'was deleted');
    });
  }

  get #name(): string {
    return this.#options.name.full;
  }

  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const run = this.#last.then(task);
    this.#last = run.catch(() => undefined);
    return run;
  }

  #compares(version: Revision): Compare[] {
    return [this.#options.ownership.compare(), { key: this.#key, modRevision: version }];
  }

  /** The next record as it is written: with this owner's epoch, and no longer than it may be. */
  #prepare(next: TopicRecord, createdLedger: boolean): { attempt: Attempt; writes: Write[] } {
    const writes: Write[] = [];
    let { ledgers, chunks } = next;
    if (ledgers.length > this.#options.maxListedLedgers) {
      const keep = Math.max(1, Math.floor(this.#options.maxListedLedgers / 10));
      const moved = ledgers.slice(0, -keep);
      const chunk = topicLedgerChunk.encode({ ledgers: moved });
      writes.push({ put: chunkKey(this.#options.name, chunks), value: chunk });
      ledgers = ledgers.slice(-keep);
      chunks += 1;
    }
    const record = { ...next, ledgers, chunks, ownerEpoch: this.#options.ownership.epoch };
    const value = topicRecord.encode(record);
    writes.push({ put: this.#key, value });
    return { attempt: { record, value, createdLedger }, writes };
  }

  #adopt(attempt: Attempt, version: Revision | undefined): void {
    this.record = attempt.record;
    this.#value = attempt.value;
    this.#modRevision = version;
    this.#attempt = undefined;
  }

  #forgetVersion(attempt: Attempt | undefined): void {
    this.#modRevision = undefined;
    this.#attempt = attempt;
  }

  /** The record's version; read again when it is not known, and then held against what this handle wrote. */
  async #version(): Promise<Revision> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#modRevision !== undefined) return this.#modRevision;
    const { items } = await this.#options.store.get([this.#key]);
    const item = items[0];
    const attempt = this.#attempt;
    if (item !== undefined && item.value.equals(this.#value)) {
      this.#modRevision = item.modRevision;
      this.#attempt = undefined;
      return item.modRevision;
    }
    if (item === undefined || attempt === undefined || !item.value.equals(attempt.value)) throw this.#fence([]);
    if (attempt.createdLedger) {
      this.#failure = this.#notOwner('a ledger was linked to it by a transaction whose answer was lost');
      throw this.#failure;
    }
    this.#adopt(attempt, item.modRevision);
    return item.modRevision;
  }

  #fence(current: readonly (KeyValue | undefined)[]): MagnetarError {
    const owner = current[0];
    const lost = current.length > 0 && !isOwner(owner, this.#options.ownership);
    this.#failure = this.#notOwner(lost ? 'this broker no longer owns it' : 'its record was changed by somebody else');
    return this.#failure;
  }

  #notOwner(why: string): MagnetarError {
    return new MagnetarError('NOT_OWNER', `topic ${this.#name} cannot be served here: ${why}`);
  }
}

async function readChunks(options: TopicRecordOptions, count: number): Promise<TopicLedger[]> {
  const older: TopicLedger[] = [];
  for (let first = 0; first < count; first += CHUNKS_PER_READ) {
    const wanted: string[] = [];
    for (let n = first; n < Math.min(count, first + CHUNKS_PER_READ); n++) wanted.push(chunkKey(options.name, n));
    const { items } = await options.store.get(wanted);
    for (const [i, item] of items.entries()) {
      if (item === undefined)
        throw new MagnetarError('METADATA_DAMAGED', `there is no key ${wanted[i]}, which a topic lists`);
      older.push(...topicLedgerChunk.decode(item.value).ledgers);
    }
  }
  return older;
}

/**
 * Makes the record of a topic; false: there is one already.
 *
 * @throws NOT_OWNER; METADATA_CONFLICT when the namespace has changed; whatever the store throws.
 */
export async function createTopicRecord(options: TopicRecordOptions): Promise<boolean> {
  const { store, ownership, name, namespace } = options;
  const [key, deleting] = [topicKey(name), deletingKey(name)];
  for (let attempt = 0; attempt < 3; attempt++) {
    const compares = [
      ownership.compare(),
      { key, modRevision: 0 },
      { key: deleting, modRevision: 0 },
      namespace,
    ] as const;
    const result = await store.transact(compares, [{ put: key, value: newRecord(options) }]);
    if (result.committed) return true;
    const [owner, item, left] = result.current;
    if (!isOwner(owner, ownership)) break;
    if (item !== undefined) return false;
    if (left === undefined) {
      const text = `namespace "${name.tenant}/${name.namespace}" was changed while topic ${name.full} was made; try again`;
      throw new MagnetarError('METADATA_CONFLICT', text);
    }
    await finishDeletion(options, deleting);
  }
  throw new MagnetarError('NOT_OWNER', `topic ${name.full} cannot be made here: this broker no longer owns it`);
}

/**
 * Reads the record of a topic, or makes it: a topic exists from its first use on.
 *
 * @throws NOT_OWNER, METADATA_CONFLICT, METADATA_DAMAGED; whatever the store throws.
 */
export async function openTopicRecord(options: TopicRecordOptions): Promise<TopicRecordHandle> {
  const { store, ownership, name } = options;
  const key = topicKey(name);
  for (let attempt = 0; attempt < 3; attempt++) {
    const [item, owner] = (await store.get([key, ownership.ownerKey])).items;
    if (!isOwner(owner, ownership)) break;
    if (item !== undefined) {
      // The record is written before its revision is known.
      const record = decodeTopicRecord(item);
      return new RecordHandle(options, item, record, await readChunks(options, record.chunks));
    }
    await createTopicRecord(options);
  }
  throw new MagnetarError('NOT_OWNER', `topic ${name.full} cannot be served here: this broker no longer owns it`);
}

function newRecord(options: TopicRecordOptions): Buffer {
  return topicRecord.encode({
    incarnation: 0,
    ownerEpoch: options.ownership.epoch,
    floorIndex: 0 as TopicRecord['floorIndex'],
    ledgers: [],
    chunks: 0,
    ackLedgers: [],
    createdAt: options.clock.now(),
  });
}
