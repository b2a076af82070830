import { constants, open } from 'node:fs/promises';
import type { Disk } from '../disk.ts';
import { NodeFile, nodeDisk } from './disk.ts';

async function refuse(path: string): Promise<never> {
  await Promise.resolve();
  throw Object.assign(new Error(`EROFS: ${path} is only read`), { code: 'EROFS' });
}

/** The file system of this machine, of which nothing is changed: what would do so fails with EROFS. */
export const readOnlyDisk: Disk = {
  ...nodeDisk,
  async open(path, options) {
    if (options?.create === true) return await refuse(path);
    return new NodeFile(await open(path, constants.O_RDONLY), path);
  },
  writeFileAtomically: refuse,
  makeFolder: refuse,
  rename: refuse,
  remove: refuse,
  syncFolder: refuse,
};
