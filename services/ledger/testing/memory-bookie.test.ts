import { nodeClock } from '../../runtime/node/clock.ts';
import { bookieContract } from '../bookie.contract.ts';
import { MemoryBookie } from './memory-bookie.ts';

bookieContract('a bookie in memory', async () => {
  let bookie = new MemoryBookie('b', nodeClock);
  const under = {
    bookie,
    reopen: async () => {
      await bookie.close();
      bookie = new MemoryBookie('b', nodeClock, bookie);
      return bookie;
    },
    end: async () => await bookie.close(),
  };
  return await Promise.resolve(under);
});
