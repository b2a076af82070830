/** A hostile client on a bookie's streams: it is told what is wrong, and neither the bookie nor its broker suffers. */
import { describe, expect, test } from 'vitest';
import { ProtoWriter } from '../services/lib/bytes.ts';
import type { EntryId, LedgerId } from '../services/lib/ids.ts';
import { appendRequest, readRequest } from '../services/wire/bookie-codec.ts';
import { entryDigest } from '../services/wire/digest.ts';
import type { AppendRequest, ReadRequest, WireAppendEntry, WireReadEntries } from '../services/wire/frames.ts';
import { fuzz } from './support/fuzz.ts';
import {
  type AppendStream,
  appendStream,
  type Ended,
  HELLO,
  type ReadStream,
  readStream,
} from './support/raw-stream.ts';
import { watchedServers } from './support/watched-servers.ts';
import { memoryOf } from './support/well-behaved.ts';

const KEY = Buffer.alloc(16, 7);
const MiB = 1_048_576;

const servers = watchedServers();
let ledgers = 1_000_000;

function newLedger(): LedgerId {
  return ++ledgers as LedgerId;
}

/** An entry that is right in every respect, but for what is given. */
function entry(
  ledgerId: LedgerId,
  entryId: number,
  more: Partial<WireAppendEntry> & { text?: string } = {},
): WireAppendEntry {
  const { text = `entry ${entryId}`, ...wrong } = more;
  const payload = [Buffer.from(text)];
  const lac = (wrong.lac ?? entryId - 1) as EntryId;
  const numbers = { ledgerId, entryId: entryId as EntryId, lac, length: text.length };
  const digest = entryDigest({ ...numbers, payload });
  const rest = { masterKey: KEY, recovery: false, payload, payloadBytes: text.length };
  return { request: entryId + 1, ...numbers, digest, ...rest, ...wrong };
}

function read(ledgerId: LedgerId, more: Partial<WireReadEntries> = {}): WireReadEntries {
  const first = 0 as EntryId;
  return {
    request: 1,
    ledgerId,
    firstEntryId: first,
    maxEntries: 10,
    maxBytes: MiB,
    fence: false,
    masterKey: KEY,
    ...more,
  };
}

async function appended(stream: AppendStream, request: number): Promise<string> {
  const result = await stream.answer((frame) => frame.results?.find((one) => one.request === request));
  return result.error === undefined ? 'stored' : `${result.error.code}: ${result.error.message}`;
}

/** What a read gives: the entries' texts, or the error. */
async function answered(stream: ReadStream, request = 1): Promise<string | string[]> {
  const result = await stream.answer((frame) => frame.entries?.find((one) => one.request === request));
  if (result.error !== undefined) return `${result.error.code}: ${result.error.message}`;
  return (result.entries ?? []).map(({ payload }) => payload.toString());
}

async function appendEnd(...frames: readonly (AppendRequest | Uint8Array)[]): Promise<Ended> {
  await using stream = appendStream(servers.bookie.port);
  for (const frame of frames) {
    if (frame instanceof Uint8Array) stream.sendBytes(frame);
    else stream.send(frame);
  }
  return await stream.ended();
}

async function readEnd(...frames: readonly (ReadRequest | Uint8Array)[]): Promise<Ended> {
  await using stream = readStream(servers.bookie.port);
  for (const frame of frames) {
    if (frame instanceof Uint8Array) stream.sendBytes(frame);
    else stream.send(frame);
  }
  return await stream.ended();
}

function violation(text: RegExp): object {
  return { status: 'INVALID_ARGUMENT', reason: 'PROTOCOL_VIOLATION', message: expect.stringMatching(text) as string };
}

