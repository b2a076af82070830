import { afterEach, beforeEach, expect, test } from 'vitest';
import { MagnetarError } from '../lib/errors.ts';
import { figures } from '../runtime/testing/figures.ts';
import { type MeasuredLedgers, openLedgers } from './open-ledgers.ts';
import { append, createLedger, MemoryCluster, THREE } from './testing/memory-cluster.ts';

let cluster: MemoryCluster;
let ledgers: MeasuredLedgers;

beforeEach(() => {
  cluster = new MemoryCluster();
  const { environment, bookies } = cluster;
  ledgers = openLedgers({ environment, store: cluster.client().store, bookies, quorum: THREE });
});

afterEach(async () => {
  await ledgers.close();
  await cluster.close();
});

const APPENDED = 'magnetar_ledger_append_duration_seconds_count';

test('a ledger from its beginning to its end', async () => {
  const writer = await createLedger(ledgers);
  for (let n = 0; n < 3; n++) await append(writer, 'text');
  let told = await figures(ledgers.metrics);
  expect(told.get('magnetar_ledgers_created_total')).toBe(1);
  expect(told.get('magnetar_ledger_writers')).toBe(1);
  expect(told.get(APPENDED)).toBe(3);
  await writer.close();
  told = await figures(ledgers.metrics);
  expect(told.get('magnetar_ledgers_closed_total')).toBe(1);
  expect(told.get('magnetar_ledger_writers')).toBe(0);
  expect(told.get('magnetar_ledger_writer_failures_total')).toBe(0);
  expect(told.get('magnetar_ledger_missing_copies_total')).toBe(0);
});

test('a bookie that stores nothing: copies are missing, the ledger is written', async () => {
  const writer = await createLedger(ledgers);
  cluster.bookie('b1').before = () => Promise.reject(new MagnetarError('UNAVAILABLE', 'away'));
  for (let n = 0; n < 4; n++) await append(writer, 'text');
  await writer.close();
  const told = await figures(ledgers.metrics);
  expect(told.get(APPENDED)).toBe(4);
  expect(told.get('magnetar_ledger_missing_copies_total')).toBe(4);
  expect(told.get('magnetar_ledger_writer_failures_total')).toBe(0);
});

test('a ledger that lost its quorum, and one that was left to be recovered', async () => {
  const writer = await createLedger(ledgers);
  await append(writer, 'text');
  for (const bookie of cluster.bookies) {
    bookie.before = () => Promise.reject(new MagnetarError('UNAVAILABLE', 'away'));
  }
  await expect(append(writer, 'text')).rejects.toMatchObject({ code: 'NOT_ENOUGH_BOOKIES' });
  let told = await figures(ledgers.metrics);
  expect(told.get('magnetar_ledger_writer_failures_total')).toBe(1);
  expect(told.get(APPENDED)).toBe(1);
  await expect(ledgers.recover(writer.ledgerId)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  for (const bookie of cluster.bookies) bookie.before = () => Promise.resolve();
  await ledgers.recover(writer.ledgerId);
  told = await figures(ledgers.metrics);
  expect(told.get('magnetar_ledger_recovery_failures_total')).toBe(1);
  expect(told.get('magnetar_ledger_recovery_duration_seconds_count')).toBe(1);
});

test('bookies, as this client sees them', async () => {
  await cluster.bookie('b2').close();
  const told = await figures(ledgers.metrics);
  expect(told.get('magnetar_bookie_available{bookie="b0"}')).toBe(1);
  expect(told.get('magnetar_bookie_available{bookie="b2"}')).toBe(0);
  expect(told.get('magnetar_bookie_client_lagging_bytes{bookie="b2"}')).toBe(0);
});
