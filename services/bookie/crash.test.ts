import { describe, expect, test } from 'vitest';
import { type DiskFile, isDiskFull } from '../runtime/disk.ts';
import { CrashDisk } from '../runtime/testing/crash-disk.ts';
import { crashRounds } from './testing/crash-rounds.ts';

/** A file with some of its operations replaced. */
function altered(file: DiskFile, own: Partial<DiskFile>): DiskFile {
  const parts = {
    write: async (buffers: readonly Uint8Array[], offset: number) => await file.write(buffers, offset),
    read: async (offset: number, length: number) => await file.read(offset, length),
    sync: async () => await file.sync(),
    size: async () => await file.size(),
    truncate: async (size: number) => await file.truncate(size),
    close: async () => await file.close(),
    ...own,
  };
  return {
    ...parts,
    async commit(buffers, offset) {
      await parts.write(buffers, offset);
      await parts.sync();
    },
  };
}

/** A disk that says "written" of what it had no room for. */
class BoastfulDisk extends CrashDisk {
  override async open(path: string, options?: { create?: boolean }): Promise<DiskFile> {
    const file = await super.open(path, options);
    const write: DiskFile['write'] = async (buffers, offset) => {
      try {
        await file.write(buffers, offset);
      } catch (error) {
        if (!isDiskFull(error)) throw error;
      }
    };
    return altered(file, { write });
  }
}

/** A disk that says "synced" and does nothing: what the guarantee rests on, taken away. */
class LyingDisk extends CrashDisk {
  override async open(path: string, options?: { create?: boolean }): Promise<DiskFile> {
    const file = await super.open(path, options);
    return altered(file, { sync: async () => await Promise.resolve() });
  }
}

describe('a crash at any operation of the disk', () => {
  const seeds = Array.from({ length: 60 }, (_, seed) => seed);

  test('takes no acknowledged entry and no fence, and is never taken for damage', async () => {
    let acked = 0;
    for (const seed of seeds) {
      const report = await crashRounds(new CrashDisk(), seed);
      expect(report.violations, `seed ${seed}`).toEqual([]);
      acked += report.acked;
    }
    expect(acked).toBeGreaterThan(seeds.length * 20);
  });

  test('does so on a disk that is full now and then', async () => {
    const some = seeds.slice(0, 40);
    let [acked, refused] = [0, 0];
    for (const seed of some) {
      const report = await crashRounds(new CrashDisk(), seed, { fills: true });
      expect(report.violations, `seed ${seed}`).toEqual([]);
      acked += report.acked;
      refused += report.refused;
    }
    expect(acked).toBeGreaterThan(some.length * 10);
    expect(refused).toBeGreaterThan(some.length * 10);
  });

  test('sabotage: with a bookie that takes a write for done that found no room the checker finds what is lost', async () => {
    let caught = 0;
    for (const seed of seeds.slice(0, 8)) {
      try {
        const { violations } = await crashRounds(new BoastfulDisk(), seed, { fills: true });
        if (violations.length > 0) caught++;
      } catch {
        caught++; // The folder could not even be opened.
      }
    }
    expect(caught).toBeGreaterThan(4);
  });

  test('sabotage: with a disk whose sync does nothing the checker finds what is lost', async () => {
    let caught = 0;
    for (const seed of seeds.slice(0, 20)) {
      try {
        const { violations } = await crashRounds(new LyingDisk(), seed);
        if (violations.length > 0) caught++;
      } catch {
        caught++; // The folder could not even be opened.
      }
    }
    expect(caught).toBeGreaterThan(15);
  });
});
