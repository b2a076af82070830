/**
 * What the disk itself takes: one process, one file, and each confirmation after a write and an fdatasync; whatever comes
 * while one is under way goes with the next. `--address` is the folder.
 */
import { randomUUID } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import path from 'node:path';
import { runLoad } from './driver.ts';

await runLoad(async ({ address, payload }) => {
  const name = path.join(address, `fdatasync-${randomUUID()}`);
  const file = await open(name, 'w');
  let waiting: (() => void)[] = [];
  let bytes = 0;
  let at = 0;
  let running: Promise<void> | undefined;
  const run = async (): Promise<void> => {
    while (waiting.length > 0) {
      const [group, size] = [waiting, bytes];
      [waiting, bytes] = [[], 0];
      await file.write(Buffer.alloc(size, payload), 0, size, at);
      await file.datasync();
      at += size;
      for (const confirm of group) confirm();
    }
    running = undefined;
  };
  return {
    publish: async (count) => {
      bytes += count * payload.length;
      await new Promise<void>((resolve) => {
        waiting.push(resolve);
        running ??= Promise.resolve().then(run);
      });
    },
    consume: async () => await Promise.reject(new Error('a raw file has no consumers')),
    async close() {
      await running;
      await file.close();
      await rm(name);
    },
  };
});
