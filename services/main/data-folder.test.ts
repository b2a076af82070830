import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { nodeDisk } from '../runtime/node/disk.ts';
import { openDataFolder, requireMetadata } from './data-folder.ts';

let parent = '';
beforeEach(async () => {
  parent = await mkdtemp(path.join(tmpdir(), 'magnetar-data-'));
});
afterEach(async () => {
  await rm(parent, { recursive: true, force: true });
});

describe('openDataFolder', () => {
  test('makes the folder, and knows it again', async () => {
    const folder = path.join(parent, 'a', 'b');
    const made = await openDataFolder(nodeDisk, folder);
    expect(made).toMatchObject({ folder, metadataFolder: path.join(folder, 'metadata'), bookies: 0 });
    expect((await nodeDisk.readFile(path.join(folder, 'VERSION'))).toString()).toBe('magnetar data folder 1\n');
    await nodeDisk.makeFolder(made.bookieFolder(2));
    expect((await openDataFolder(nodeDisk, folder)).bookies).toBe(3);
  });

  test('a newer version is refused by name', async () => {
    await writeFile(path.join(parent, 'VERSION'), 'magnetar data folder 2\n');
    await expect(openDataFolder(nodeDisk, parent)).rejects.toMatchObject({
      code: 'FOLDER_VERSION',
      message: `the data folder ${parent} has version 2; the newest that this program reads is 1: use a newer Magnetar`,
    });
  });

  test.each(['', 'magnetar data folder x', 'PostgreSQL 15', 'magnetar data folder 0', 'magnetar data folder 1.5'])(
    'a VERSION of %j is refused',
    async (content) => {
      await writeFile(path.join(parent, 'VERSION'), content);
      await expect(openDataFolder(nodeDisk, parent)).rejects.toMatchObject({ code: 'FOLDER_VERSION' });
    },
  );

  test('data without a VERSION is refused, other files are none of our business', async () => {
    await writeFile(path.join(parent, 'lost+found'), '');
    await openDataFolder(nodeDisk, parent);
    await rm(path.join(parent, 'VERSION'));
    await nodeDisk.makeFolder(path.join(parent, 'metadata'));
    await expect(openDataFolder(nodeDisk, parent)).rejects.toMatchObject({
      code: 'FOLDER_VERSION',
      message: expect.stringContaining('holds metadata but no file VERSION') as string,
    });
  });

  test('a folder that cannot be made is FOLDER_NOT_WRITABLE', async () => {
    const file = path.join(parent, 'file');
    await writeFile(file, '');
    await expect(openDataFolder(nodeDisk, path.join(file, 'data'))).rejects.toMatchObject({
      code: 'FOLDER_NOT_WRITABLE',
      message: `the data folder ${path.join(file, 'data')} cannot be written to (ENOTDIR); name one that can with --data`,
    });
  });
});

describe('requireMetadata', () => {
  test('a folder with bookies and without the metadata is refused; a new one, and one that has it, are not', async () => {
    const made = await openDataFolder(nodeDisk, parent);
    await requireMetadata(nodeDisk, made);
    await nodeDisk.makeFolder(made.bookieFolder(0));
    const folder = await openDataFolder(nodeDisk, parent);
    const level = path.join(parent, 'metadata', 'level');
    await expect(requireMetadata(nodeDisk, folder)).rejects.toMatchObject({
      code: 'DATA_LOSS',
      message: expect.stringContaining(`${level} is missing`) as string,
    });
    await nodeDisk.makeFolder(level);
    await requireMetadata(nodeDisk, folder);
  });
});
