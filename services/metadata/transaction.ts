/** What every metadata store has in common: the limits, the order of keys, and what becomes of a transaction. Pure. */
import { MagnetarError } from '../lib/errors.ts';
import type { Revision } from '../lib/ids.ts';
import {
  type Compare,
  type KeyValue,
  type LeaseId,
  LIMITS,
  type RangeQuery,
  type WatchEvent,
  type Write,
} from './store.ts';

/** A page of a range ends behind the item with which its values reach so many bytes. */
export const RANGE_PAGE_BYTES = 8_388_608;

/** How many revisions a store that keeps its own history remembers. */
export const HISTORY_REVISIONS = 10_000;

const DEFAULT_RANGE_LIMIT = 1_000;
const LONE_SURROGATE = /\p{Surrogate}/u;

function invalid(message: string): MagnetarError {
  return new MagnetarError('INVALID_ARGUMENT', message);
}

/** A key short enough for a message. */
function shown(key: string): string {
  return JSON.stringify(key.length > 100 ? `${key.slice(0, 100)}…` : key);
}

function checkKey(key: string): void {
  if (key === '') throw invalid('a metadata key must not be empty');
  // A character takes up to three bytes per UTF-16 unit, so that most keys need not be measured.
  if (key.length * 3 > LIMITS.keyBytes && Buffer.byteLength(key) > LIMITS.keyBytes) {
    throw invalid(
      `metadata key ${shown(key)} has ${Buffer.byteLength(key)} bytes; at most ${LIMITS.keyBytes} are allowed`,
    );
  }
  if (LONE_SURROGATE.test(key)) throw invalid(`metadata key ${shown(key)} is not well-formed Unicode`);
}

function checkCount(what: string, count: number): void {
  const most = LIMITS.operationsPerTransaction;
  if (count > most) throw invalid(`${count} ${what} in one transaction; at most ${most} are allowed`);
}

/** @throws INVALID_ARGUMENT */
export function checkKeys(keys: readonly string[]): void {
  checkCount('keys', keys.length);
  for (const key of keys) checkKey(key);
}

/** @throws INVALID_ARGUMENT */
export function checkTransaction(compares: readonly Compare[], writes: readonly Write[]): void {
  checkCount('compares', compares.length);
  checkCount('writes', writes.length);
  for (const { key } of compares) checkKey(key);
  const written = new Set<string>();
  for (const write of writes) {
    const key = 'put' in write ? write.put : write.delete;
    checkKey(key);
    if (written.has(key)) throw invalid(`metadata key ${shown(key)} is written twice in one transaction`);
    written.add(key);
    if ('put' in write && write.value.length > LIMITS.valueBytes) {
      throw invalid(
        `the value of metadata key ${shown(key)} has ${write.value.length} bytes; at most ${LIMITS.valueBytes} are allowed`,
      );
    }
  }
}

/** The query's limit, or the default. @throws INVALID_ARGUMENT */
export function rangeLimit({ limit = DEFAULT_RANGE_LIMIT }: RangeQuery): number {
  if (!Number.isSafeInteger(limit) || limit < 1) throw invalid(`a range's limit is ${limit}; it must be at least 1`);
  return limit;
}

/** @throws INVALID_ARGUMENT */
export function checkTtl(ttl: number): void {
  if (!Number.isSafeInteger(ttl) || ttl < 1)
    throw invalid(`a lease's time to live is ${ttl} ms; it must be at least 1`);
}

/** @throws INVALID_ARGUMENT for a revision that does not exist yet */
export function checkCompaction(below: Revision, newest: number): void {
  if (below > newest) throw invalid(`cannot compact below revision ${below}: the newest is ${newest}`);
}

/** Moves surrogates behind the other units: that is where UTF-8 has what they stand for. */
function rank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}

/** Orders keys as their UTF-8 bytes: below 0 when `a` comes first. */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at++) {
    const [left, right] = [a.charCodeAt(at), b.charCodeAt(at)];
    if (left !== right) return rank(left) - rank(right);
  }
  return a.length - b.length;
}

/** What a transaction does. */
export type Decision =
  | { readonly committed: false; readonly current: readonly (KeyValue | undefined)[] }
  | {
      readonly committed: true;
      /** Deletes of what is not there leave no event; without any event the transaction takes no revision. */
      readonly events: readonly WatchEvent[];
      /** Per event, what was there before. */
      readonly previous: readonly (KeyValue | undefined)[];
    };

function holds(compare: Compare, item: KeyValue | undefined): boolean {
  return 'modRevision' in compare
    ? (item?.modRevision ?? 0) === compare.modRevision
    : (item?.createRevision ?? 0) === compare.createRevision;
}

/** Applies a transaction that has been checked to the state that `read` shows. `revision`: the one that it would get. */
export function decide(
  read: (key: string) => KeyValue | undefined,
  compares: readonly Compare[],
  writes: readonly Write[],
  revision: Revision,
): Decision {
  const current = compares.map(({ key }) => read(key));
  if (!compares.every((compare, at) => holds(compare, current[at]))) return { committed: false, current };
  const events: WatchEvent[] = [];
  const previous: (KeyValue | undefined)[] = [];
  for (const write of writes) {
    const before = read('put' in write ? write.put : write.delete);
    if ('put' in write) {
      events.push({
        type: 'put',
        item: keyValue(write.put, Buffer.from(write.value), before?.createRevision ?? revision, revision, write.lease),
      });
    } else if (before === undefined) {
      continue;
    } else {
      events.push({ type: 'delete', key: write.delete, revision });
    }
    previous.push(before);
  }
  return { committed: true, events, previous };
}

/** A key with its value. */
export function keyValue(
  key: string,
  value: Buffer,
  createRevision: Revision,
  modRevision: Revision,
  lease: LeaseId | undefined,
): KeyValue {
  return { key, value, createRevision, modRevision, ...(lease === undefined ? {} : { lease }) };
}

/** The key that an event is about. */
export function eventKey(event: WatchEvent): string {
  return event.type === 'put' ? event.item.key : event.key;
}
