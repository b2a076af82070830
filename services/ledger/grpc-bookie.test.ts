import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MagnetarError } from '../lib/errors.ts';
import type { EntryId, LedgerId } from '../lib/ids.ts';
import type { Environment } from '../runtime/environment.ts';
import { silentLogger } from '../runtime/logger.ts';
import { nodeClock } from '../runtime/node/clock.ts';
import { CrashDisk } from '../runtime/testing/crash-disk.ts';
import { seededRandom } from '../runtime/testing/seeded-random.ts';
import { appendEntry, readEntries, testEntry, testKey } from './bookie.contract.ts';
import { connectBookie, type RemoteBookie } from './grpc-bookie.ts';
import { FrameServer } from './testing/frame-server.ts';
import { until } from '../runtime/testing/until.ts';

const environment: Environment = {
  clock: nodeClock,
  random: seededRandom(1),
  disk: new CrashDisk(),
  logger: silentLogger,
  fatal: () => {},
};

let server: FrameServer;
let bookie: RemoteBookie;

beforeEach(async () => {
  server = new FrameServer();
  await server.start();
});

afterEach(async () => {
  await bookie.close();
  server.stop();
});

async function connect(): Promise<void> {
  bookie = connectBookie({ environment, address: `127.0.0.1:${server.port}` });
  expect(bookie.available).toBe(false);
  await bookie.tried;
}

/** Entries that have arrived on the newest append stream. */
function arrived(): number[] {
  return server.appends.at(-1)?.frames.flatMap(({ entries }) => (entries ?? []).map(({ entryId }) => entryId)) ?? [];
}

