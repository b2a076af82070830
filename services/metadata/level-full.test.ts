import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { hasCode } from '../lib/errors.ts';
import { millis, revision } from '../lib/ids.ts';
import type { Disk } from '../runtime/disk.ts';
import type { Environment } from '../runtime/environment.ts';
import { silentLogger } from '../runtime/logger.ts';
import { nodeDisk } from '../runtime/node/disk.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { seededRandom } from '../runtime/testing/seeded-random.ts';
import { openLevelStore } from './level.ts';
import { type BatchOperation, type Database, openDatabase } from './level-database.ts';
import type { MetadataStore } from './store.ts';

/** What becomes of a write for which there is no room: nothing, or it is there although it failed, now or after the next opening. */
type Fate = 'refused' | 'found later' | 'seen at once' | 'a lie';

function noSpace(): Error {
  return Object.assign(new Error('IO error: 000003.log: No space left on device'), { code: 'LEVEL_IO_ERROR' });
}

/** A store on a disk that is full at will. */
class World {
  readonly clock = new ManualClock();
  readonly fatal: Error[] = [];
  readonly folder: string;
  freeBytes = 100_000_000;
  fate: Fate | undefined;
  readonly #late: BatchOperation[][] = [];

  constructor(folder: string) {
    this.folder = folder;
  }

  readonly disk: Disk = {
    ...nodeDisk,
    space: async () => await Promise.resolve({ freeBytes: this.freeBytes, totalBytes: 100_000_000 }),
  };

  get environment(): Environment {
    const { clock, disk } = this;
    const fatal = (error: Error): void => void this.fatal.push(error);
    return { clock, disk, random: seededRandom(1), logger: silentLogger, fatal };
  }

  readonly open = async (folder: string, options: { create: boolean }): Promise<Database> => {
    const database = await openDatabase(folder, options);
    for (const late of this.#late.splice(0)) await database.write(late);
    return {
      write: async (operations) => await this.#write(database, operations),
      get: (key, snapshot) => database.get(key, snapshot),
      snapshot: () => database.snapshot(),
      scan: (range, snapshot) => database.scan(range, snapshot),
      close: async () => await database.close(),
    };
  };

  async #write(database: Database, operations: BatchOperation[]): Promise<void> {
    if (this.fate === undefined || this.fate === 'seen at once') await database.write(operations);
    if (this.fate === 'found later') this.#late.push(operations);
    if (this.fate !== undefined && this.fate !== 'a lie') throw noSpace();
  }

  /** The disk is full, and writes end so. */
  fill(fate: Fate): void {
    [this.fate, this.freeBytes] = [fate, 0];
  }

  makeRoom(): void {
    [this.fate, this.freeBytes] = [undefined, 100_000_000];
  }

  /** Lets time pass until something is so. */
  async until(isSo: () => Promise<boolean>): Promise<void> {
    while (!(await isSo())) {
      this.clock.advance(500);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  /** Lets time pass until the store writes again; `key` is what it writes. */
  async untilWritten(store: MetadataStore, key: string): Promise<void> {
    await this.until(async () => {
      try {
        await put(store, key, 'written again');
        return true;
      } catch (error) {
        if (!hasCode(error, 'DISK_FULL', 'UNAVAILABLE')) throw error;
        return false;
      }
    });
  }
}

async function put(store: MetadataStore, key: string, value: string): Promise<void> {
  await store.transact([], [{ put: key, value: Buffer.from(value) }]);
}

async function valueOf(store: MetadataStore, key: string): Promise<string | undefined> {
  return (await store.get([key])).items[0]?.value.toString();
}

let folder: string;
let world: World;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'magnetar-level-full-'));
  world = new World(folder);
});
afterEach(async () => await rm(folder, { recursive: true }));

