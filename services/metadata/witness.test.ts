import { expect, test } from 'vitest';
import { CrashDisk } from '../runtime/testing/crash-disk.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { seededRandom } from '../runtime/testing/seeded-random.ts';
import { Witness } from './witness.ts';

const path = '/data/witness';

async function setUp(): Promise<{ disk: CrashDisk; clock: ManualClock; failures: unknown[]; witness: Witness }> {
  const disk = new CrashDisk();
  await disk.makeFolder('/data');
  const clock = new ManualClock();
  const failures: unknown[] = [];
  expect(await Witness.read({ disk, path })).toBeUndefined();
  const witness = await Witness.open({ disk, clock, path, failed: (error) => failures.push(error) }, 0);
  return { disk, clock, failures, witness };
}

test('states what was noted a second ago, and everything at close', async () => {
  const { disk, clock, witness, failures } = await setUp();
  for (let n = 1; n <= 5; n++) witness.note(n);
  clock.advance(999);
  expect(await Witness.read({ disk, path })).toBe(0);
  clock.advance(1);
  witness.note(6);
  await witness.close(7);
  disk.crash();
  expect(await Witness.read({ disk, path })).toBe(7);
  expect(failures).toEqual([]);
  expect(clock.pendingTimers).toBe(0);
});

test('a crash in the middle of a write leaves the statement before, whichever slot it was', async () => {
  for (let seed = 0; seed < 20; seed++) {
    const { disk, clock, witness } = await setUp();
    for (let n = 1; n <= 1 + (seed % 3); n++) {
      witness.note(n);
      clock.advance(1_000);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const before = (await Witness.read({ disk, path })) ?? -1;
    expect(before).toBe(1 + (seed % 3));
    disk.before = ({ operation }) => {
      if (operation === 'sync') disk.crash(seededRandom(seed));
    };
    await expect(witness.close(100)).rejects.toMatchObject({ code: 'EBADF' });
    expect([before, 100]).toContain(await Witness.read({ disk, path }));
  }
});

test('a flipped bit costs one statement, not both', async () => {
  const { disk, witness } = await setUp();
  await witness.close(9);
  const again = await Witness.open({ disk, clock: new ManualClock(), path, failed: () => {} }, 10);
  await again.close(undefined);
  disk.flipBit(path, 12 * 8);
  expect([9, 10]).toContain(await Witness.read({ disk, path }));
  disk.flipBit(path, (512 + 12) * 8);
  expect(await Witness.read({ disk, path })).toBeUndefined();
});

test('a failed sync is reported', async () => {
  const { disk, clock, witness, failures } = await setUp();
  const failure = Object.assign(new Error('EIO'), { code: 'EIO' });
  disk.before = ({ operation }) => {
    if (operation === 'sync') throw failure;
  };
  witness.note(1);
  clock.advance(1_000);
  await new Promise((resolve) => setImmediate(resolve));
  expect(failures).toEqual([failure]);
});

test('no room for it is no failure: it is written when there is some', async () => {
  const { disk, clock, witness, failures } = await setUp();
  let full = true;
  disk.before = ({ operation }) => {
    if (operation === 'write' && full) throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
  };
  witness.note(5);
  for (let second = 0; second < 3; second++) {
    clock.advance(1_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(await Witness.read({ disk, path })).toBe(0);
  full = false;
  clock.advance(1_000);
  await new Promise((resolve) => setImmediate(resolve));
  expect(await Witness.read({ disk, path })).toBe(5);
  full = true;
  await witness.close(6);
  expect([await Witness.read({ disk, path }), failures, clock.pendingTimers]).toEqual([5, [], 0]);
});
