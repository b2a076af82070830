import { EventEmitter, once } from 'node:events';
import { mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Disk } from '../disk.ts';
import { diskContract } from '../disk.contract.ts';
import { ManualClock } from '../testing/manual-clock.ts';
import { AlignedBuffers, DIRECT_BYTES, TRANSFER_BYTES } from './aligned-buffers.ts';
import { DirectFile, type DirectHandle } from './direct-file.ts';
import { nodeDisk } from './disk.ts';

const directDisk: Disk = {
  ...nodeDisk,
  open: async (path, options) => await nodeDisk.open(path, { ...options, direct: true }),
};

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'magnetar-direct-'));
});
afterAll(async () => await rm(folder, { recursive: true }));

diskContract('past the page cache', async () => {
  const own = await mkdtemp(join(tmpdir(), 'magnetar-direct-'));
  return { disk: directDisk, folder: own, end: async () => await rm(own, { recursive: true }) };
});

/** Bytes that differ from place to place. */
function content(length: number, seed: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let at = 0; at < length; at++) bytes[at] = (at * 31 + (at >> 8) * 7 + seed) & 0xff;
  return bytes;
}

const O_DIRECT = 0o40000;
const O_DSYNC = 0o10000;

/** How a file is open: past the page cache, or that and durable with every write, or neither. */
async function waysOpen(path: string): Promise<string[]> {
  const ways: string[] = [];
  for (const fd of await readdir('/proc/self/fd')) {
    const target = await readlink(`/proc/self/fd/${fd}`).catch(() => '');
    if (target !== path) continue;
    const octal = /flags:\s*([0-7]+)/.exec(await readFile(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '0';
    const flags = Number.parseInt(octal, 8);
    ways.push(`${flags & O_DIRECT ? 'direct' : 'plain'}${flags & O_DSYNC ? ' durable' : ''}`);
  }
  return ways.toSorted();
}

test.runIf(process.platform === 'linux' && process.arch === 'x64')(
  'a file is open both ways, and, once something is committed, so that each write is durable; all are closed',
  async () => {
    const path = join(folder, 'flags');
    const file = await directDisk.open(path, { create: true });
    expect(await waysOpen(path)).toEqual(['direct', 'plain']);
    await file.commit([Buffer.alloc(DIRECT_BYTES)], 0);
    expect(await waysOpen(path)).toEqual(['direct', 'direct durable', 'plain']);
    await file.close();
    expect(await waysOpen(path)).toEqual([]);
  },
);

test('whole sectors and odd pieces, large and small, are read back from any place', async () => {
  const path = join(folder, 'places');
  const file = await directDisk.open(path, { create: true });
  const model = Buffer.alloc(4 * TRANSFER_BYTES);
  const write = async (offset: number, length: number): Promise<void> => {
    const bytes = content(length, offset);
    bytes.copy(model, offset);
    const cut = [0, Math.floor(length / 3), Math.floor(length / 3), length - 1, length];
    await file.write(
      cut.slice(1).map((end, piece) => bytes.subarray(cut[piece], end)),
      offset,
    );
  };
  await write(0, 3 * TRANSFER_BYTES);
  await write(DIRECT_BYTES, DIRECT_BYTES);
  await write(2 * TRANSFER_BYTES - DIRECT_BYTES, 3 * DIRECT_BYTES);
  await write(5_000, 7_001);
  await write(3 * TRANSFER_BYTES, 4_095);
  await file.sync();
  const end = 3 * TRANSFER_BYTES + 4_095;
  expect(await file.size()).toBe(end);
  const places = [0, 1, 511, 4_095, 4_096, 11_000, TRANSFER_BYTES - 1, TRANSFER_BYTES, 2 * TRANSFER_BYTES + 77];
  for (const offset of [...places, end - 1]) {
    for (const length of [0, 1, 4_095, 4_096, 8_192, TRANSFER_BYTES, TRANSFER_BYTES + 3, 2 * TRANSFER_BYTES + 9]) {
      const wanted = model.subarray(offset, Math.min(end, offset + length));
      expect([offset, length, wanted.equals(await file.read(offset, length))]).toEqual([offset, length, true]);
    }
  }
  await file.close();
  expect((await readFile(path)).equals(model.subarray(0, end))).toBe(true);
});

test('more transfers at once than there are buffers', async () => {
  const file = await directDisk.open(join(folder, 'many'), { create: true });
  const blocks = Array.from({ length: 40 }, (_, at) => content(DIRECT_BYTES * (1 + (at % 3)), at));
  const gap = 4 * DIRECT_BYTES;
  await Promise.all(blocks.map(async (block, at) => await file.write([block], at * gap)));
  const read = await Promise.all(blocks.map(async (block, at) => await file.read(at * gap, block.length)));
  read.forEach((bytes, at) => expect([at, bytes.equals(blocks[at] as Buffer)]).toEqual([at, true]));
  await file.close();
});

test('the memory of transfers is given back when there have been none for a while', async () => {
  const clock = new ManualClock();
  const buffers = new AlignedBuffers(clock);
  const transfer = async (): Promise<void> => await buffers.lend(async () => await Promise.resolve());
  expect([buffers.held, clock.pendingTimers]).toEqual([false, 0]);
  await transfer();
  clock.advance(4_000);
  await transfer();
  clock.advance(5_000);
  expect(buffers.held).toBe(true);
  clock.advance(5_000);
  expect([buffers.held, clock.pendingTimers]).toEqual([false, 0]);
  const events = new EventEmitter();
  const long = buffers.lend(async () => void (await once(events, 'end')));
  clock.advance(30_000);
  expect(buffers.held).toBe(true); // lent
  events.emit('end');
  await long;
  clock.advance(5_000);
  expect(buffers.held).toBe(false);
});

/** A file whose direct writes are done by `write`. */
async function over(write: DirectHandle['write']): Promise<{ file: DirectFile; path: string }> {
  const path = join(folder, `short-${Math.random()}`);
  const plain = await nodeDisk.open(path, { create: true });
  const handle = {
    write,
    read: async (): Promise<never> => await Promise.reject(new Error('not read')),
    close: async (): Promise<void> => {},
  };
  const handles = { direct: handle, durable: async () => await Promise.resolve(handle) };
  return { file: new DirectFile(plain, handles, new AlignedBuffers(new ManualClock()), path), path };
}

describe('a disk that does not take everything', () => {
  test('a write that stops within a sector is ended the usual way', async () => {
    const bytes = content(3 * DIRECT_BYTES, 1);
    const { file, path } = await over((async (buffer: Buffer, from: number, _length: number, position: number) => {
      const plain = await nodeDisk.open(path);
      await plain.write([buffer.subarray(from, from + 700)], position);
      await plain.close();
      return { bytesWritten: 700, buffer };
    }) as unknown as DirectHandle['write']);
    await file.write([bytes], 0);
    await file.commit([bytes], bytes.length);
    await file.close();
    expect((await readFile(path)).equals(Buffer.concat([bytes, bytes]))).toBe(true);
  });

  test('where one part found no room and another failed for good, it failed for good, and names the file', async () => {
    let calls = 0;
    const { file, path } = await over(async () => {
      const code = calls++ === 0 ? 'ENOSPC' : 'EIO';
      throw await Promise.resolve(Object.assign(new Error(`${code}: sorry, write`), { code }));
    });
    const failed = { code: 'EIO', message: `EIO: sorry, write '${path}'` };
    await expect(file.write([Buffer.alloc(3 * TRANSFER_BYTES)], 0)).rejects.toMatchObject(failed);
    await file.close();
  });

  test('an error comes out once nothing is in flight any more', async () => {
    let [inFlight, calls] = [0, 0];
    const { file } = await over((async (buffer: Buffer, _from: number, length: number) => {
      inFlight++;
      calls++;
      const fails = calls === 1;
      if (!fails) await new Promise((resolve) => setTimeout(resolve, 5));
      inFlight--;
      if (fails) throw Object.assign(new Error('ENOSPC: no space'), { code: 'ENOSPC' });
      return { bytesWritten: length, buffer };
    }) as unknown as DirectHandle['write']);
    await expect(file.write([Buffer.alloc(3 * TRANSFER_BYTES)], 0)).rejects.toMatchObject({ code: 'ENOSPC' });
    expect([calls, inFlight]).toEqual([3, 0]);
    await file.close();
  });
});
