import { ByteBudget, type ShareLimits } from '../byte-budget.ts';
import { type MemoryBudget, memoryBudget, type MemoryUse } from '../memory.ts';

/** A budget of the usual size in which some uses can get so many bytes only. For tests. */
export function smallMemory(limits: Readonly<Partial<Record<MemoryUse, number>>>): MemoryBudget {
  const usual = memoryBudget();
  const share = (use: MemoryUse): ShareLimits => {
    const { reserveBytes, limitBytes } = usual.share(use).limits;
    const limit = limits[use] ?? limitBytes;
    return { reserveBytes: Math.min(reserveBytes, limit), limitBytes: limit };
  };
  return new ByteBudget<MemoryUse>({
    totalBytes: usual.totalBytes,
    shares: {
      intake: share('intake'),
      firstIntake: share('firstIntake'),
      write: share('write'),
      read: share('read'),
      firstRead: share('firstRead'),
      ack: share('ack'),
      recovery: share('recovery'),
      cache: share('cache'),
    },
    waiters: 1_000,
  });
}
