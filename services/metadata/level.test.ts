import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { millis, revision } from '../lib/ids.ts';
import type { Environment } from '../runtime/environment.ts';
import { silentLogger } from '../runtime/logger.ts';
import { nodeDisk } from '../runtime/node/disk.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { seededRandom } from '../runtime/testing/seeded-random.ts';
import { openLevelStore } from './level.ts';
import { type Database, openDatabase } from './level-database.ts';
import { encodeMark, itemKey, NEWEST_KEY, rowKey } from './level-format.ts';
import { storeContract } from './store.contract.ts';
import type { MetadataStore } from './store.ts';
import { Witness } from './witness.ts';

let root: string;
let folders = 0;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'magnetar-level-'));
});
afterAll(async () => await rm(root, { recursive: true }));

interface World {
  readonly environment: Environment;
  readonly clock: ManualClock;
  readonly folder: string;
  readonly fatal: Error[];
}

function newWorld(): World {
  const clock = new ManualClock();
  const fatal: Error[] = [];
  const folder = join(root, `store-${folders++}`);
  const environment: Environment = {
    clock,
    random: seededRandom(1),
    disk: nodeDisk,
    logger: silentLogger,
    fatal: (error) => void fatal.push(error),
  };
  return { environment, clock, folder, fatal };
}

storeContract('level', async () => {
  const world = newWorld();
  const store = await openLevelStore(world);
  let newest = store;
  const reopen = async (): Promise<MetadataStore> => {
    await newest.close();
    newest = await openLevelStore(world);
    return newest;
  };
  return { store, clock: world.clock, reopen, end: async () => await newest.close() };
});

async function put(store: MetadataStore, key: string, value: string): Promise<void> {
  await store.transact([], [{ put: key, value: Buffer.from(value) }]);
}

/** A closed store with some history. */
async function makeStore(world: World, keys = 20): Promise<void> {
  const store = await openLevelStore(world);
  for (let n = 0; n < keys; n++) await put(store, `k${n % 15}`, `value ${n}`);
  await store.transact([], [{ delete: 'k0' }]);
  await store.close();
}

/** Changes a closed store behind its back. */
async function tamper(world: World, change: (level: Level<string, Buffer>) => Promise<void>): Promise<void> {
  const level = new Level<string, Buffer>(`${world.folder}/level`, { valueEncoding: 'buffer' });
  await level.open();
  await change(level);
  await level.close();
}

async function flipLast(world: World, key: string): Promise<void> {
  await tamper(world, async (level) => {
    const bytes = Buffer.from((await level.get(key)) ?? '');
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    await level.put(key, bytes);
  });
}