describe('a metadata store whose disk is full', () => {
  test.each(['refused', 'found later'] as const)(
    'refuses writes with the folder, can be read, and writes again by itself (a write that was %s)',
    async (fate) => {
      const store = await openLevelStore(world);
      await put(store, 'a', '1');
      const abort = new AbortController();
      const seen: number[] = [];
      const watching = (async () => {
        for await (const batch of store.watch({ prefix: '', signal: abort.signal })) seen.push(batch.revision);
      })();
      world.fill(fate);
      const refused = { code: 'DISK_FULL', retryable: true, message: expect.stringContaining(folder) as string };
      await expect(put(store, 'a', '2')).rejects.toMatchObject(refused);
      await expect(put(store, 'b', '1')).rejects.toMatchObject(refused);
      await expect(store.compact(revision(1))).rejects.toMatchObject(refused);
      expect(await valueOf(store, 'a')).toBe('1');
      expect((await store.range({ prefix: '' })).items).toHaveLength(1);
      world.clock.advance(5_000); // looked for in vain
      await expect(put(store, 'a', '3')).rejects.toMatchObject(refused);
      world.makeRoom();
      await world.untilWritten(store, 'c');
      expect(await valueOf(store, 'a')).toBe(fate === 'refused' ? '1' : '2');
      const newest = fate === 'refused' ? 2 : 3;
      expect((await store.get([])).revision).toBe(newest);
      await world.until(async () => await Promise.resolve(seen.at(-1) === newest));
      expect(seen).toEqual(fate === 'refused' ? [2] : [2, 3]);
      abort.abort();
      await watching;
      await store.close();
      expect(world.fatal).toEqual([]);
      const again = await openLevelStore(world);
      expect((await again.get([])).revision).toBe(newest);
      await again.close();
    },
  );

  test('does not show what may not be durable', async () => {
    const store = await openLevelStore(world);
    await put(store, 'a', '1');
    world.fill('seen at once');
    await expect(put(store, 'a', '2')).rejects.toMatchObject({ code: 'DISK_FULL' });
    await expect(store.get(['a'])).rejects.toMatchObject({ code: 'DISK_FULL' });
    world.makeRoom();
    await world.untilWritten(store, 'b');
    expect(await valueOf(store, 'a')).toBe('2');
    await store.close();
  });

  test('keeps its leases; one that ends meanwhile loses its keys when there is room', async () => {
    const store = await openLevelStore(world);
    const [kept, ended] = [await store.grantLease(millis(9_000)), await store.grantLease(millis(9_000))];
    const value = Buffer.alloc(0);
    await store.transact([], [{ put: 'kept', value, lease: kept.id }]);
    await store.transact([], [{ put: 'ended', value, lease: ended.id }]);
    world.fill('refused');
    await expect(store.transact([], [{ delete: 'kept' }])).rejects.toMatchObject({ code: 'DISK_FULL' });
    await ended.revoke().catch(() => {});
    world.clock.advance(60_000);
    expect(kept.heldUntil).toBeGreaterThan(world.clock.monotonic());
    world.makeRoom();
    await world.untilWritten(store, 'other');
    const { items } = await store.range({ prefix: '' });
    expect(items.map(({ key }) => key)).toEqual(['kept', 'other']);
    await kept.revoke();
    expect((await store.range({ prefix: '' })).items.map(({ key }) => key)).toEqual(['other']);
    await store.close();
  });

  test('goes on at once with the room that it had kept', async () => {
    const store = await openLevelStore(world);
    const reserve = join(folder, 'reserve');
    const bytes = async (): Promise<number> =>
      await stat(reserve).then(
        ({ size }) => size,
        () => 0,
      );
    await world.until(async () => (await bytes()) === 16_777_216);
    world.freeBytes = 0;
    world.fate = 'refused';
    await expect(put(store, 'a', '1')).rejects.toMatchObject({ code: 'DISK_FULL' });
    world.fate = undefined;
    await world.untilWritten(store, 'a');
    expect(await bytes()).toBe(0);
    world.makeRoom();
    await world.until(async () => (await bytes()) === 16_777_216);
    await store.close();
  });

  test('a closed one looks for no room', async () => {
    const store = await openLevelStore(world);
    world.fill('refused');
    await expect(put(store, 'a', '1')).rejects.toMatchObject({ code: 'DISK_FULL' });
    await store.close();
    expect(world.clock.pendingTimers).toBe(0);
    world.makeRoom();
    await (await openLevelStore(world)).close(); // its lock is free
  });
});

/** Writes through a disk that is full now and then; returns what is not as it was acknowledged. */
async function rounds(seed: number, fates: readonly Fate[]): Promise<string[]> {
  const random = seededRandom(seed);
  /** By key: the values that it may have. */
  const possible = new Map<string, string[]>();
  const write = async (store: MetadataStore, value: string): Promise<void> => {
    const key = `k${Math.floor(random.next() * 8)}`;
    possible.set(key, [...(possible.get(key) ?? ['']), value]);
    try {
      await put(store, key, value);
      const values = possible.get(key) ?? [];
      possible.set(key, values.slice(values.indexOf(value)));
    } catch (error) {
      if (!hasCode(error, 'DISK_FULL')) throw error;
    }
  };
  for (let life = 0; life < 3; life++) {
    const store = await openLevelStore(world);
    try {
      for (let round = 0; round < 4; round++) {
        const fate = fates[Math.floor(random.next() * fates.length)];
        if (fate !== undefined && random.next() < 0.5) world.fill(fate);
        await Promise.all(Array.from({ length: 5 }, async (_, n) => await write(store, `${life}/${round}/${n}`)));
        world.makeRoom();
        await world.untilWritten(store, 'last');
      }
    } finally {
      await store.close();
    }
  }
  const store = await openLevelStore(world);
  const wrong: string[] = [];
  for (const [key, values] of possible) {
    const value = (await valueOf(store, key)) ?? '';
    if (!values.includes(value)) wrong.push(`${key} is ${JSON.stringify(value)}, not one of ${values.join()}`);
  }
  await store.close();
  return wrong;
}

describe('whatever becomes of the writes that fail', () => {
  test('what was acknowledged is there', async () => {
    for (let seed = 0; seed < 6; seed++) {
      world = new World(join(folder, `${seed}`));
      expect(await rounds(seed, ['refused', 'found later', 'seen at once'])).toEqual([]);
      expect(world.fatal).toEqual([]);
    }
  });

  test('sabotage: a store that acknowledges a write that failed is caught', async () => {
    let caught = 0;
    for (let seed = 0; seed < 4; seed++) {
      world = new World(join(folder, `${seed}`));
      try {
        if ((await rounds(seed, ['a lie'])).length > 0) caught++;
      } catch {
        caught++; // It cannot even be opened again: revisions are missing.
      }
    }
    expect(caught).toBe(4);
  });
});