describe('a stream ends with the reason', () => {
  test.each([
    ['no hello', [{}], /ClientHello/],
    ['hello twice', [{ hello: HELLO }, { hello: HELLO }], /second ClientHello/],
    ['bytes that are not protobuf', [{ hello: HELLO }, Buffer.from('not protobuf')], /./],
    ['random bytes at once', [Buffer.alloc(4_096, 0xff)], /./],
  ] as [string, (object | Uint8Array)[], RegExp][])('%s', async (_, frames, text) => {
    expect(await appendEnd(...frames)).toEqual(violation(text));
    expect(await readEnd(...frames)).toEqual(violation(text));
  });

  test('ids that are no ids', async () => {
    const bad = new ProtoWriter();
    bad.message(2, (one) => one.int64(4, -2));
    expect(await appendEnd({ hello: HELLO }, bad.finish())).toEqual(violation(/-2/));
    const huge = new ProtoWriter();
    huge.message(2, (one) => one.bigint(2, 2n ** 63n));
    expect(await appendEnd({ hello: HELLO }, huge.finish())).toEqual(violation(/2\^53/));
    expect(await readEnd({ hello: HELLO }, huge.finish())).toEqual(violation(/2\^53/));
  });

  test('more than there was credit for', async () => {
    const ledger = newLedger();
    const entries = Array.from({ length: 8_193 }, (_, at) => entry(ledger, at));
    expect((await appendEnd({ hello: HELLO, entries })).reason).toBe('CREDIT_EXCEEDED');
    const reads = Array.from({ length: 1_025 }, (_, at) => read(ledger, { request: at + 1 }));
    expect((await readEnd({ hello: HELLO, reads })).reason).toBe('CREDIT_EXCEEDED');
    const lacs = Array.from({ length: 16_384 }, (_, at) => ({
      request: at,
      ledgerId: ledger,
      fence: false,
      masterKey: KEY,
    }));
    expect(await readEnd({ hello: HELLO, lacs })).toEqual(violation(/more than 16384 items/));
  });

  test('a frame above the limit', async () => {
    expect((await appendEnd({ hello: HELLO }, Buffer.alloc(17 * MiB))).status).toBe('RESOURCE_EXHAUSTED');
    expect((await readEnd({ hello: HELLO }, Buffer.alloc(17 * MiB))).status).toBe('RESOURCE_EXHAUSTED');
  });
});

describe('what is wrong with one request is said in band; the stream goes on', () => {
  test.each([
    ['a digest that does not match', { digest: 1 }, 'CHECKSUM_MISMATCH'],
    ['a master key of the wrong length', { masterKey: Buffer.alloc(15) }, 'INVALID_ARGUMENT'],
    ['no master key', { masterKey: Buffer.alloc(0) }, 'INVALID_ARGUMENT'],
    ['a last-add-confirmed that is not below the entry', { lac: 0 as EntryId }, 'INVALID_ARGUMENT'],
  ] as [string, Partial<WireAppendEntry>, string][])('%s', async (_, wrong, code) => {
    const ledger = newLedger();
    await using stream = appendStream(servers.bookie.port);
    stream.send({ hello: HELLO, entries: [entry(ledger, 0, wrong), entry(ledger, 1)] });
    expect(await appended(stream, 1)).toMatch(new RegExp(`^${code}: [^\\p{Cc}]+$`, 'u'));
    expect(await appended(stream, 2)).toBe('stored');
    await using reads = readStream(servers.bookie.port);
    reads.send({ hello: HELLO, reads: [read(ledger), read(ledger, { request: 2, firstEntryId: 1 as EntryId })] });
    expect(await answered(reads)).toMatch(/^NO_SUCH_ENTRY: /);
    expect(await answered(reads, 2)).toEqual(['entry 1']);
  });

  test('a master key that is not the ledger’s neither writes nor fences', async () => {
    const ledger = newLedger();
    const other = Buffer.alloc(16, 8);
    await using stream = appendStream(servers.bookie.port);
    stream.send({ hello: HELLO, entries: [entry(ledger, 0)] });
    expect(await appended(stream, 1)).toBe('stored');
    await using reads = readStream(servers.bookie.port);
    reads.send({ hello: HELLO, lacs: [{ request: 7, ledgerId: ledger, fence: true, masterKey: other }] });
    const lac = await reads.answer((frame) => frame.lacs?.[0]);
    expect(lac.error?.code).toBe('BAD_MASTER_KEY');
    reads.send({ reads: [read(ledger, { fence: true, masterKey: other })] });
    expect(await answered(reads)).toMatch(/^BAD_MASTER_KEY: /);
    stream.send({ entries: [entry(ledger, 1), { ...entry(ledger, 2), masterKey: other }] });
    expect(await appended(stream, 3)).toMatch(/^BAD_MASTER_KEY: /);
    expect(await appended(stream, 2)).toBe('stored'); // it is not fenced
  });

  test('reads of nothing, of no entries, and of everything', async () => {
    const ledger = newLedger();
    await using stream = appendStream(servers.bookie.port);
    stream.send({ hello: HELLO, entries: [0, 1, 2].map((at) => entry(ledger, at)) });
    expect(await appended(stream, 3)).toBe('stored');
    await using reads = readStream(servers.bookie.port);
    const highest = 4_294_967_295;
    reads.send({
      hello: HELLO,
      reads: [
        read(newLedger()),
        read(ledger, { request: 2, maxEntries: 0 }),
        read(ledger, { request: 3, maxEntries: highest, maxBytes: highest }),
        read(ledger, { request: 4, firstEntryId: Number.MAX_SAFE_INTEGER as EntryId }),
        read(ledger, { request: 5, maxBytes: 0 }),
      ],
    });
    expect(await answered(reads)).toMatch(/^NO_SUCH_LEDGER: /);
    expect(await answered(reads, 2)).toMatch(/^INVALID_ARGUMENT: .*maxEntries is 0/);
    expect(await answered(reads, 3)).toEqual(['entry 0', 'entry 1', 'entry 2']);
    expect(await answered(reads, 4)).toMatch(/^NO_SUCH_ENTRY: /);
    expect(await answered(reads, 5)).toEqual(['entry 0']); // the first one always comes
  });

  test('the same entry again is stored already', async () => {
    const ledger = newLedger();
    await using stream = appendStream(servers.bookie.port);
    stream.send({ hello: HELLO, entries: [entry(ledger, 0), entry(ledger, 0, { request: 8 })] });
    expect(await appended(stream, 8)).toBe('stored');
    await using reads = readStream(servers.bookie.port);
    reads.send({ hello: HELLO, reads: [read(ledger)] });
    expect(await answered(reads)).toEqual(['entry 0']);
  });
});