/** Opens a store that may be damaged: its content, or the code with which it was refused. */
async function contentOrCode(world: World): Promise<unknown> {
  try {
    const store = await openLevelStore(world);
    const { items } = await store.range({ prefix: '' });
    await store.close();
    return items.map(({ key, value }) => `${key}=${value.toString()}`);
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
}

function damage(message: string): object {
  return { code: 'METADATA_DAMAGED', message: `the metadata store is damaged: ${message}` };
}

describe('a damaged level store is refused', () => {
  test('when a revision is missing, in the middle or at an end', async () => {
    for (const missing of [1, 7, 21]) {
      const world = newWorld();
      await makeStore(world);
      await tamper(world, async (level) => await level.del(rowKey(missing)));
      await expect(openLevelStore(world)).rejects.toMatchObject(damage(`revision ${missing} is missing`));
    }
  });

  test('when a revision or a value has another content', async () => {
    const row = newWorld();
    await makeStore(row);
    await flipLast(row, rowKey(5));
    await expect(openLevelStore(row)).rejects.toMatchObject(damage('"r/0000000000000005" has a wrong checksum'));
    const item = newWorld();
    await makeStore(item);
    await flipLast(item, itemKey('k3'));
    await expect(openLevelStore(item)).rejects.toMatchObject(damage('"k/k3" has a wrong checksum'));
  });

  test('when a value is missing, old, or back again', async () => {
    const lost = newWorld();
    await makeStore(lost);
    await tamper(lost, async (level) => await level.del(itemKey('k3')));
    await expect(openLevelStore(lost)).rejects.toMatchObject(damage('"k3", which revision 19 wrote, is missing'));
    const stale = newWorld();
    const store = await openLevelStore(stale);
    await put(store, 'a', 'old');
    await store.close();
    const old: Buffer[] = [];
    await tamper(stale, async (level) => void old.push(Buffer.from((await level.get(itemKey('a'))) ?? '')));
    const again = await openLevelStore(stale);
    await put(again, 'a', 'new');
    await again.close();
    await tamper(stale, async (level) => await level.put(itemKey('a'), old[0] ?? Buffer.alloc(0)));
    await expect(openLevelStore(stale)).rejects.toMatchObject(
      damage('the value of "a" is not the one that revision 2 wrote'),
    );
  });

  test('when a value is missing whose revision is no longer remembered', async () => {
    const world = newWorld();
    const store = await openLevelStore(world);
    await put(store, 'old', '1');
    await put(store, 'new', '2');
    await store.compact(revision(2));
    await store.close();
    await tamper(world, async (level) => await level.del(itemKey('old')));
    await expect(openLevelStore(world)).rejects.toMatchObject(
      damage('it has 1 keys that are not the 2 that revision 2 left'),
    );
  });

  test('when the newest transaction, or everything, is gone without a trace', async () => {
    const tail = newWorld();
    const store = await openLevelStore(tail);
    await put(store, 'a', '1');
    await put(store, 'b', '2');
    await store.close();
    await tamper(tail, async (level) => {
      await level.batch([
        { type: 'del', key: rowKey(2) },
        { type: 'del', key: itemKey('b') },
        { type: 'put', key: NEWEST_KEY, value: encodeMark(NEWEST_KEY, 1) },
      ]);
    });
    await expect(openLevelStore(tail)).rejects.toMatchObject(
      damage('it ends at revision 1, but revision 2 was durable'),
    );
    // A witness that is not brought up to date would let it pass, and "b" would be gone.
    const unaware: World = { ...newWorld() };
    await cp(tail.folder, unaware.folder, { recursive: true });
    await rm(`${unaware.folder}/witness`);
    const lying = { disk: nodeDisk, clock: unaware.clock, path: `${unaware.folder}/witness`, failed: () => {} };
    await (await Witness.open(lying, 1)).close(undefined);
    expect(await contentOrCode(unaware)).toEqual(['a=1']);
    await tamper(tail, async (level) => await level.clear());
    await expect(openLevelStore(tail)).rejects.toMatchObject(damage('it is empty, but revision 2 was durable'));
    await rm(`${tail.folder}/level`, { recursive: true });
    await expect(openLevelStore(tail)).rejects.toMatchObject({ code: 'METADATA_DAMAGED' });
    const blind = newWorld();
    await makeStore(blind);
    await rm(`${blind.folder}/witness`);
    await expect(openLevelStore(blind)).rejects.toMatchObject(damage('its witness file is missing or unreadable'));
  });

  test('whichever bit of its log flips: it is refused, or whole; LevelDB alone loses keys in silence', async () => {
    const world = newWorld();
    await makeStore(world, 60);
    const names = await readdir(`${world.folder}/level`);
    const log = join('level', names.find((name) => name.endsWith('.log')) ?? '');
    const bytes = await readFile(join(world.folder, log));
    const original: World = { ...newWorld() };
    await cp(world.folder, original.folder, { recursive: true });
    const whole = await contentOrCode(original);
    expect(whole).toHaveLength(14);
    const random = seededRandom(7);
    const outcomes = { refused: 0, silent: 0 };
    for (let round = 0; round < 40; round++) {
      const flipped = Buffer.from(bytes);
      // The first and last bytes matter most: the first record, and the one that has no successor.
      const at = round === 0 ? 0 : round === 1 ? bytes.length - 1 : Math.floor(random.next() * bytes.length);
      flipped[at] = (flipped[at] ?? 0) ^ (1 << Math.floor(random.next() * 8));
      const copy: World = { ...newWorld() };
      await cp(world.folder, copy.folder, { recursive: true });
      await writeFile(join(copy.folder, log), flipped);
      const alone = `${copy.folder}-alone`;
      await cp(join(copy.folder, 'level'), alone, { recursive: true });
      const level = new Level<string, Buffer>(alone, { valueEncoding: 'buffer' });
      const keys = await level.open().then(
        async () => await level.keys({ gte: 'k/', lt: 'k0' }).all(),
        () => undefined,
      );
      if (keys !== undefined && keys.length !== 14) outcomes.silent++;
      await level.close();
      const outcome = await contentOrCode(copy);
      expect([whole, 'METADATA_DAMAGED']).toContainEqual(outcome);
      if (outcome === 'METADATA_DAMAGED') outcomes.refused++;
    }
    expect(outcomes.refused).toBeGreaterThan(30);
    expect(outcomes.silent).toBeGreaterThan(0);
  });
});

describe('opening', () => {
  test('a folder that another store has is refused in one line', async () => {
    const world = newWorld();
    const store = await openLevelStore(world);
    const error: unknown = await openLevelStore(world).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: 'FOLDER_IN_USE',
      message: `the metadata folder ${world.folder}/level is in use by another Magnetar`,
    });
    await store.close();
    await (await openLevelStore(world)).close();
  });

  test('a folder that cannot be made is refused in one line', async () => {
    const world = newWorld();
    await writeFile(world.folder, 'a file');
    const error: unknown = await openLevelStore(world).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'FOLDER_NOT_WRITABLE' });
    expect(String(error)).toContain(world.folder);
    expect(String(error)).not.toContain('\n');
  });

  test('keys of the leases of the process before are gone, more than fit into a transaction', async () => {
    const world = newWorld();
    const store = await openLevelStore(world);
    const lease = await store.grantLease(millis(10_000));
    await put(store, 'kept', '');
    for (let at = 0; at < 300; at += 100) {
      const keys = Array.from({ length: 100 }, (_, n) => `leased/${at + n}`);
      await store.transact(
        [],
        keys.map((key) => ({ put: key, value: Buffer.from(''), lease: lease.id })),
      );
    }
    await store.close();
    const again = await openLevelStore(world);
    const { revision: at, items } = await again.range({ prefix: '' });
    expect(items.map(({ key }) => key)).toEqual(['kept']);
    expect(at).toBe(4 + 3);
    await again.close();
  });

  test('the history is bounded, and stays so over a restart', async () => {
    const world = newWorld();
    const store = await openLevelStore(world);
    for (let n = 0; n < 13; n++) {
      await Promise.all(Array.from({ length: 1_000 }, async () => await put(store, 'a', 'x')));
    }
    await store.close();
    const again = await openLevelStore(world);
    const { signal } = new AbortController();
    const first = async (from: number): Promise<unknown> => {
      const watch = again.watch({ prefix: '', from: revision(from), signal });
      return await watch[Symbol.asyncIterator]().next();
    };
    await expect(first(2_500)).rejects.toMatchObject({ code: 'METADATA_COMPACTED' });
    expect(await first(3_100)).toMatchObject({ value: { revision: 3_100 } });
    await again.close();
    let rows = 0;
    await tamper(world, async (level) => void (rows = (await level.keys({ gte: 'r/', lt: 'r0' }).all()).length));
    expect(rows).toBeGreaterThan(9_999);
    expect(rows).toBeLessThan(10_600);
  });
});

