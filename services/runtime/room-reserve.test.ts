import { expect, test } from 'vitest';
import { RoomReserve } from './room-reserve.ts';
import { CrashDisk } from './testing/crash-disk.ts';

const BYTES = 2_500_000;

async function setUp(capacityBytes: number): Promise<{ disk: CrashDisk; reserve: RoomReserve }> {
  const disk = new CrashDisk();
  disk.capacityBytes = capacityBytes;
  await disk.makeFolder('/data');
  return { disk, reserve: new RoomReserve(disk, '/data/reserve', BYTES) };
}

test('keeps room, gives it up once, and keeps it again', async () => {
  const { disk, reserve } = await setUp(4_000_000);
  expect(await reserve.release()).toBe(false);
  expect([await reserve.restore(), await reserve.restore()]).toEqual([true, true]);
  const kept = (await disk.space('/data')).freeBytes;
  expect([await reserve.release(), await reserve.release()]).toEqual([true, false]);
  expect((await disk.space('/data')).freeBytes).toBeGreaterThanOrEqual(kept + BYTES);
  expect(await reserve.restore()).toBe(true);
  expect(disk.openFiles).toBe(0);
});

test('takes nothing where there is too little, and goes on with what a crash has left', async () => {
  const { disk, reserve } = await setUp(2_000_000);
  expect(await reserve.restore()).toBe(false);
  expect((await disk.space('/data')).freeBytes).toBe(2_000_000);
  disk.capacityBytes = 4_000_000;
  const file = await disk.open('/data/reserve', { create: true });
  await file.write([Buffer.alloc(1_000)], 0);
  await file.close();
  expect(await reserve.restore()).toBe(true);
  expect(await disk.readFile('/data/reserve')).toHaveLength(BYTES);
});