test('a client that does not read its answers costs a bounded amount of memory', async () => {
  const ledger = newLedger();
  await using stream = appendStream(servers.bookie.port);
  stream.send({ hello: HELLO });
  for (let at = 0; at < 3; at++) {
    stream.send({ entries: [entry(ledger, at, { text: 'x'.repeat(4 * MiB) })] });
    expect(await appended(stream, at + 1)).toBe('stored');
  }
  // 40,000 MB are asked for in each round.
  const most: number[] = [];
  for (let round = 0; round < 6; round++) {
    const streams = Array.from({ length: 5 }, () => {
      const greedy = readStream(servers.bookie.port);
      greedy.pause();
      const wanted = Array.from({ length: 1_000 }, (_, at) =>
        read(ledger, { request: at + 1, maxBytes: 4_294_967_295 }),
      );
      greedy.send({ hello: HELLO, reads: wanted });
      return greedy;
    });
    await using reads = readStream(servers.bookie.port);
    for (let request = 1; request <= 8; request++) {
      const hello = request === 1 ? { hello: HELLO } : {};
      reads.send({ ...hello, reads: [read(ledger, { request, maxBytes: 1 })] });
      expect(await answered(reads, request)).toHaveLength(1);
    }
    await servers.watch.unharmed();
    most.push((await memoryOf(servers.bookie)).most);
    for (const greedy of streams) await greedy[Symbol.asyncDispose]();
  }
  expect((most.at(-1) ?? 0) - (most[1] ?? 0)).toBeLessThan(150); // what was let go of is free again
});

test('frames with flipped, missing and additional bytes: a clear end or an answer, never an internal error', async () => {
  const lacs = [{ request: 3, ledgerId: 5 as LedgerId, fence: true, masterKey: KEY }];
  let ledger = newLedger();
  const ends = await fuzz(99, (at) => {
    if (at === 0) ledger = newLedger();
    if (at % 2 === 0) {
      const entries = [entry(ledger, at), entry(ledger, at + 1)];
      return { stream: appendStream(servers.bookie.port), bytes: appendRequest.encode({ hello: HELLO, entries }) };
    }
    const reads = [read(ledger, { fence: true })];
    return { stream: readStream(servers.bookie.port), bytes: readRequest.encode({ hello: HELLO, reads, lacs }) };
  });
  expect([...ends.keys()].toSorted()).toEqual(['INVALID_ARGUMENT PROTOCOL_VIOLATION', 'OK undefined']);
  for (const count of ends.values()) expect(count).toBeGreaterThan(25);
});
