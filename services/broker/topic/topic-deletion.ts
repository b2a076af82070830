/**
 * Deleting a topic: its record goes in one transaction, and so do its ledgers, which get tombstones, when they fit into it.
 *
 * When they do not, what the record said moves to a key of its own in that transaction: from then on the topic is gone, and
 * its ledgers get their tombstones by and by, at the latest before a topic of the same name is made, or when the next owner
 * starts. So a crash leaves a topic or none, and no ledger without somebody who knows of it.
 */
import { hasCode, MagnetarError } from '../../lib/errors.ts';
import { epoch, type LedgerId } from '../../lib/ids.ts';
import type { Ledgers } from '../../ledger/ledgers.ts';
import { keys } from '../../metadata/keys.ts';
import { type Compare, type KeyValue, LIMITS, type MetadataStore, type Write } from '../../metadata/store.ts';
import { type Clock, delay } from '../../runtime/clock.ts';
import { type TopicRecord, topicLedgerChunk, topicRecord } from '../../wire/records.ts';
import type { Ownership } from '../ownership/ownership.ts';
import type { TopicName } from '../protocol/topic-name.ts';

/** What deleting works with. */
export interface DeletionDependencies {
  readonly store: MetadataStore;
  readonly ledgers: Ledgers;
  readonly ownership: Ownership;
  readonly clock: Clock;
}

/** Each is two writes; some are left for the record and what stands beside it. */
const LEDGERS_AT_ONCE: number = (LIMITS.operationsPerTransaction - 4) / 2;
const ATTEMPTS = 8;
const RETRY_MS = 50;

export function chunkKey(name: TopicName, chunk: number): string {
  return keys.topicChunk(name.tenant, name.namespace, name.local, chunk);
}

export function topicKey(name: TopicName): string {
  return keys.topic(name.tenant, name.namespace, name.local);
}

export function deletingKey(name: TopicName): string {
  return keys.topicDeleting(name.tenant, name.namespace, name.local);
}

/** True when the owner key, as it was read, is that of this ownership. */
export function isOwner(item: KeyValue | undefined, ownership: Ownership): boolean {
  return item !== undefined && epoch(item.createRevision) === ownership.epoch;
}

/** What the record says, with the incarnation that it stands for: 0 means "the revision that made this key". */
export function decodeTopicRecord(item: KeyValue): TopicRecord {
  const stored = topicRecord.decode(item.value);
  return stored.incarnation === 0 ? { ...stored, incarnation: item.createRevision } : stored;
}

export function topicNotFound(name: TopicName, what = 'does not exist'): MagnetarError {
  return new MagnetarError('TOPIC_NOT_FOUND', `topic ${name.full} ${what}`, { details: { topic: name.full } });
}

function notOwner(what: string): MagnetarError {
  return new MagnetarError('NOT_OWNER', `${what} cannot be deleted here: this broker no longer owns it`);
}

function ledgersOf(record: TopicRecord): LedgerId[] {
  return [...new Set([...record.ackLedgers, ...record.ledgers.map((ledger) => ledger.ledgerId)])];
}

/**
 * Deletes a topic that is not changed by anybody else meanwhile.
 *
 * @throws TOPIC_NOT_FOUND; NOT_OWNER; UNAVAILABLE, DEADLINE_EXCEEDED when it is unknown whether it happened.
 */