describe('a bookie over gRPC', () => {
  test('sends what became ready in one turn as one frame, and matches answers in any order', async () => {
    await connect();
    expect(bookie.available).toBe(true);
    const outcomes: string[] = [];
    for (const id of [0, 1, 2]) {
      bookie.append(testEntry(1, id), (error) => void outcomes.push(`${id} ${error?.code ?? 'stored'}`));
    }
    await server.until(() => arrived().length === 3);
    const [stream] = server.appends;
    expect(stream?.frames).toHaveLength(2); // the hello, the entries
    expect(stream?.frames[0]?.hello?.protocolVersion).toBe(1);
    const numbers = stream?.frames[1]?.entries?.map(({ request }) => request) ?? [];
    const error = { code: 'LEDGER_FENCED', message: 'fenced', retryable: false, details: {} };
    const [first = 0, second = 0, third = 0] = numbers;
    stream?.write({ results: [{ request: third }, { request: first, error }, { request: second }] });
    const read = bookie.readLac({ ledgerId: 1 as LedgerId });
    await server.until(() => (server.reads[0]?.frames[1]?.lacs ?? []).length === 1);
    server.reads[0]?.write({ lacs: [{ request: 1, lac: 4 as EntryId, lastEntryId: 5 as EntryId }] });
    expect(await read).toEqual({ lac: 4, lastEntryId: 5 });
    while (outcomes.length < 3) await new Promise((resolve) => setImmediate(resolve));
    expect(outcomes).toEqual(['2 stored', '0 LEDGER_FENCED', '1 stored']);
  });

  test('sends no more than it has credit for, in order, and the rest as credit comes', async () => {
    server.credit = { items: 2, bytes: 40 };
    await connect();
    for (let id = 0; id < 5; id++) bookie.append(testEntry(1, id), () => {}); // 16 bytes each
    await server.until(() => arrived().length === 2);
    server.appends[0]?.write({ credit: { items: 1, bytes: 0 } }); // 8 bytes are left
    server.appends[0]?.write({ credit: { items: 0, bytes: 8 } });
    await server.until(() => arrived().length === 3);
    expect(arrived()).toEqual([0, 1, 2]);
    server.appends[0]?.write({ credit: { items: 9, bytes: 99 } });
    await server.until(() => arrived().length === 5);
    expect(arrived()).toEqual([0, 1, 2, 3, 4]);
  });

  test('a fencing read carries the master key, another one none', async () => {
    await connect();
    const request = { ledgerId: 1 as LedgerId, firstEntryId: 2 as EntryId, maxEntries: 3, maxBytes: 4 };
    const outcomes = Promise.allSettled([
      bookie.read(request),
      bookie.read({ ...request, fence: { masterKey: testKey() } }),
    ]);
    await server.until(() => (server.reads[0]?.frames.length ?? 0) > 1);
    const reads = server.reads[0]?.frames.flatMap((frame) => frame.reads ?? []) ?? [];
    expect(reads.map(({ fence, masterKey }) => [fence, masterKey.length])).toEqual([
      [false, 0],
      [true, 16],
    ]);
    expect(reads[0]).toMatchObject(request);
    server.stop();
    expect((await outcomes).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  });

  test('when the connection breaks, everything open fails at once, and what comes later on the next turn', async () => {
    server.credit = { items: 1, bytes: 1_000 };
    await connect();
    const failed: string[] = [];
    const done = (name: string) => (error?: MagnetarError) => void failed.push(`${name} ${error?.code}`);
    bookie.append(testEntry(1, 0), done('sent'));
    bookie.append(testEntry(1, 1), done('waiting for credit'));
    const read = readEntries(bookie, 1, 0).catch((error: unknown) => error);
    await server.until(() => arrived().length === 1);
    server.stop();
    expect(await read).toMatchObject({ code: 'UNAVAILABLE' });
    expect(failed).toEqual(['sent UNAVAILABLE', 'waiting for credit UNAVAILABLE']);
    expect(bookie.available).toBe(false);
    bookie.append(testEntry(1, 2), done('late'));
    expect(failed).toHaveLength(2);
    await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setImmediate(resolve));
    expect(failed[2]).toBe('late UNAVAILABLE');
  });

  test('comes back by itself when the bookie does', async () => {
    await connect();
    server.stop();
    while (bookie.available) await new Promise((resolve) => setImmediate(resolve));
    await server.start();
    await until(() => bookie.available);
    const stored = appendEntry(bookie, testEntry(1, 7));
    await server.until(() => arrived().includes(7));
    server.appends.at(-1)?.write({ results: [{ request: 1 }] });
    await stored;
    expect(server.appends).toHaveLength(2);
  });

  test('one that is not the bookie that it should be is out of reach, and is looked at again (LP-27)', async () => {
    const seen: (Buffer | undefined)[] = [];
    server.instance = Buffer.alloc(16, 2);
    const verify = async (instance: Buffer | undefined): Promise<void> => {
      seen.push(instance);
      if (instance?.[0] !== 1) throw new MagnetarError('DATA_LOSS', 'its folder was emptied');
      await Promise.resolve();
    };
    bookie = connectBookie({ environment, address: `127.0.0.1:${server.port}`, verify });
    await bookie.tried;
    expect(bookie.available).toBe(false);
    const unreachable = { code: 'UNAVAILABLE', message: expect.stringMatching(/its folder was emptied/) as string };
    await expect(readEntries(bookie, 1, 0)).rejects.toMatchObject(unreachable);
    await expect(appendEntry(bookie, testEntry(1, 0))).rejects.toMatchObject(unreachable);
    server.instance = Buffer.alloc(16, 1);
    await until(() => bookie.available);
    expect(seen[0]).toEqual(Buffer.alloc(16, 2));
    expect(arrived()).toEqual([]);
  });

  test('one broken stream ends the connection with all that is open on the other', async () => {
    await connect();
    const stored = appendEntry(bookie, testEntry(1, 0));
    await server.until(() => arrived().length === 1);
    server.reads[0]?.fail('CREDIT_EXCEEDED');
    await expect(stored).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });

  test('an answer to nothing, or another version, ends the connection', async () => {
    await connect();
    const stored = appendEntry(bookie, testEntry(1, 0));
    await server.until(() => arrived().length === 1);
    server.appends[0]?.write({ results: [{ request: 99 }] });
    await expect(stored).rejects.toThrow(/request 99, which is not open/);
    await bookie.close();
    server.protocolVersion = 2;
    await connect();
    expect(bookie.available).toBe(false);
    await expect(appendEntry(bookie, testEntry(1, 0))).rejects.toThrow(/version 2 of the protocol/);
  });

  test('an address where nobody listens is out of reach, without a wait', async () => {
    server.stop();
    await connect();
    expect(bookie.available).toBe(false);
    await expect(readEntries(bookie, 1, 0)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });

  test('closing fails what is open, and what comes later', async () => {
    await connect();
    const stored = appendEntry(bookie, testEntry(1, 0));
    await server.until(() => arrived().length === 1);
    await bookie.close();
    await expect(stored).rejects.toMatchObject({ code: 'ALREADY_CLOSED' });
    await bookie.close();
    await expect(appendEntry(bookie, testEntry(1, 0))).rejects.toMatchObject({ code: 'ALREADY_CLOSED' });
    expect(bookie.available).toBe(false);
  });
});
