import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bookieContract } from '../ledger/bookie.contract.ts';
import { testEnvironment } from './testing/environment.ts';
import { openBookie } from './bookie.ts';

bookieContract('the bookie on the real disk', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'bookie-'));
  const open = { environment: testEnvironment(), folder, id: 'local-0', options: { segmentBytes: 16_777_216 } };
  let bookie = await openBookie(open);
  return {
    bookie,
    async reopen() {
      await bookie.close();
      bookie = await openBookie(open);
      return bookie;
    },
    async end() {
      await bookie.close();
      await rm(folder, { recursive: true });
    },
  };
});
