import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { diskContract } from '../disk.contract.ts';
import { type Handle, NodeFile, nodeDisk } from './disk.ts';

async function temporaryFolder(): Promise<{ folder: string; end: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'magnetar-disk-'));
  return { folder, end: async () => await rm(folder, { recursive: true }) };
}

diskContract('the disk of this machine', async () => ({ disk: nodeDisk, ...(await temporaryFolder()) }));

test('a short write is continued where it stopped', async () => {
  const written: Buffer[] = [];
  const handle: Handle = {
    ...unused,
    writev: async (buffers, position) => {
      const all = Buffer.concat(
        buffers.map((buffer) => Buffer.from(buffer.buffer, buffer.byteOffset, buffer.byteLength)),
      );
      const taken = all.subarray(0, Math.min(3, all.length));
      expect(position).toBe(100 + Buffer.concat(written).length);
      written.push(Buffer.from(taken));
      return await Promise.resolve({ bytesWritten: taken.length, buffers });
    },
  };
  await new NodeFile(handle, 'x').write(
    [Buffer.from('ab'), Buffer.alloc(0), Buffer.from('cdefgh'), Buffer.from('i')],
    100,
  );
  expect(Buffer.concat(written).toString()).toBe('abcdefghi');
});

test('a write that makes no headway fails instead of spinning', async () => {
  const handle: Handle = { ...unused, writev: async (buffers) => await Promise.resolve({ bytesWritten: 0, buffers }) };
  await expect(new NodeFile(handle, 'x').write([Buffer.from('a')], 7)).rejects.toMatchObject({
    code: 'EIO',
    message: 'EIO: nothing written at 7 of x',
  });
});

test('a short read is continued up to the end of the file', async () => {
  const { folder, end } = await temporaryFolder();
  const real = await open(join(folder, 'a'), 'w+');
  await real.write('0123456789');
  const read = async (
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ bytesRead: number; buffer: Buffer }> => await real.read(buffer, offset, Math.min(length, 4), position);
  const file = new NodeFile({ ...unused, read: read as Handle['read'] }, 'x');
  expect((await file.read(1, 100)).toString()).toBe('123456789');
  expect((await file.read(1, 5)).toString()).toBe('12345');
  await real.close();
  await end();
});

test('a failed sync reaches the caller', async () => {
  const failure = Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' });
  const file = new NodeFile({ ...unused, datasync: async () => await Promise.reject(failure) }, 'x');
  await expect(file.sync()).rejects.toBe(failure);
});

async function unexpected(): Promise<never> {
  return await Promise.reject(new Error('not expected here'));
}

const unused: Handle = {
  writev: unexpected,
  read: unexpected,
  datasync: unexpected,
  stat: unexpected,
  truncate: unexpected,
  close: unexpected,
};
