import { afterEach, describe, expect, test } from 'vitest';
import { type ErrorCode, MagnetarError } from '../lib/errors.ts';
import { type EntryId, type LedgerId, NO_ENTRY } from '../lib/ids.ts';
import { silentLogger } from '../runtime/logger.ts';
import { Gate } from './testing/gate.ts';
import type { BookieCall, MemoryBookie } from './testing/memory-bookie.ts';
import { append, type ClusterOptions, createLedger, MemoryCluster, readTexts } from './testing/memory-cluster.ts';

const clusters: MemoryCluster[] = [];

function newCluster(options: ClusterOptions = {}): MemoryCluster {
  const cluster = new MemoryCluster(options);
  clusters.push(cluster);
  return cluster;
}

afterEach(async () => {
  for (const cluster of clusters.splice(0)) await cluster.close();
});

function code(expected: ErrorCode): { code: ErrorCode } {
  return { code: expected };
}

function unreachable(): never {
  throw new MagnetarError('UNAVAILABLE', 'cut off');
}

/** Copies that no longer match their digests. */
function damage(bookie: MemoryBookie, ledger: LedgerId, entryIds: readonly number[]): void {
  const entries = bookie.entries(ledger);
  for (const id of entryIds as readonly EntryId[]) {
    const stored = entries.get(id);
    if (stored !== undefined) entries.set(id, { ...stored, payload: Buffer.from('!') });
  }
}

/** Lets requests of one type wait, and tells when the first one does. */
function hold(type: BookieCall['type']): {
  before: (call: BookieCall) => Promise<void>;
  reached: Promise<void>;
  release: () => void;
} {
  const [arrived, released] = [new Gate(), new Gate()];
  const before = async (call: BookieCall): Promise<void> => {
    if (call.type !== type) return;
    arrived.open();
    await released.passed;
  };
  return { before, reached: arrived.passed, release: () => released.open() };
}

