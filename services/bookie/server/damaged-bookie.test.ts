import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Bookie } from '../../ledger/bookie.ts';
import { appendEntry, readEntries, testEntry, testKey, texts } from '../../ledger/bookie.contract.ts';
import { connectBookie } from '../../ledger/grpc-bookie.ts';
import { ledgerId } from '../../lib/ids.ts';
import { bindWithWideWindows, createServer } from '../../wire/server.ts';
import { CrashedBookie } from '../testing/crashed-bookie.ts';
import { testEnvironment } from '../testing/environment.ts';
import { addBookieService } from './server.ts';

const PAYLOAD = 90;

let subject: CrashedBookie;
const opened: (() => Promise<void>)[] = [];

/** A bookie on a damaged disk, over gRPC. */
async function serve(): Promise<Bookie> {
  const bookie = await subject.open();
  const server = createServer();
  addBookieService(server, bookie, { environment: subject.environment, serverName: 'test' });
  const port = await bindWithWideWindows(server, '127.0.0.1:0');
  const remote = connectBookie({ environment: testEnvironment(), address: `127.0.0.1:${port}` });
  await remote.tried;
  opened.push(async () => {
    await remote.close();
    server.forceShutdown();
    await bookie.close();
  });
  return remote;
}

beforeEach(async () => {
  subject = new CrashedBookie();
  const bookie = await subject.open();
  for (const entry of [0, 1, 2]) await appendEntry(bookie, testEntry(1, entry));
  await appendEntry(bookie, testEntry(2, 0));
});

afterEach(async () => {
  for (const close of opened.splice(0)) await close();
});

test('a damaged entry is named with its file and place; a range ends before it', async () => {
  await (await subject.open()).close();
  await subject.damageRecord(1, 1, PAYLOAD);
  const bookie = await serve();
  expect(texts(await readEntries(bookie, 1, 0))).toEqual(['ledger 1 entry 0']);
  await expect(readEntries(bookie, 1, 1)).rejects.toMatchObject({
    code: 'CHECKSUM_MISMATCH',
    details: { file: subject.path(1), offset: expect.stringMatching(/^\d+$/) as string, ledgerId: '1', entryId: '1' },
  });
  expect(texts(await readEntries(bookie, 1, 2))).toEqual(['ledger 1 entry 2']);
  expect(await bookie.readLac({ ledgerId: ledgerId(1) })).toEqual({ lac: 1, lastEntryId: 2 });
});

test('a ledger in limbo says so, and can be fenced', async () => {
  subject.disk.crash();
  await subject.wipePages(1, 1, 2); // Entry 1 and entry 2, which knows of it.
  const bookie = await serve();
  expect(texts(await readEntries(bookie, 1, 0))).toEqual(['ledger 1 entry 0']);
  await expect(readEntries(bookie, 1, 1)).rejects.toMatchObject({ code: 'ENTRY_UNKNOWN' });
  const fence = { masterKey: testKey() };
  const answer = { lac: -1, lastEntryId: 2, unsure: true };
  expect(await bookie.readLac({ ledgerId: ledgerId(1), fence })).toEqual(answer);
  await opened.pop()?.();
  const again = await serve();
  expect(await again.readLac({ ledgerId: ledgerId(1) })).toEqual(answer);
  await expect(appendEntry(again, testEntry(1, 3))).rejects.toMatchObject({ code: 'LEDGER_FENCED' });
});