/** A database whose writes wait at a gate. */
function gated(): { open: (folder: string, options: { create: boolean }) => Promise<Database>; gate: Gate } {
  const gate = new Gate();
  return {
    gate,
    open: async (folder, options) => {
      const database = await openDatabase(folder, options);
      return {
        write: async (operations) => {
          await gate.pass(operations.length);
          await database.write(operations);
        },
        get: (key, snapshot) => database.get(key, snapshot),
        snapshot: () => database.snapshot(),
        scan: (range, snapshot) => database.scan(range, snapshot),
        close: async () => await database.close(),
      };
    },
  };
}

class Gate {
  #waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];
  #arrivals: (() => void)[] = [];
  shut = false;
  /** Operations of each batch that came. */
  readonly batches: number[] = [];

  async pass(operations: number): Promise<void> {
    if (!this.shut) return;
    this.batches.push(operations);
    await new Promise<void>((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      for (const arrival of this.#arrivals.splice(0)) arrival();
    });
  }

  /** Resolves when a batch waits. */
  async arrival(): Promise<void> {
    if (this.#waiting.length === 0) await new Promise<void>((resolve) => this.#arrivals.push(resolve));
  }

  /** Lets one batch go on, or fail. */
  release(error?: Error): void {
    const first = this.#waiting.shift();
    if (error === undefined) first?.resolve();
    else first?.reject(error);
  }
}

async function settle(): Promise<void> {
  for (let n = 0; n < 3; n++) await new Promise((resolve) => setImmediate(resolve));
}

describe('group commit', () => {
  test('readers, watchers and refused transactions never see what is not durable', async () => {
    const world = newWorld();
    const { open, gate } = gated();
    const store = await openLevelStore({ ...world, open });
    await put(store, 'a', 'old');
    const watch = store.watch({ prefix: '', signal: new AbortController().signal })[Symbol.asyncIterator]();
    gate.shut = true;
    const log: string[] = [];
    const first = put(store, 'a', 'new').then(() => log.push('first'));
    await gate.arrival();
    const seen = watch.next().then(() => log.push('watch'));
    const refused = store.transact([{ key: 'a', modRevision: 1 }], [{ delete: 'a' }]).then((result) => {
      log.push('refused');
      return result;
    });
    const compared = store.transact([{ key: 'a', modRevision: 2 }], []).then(() => log.push('compared'));
    const { revision: at, items } = await store.get(['a']);
    expect([at, items[0]?.value.toString()]).toEqual([1, 'old']);
    expect((await store.range({ prefix: '' })).items[0]?.value.toString()).toBe('old');
    await settle();
    expect(log).toEqual([]);
    gate.release();
    expect(await refused).toMatchObject({ committed: false, revision: 2, current: [{ value: Buffer.from('new') }] });
    await Promise.all([first, compared, seen]);
    expect((await store.get(['a'])).items[0]?.value.toString()).toBe('new');
    gate.shut = false;
    await store.close();
  });

  test('what comes while a batch is being written goes into one batch', async () => {
    const { open, gate } = gated();
    const store = await openLevelStore({ ...newWorld(), open });
    gate.shut = true;
    const first = put(store, 'a', '1');
    await gate.arrival();
    const others = Array.from({ length: 50 }, async (_, n) => await put(store, `b${n}`, '1'));
    gate.shut = false;
    gate.release();
    await Promise.all([first, ...others]);
    expect(gate.batches).toEqual([3]);
    await store.close();
  });

  test('a failed write fails what was waiting, ends the store, and calls the fatal hook once', async () => {
    const world = newWorld();
    const { open, gate } = gated();
    const store = await openLevelStore({ ...world, open });
    await put(store, 'a', 'acknowledged');
    const lease = await store.grantLease(millis(10_000));
    const watching = store.watch({ prefix: '', signal: new AbortController().signal })[Symbol.asyncIterator]().next();
    gate.shut = true;
    const pending = [put(store, 'b', 'lost')];
    await gate.arrival();
    pending.push(
      put(store, 'c', 'lost'),
      store.transact([], []).then(() => {}),
      store.compact(revision(1)),
    );
    gate.release(new Error('IO error: Input/output error'));
    const failed = { code: 'STORE_FAILED' };
    const outcomes = await Promise.allSettled(pending);
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected', 'fulfilled']);
    await expect(watching).rejects.toMatchObject(failed);
    await lease.lost;
    await expect(store.get(['a'])).rejects.toMatchObject(failed);
    await expect(store.range({ prefix: '' })).rejects.toMatchObject(failed);
    await expect(put(store, 'd', '')).rejects.toMatchObject(failed);
    expect(world.fatal.map(({ message }) => message)).toEqual([
      'a write of the metadata store failed: IO error: Input/output error; nothing more is accepted',
    ]);
    await store.close();
    await expect(store.get(['a'])).rejects.toMatchObject({ code: 'ALREADY_CLOSED' });
    const again = await openLevelStore(world);
    expect((await again.range({ prefix: '' })).items.map(({ key }) => key)).toEqual(['a']);
    await again.close();
  });

  test('too many waiting transactions are refused, and the others are not harmed', async () => {
    const { open, gate } = gated();
    const store = await openLevelStore({ ...newWorld(), open });
    gate.shut = true;
    const pending = Array.from({ length: 10_000 }, async () => await put(store, 'a', ''));
    await expect(put(store, 'a', '')).rejects.toMatchObject({ code: 'QUEUE_FULL' });
    gate.shut = false;
    await gate.arrival();
    gate.release();
    await Promise.all(pending);
    expect((await store.get([])).revision).toBe(10_000);
    await store.close();
  });

  test('every batch is synced', async () => {
    const world = newWorld();
    const store = await openLevelStore(world);
    const batch = vi.spyOn(Level.prototype, 'batch');
    try {
      await put(store, 'a', '1');
      expect(batch).toHaveBeenCalledTimes(1);
      expect(batch.mock.calls[0]).toMatchObject([{}, { sync: true }]);
    } finally {
      batch.mockRestore();
    }
    await store.close();
  });
});
