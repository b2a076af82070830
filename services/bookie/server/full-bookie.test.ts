import { expect, test } from 'vitest';
import { appendEntry, testEntry, testKey, texts, readEntries } from '../../ledger/bookie.contract.ts';
import { connectBookie, type RemoteBookie } from '../../ledger/grpc-bookie.ts';
import { ledgerId } from '../../lib/ids.ts';
import { CrashDisk } from '../../runtime/testing/crash-disk.ts';
import { bindWithWideWindows, createServer } from '../../wire/server.ts';
import { openBookie } from '../bookie.ts';
import { testEnvironment } from '../testing/environment.ts';
import { MemoryIndex } from '../testing/memory-index.ts';
import { addBookieService } from './server.ts';
import { until } from '../../runtime/testing/until.ts';

test('clients of a bookie know that it is full: from their first moment on, when it becomes so, and when it no longer is', async () => {
  const disk = new CrashDisk();
  const environment = testEnvironment(disk);
  const bookie = await openBookie({
    environment,
    folder: '/bookie',
    id: 'bookie',
    options: { segmentBytes: 400_000, reserveBytes: 1_000_000 },
    openIndex: async () => await Promise.resolve(new MemoryIndex()),
  });
  const server = createServer();
  addBookieService(server, bookie, { environment, serverName: 'test' });
  const address = `127.0.0.1:${await bindWithWideWindows(server, '127.0.0.1:0')}`;
  const connect = async (): Promise<RemoteBookie> => {
    const remote = connectBookie({ environment, address });
    await remote.tried;
    return remote;
  };
  const first = await connect();
  expect([first.available, first.full]).toEqual([true, undefined]);
  await appendEntry(first, testEntry(1, 0));
  disk.capacityBytes = disk.usedBytes + 500_000;
  const filling = (async () => {
    for (let entry = 1; ; entry++) await appendEntry(first, testEntry(1, entry, { payload: [Buffer.alloc(50_000)] }));
  })();
  const full = { code: 'DISK_FULL', retryable: true, message: expect.stringContaining('/bookie has ') as string };
  await expect(filling).rejects.toMatchObject(full);
  await until(() => !first.available);
  expect(first.full).toMatchObject(full);
  const second = await connect();
  expect(second.full).toMatchObject({ ...full, details: { neededBytes: '1250000' } });
  expect(second.available).toBe(false);
  expect(texts(await readEntries(second, 1, 0, { maxEntries: 1 }))).toEqual(['ledger 1 entry 0']);
  await second.readLac({ ledgerId: ledgerId(1), fence: { masterKey: testKey() } });
  await appendEntry(second, testEntry(1, 0, { recovery: true }));
  await expect(appendEntry(second, testEntry(2, 0))).rejects.toMatchObject(full);
  disk.capacityBytes = 10_000_000;
  await until(() => first.available && second.available);
  await appendEntry(second, testEntry(2, 0));
  await Promise.all([first.close(), second.close()]);
  server.forceShutdown();
  await bookie.close();
});
