import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Millis, millis, type Revision, revision } from '../lib/ids.ts';
import type { ManualClock } from '../runtime/testing/manual-clock.ts';
import type { KeyValue, Lease, MetadataStore, TransactResult, WatchBatch } from './store.ts';

/** A store under test. */
export interface StoreUnderTest {
  readonly store: MetadataStore;
  readonly clock: ManualClock;
  /** Closes the store, lets its leases run out, and opens what it left. */
  readonly reopen: () => Promise<MetadataStore>;
  readonly end: () => Promise<void>;
}

const TTL: Millis = millis(10_000);
const closed = { code: 'ALREADY_CLOSED' };

function bytes(text: string): Buffer {
  return Buffer.from(text);
}

function invalid(message: string): object {
  return { code: 'INVALID_ARGUMENT', message };
}

/** Puts without a condition; gives the revision. */
async function put(store: MetadataStore, key: string, text: string, lease?: Lease): Promise<Revision> {
  const write = { put: key, value: bytes(text), ...(lease === undefined ? {} : { lease: lease.id }) };
  return (await store.transact([], [write])).revision;
}

async function get(store: MetadataStore, key: string): Promise<KeyValue | undefined> {
  return (await store.get([key])).items[0];
}

async function value(store: MetadataStore, key: string): Promise<string | undefined> {
  return (await get(store, key))?.value.toString();
}

/** Every key under a prefix, read in pages. */
async function list(store: MetadataStore, prefix: string, limit: number): Promise<string[]> {
  const keys: string[] = [];
  for (let after: string | undefined; ; after = keys.at(-1)) {
    const page = await store.range({ prefix, limit, ...(after === undefined ? {} : { after }) });
    expect(page.items.length).toBeLessThanOrEqual(limit);
    keys.push(...page.items.map(({ key }) => key));
    if (!page.more) return keys;
  }
}

/** What a watch says, as text. */
function shown({ revision: at, events }: WatchBatch): string {
  const parts = events.map((event) =>
    event.type === 'put' ? `${event.item.key}=${event.item.value.toString()}` : `-${event.key}`,
  );
  return `${at}: ${parts.join(' ')}`;
}

/** Reads so many batches. */
async function take(watch: AsyncIterable<WatchBatch>, count: number): Promise<string[]> {
  const batches: string[] = [];
  for await (const batch of watch) {
    batches.push(shown(batch));
    if (batches.length === count) break;
  }
  return batches;
}

/** Lets everything run that is ready. */
async function settle(): Promise<void> {
  for (let n = 0; n < 3; n++) await new Promise((resolve) => setImmediate(resolve));
}

/** Whether a promise has been resolved. */
async function resolved(promise: Promise<void>): Promise<boolean> {
  await settle();
  return await Promise.race([promise.then(() => true), Promise.resolve().then(() => false)]);
}

/** Waits until a key is gone. */
async function gone(store: MetadataStore, key: string, from: Revision): Promise<void> {
  const controller = new AbortController();
  for await (const { events } of store.watch({ prefix: key, from, signal: controller.signal })) {
    if (events.some((event) => event.type === 'delete')) break;
  }
}

/** The codes with which every operation fails. */
async function everyOperation(store: MetadataStore): Promise<unknown[]> {
  const { signal } = new AbortController();
  const results = await Promise.allSettled([
    store.get(['a']),
    store.range({ prefix: '' }),
    store.transact([], [{ put: 'a', value: bytes('') }]),
    store.transact([], []),
    take(store.watch({ prefix: '', signal }), 1),
    store.compact(revision(0)),
    store.grantLease(TTL),
  ]);
  return results.map((result) => (result.status === 'rejected' ? (result.reason as { code?: unknown }).code : 'done'));
}

