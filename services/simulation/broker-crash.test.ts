import { describe, expect, test } from 'vitest';
import type { Topic } from '../broker/topic/topic.ts';
import type { Bookie } from '../ledger/bookie.ts';
import { hasCode } from '../lib/errors.ts';
import { NO_ENTRY } from '../lib/ids.ts';
import type { DiskFile } from '../runtime/disk.ts';
import { CrashDisk } from '../runtime/testing/crash-disk.ts';
import { brokerRounds } from './testing/broker-rounds.ts';
import type { WorldOptions } from './testing/world.ts';

const SEEDS = 30;

describe.each([1, 3])('a topic over %i bookies, whatever dies when', (bookies) => {
  test('what was confirmed is there, once, in order; what was acknowledged stays so; and all goes on when the trouble is over', {
    timeout: 120_000,
  }, async () => {
    const sum = { confirmed: 0, duplicates: 0, acks: 0, seeks: 0, powerCuts: 0, takeovers: 0, ledgers: 0 };
    for (let seed = 0; seed < SEEDS; seed++) {
      const report = await brokerRounds(seed, { bookies });
      expect(report.violations, `seed ${seed}`).toEqual([]);
      for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += report[name];
    }
    for (const [name, count] of Object.entries(sum)) expect(count, `${name} of ${SEEDS} lives`).toBeGreaterThan(SEEDS);
  });
});

/** A disk that says "synced" of a segment and does nothing. */
class LyingDisk extends CrashDisk {
  override async open(path: string, options?: { create?: boolean }): Promise<DiskFile> {
    const file = await super.open(path, options);
    if (!path.includes('/segments/')) return file;
    return {
      write: async (buffers, offset) => await file.write(buffers, offset),
      read: async (offset, length) => await file.read(offset, length),
      sync: async () => await Promise.resolve(),
      commit: async (buffers, offset) => await file.write(buffers, offset),
      size: async () => await file.size(),
      truncate: async (size) => await file.truncate(size),
      close: async () => await file.close(),
    };
  }
}

function front(bookie: Bookie, differing: Partial<Bookie>): Bookie {
  return {
    id: bookie.id,
    get available() {
      return bookie.available;
    },
    append: (entry, done) => bookie.append(entry, done),
    read: async (request) => bookie.read(request),
    readLac: async (request) => bookie.readLac(request),
    close: async () => bookie.close(),
    ...differing,
  };
}

/** A bookie that answers before an entry is on disk. */
function hasty(bookie: Bookie): Bookie {
  return front(bookie, {
    append: (entry, done) => {
      bookie.append(entry, () => undefined);
      void Promise.resolve().then(() => done());
    },
  });
}

/** A bookie that does not fence. */
function unfenced(bookie: Bookie): Bookie {
  return front(bookie, {
    read: async ({ ledgerId, firstEntryId, maxEntries, maxBytes }) =>
      bookie.read({ ledgerId, firstEntryId, maxEntries, maxBytes }),
    readLac: async ({ ledgerId }) => {
      try {
        return await bookie.readLac({ ledgerId });
      } catch (error) {
        if (hasCode(error, 'NO_SUCH_LEDGER')) return { lac: NO_ENTRY, lastEntryId: NO_ENTRY };
        throw error;
      }
    },
  });
}

/** A topic that does not know what producers have sent before. */
function forgetful(topic: Topic): void {
  topic.publisher.dedup.check = () => ({ kind: 'new' });
}

/** A topic that now and then does not say what has become of an acknowledgment. */
function taciturn({ consumers }: Topic): void {
  const attach = consumers.attach.bind(consumers);
  let acks = 0;
  consumers.attach = async (request) => {
    const consumer = await attach(request);
    const acknowledge = consumer.acknowledge.bind(consumer);
    consumer.acknowledge = (below, ranges, done) => {
      const told = ++acks % 4 !== 0;
      acknowledge(below, ranges, (error) => {
        if (told) done(error);
      });
    };
    return consumer;
  };
}

const SABOTAGES: readonly (readonly [string, Partial<WorldOptions>])[] = [
  ['a topic without deduplication', { opened: forgetful }],
  ['a topic that leaves acknowledgments unanswered', { opened: taciturn }],
  ['a disk whose sync does nothing', { newDisk: () => new LyingDisk() }],
  ['a bookie that answers before an entry is on disk', { front: hasty }],
  ['a bookie that does not fence', { front: unfenced }],
];

test.each(SABOTAGES)('sabotage: %s is caught', { timeout: 120_000 }, async (_, sabotage) => {
  for (let seed = 0; ; seed++) {
    expect(seed, 'seeds that went by').toBeLessThan(60);
    const { violations } = await brokerRounds(seed, { bookies: 1, ...sabotage });
    if (violations.length > 0) return;
  }
});