describe('recovery', () => {
  test('takes a ledger from its writer: everything acknowledged stays, the writer hears that it is fenced', async () => {
    const cluster = newCluster();
    const writer = await createLedger(cluster.ledgers);
    for (let i = 0; i < 30; i++) await append(writer, `entry ${i}`);
    const other = cluster.client().ledgers;
    const end = await other.recover(writer.ledgerId);
    expect(end.lastEntryId).toBe(29);
    expect(await readTexts(other, writer.ledgerId, end.lastEntryId)).toHaveLength(30);
    await expect(append(writer, 'too late')).rejects.toMatchObject(code('LEDGER_FENCED'));
    expect(writer.failure).toMatchObject({ fencing: true });
    expect(await writer.close()).toEqual(end); // LP-20: the same end
    expect(await cluster.ledgers.recover(writer.ledgerId)).toEqual(end);
  });

  test('an empty ledger is closed empty', async () => {
    const cluster = newCluster();
    const { ledgerId } = await createLedger(cluster.ledgers);
    expect(await cluster.client().ledgers.recover(ledgerId)).toEqual({
      ledgerId,
      lastEntryId: NO_ENTRY,
      length: 0,
      lostTail: false,
    });
  });

  test('LP-17: an entry that one bookie alone has is kept, and is then on all', async () => {
    const cluster = newCluster();
    const writer = await createLedger(cluster.ledgers);
    await append(writer, 'a');
    for (const id of ['b1', 'b2']) cluster.bookie(id).before = unreachable;
    await expect(append(writer, 'half')).rejects.toMatchObject(code('NOT_ENOUGH_BOOKIES'));
    for (const id of ['b1', 'b2']) cluster.bookie(id).before = undefined;
    // The one that has it answers first.
    const held = [hold('read'), hold('read')];
    cluster.bookie('b1').before = held[0]?.before;
    cluster.bookie('b2').before = held[1]?.before;
    const recovering = cluster.client().ledgers.recover(writer.ledgerId);
    await Promise.all(held.map(async ({ reached }) => await reached));
    while (cluster.bookie('b1').entries(writer.ledgerId).size < 2)
      await new Promise((resolve) => setImmediate(resolve));
    for (const { release } of held) release();
    expect(await recovering).toMatchObject({ lastEntryId: 1, length: 5 });
    for (const bookie of cluster.bookies) expect(bookie.entries(writer.ledgerId).size).toBe(2);
  });

  test('LP-6, LP-21a: an append that reaches a bookie after the recovery’s read is refused', async () => {
    const cluster = newCluster();
    const writer = await createLedger(cluster.ledgers);
    await append(writer, 'a');
    // b0 gets the next entry only after recovery; b1 never.
    const late = hold('append');
    cluster.bookie('b0').before = late.before;
    cluster.bookie('b1').before = (call) =>
      call.type === 'append' && !call.entry.recovery ? unreachable() : undefined;
    const pending = append(writer, 'b');
    await late.reached;
    const end = await cluster.client().ledgers.recover(writer.ledgerId);
    late.release();
    await expect(pending).rejects.toMatchObject(code('LEDGER_FENCED'));
    expect(writer.lastConfirmed).toBeLessThanOrEqual(end.lastEntryId);
  });

  test('LP-19: two recoverers at once agree', async () => {
    const cluster = newCluster();
    const writer = await createLedger(cluster.ledgers);
    for (let i = 0; i < 10; i++) await append(writer, `entry ${i}`);
    const clients = Array.from({ length: 4 }, () => cluster.client().ledgers);
    const ends = await Promise.all(clients.map(async (ledgers) => await ledgers.recover(writer.ledgerId)));
    expect(new Set(ends.map((end) => JSON.stringify(end))).size).toBe(1);
    expect(ends[0]?.lastEntryId).toBe(9);
  });

  test('LP-16: with too few answers it stays in recovery, and another try ends it', async () => {
    const cluster = newCluster();
    const writer = await createLedger(cluster.ledgers);
    await append(writer, 'a');
    for (const id of ['b0', 'b1']) cluster.bookie(id).before = unreachable;
    const other = cluster.client().ledgers;
    await expect(other.recover(writer.ledgerId)).rejects.toMatchObject(code('UNAVAILABLE'));
    await expect(writer.close()).rejects.toMatchObject(code('LEDGER_FENCED')); // LP-20
    cluster.bookie('b0').before = undefined;
    expect(await other.recover(writer.ledgerId)).toMatchObject({ lastEntryId: 0, length: 1 });
  });

  test('LP-29: limbo is no negative: an acknowledged entry is not cut off when a bookie has lost its disk', async () => {
    const cluster = newCluster();
    const writer = await createLedger(cluster.ledgers);
    cluster.bookie('b2').before = unreachable;
    await append(writer, 'a');
    cluster.bookie('b2').before = undefined;
    const b1 = cluster.bookie('b1');
    b1.entries(writer.ledgerId).clear();
    b1.limbo = true;
    const held = hold('read');
    cluster.bookie('b0').before = held.before;
    const recovering = cluster.client().ledgers.recover(writer.ledgerId);
    await held.reached; // b0 alone still has it; b2 says no, b1 cannot say
    held.release();
    expect(await recovering).toMatchObject({ lastEntryId: 0 });
    // Sabotage: the same bookie without limbo loses it.
    const again = newCluster();
    const second = await createLedger(again.ledgers);
    again.bookie('b2').before = unreachable;
    await append(second, 'a');
    again.bookie('b2').before = undefined;
    again.bookie('b1').entries(second.ledgerId).clear();
    const slow = hold('read');
    again.bookie('b0').before = slow.before;
    const end = again.client().ledgers.recover(second.ledgerId);
    await slow.reached;
    expect(await end).toMatchObject({ lastEntryId: NO_ENTRY });
    slow.release();
  });

  test('a wrong master key, and a ledger that is not there, are called what they are', async () => {
    const cluster = newCluster();
    const { ledgerId } = await createLedger(cluster.ledgers);
    for (const bookie of cluster.bookies) await bookie.readLac({ ledgerId, fence: { masterKey: Buffer.alloc(16) } });
    await expect(cluster.client().ledgers.recover(ledgerId)).rejects.toMatchObject(code('BAD_MASTER_KEY'));
    await expect(cluster.ledgers.recover(999_999 as LedgerId)).rejects.toMatchObject(code('NO_SUCH_LEDGER'));
  });

  test('LP-31: damage in every copy ends no recovery: what is left is kept, and the loss is said', async () => {
    const lines: string[] = [];
    const cluster = newCluster({ logger: { ...silentLogger, error: (message) => lines.push(message) } });
    const writer = await createLedger(cluster.ledgers);
    // Nobody is told how far it is confirmed, so that recovery has to look at all of it.
    for (const bookie of cluster.bookies) bookie.after = async () => await new Promise<void>(() => {});
    for (let i = 0; i < 20; i++) writer.append([Buffer.from(`entry ${i}`)], () => {});
    for (const bookie of cluster.bookies) {
      while (bookie.entries(writer.ledgerId).size < 20) await new Promise((resolve) => setImmediate(resolve));
      bookie.after = undefined;
      damage(bookie, writer.ledgerId, [4, 5, 6, 12]);
    }
    const other = cluster.client().ledgers;
    expect(await other.recover(writer.ledgerId)).toMatchObject({ lastEntryId: 19, lostTail: false });
    expect(lines).toEqual([
      expect.stringMatching(/^entries 4 to 6 of ledger \d+ are lost: .*3 damaged/),
      expect.stringMatching(/^entries 12 to 12 of ledger \d+ are lost: /),
    ]);
    const reader = await other.reader(writer.ledgerId, () => 19 as EntryId);
    const at = async (entry: number): Promise<number> => {
      return (await reader.read(entry as EntryId, { maxEntries: 100, maxBytes: 10_000 })).length;
    };
    expect([await at(0), await at(7), await at(13)]).toEqual([4, 5, 7]);
    await expect(at(5)).rejects.toMatchObject(code('DATA_LOSS'));
  });

  test('LP-31: damage in one of three copies loses nothing, and the copy is made good', async () => {
    const cluster = newCluster();
    const writer = await createLedger(cluster.ledgers);
    await append(writer, 'a');
    await append(writer, 'b');
    damage(cluster.bookie('b0'), writer.ledgerId, [0, 1]);
    const other = cluster.client().ledgers;
    expect(await other.recover(writer.ledgerId)).toMatchObject({ lastEntryId: 1, lostTail: false });
    expect(await readTexts(other, writer.ledgerId, 1 as EntryId)).toEqual(['a', 'b']);
    expect(
      cluster
        .bookie('b0')
        .entries(writer.ledgerId)
        .get(1 as EntryId)
        ?.payload.toString(),
    ).toBe('b');
  });

  test('LP-32: when no copy can say where the end is, the ledger is closed at what is known, and that is said, for good', async () => {
    const lines: string[] = [];
    const cluster = newCluster({
      quorum: { ensembleSize: 1, writeQuorum: 1, ackQuorum: 1 },
      logger: { ...silentLogger, error: (message) => lines.push(message) },
    });
    const writer = await createLedger(cluster.ledgers);
    for (let i = 0; i < 5; i++) await append(writer, `entry ${i}`);
    for (const bookie of cluster.bookies) {
      bookie.limbo = true;
      bookie.entries(writer.ledgerId).delete(3 as EntryId);
      bookie.entries(writer.ledgerId).delete(4 as EntryId);
    }
    const other = cluster.client().ledgers;
    const end = await other.recover(writer.ledgerId);
    expect(end).toMatchObject({ lastEntryId: 2, lostTail: true });
    expect(lines).toEqual([
      expect.stringMatching(/^ledger \d+ is closed at entry 2, the last one that is known: .* lost$/),
    ]);
    expect(await cluster.ledgers.recover(writer.ledgerId)).toEqual(end);
  });

  test('a long tail that nobody confirmed is recovered in bounded steps', async () => {
    const cluster = newCluster();
    const writer = await createLedger(cluster.ledgers);
    for (const bookie of cluster.bookies) bookie.after = async () => await new Promise<void>(() => {}); // answers are lost
    const texts = Array.from({ length: 200 }, (_, i) => `entry ${i}`);
    for (const text of texts) writer.append([Buffer.from(text)], () => {});
    for (const bookie of cluster.bookies) {
      while (bookie.entries(writer.ledgerId).size < 200) await new Promise((resolve) => setImmediate(resolve));
      bookie.after = undefined;
    }
    const other = cluster.client().ledgers;
    expect(await other.recover(writer.ledgerId)).toMatchObject({ lastEntryId: 199, length: texts.join('').length });
    expect(await readTexts(other, writer.ledgerId, 199 as EntryId)).toEqual(texts);
  });
});
