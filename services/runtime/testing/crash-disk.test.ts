import { EventEmitter, once } from 'node:events';
import { expect, test } from 'vitest';
import { diskContract, fullDiskContract } from '../disk.contract.ts';
import { CrashDisk } from './crash-disk.ts';
import { seededRandom } from './seeded-random.ts';

async function newDisk(): Promise<CrashDisk> {
  const disk = new CrashDisk();
  await disk.makeFolder('/data');
  return disk;
}

diskContract('the disk that crashes', async () => ({
  disk: await newDisk(),
  folder: '/data',
  end: async () => await Promise.resolve(),
}));

fullDiskContract('the disk that crashes', async () => {
  const disk = await newDisk();
  disk.capacityBytes = 1_000_000;
  return {
    disk,
    folder: '/data',
    roomBytes: disk.capacityBytes,
    grow: async () => await Promise.resolve(void (disk.capacityBytes = 2_000_000)),
    end: async () => await Promise.resolve(),
  };
});

test('a full disk takes a part of a write, and a removed file makes room', async () => {
  const disk = await newDisk();
  disk.capacityBytes = 3 * 4_096;
  const file = await disk.open('/data/a', { create: true });
  await file.write([Buffer.alloc(5_000, 'a')], 0);
  await expect(file.write([Buffer.alloc(9_000, 'b')], 5_000)).rejects.toMatchObject({ code: 'ENOSPC' });
  expect(await file.size()).toBe(3 * 4_096);
  expect((await file.read(4_990, 20)).toString()).toBe(`${'a'.repeat(10)}${'b'.repeat(10)}`);
  await file.write([Buffer.alloc(9_000 - 4_096 + 1_000, 'c')], 5_000); // inside
  const other = await disk.open('/data/b', { create: true });
  await expect(other.write([Buffer.alloc(1)], 0)).rejects.toMatchObject({ code: 'ENOSPC' });
  await disk.remove('/data/a');
  await other.write([Buffer.alloc(1)], 0);
  expect(await disk.space('/data')).toEqual({ freeBytes: 8_192, totalBytes: 12_288 });
});

test('a crash takes what was written after the last sync, and names not made durable', async () => {
  const disk = await newDisk();
  const file = await disk.open('/data/a', { create: true });
  await disk.syncFolder('/data');
  await file.write([Buffer.from('durable')], 0);
  await file.sync();
  await file.write([Buffer.from('DUR')], 0);
  await disk.open('/data/b', { create: true });
  disk.crash();
  expect(await disk.list('/data')).toEqual(['a']);
  expect((await disk.readFile('/data/a')).toString()).toBe('durable');
  await expect(file.write([Buffer.from('x')], 0)).rejects.toMatchObject({ code: 'EBADF' });
});

test('a rename, a removal and a truncation are undone by a crash unless made durable', async () => {
  const disk = await newDisk();
  await disk.writeFileAtomically('/data/a', Buffer.from('a'));
  await disk.writeFileAtomically('/data/b', Buffer.from('b'));
  const file = await disk.open('/data/b');
  await file.truncate(0);
  await disk.rename('/data/a', '/data/c');
  await disk.remove('/data/b');
  disk.crash();
  expect(await disk.list('/data')).toEqual(['a', 'b']);
  expect((await disk.readFile('/data/b')).toString()).toBe('b');
});

test('with chance, unsynced sectors survive one by one, and a rename is never half done', async () => {
  const outcomes = new Set<string>();
  for (let seed = 0; seed < 50; seed++) {
    const disk = await newDisk();
    await disk.writeFileAtomically('/data/a', Buffer.alloc(1_024, '.'));
    const file = await disk.open('/data/a');
    await file.write([Buffer.alloc(1_024, 'x')], 0);
    await disk.rename('/data/a', '/data/b');
    disk.crash(seededRandom(seed));
    const names = await disk.list('/data');
    expect(names).toHaveLength(1);
    const content = (await disk.readFile(`/data/${names[0] ?? ''}`)).toString();
    outcomes.add(`${names[0] ?? ''}${content[0] ?? ''}${content[512] ?? ''}`);
  }
  expect([...outcomes].toSorted()).toEqual(['a..', 'a.x', 'ax.', 'axx', 'b..', 'b.x', 'bx.', 'bxx']);
});

test('what a failed sync was to make durable is lost, also when a later sync succeeds', async () => {
  const disk = await newDisk();
  await disk.writeFileAtomically('/data/a', Buffer.from('old'));
  const file = await disk.open('/data/a');
  await file.write([Buffer.from('new')], 0);
  disk.before = ({ operation }) => {
    if (operation === 'sync') throw Object.assign(new Error('EIO'), { code: 'EIO' });
  };
  await expect(file.sync()).rejects.toMatchObject({ code: 'EIO' });
  disk.before = () => {};
  await file.sync();
  expect((await disk.readFile('/data/a')).toString()).toBe('new');
  disk.crash();
  expect((await disk.readFile('/data/a')).toString()).toBe('old');
});

test('a flipped bit is read back, before and after a crash', async () => {
  const disk = await newDisk();
  await disk.writeFileAtomically('/data/a', Buffer.from([0, 0]));
  disk.flipBit('/data/a', 9);
  expect([...(await disk.readFile('/data/a'))]).toEqual([0, 2]);
  disk.crash();
  expect([...(await disk.readFile('/data/a'))]).toEqual([0, 2]);
});

test('a barrier holds an operation, and a crash during it loses the operation', async () => {
  const disk = await newDisk();
  await disk.writeFileAtomically('/data/a', Buffer.from('old'));
  const file = await disk.open('/data/a');
  const barrier = new EventEmitter();
  await file.write([Buffer.from('new')], 0);
  disk.before = async () => void (await once(barrier, 'open'));
  const syncing = file.sync();
  disk.crash();
  barrier.emit('open');
  await expect(syncing).rejects.toMatchObject({ code: 'EBADF' });
  disk.before = () => {};
  expect((await disk.readFile('/data/a')).toString()).toBe('old');
});
