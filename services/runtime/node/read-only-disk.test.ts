import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { readOnlyDisk } from './read-only-disk.ts';

test('reads, and changes nothing', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'read-only-'));
  const file = path.join(folder, 'file');
  try {
    await writeFile(file, 'content');
    const opened = await readOnlyDisk.open(file, { direct: true });
    expect((await opened.read(3, 100)).toString()).toBe('tent');
    await expect(opened.write([Buffer.from('x')], 0)).rejects.toMatchObject({ code: 'EBADF' });
    await opened.close();
    const changes = [
      readOnlyDisk.open(path.join(folder, 'new'), { create: true }),
      readOnlyDisk.writeFileAtomically(file, Buffer.from('x')),
      readOnlyDisk.remove(file),
      readOnlyDisk.rename(file, path.join(folder, 'new')),
      readOnlyDisk.makeFolder(path.join(folder, 'new')),
    ];
    for (const change of changes) await expect(change).rejects.toMatchObject({ code: 'EROFS' });
    expect(await readdir(folder)).toEqual(['file']);
    expect((await readOnlyDisk.readFile(file)).toString()).toBe('content');
  } finally {
    await rm(folder, { recursive: true });
  }
});
