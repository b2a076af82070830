import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Disk, type DiskFile, isDiskFull } from './disk.ts';

/** What every disk does. `make` gives a disk and an empty folder of it. */
export function diskContract(
  name: string,
  make: () => Promise<{ disk: Disk; folder: string; end: () => Promise<void> }>,
): void {
  describe(`disk contract: ${name}`, { tags: ['contract'] }, () => {
    let disk: Disk;
    let folder: string;
    let end: () => Promise<void>;

    beforeEach(async () => {
      ({ disk, folder, end } = await make());
    });
    afterEach(async () => await end());

    test('writes many buffers at a place and reads them back', async () => {
      const file = await disk.open(`${folder}/a`, { create: true });
      const buffers = Array.from({ length: 1_500 }, (_, at) => Buffer.from([at & 0xff, at >> 8]));
      await file.write([Buffer.alloc(0), ...buffers, Buffer.alloc(0)], 10);
      await file.sync();
      expect(await file.size()).toBe(3_010);
      expect(await file.read(10, 3_000)).toEqual(Buffer.concat(buffers));
      expect(await file.read(0, 10)).toEqual(Buffer.alloc(10));
      await file.write([Buffer.from('xyz')], 11);
      expect((await file.read(10, 5)).toString('latin1')).toBe('\0xyz\x02');
      await file.close();
    });

    test('commits whole pages and odd pieces, over what was written and behind it', async () => {
      const file = await disk.open(`${folder}/a`, { create: true });
      await file.write([Buffer.alloc(8_192, 'a')], 0);
      await file.commit([Buffer.alloc(4_000, 'b'), Buffer.alloc(4_192, 'c')], 4_096);
      await file.commit([Buffer.from('odd'), Buffer.from('end')], 12_288);
      const wanted = ['a'.repeat(4_096), 'b'.repeat(4_000), 'c'.repeat(4_192), 'oddend'].join('');
      expect((await file.read(0, 20_000)).toString()).toBe(wanted);
      await file.close();
    });

    test('reads fewer bytes only at the end of a file', async () => {
      const file = await disk.open(`${folder}/a`, { create: true });
      await file.write([Buffer.from('hello')], 0);
      expect((await file.read(3, 100)).toString()).toBe('lo');
      expect(await file.read(5, 100)).toHaveLength(0);
      expect(await file.read(900, 100)).toHaveLength(0);
      await file.close();
    });

    test('hands out buffers that are the caller’s', async () => {
      const file = await disk.open(`${folder}/a`, { create: true });
      await file.write([Buffer.from('hello')], 0);
      const bytes = await file.read(0, 5);
      bytes.fill(0);
      expect((await file.read(0, 5)).toString()).toBe('hello');
      await file.close();
    });

    test('cuts and grows a file, with zeros', async () => {
      const file = await disk.open(`${folder}/a`, { create: true });
      await file.write([Buffer.from('hello')], 0);
      await file.truncate(2);
      await file.truncate(4);
      expect(await disk.readFile(`${folder}/a`)).toEqual(Buffer.from('he\0\0'));
      await file.close();
    });

    test('opens what is there without emptying it, and closes twice', async () => {
      const first = await disk.open(`${folder}/a`, { create: true });
      await first.write([Buffer.from('kept')], 0);
      await first.close();
      await first.close();
      const second = await disk.open(`${folder}/a`, { create: true });
      expect((await second.read(0, 10)).toString()).toBe('kept');
      await second.close();
      await expect(second.read(0, 1)).rejects.toThrow(/./);
    });

    test('reports a missing file or folder with ENOENT', async () => {
      const missing = { code: 'ENOENT' };
      await expect(disk.open(`${folder}/none`)).rejects.toMatchObject(missing);
      await expect(disk.open(`${folder}/none/a`, { create: true })).rejects.toMatchObject(missing);
      await expect(disk.readFile(`${folder}/none`)).rejects.toMatchObject(missing);
      await expect(disk.remove(`${folder}/none`)).rejects.toMatchObject(missing);
      await expect(disk.rename(`${folder}/none`, `${folder}/a`)).rejects.toMatchObject(missing);
      await expect(disk.list(`${folder}/none`)).rejects.toMatchObject(missing);
      await expect(disk.syncFolder(`${folder}/none`)).rejects.toMatchObject(missing);
      expect(await disk.exists(`${folder}/none`)).toBe(false);
    });

    test('makes folders, lists names in order, moves over what is there, removes', async () => {
      await disk.makeFolder(`${folder}/x/y`);
      await disk.makeFolder(`${folder}/x/y`);
      for (const file of ['b', 'a', 'B', '10', '9'])
        await disk.writeFileAtomically(`${folder}/x/${file}`, Buffer.from(file));
      expect(await disk.list(`${folder}/x`)).toEqual(['10', '9', 'B', 'a', 'b', 'y']);
      await disk.rename(`${folder}/x/a`, `${folder}/x/b`);
      await disk.remove(`${folder}/x/9`);
      await disk.syncFolder(`${folder}/x`);
      expect(await disk.list(`${folder}/x/`)).toEqual(['10', 'B', 'b', 'y']);
      expect((await disk.readFile(`${folder}/x/b`)).toString()).toBe('a');
      expect(await disk.exists(`${folder}/x`)).toBe(true);
      expect(await disk.exists(`${folder}/x/b`)).toBe(true);
    });

    test('says how much room there is', async () => {
      const { freeBytes, totalBytes } = await disk.space(folder);
      expect(freeBytes).toBeGreaterThan(0);
      expect(totalBytes).toBeGreaterThanOrEqual(freeBytes);
      await expect(disk.space(`${folder}/none`)).rejects.toMatchObject({ code: 'ENOENT' });
    });

    test('replaces a file atomically and leaves no other name', async () => {
      await disk.writeFileAtomically(`${folder}/a`, Buffer.from('a long first content'));
      await disk.writeFileAtomically(`${folder}/a`, Buffer.from('second'));
      expect((await disk.readFile(`${folder}/a`)).toString()).toBe('second');
      expect(await disk.list(folder)).toEqual(['a']);
    });
  });
}

