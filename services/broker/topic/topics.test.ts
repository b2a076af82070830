import { queryObjects } from 'node:v8';
import { expect, test } from 'vitest';
import type { Ledgers } from '../../ledger/ledgers.ts';
import { Gate } from '../../ledger/testing/gate.ts';
import { MemoryCluster } from '../../ledger/testing/memory-cluster.ts';
import { Writer } from '../../ledger/writer.ts';
import { MagnetarError } from '../../lib/errors.ts';
import { millis } from '../../lib/ids.ts';
import { ensureDefaults } from '../../metadata/namespaces.ts';
import { memoryBudget } from '../../runtime/memory.ts';
import { BrokerStats } from '../metrics/broker-stats.ts';
import { type BrokerOptions, defaultBrokerOptions } from '../options.ts';
import { acquireOwnership } from '../ownership/ownership.ts';
import { parseTopicName } from '../protocol/topic-name.ts';
import { batch } from '../testing/broker-world.ts';
import { EntryCache } from './entry-cache.ts';
import { Topics } from './topics.ts';

/** How many writers of ledgers are alive. Node 20 has it; its types do not. */
const writers = (): number =>
  (queryObjects as (of: unknown, options: { format: 'count' }) => number)(Writer, { format: 'count' });

/** A broker's topics on a cluster of one bookie; `open` takes the ownership over, as after a restart. */
async function setUp(over: Partial<BrokerOptions> = {}): Promise<{ ledgers: Ledgers; open: () => Promise<Topics> }> {
  const cluster = new MemoryCluster({ bookies: 1, quorum: { ensembleSize: 1, writeQuorum: 1, ackQuorum: 1 } });
  const { ledgers, store } = cluster.client();
  const { environment } = cluster;
  const { clock } = environment;
  const memory = memoryBudget();
  const options = { ...defaultBrokerOptions, ...over };
  await ensureDefaults(store, clock.now());
  const open = async (): Promise<Topics> => {
    const ownership = await acquireOwnership({ store, clock, brokerId: 'b', leaseTtl: millis(10_000) });
    const cache = new EntryCache(1_000_000, memory.share('cache'), clock);
    const parts = { environment, store, ledgers, ownership, cache, options, recovery: memory.share('recovery') };
    return new Topics({ ...parts, stats: new BrokerStats(clock), nextNumber: () => 0 });
  };
  return { ledgers, open };
}

test('topics that fail leave no writers behind', async () => {
  const { open } = await setUp();
  for (let round = 0; round < 3; round++) {
    const topics = await open();
    for (let n = 0; n < 10; n++) {
      const topic = await topics.open(parseTopicName(`orders${n}`));
      const producer = topic.publisher.attach({ name: 'p', instance: '', onClosed: () => {} });
      await new Promise<void>((resolve) => void producer.publish(batch(1, 'p', round, ['x']), () => resolve()));
    }
    topics.failAll(new MagnetarError('NOT_OWNER', 'the broker has lost its lease'));
    await topics.close();
  }
  expect(writers()).toBeLessThan(10);
});

test('a topic that is unloaded while it opens slowly is not there twice', async () => {
  const { ledgers, open } = await setUp({ closeMs: 50 });
  const [opening, go] = [new Gate(), new Gate()];
  let slow = false;
  const recover = ledgers.recover.bind(ledgers);
  ledgers.recover = async (...args) => {
    if (slow) {
      slow = false;
      opening.open();
      await go.passed;
    }
    return recover(...args);
  };
  const topics = await open();
  const name = parseTopicName('orders');
  await (await topics.open(name)).control.create('s', { at: 'earliest' });
  await topics.unload(name);

  slow = true;
  const waiting = topics.open(name);
  await opening.passed;
  await topics.unload(name); // gives up after closeMs
  const second = await topics.open(name);
  go.open();
  const first = await waiting;
  expect(first).not.toBe(second);
  expect(first.failure).toMatchObject({ code: 'NOT_OWNER', message: /open it again/ });
  expect([second.failure, [...topics]]).toEqual([undefined, [second]]);
  await topics.close();
});
