import { expect, test } from 'vitest';
import type { Bookie } from '../ledger/bookie.ts';
import { appendEntry, readEntries, testEntry } from '../ledger/bookie.contract.ts';
import { figures } from '../runtime/testing/figures.ts';
import type { MeasuredBookie } from './measured-bookie.ts';
import { CrashedBookie, outcome } from './testing/crashed-bookie.ts';
import { MemoryIndex } from './testing/memory-index.ts';

const OF = 'bookie="local-0"';

async function told(bookie: MeasuredBookie, ...names: readonly string[]): Promise<(number | undefined)[]> {
  const all = await figures(bookie.metrics);
  return names.map((name) => all.get(name.includes('{') ? name : `${name}{${OF}}`));
}

/** How many ledgers and entries it says that it has. */
async function size(bookie: MeasuredBookie): Promise<(number | undefined)[]> {
  return await told(bookie, 'bookie_ledgers_count', 'bookie_entries_count');
}

async function fill(bookie: Bookie, ledgers: number, from: number, to: number): Promise<void> {
  const payload = [Buffer.alloc(10_000, 'x')];
  for (let ledger = 1; ledger <= ledgers; ledger++) {
    for (let entry = from; entry < to; entry++) await appendEntry(bookie, testEntry(ledger, entry, { payload }));
  }
}

test('what is stored and read is counted, with its bytes and its time', async () => {
  const bookie = await new CrashedBookie().open();
  const payload = [Buffer.from('ten '), Buffer.from('bytes.')];
  await Promise.all([0, 1, 2].map(async (entry) => await appendEntry(bookie, testEntry(1, entry, { payload }))));
  await readEntries(bookie, 1, 1);
  expect(await told(bookie, 'bookie_WRITE_BYTES', 'bookie_READ_BYTES', 'magnetar_bookie_read_entries_total')).toEqual([
    30, 20, 2,
  ]);
  expect(
    await told(
      bookie,
      `bookkeeper_server_ADD_ENTRY_REQUEST_count{${OF},success="true"}`,
      `bookkeeper_server_READ_ENTRY_REQUEST_count{${OF},success="true"}`,
      `bookie_journal_JOURNAL_SYNC_count{${OF},success="true"}`,
      'magnetar_bookie_group_entries_count',
      'magnetar_bookie_group_entries_sum',
    ),
  ).toEqual([3, 1, 1, 1, 3]);
  await bookie.close();
});

test('refusals are counted by code; a bookie that is closed says that it takes nothing', async () => {
  const bookie = await new CrashedBookie().open();
  await expect(appendEntry(bookie, testEntry(1, 0, { masterKey: Buffer.alloc(3) }))).rejects.toThrow('master key');
  expect(await outcome(bookie, 9, 0)).toBe('NO_SUCH_LEDGER');
  expect(
    await told(
      bookie,
      'bookie_SERVER_STATUS',
      'bookie_ledger_writable_dirs',
      `magnetar_bookie_errors_total{${OF},operation="append",code="INVALID_ARGUMENT"}`,
      `magnetar_bookie_errors_total{${OF},operation="read",code="NO_SUCH_LEDGER"}`,
      `bookkeeper_server_ADD_ENTRY_REQUEST_count{${OF},success="false"}`,
    ),
  ).toEqual([1, 1, 1, 1, 1]);
  await bookie.close();
  expect(await told(bookie, 'bookie_SERVER_STATUS')).toEqual([0]);
});

test('a full disk is told', async () => {
  const subject = new CrashedBookie({ reserveBytes: 1_000_000 });
  subject.disk.capacityBytes = subject.disk.usedBytes + 900_000;
  const bookie = await subject.open();
  expect(await told(bookie, 'bookie_SERVER_STATUS', 'bookie_ledger_writable_dirs')).toEqual([0, 0]);
  expect((await told(bookie, 'magnetar_bookie_disk_free_bytes'))[0]).toBeLessThan(1_000_000);
  await bookie.close();
});

test('ledgers and entries are counted over segments, restarts, crashes, and a rebuilt index', async () => {
  const subject = new CrashedBookie();
  let bookie = await subject.open();
  expect(await size(bookie)).toEqual([0, 0]);
  await fill(bookie, 3, 0, 20); // 600 KB: more than two segments
  expect(await size(bookie)).toEqual([3, 60]);
  await appendEntry(bookie, testEntry(3, 0)); // again
  expect(await size(bookie)).toEqual([3, 60]);
  await bookie.close();
  bookie = await subject.open();
  expect(await size(bookie)).toEqual([3, 60]);
  await fill(bookie, 4, 20, 25);
  expect(await size(bookie)).toEqual([4, 80]);
  subject.disk.crash();
  bookie = await subject.open();
  expect(await size(bookie)).toEqual([4, 80]);
  await bookie.close();
  subject.index = new MemoryIndex();
  bookie = await subject.open();
  expect(await size(bookie)).toEqual([4, 80]);
  await bookie.close();
});