export async function deleteTopicRecord(dependencies: DeletionDependencies, name: TopicName): Promise<void> {
  const { store, ledgers, ownership, clock } = dependencies;
  const [key, deleting] = [topicKey(name), deletingKey(name)];
  let unknown: MagnetarError | undefined;
  let asked = false;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (unknown !== undefined) await delay(clock, RETRY_MS * attempt);
    try {
      const [item, owner, left] = (await store.get([key, ownership.ownerKey, deleting])).items;
      if (!isOwner(owner, ownership)) throw notOwner(`topic ${name.full}`);
      if (item === undefined) {
        if (!asked) throw topicNotFound(name);
        return; // nobody but this owner deletes it: it had happened
      }
      if (left !== undefined) await finishDeletion(dependencies, deleting);
      const record = decodeTopicRecord(item);
      const all = ledgersOf(record);
      const atOnce = record.chunks === 0 && all.length <= LEDGERS_AT_ONCE;
      const rest: readonly Write[] = atOnce
        ? ledgers.deletion(all)
        : [{ put: deleting, value: topicRecord.encode(record) }];
      asked = true;
      const result = await store.transact(
        [ownership.compare(), { key, modRevision: item.modRevision }, { key: deleting, modRevision: 0 }],
        [{ delete: key }, ...rest],
      );
      if (result.committed) return;
    } catch (error) {
      if (!hasCode(error, 'UNAVAILABLE', 'DEADLINE_EXCEEDED')) throw error;
      unknown = error;
    }
  }
  throw unknown ?? new MagnetarError('METADATA_CONFLICT', `topic ${name.full} keeps being changed while it is deleted`);
}

interface Step {
  readonly compares: readonly Compare[];
  readonly writes: readonly Write[];
}

/** The next step of a deletion that did not fit into one transaction. `key`: of `topics-deleting/`. */
async function nextStep({ store, ledgers }: DeletionDependencies, { key, value }: KeyValue): Promise<Step> {
  const record = topicRecord.decode(value);
  const taken = ledgersOf(record).slice(0, LEDGERS_AT_ONCE);
  if (taken.length > 0) {
    const next = {
      ...record,
      ledgers: record.ledgers.filter(({ ledgerId }) => !taken.includes(ledgerId)),
      ackLedgers: record.ackLedgers.filter((id) => !taken.includes(id)),
    };
    return { compares: [], writes: [{ put: key, value: topicRecord.encode(next) }, ...ledgers.deletion(taken)] };
  }
  if (record.chunks === 0) return { compares: [], writes: [{ delete: key }] };
  const chunks = record.chunks - 1;
  const fewer = { put: key, value: topicRecord.encode({ ...record, chunks }) };
  const place = `topics-chunks/${key.slice(keys.topicsDeleting.length)}/${chunks}`;
  const [chunk] = (await store.get([place])).items;
  if (chunk === undefined) return { compares: [], writes: [fewer] };
  const listed = topicLedgerChunk.decode(chunk.value).ledgers;
  const ids = listed.slice(0, LEDGERS_AT_ONCE).map(({ ledgerId }) => ledgerId);
  const left = listed.slice(LEDGERS_AT_ONCE);
  const compares = [{ key: place, modRevision: chunk.modRevision }];
  const writes: readonly Write[] =
    left.length === 0
      ? [fewer, { delete: place }]
      : [{ put: place, value: topicLedgerChunk.encode({ ledgers: left }) }];
  return { compares, writes: [...writes, ...ledgers.deletion(ids)] };
}

/** Gives all ledgers of a deleted topic their tombstones. `key`: of `topics-deleting/`. @throws NOT_OWNER; what the store throws */
export async function finishDeletion(dependencies: DeletionDependencies, key: string): Promise<void> {
  const { store, ownership } = dependencies;
  for (;;) {
    const [item, owner] = (await store.get([key, ownership.ownerKey])).items;
    if (!isOwner(owner, ownership)) throw notOwner(`what is left of ${key}`);
    if (item === undefined) return;
    const { compares, writes } = await nextStep(dependencies, item);
    await store.transact([ownership.compare(), { key, modRevision: item.modRevision }, ...compares], writes);
  }
}

/** Ends every deletion that somebody has left half done, until it is stopped. @throws as `finishDeletion` */
export async function finishDeletions(dependencies: DeletionDependencies, stopped: () => boolean): Promise<void> {
  let after: string | undefined;
  for (;;) {
    const query = { prefix: keys.topicsDeleting, limit: 100, ...(after === undefined ? {} : { after }) };
    const { items, more } = await dependencies.store.range(query);
    for (const { key } of items) {
      if (stopped()) return;
      await finishDeletion(dependencies, key);
    }
    after = items.at(-1)?.key;
    if (!more || after === undefined) return;
  }
}