/** What every metadata store does. `make` gives an empty one. */
export function storeContract(name: string, make: () => Promise<StoreUnderTest>): void {
  describe(`metadata store contract: ${name}`, { tags: ['contract'] }, () => {
    let under: StoreUnderTest;
    let store: MetadataStore;
    let clock: ManualClock;
    let signal: AbortSignal;
    let controller: AbortController;

    beforeEach(async () => {
      under = await make();
      ({ store, clock } = under);
      controller = new AbortController();
      ({ signal } = controller);
    });
    afterEach(async () => {
      controller.abort();
      await under.end();
    });

    describe('transactions', () => {
      test('a new store is empty, at revision 0', async () => {
        expect(await store.get(['a'])).toEqual({ revision: 0, items: [undefined] });
        expect(await store.range({ prefix: '' })).toEqual({ revision: 0, items: [], more: false });
      });

      test('revisions are dense; an item tells when it was created and last written', async () => {
        expect(await store.transact([], [{ put: 'a', value: bytes('1') }])).toEqual({ committed: true, revision: 1 });
        const writes = [
          { put: 'a', value: bytes('2') },
          { put: 'b', value: bytes('') },
        ];
        expect(await store.transact([], writes)).toEqual({ committed: true, revision: 2 });
        const { revision: at, items } = await store.get(['b', 'a', 'none']);
        expect(at).toBe(2);
        expect(items).toEqual([
          { key: 'b', value: bytes(''), createRevision: 2, modRevision: 2 },
          { key: 'a', value: bytes('2'), createRevision: 1, modRevision: 2 },
          undefined,
        ]);
        await store.transact([], [{ delete: 'a' }]);
        expect(await put(store, 'a', '3')).toBe(4);
        expect(await get(store, 'a')).toMatchObject({ createRevision: 4, modRevision: 4 });
      });

      test('compares decide over all writes or none, and a refusal shows what was compared', async () => {
        await put(store, 'a', '1');
        const refused = await store.transact(
          [
            { key: 'a', modRevision: 1 },
            { key: 'b', modRevision: 7 },
          ],
          [
            { put: 'a', value: bytes('x') },
            { put: 'c', value: bytes('x') },
          ],
        );
        expect(refused).toEqual({
          committed: false,
          revision: 1,
          current: [{ key: 'a', value: bytes('1'), createRevision: 1, modRevision: 1 }, undefined],
        });
        expect(await value(store, 'a')).toBe('1');
        const done = await store.transact(
          [
            { key: 'a', modRevision: 1 },
            { key: 'a', createRevision: 1 },
            { key: 'b', modRevision: 0 },
          ],
          [{ delete: 'a' }, { put: 'c', value: bytes('x') }],
        );
        expect(done).toEqual({ committed: true, revision: 2 });
        expect((await store.get(['a', 'c'])).items.map((item) => item?.value.toString())).toEqual([undefined, 'x']);
      });

      test('a transaction that changes nothing takes no revision', async () => {
        await put(store, 'a', '1');
        const only = await store.transact([{ key: 'a', modRevision: 1 }], []);
        expect(only).toEqual({ committed: true, revision: 1 });
        expect(await store.transact([{ key: 'a', modRevision: 2 }], [])).toMatchObject({
          committed: false,
          revision: 1,
        });
        expect(await store.transact([], [{ delete: 'none' }])).toEqual({ committed: true, revision: 1 });
      });

      test('100 increments at once lose none', async () => {
        const increment = async (): Promise<void> => {
          for (;;) {
            const item = await get(store, 'n');
            const next = bytes(String(Number(item?.value.toString() ?? '0') + 1));
            const compare = { key: 'n', modRevision: item?.modRevision ?? 0 };
            if ((await store.transact([compare], [{ put: 'n', value: next }])).committed) return;
          }
        };
        await Promise.all(Array.from({ length: 100 }, increment));
        expect(await value(store, 'n')).toBe('100');
        expect((await store.get(['n'])).revision).toBe(100);
      });

      test('transactions started in one turn are decided in their order', async () => {
        const results = await Promise.all([
          store.transact([{ key: 'a', modRevision: 0 }], [{ put: 'a', value: bytes('first') }]),
          store.transact([{ key: 'a', modRevision: 0 }], [{ put: 'a', value: bytes('second') }]),
          store.transact([{ key: 'a', modRevision: 1 }], [{ put: 'a', value: bytes('third') }]),
          store.transact([{ key: 'a', modRevision: 2 }], [{ delete: 'a' }]),
          store.transact([{ key: 'a', createRevision: 0 }], [{ put: 'a', value: bytes('fifth') }]),
        ]);
        expect(results.map((result) => result.committed)).toEqual([true, false, true, true, true]);
        expect((results[1] as Extract<TransactResult, { committed: false }>).current[0]?.value.toString()).toBe(
          'first',
        );
        expect(await get(store, 'a')).toMatchObject({ value: bytes('fifth'), createRevision: 4 });
      });

      test('a value is the store’s own from the call on', async () => {
        const given = bytes('mine');
        const written = store.transact([], [{ put: 'a', value: given }]);
        given.fill(0);
        await written;
        expect(await value(store, 'a')).toBe('mine');
      });
    });

    describe('limits', () => {
      test('128 operations are allowed, 129 are not', async () => {
        const keys = Array.from({ length: 129 }, (_, n) => `k${n}`);
        const writes = keys.map((key) => ({ put: key, value: bytes('') }));
        expect(await store.transact([], writes.slice(1))).toMatchObject({ committed: true });
        expect((await store.get(keys.slice(1))).items).toHaveLength(128);
        const most = 'at most 128 are allowed';
        await expect(store.transact([], writes)).rejects.toMatchObject(
          invalid(`129 writes in one transaction; ${most}`),
        );
        const compares = keys.map((key) => ({ key, modRevision: 0 }));
        await expect(store.transact(compares, [])).rejects.toMatchObject(
          invalid(`129 compares in one transaction; ${most}`),
        );
        await expect(store.get(keys)).rejects.toMatchObject(invalid(`129 keys in one transaction; ${most}`));
      });

      test('a value has up to 1 MiB, a key up to 4,096 bytes', async () => {
        const [largest, longest] = [Buffer.alloc(1_048_576, 1), 'ü'.repeat(2_048)];
        await store.transact([], [{ put: longest, value: largest }]);
        expect((await get(store, longest))?.value.equals(largest)).toBe(true);
        await expect(store.transact([], [{ put: 'a', value: Buffer.alloc(1_048_577) }])).rejects.toMatchObject(
          invalid('the value of metadata key "a" has 1048577 bytes; at most 1048576 are allowed'),
        );
        await expect(put(store, `${longest}x`, '')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
        await expect(store.get([`${longest}x`])).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
      });

      test('a key is well-formed, not empty, and not written twice', async () => {
        await expect(put(store, '', '')).rejects.toMatchObject(invalid('a metadata key must not be empty'));
        await expect(put(store, 'a\ud800', '')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
        await expect(store.transact([], [{ put: 'a', value: bytes('') }, { delete: 'a' }])).rejects.toMatchObject(
          invalid('metadata key "a" is written twice in one transaction'),
        );
        await expect(store.range({ prefix: '', limit: 0 })).rejects.toMatchObject(
          invalid("a range's limit is 0; it must be at least 1"),
        );
        expect((await store.get(['a'])).revision).toBe(0);
      });
    });

    describe('ranges', () => {
      test('pages go through a prefix in the order of UTF-8, without its neighbours', async () => {
        const inside = ['p/', 'p/a', 'p/a/b', 'p/aa', 'p/b', 'p/é', 'p/\uffee', 'p/😀', 'p/\u{10ffff}x'];
        for (const key of ['o', 'p', 'p.', 'p0', 'q', ...inside.toReversed()]) await put(store, key, key);
        for (const limit of [1, 2, 3, 8, 9, 10, 1_000]) expect(await list(store, 'p/', limit)).toEqual(inside);
        expect(await list(store, '', 3)).toEqual(['o', 'p', 'p.', ...inside, 'p0', 'q']);
        const page = await store.range({ prefix: 'p/', after: 'p/a/zzz', limit: 2 });
        expect(page.items.map(({ key }) => key)).toEqual(['p/aa', 'p/b']);
        expect(page).toMatchObject({ revision: 14, more: true });
        expect((await store.range({ prefix: 'p/', after: 'a' })).items).toHaveLength(9);
        expect(await store.range({ prefix: 'p/', after: 'x' })).toMatchObject({ items: [], more: false });
      });

      test('a page is full only when more is true, 1,000 when nothing is said', async () => {
        const keys = Array.from({ length: 1_001 }, (_, n) => `k${String(n).padStart(4, '0')}`);
        for (let at = 0; at < keys.length; at += 128) {
          await store.transact(
            [],
            keys.slice(at, at + 128).map((key) => ({ put: key, value: bytes('') })),
          );
        }
        const page = await store.range({ prefix: 'k' });
        expect([page.items.length, page.more]).toEqual([1_000, true]);
        expect(await store.range({ prefix: 'k', limit: 1_001 })).toMatchObject({ more: false });
      });

      test('large values end a page early', async () => {
        for (let n = 0; n < 10; n++) await store.transact([], [{ put: `k${n}`, value: Buffer.alloc(1_048_576) }]);
        const page = await store.range({ prefix: 'k' });
        expect([page.items.length, page.more]).toEqual([8, true]);
        expect(await list(store, 'k', 1_000)).toHaveLength(10);
      });
    });

    describe('watches', () => {
      test('from a revision on: every change under the prefix, in order, without a gap, old and new', async () => {
        await put(store, 'w/a', '1');
        await put(store, 'x', '1');
        await store.transact(
          [],
          [
            { put: 'w/b', value: bytes('1') },
            { put: 'x', value: bytes('2') },
            { put: 'w/a', value: bytes('2') },
          ],
        );
        const batches = take(store.watch({ prefix: 'w/', from: revision(1), signal }), 5);
        await settle();
        await store.transact([], [{ delete: 'w/a' }, { delete: 'x' }]);
        await put(store, 'w/a', '3');
        await put(store, 'w/c', '1');
        expect(await batches).toEqual(['1: w/a=1', '3: w/b=1 w/a=2', '4: -w/a', '5: w/a=3', '6: w/c=1']);
      });

      test('without a revision: from the next one after the call', async () => {
        await put(store, 'a', '1');
        const watch = store.watch({ prefix: '', signal });
        await put(store, 'a', '2');
        await put(store, 'a', '3');
        expect(await take(watch, 2)).toEqual(['2: a=2', '3: a=3']);
      });

      test('many watches and many writes at once: each sees everything in order', async () => {
        const expected = Array.from({ length: 200 }, (_, n) => `${n + 1}: k=${n + 1}`);
        const watches = Array.from({ length: 5 }, async () => await take(store.watch({ prefix: 'k', signal }), 200));
        for (let n = 0; n < 200; n += 40) {
          await Promise.all(Array.from({ length: 40 }, async (_, i) => await put(store, 'k', String(n + i + 1))));
        }
        for (const seen of await Promise.all(watches)) expect(seen).toEqual(expected);
      });

      test('ends when the signal aborts, waiting or before it began', async () => {
        const waiting = take(store.watch({ prefix: '', signal }), 1);
        await settle();
        controller.abort();
        expect(await waiting).toEqual([]);
        await put(store, 'a', '1');
        expect(await take(store.watch({ prefix: '', from: revision(1), signal }), 1)).toEqual([]);
      });

      test('from a revision that was compacted away: fails at once', async () => {
        for (const text of ['1', '2', '3']) await put(store, 'a', text);
        await store.compact(revision(3));
        await expect(take(store.watch({ prefix: '', from: revision(2), signal }), 1)).rejects.toMatchObject({
          code: 'METADATA_COMPACTED',
          message: 'revision 2 is gone: the history begins at 3',
        });
        expect(await take(store.watch({ prefix: '', from: revision(3), signal }), 1)).toEqual(['3: a=3']);
        expect(await value(store, 'a')).toBe('3');
        await store.compact(revision(1));
        await expect(store.compact(revision(4))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
      });

      test('a slow reader that a compaction overtakes fails, and never skips', async () => {
        for (const text of ['1', '2', '3', '4']) await put(store, 'a', text);
        const reader = store.watch({ prefix: '', from: revision(1), signal })[Symbol.asyncIterator]();
        const first = await reader.next();
        expect(first.done === true ? '' : shown(first.value)).toBe('1: a=1');
        await store.compact(revision(4));
        await expect(reader.next()).rejects.toMatchObject({ code: 'METADATA_COMPACTED' });
        expect(await reader.next()).toMatchObject({ done: true });
      });
    });

    describe('leases', () => {
      test('a lease that is kept alive keeps its keys', async () => {
        const lease = await store.grantLease(TTL);
        await put(store, 'l', 'x', lease);
        expect(await get(store, 'l')).toMatchObject({ lease: lease.id });
        for (let n = 0; n < 10; n++) clock.advance(TTL);
        await settle();
        expect(lease.heldUntil).toBeGreaterThan(clock.monotonic());
        expect(lease.heldUntil).toBeLessThanOrEqual(clock.monotonic() + TTL);
        expect(await resolved(lease.lost)).toBe(false);
        expect(await value(store, 'l')).toBe('x');
      });

      test('it is held from the sending of the request on', async () => {
        clock.advance(1_234);
        const asked = clock.monotonic();
        const granting = store.grantLease(TTL);
        clock.stall(1_000);
        expect((await granting).heldUntil).toBe(asked + TTL);
      });

      test('a process that stands still too long loses it, and its keys go', async () => {
        const lease = await store.grantLease(TTL);
        const at = await put(store, 'l/a', 'x', lease);
        await put(store, 'l/b', 'x', lease);
        await put(store, 'free', 'x', lease);
        await put(store, 'free', 'y');
        clock.stall(TTL);
        expect(lease.heldUntil).toBeLessThanOrEqual(clock.monotonic());
        await expect(put(store, 'late', 'x', lease)).rejects.toMatchObject({ code: 'LEASE_LOST' });
        clock.advance(0);
        await lease.lost;
        await gone(store, 'l/', at);
        expect((await store.range({ prefix: '' })).items.map(({ key }) => key)).toEqual(['free']);
      });

      test('a jump of the wall clock does nothing to it', async () => {
        const lease = await store.grantLease(TTL);
        clock.jump(10 * TTL);
        clock.advance(TTL);
        expect(await resolved(lease.lost)).toBe(false);
      });

      test('revoking deletes its keys, also more than fit into a transaction, and is idempotent', async () => {
        const lease = await store.grantLease(TTL);
        const keys = Array.from({ length: 300 }, (_, n) => `l/${n}`);
        await Promise.all(keys.map(async (key) => await put(store, key, 'x', lease)));
        await store.transact([], [{ delete: 'l/0' }]);
        await put(store, 'l/0', 'mine');
        await lease.revoke();
        expect(await resolved(lease.lost)).toBe(true);
        expect((await store.range({ prefix: 'l/' })).items.map(({ key }) => key)).toEqual(['l/0']);
        await lease.revoke();
        expect(lease.heldUntil).toBeLessThanOrEqual(clock.monotonic());
        await expect(put(store, 'late', 'x', lease)).rejects.toMatchObject({ code: 'LEASE_LOST' });
        await expect(store.grantLease(0 as Millis)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
      });

      test('a key goes with the lease that it was put with last', async () => {
        const [first, second] = [await store.grantLease(TTL), await store.grantLease(TTL)];
        expect(first.id).not.toBe(second.id);
        await put(store, 'l', '1', first);
        await put(store, 'l', '2', second);
        await first.revoke();
        expect(await value(store, 'l')).toBe('2');
        await second.revoke();
        expect(await value(store, 'l')).toBeUndefined();
      });
    });

    describe('closing', () => {
      test('every operation on a closing and on a closed store is refused; closing twice is fine', async () => {
        const refused = Array.from({ length: 7 }, () => 'ALREADY_CLOSED');
        await put(store, 'a', '1');
        const closing = store.close();
        expect(await everyOperation(store)).toEqual(refused);
        await Promise.all([closing, store.close()]);
        expect(await everyOperation(store)).toEqual(refused);
        await store.close();
      });

      test('watches fail, leases are lost, revoking a lost lease does not throw', async () => {
        const lease = await store.grantLease(TTL);
        const watching = take(store.watch({ prefix: '', signal }), 1);
        await settle();
        const closing = store.close();
        await expect(watching).rejects.toMatchObject(closed);
        await closing;
        await lease.lost;
        await lease.revoke();
      });

      test('what was acknowledged is there again; what was pending is there or was refused', async () => {
        await put(store, 'a', '1');
        const lease = await store.grantLease(TTL);
        await put(store, 'l', 'x', lease);
        const pending = Array.from({ length: 50 }, async (_, n) => await put(store, `p${n}`, 'x'));
        const settled = Promise.allSettled(pending);
        const again = await under.reopen();
        const { items } = await again.range({ prefix: 'p' });
        const acknowledged = (await settled).flatMap((result, n) => (result.status === 'fulfilled' ? [`p${n}`] : []));
        expect(new Set(items.map(({ key }) => key))).toEqual(new Set(acknowledged));
        expect(await value(again, 'a')).toBe('1');
        expect(await value(again, 'l')).toBeUndefined();
        expect((await again.get(['a'])).revision).toBe((await put(again, 'a', '2')) - 1);
      });

      test('the past is still there for watches', async () => {
        await put(store, 'a', '1');
        await put(store, 'a', '2');
        const again = await under.reopen();
        expect(await take(again.watch({ prefix: '', from: revision(1), signal }), 2)).toEqual(['1: a=1', '2: a=2']);
      });
    });
  });
}
