import { describe, expect, test } from 'vitest';
import type { DiskFile } from '../runtime/disk.ts';
import { CrashDisk } from '../runtime/testing/crash-disk.ts';
import { crashRounds } from './testing/crash-rounds.ts';

/** A disk that says "synced" and does nothing: what the guarantee rests on, taken away. */
class LyingDisk extends CrashDisk {
  override async open(path: string, options?: { create?: boolean }): Promise<DiskFile> {
    const file = await super.open(path, options);
    return {
      write: async (buffers, offset) => await file.write(buffers, offset),
      read: async (offset, length) => await file.read(offset, length),
      sync: async () => await Promise.resolve(),
      size: async () => await file.size(),
      truncate: async (size) => await file.truncate(size),
      close: async () => await file.close(),
    };
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