const PIECE = 16_384;

function letter(piece: number): string {
  return String.fromCodePoint(0x61 + (piece % 26));
}

/** Writes pieces of one letter each until that fails; returns how many are whole, and the error. */
async function fill(file: DiskFile): Promise<{ whole: number; error: unknown }> {
  for (let whole = 0; ; whole++) {
    try {
      await file.write([Buffer.alloc(PIECE - 100, letter(whole)), Buffer.alloc(100, letter(whole))], whole * PIECE);
    } catch (error) {
      return { whole, error };
    }
  }
}

/**
 * What every disk does when it is full. `make` gives a disk and an empty folder of it with room for `roomBytes`, which are few
 * megabytes, `grow` more room.
 */
export function fullDiskContract(
  name: string,
  make: () => Promise<{
    disk: Disk;
    folder: string;
    roomBytes: number;
    grow: () => Promise<void>;
    end: () => Promise<void>;
  }>,
): void {
  describe(`full disk contract: ${name}`, { tags: ['contract'] }, () => {
    test('what was reserved can be written, what was written stays, and room that returns is used', async () => {
      const { disk, folder, roomBytes, grow, end } = await make();
      try {
        const reserved = await disk.open(`${folder}/reserved`, { create: true });
        await reserved.write([Buffer.alloc(4 * PIECE)], 0);
        await reserved.sync();
        const file = await disk.open(`${folder}/a`, { create: true });
        const { whole, error } = await fill(file);
        expect(isDiskFull(error)).toBe(true);
        expect(whole).toBeGreaterThan(0);
        expect(whole * PIECE).toBeLessThan(roomBytes);
        expect((await disk.space(folder)).freeBytes).toBeLessThan(PIECE);
        await reserved.write([Buffer.alloc(3 * PIECE, '!')], PIECE); // overwrites
        await Promise.all([reserved.sync(), file.sync()]);
        await grow();
        await file.write([Buffer.alloc(PIECE, '?')], whole * PIECE);
        await file.sync();
        for (let piece = 0; piece <= whole; piece++) {
          const wanted = Buffer.alloc(PIECE, piece < whole ? letter(piece) : '?');
          expect((await file.read(piece * PIECE, PIECE)).equals(wanted)).toBe(true);
        }
        await Promise.all([reserved.close(), file.close()]);
      } finally {
        await end();
      }
    });
  });
}
