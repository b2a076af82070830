import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, type ClientDuplexStream, credentials } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Bookie } from '../../ledger/bookie.ts';
import {
  appendEntry,
  bookieContract,
  type BookieUnderTest,
  readEntries,
  testEntry,
} from '../../ledger/bookie.contract.ts';
import { connectBookie } from '../../ledger/grpc-bookie.ts';
import { MagnetarError } from '../../lib/errors.ts';
import { entryId, ledgerId } from '../../lib/ids.ts';
import { appendRequest, appendResponse, readRequest, readResponse } from '../../wire/bookie-codec.ts';
import type { AppendRequest, AppendResponse, ClientHello, Credit, ReadResponse } from '../../wire/frames.ts';
import { memoryBudget } from '../../runtime/memory.ts';
import { bindWithWideWindows, clientOptions, createServer } from '../../wire/server.ts';
import { bookieService, type StreamMethod } from '../../wire/services.ts';
import { fromStatus } from '../../wire/status.ts';
import { openBookie } from '../bookie.ts';
import { testEnvironment } from '../testing/environment.ts';
import { addBookieService, type BookieService } from './server.ts';

interface Served {
  readonly bookie: Bookie;
  readonly address: string;
  readonly service: BookieService;
  close(): Promise<void>;
}

async function serve(folder: string, credit: { appendCredit?: Credit; readCredit?: Credit } = {}): Promise<Served> {
  const environment = testEnvironment();
  const bookie = await openBookie({ environment, folder, id: 'bookie', options: { segmentBytes: 16_777_216 } });
  const server = createServer();
  const service = addBookieService(server, bookie, { environment, serverName: 'test', ...credit });
  const port = await bindWithWideWindows(server, '127.0.0.1:0');
  return {
    bookie,
    address: `127.0.0.1:${port}`,
    service,
    async close() {
      service.stop(new MagnetarError('UNAVAILABLE', 'the bookie stops'));
      server.forceShutdown();
      await bookie.close();
    },
  };
}

async function overGrpc(): Promise<BookieUnderTest> {
  const folder = await mkdtemp(join(tmpdir(), 'bookie-'));
  let served = await serve(folder);
  const connect = async (): Promise<Bookie> => {
    const remote = connectBookie({ environment: testEnvironment(), address: served.address });
    await remote.tried;
    return remote;
  };
  let remote = await connect();
  return {
    bookie: remote,
    async reopen() {
      await remote.close();
      await served.close();
      served = await serve(folder);
      remote = await connect();
      return remote;
    },
    async end() {
      await remote.close();
      await served.close();
      await rm(folder, { recursive: true });
    },
  };
}

bookieContract('over gRPC', overGrpc);

test('that the process of a client has made the digest does not travel: the bookie checks it', async () => {
  const remote = await overGrpc();
  const entry = testEntry(1, 0);
  const damaged = { ...entry, digest: (entry.digest ^ 1) >>> 0, checked: true } as const;
  await expect(appendEntry(remote.bookie, damaged)).rejects.toMatchObject({ code: 'CHECKSUM_MISMATCH' });
  await remote.end();
});

const hello: ClientHello = { protocolVersion: 1, features: ['none such'], client: 'test' };

/** A stream of raw frames. */
class RawStream {
  readonly call: ClientDuplexStream<Buffer, Buffer>;
  readonly frames: Buffer[] = [];
  readonly ended: Promise<MagnetarError | undefined>;
  #arrived: () => void = () => {};

  constructor(client: Client, method: StreamMethod<never, never>) {
    this.call = client.makeBidiStreamRequest<Buffer, Buffer>(
      method.path,
      (bytes) => bytes,
      (bytes) => bytes,
    );
    this.ended = new Promise((resolve) => {
      this.call.on('error', (error) => resolve(fromStatus(error)));
      this.call.on('end', () => resolve(undefined));
    });
    this.call.on('data', (frame: Buffer) => {
      this.frames.push(frame);
      this.#arrived();
    });
  }

  /** Resolves when `done` holds of the frames that have come. */
  async until(done: (frames: readonly Buffer[]) => boolean): Promise<void> {
    while (!done(this.frames)) await new Promise<void>((resolve) => (this.#arrived = resolve));
  }
}

/** A frame with one entry of ledger 1. */
function wireEntry(request: number, id: number, bytes = 10): AppendRequest {
  return { entries: [{ ...testEntry(1, id, { payload: [Buffer.alloc(bytes)] }), request }] };
}

function responses(stream: RawStream): AppendResponse[] {
  return stream.frames.map((frame) => appendResponse.decode(frame));
}

describe('the streams', () => {
  let folder: string;
  let served: Served;
  let client: Client;
  const readCredit: Credit = { items: 3, bytes: 0 };

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'bookie-'));
    served = await serve(folder, { appendCredit: { items: 4, bytes: 1_000 }, readCredit });
    client = new Client(served.address, credentials.createInsecure(), clientOptions);
  });
  afterEach(async () => {
    client.close();
    await served.close();
    await rm(folder, { recursive: true });
  });

  const appends = (): RawStream => new RawStream(client, bookieService.Append);
  const reads = (): RawStream => new RawStream(client, bookieService.Read);

  test('answer the hello first, with limits and credit', async () => {
    const stream = appends();
    stream.call.write(appendRequest.encode({ hello, ...wireEntry(7, 0) }));
    await stream.until((frames) => frames.length > 1);
    const [first, second] = responses(stream);
    expect(first?.hello).toMatchObject({
      protocolVersion: 1,
      features: [],
      server: 'test',
      credit: { items: 4, bytes: 1_000 },
      instance: served.bookie.instance,
    });
    expect(served.bookie.instance).toHaveLength(16);
    expect(first?.results).toEqual([]);
    expect(second?.results).toEqual([{ request: 7 }]);
    expect(second?.credit).toEqual({ items: 1, bytes: 10 });
    stream.call.cancel();
    await stream.ended;
  });

  test('a client that overdraws its credit loses its stream, and that stream alone', async () => {
    const others = appends();
    others.call.write(appendRequest.encode({ hello }));
    const stream = appends();
    stream.call.write(appendRequest.encode({ hello }));
    const entries = [0, 1, 2, 3, 4].flatMap((id) => wireEntry(id, id).entries ?? []);
    stream.call.write(appendRequest.encode({ entries }));
    expect(await stream.ended).toMatchObject({ code: 'CREDIT_EXCEEDED' });
    const large = appends();
    large.call.write(appendRequest.encode({ hello, ...wireEntry(1, 9, 1_001) }));
    expect(await large.ended).toMatchObject({ code: 'CREDIT_EXCEEDED' });
    const greedy = reads();
    const read = {
      ledgerId: ledgerId(1),
      firstEntryId: entryId(0),
      maxEntries: 1,
      maxBytes: 1,
      fence: false,
      masterKey: Buffer.alloc(0),
    };
    greedy.call.write(readRequest.encode({ hello, reads: [1, 2, 3, 4].map((request) => ({ request, ...read })) }));
    expect(await greedy.ended).toMatchObject({ code: 'CREDIT_EXCEEDED' });
    others.call.write(appendRequest.encode(wireEntry(1, 20)));
    await others.until((frames) => frames.length > 1);
    others.call.cancel();
    await others.ended;
  });

  test('a frame of which not all could be handed on gives its memory back', async () => {
    const { bookie } = served;
    let calls = 0;
    const failing = new Proxy(bookie, {
      get(target, name) {
        if (name === 'append' && ++calls === 2) throw new Error('a defect');
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
    const memory = memoryBudget();
    const server = createServer();
    addBookieService(server, failing, { environment: testEnvironment(), serverName: 'test', memory });
    const port = await bindWithWideWindows(server, '127.0.0.1:0');
    const other = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), clientOptions);
    const stream = new RawStream(other, bookieService.Append);
    const entries = [0, 1, 2].flatMap((id) => wireEntry(id, id, 300).entries ?? []);
    stream.call.write(appendRequest.encode({ hello, entries }));
    expect(await stream.ended).toMatchObject({ code: 'INTERNAL' });
    await expect.poll(() => memory.share('write').usedBytes).toBe(0);
    other.close();
    server.forceShutdown();
  });

  test('a frame of very many items ends its stream', async () => {
    for (const stream of [appends(), reads()]) {
      stream.call.write(Buffer.alloc(200_000, Buffer.from([0x12, 0])));
      expect(await stream.ended).toMatchObject({ code: 'PROTOCOL_VIOLATION' });
    }
  });

  test('credit that came back can be used again', async () => {
    const stream = appends();
    stream.call.write(appendRequest.encode({ hello }));
    for (let id = 0; id < 20; id++) {
      stream.call.write(appendRequest.encode(wireEntry(id, id, 900)));
      await stream.until((frames) => responsesOf(frames) > id);
    }
    stream.call.end();
    expect(await stream.ended).toBeUndefined();
    expect(await readEntries(served.bookie, 1, 0)).toHaveLength(20);
  });

  test.each([
    ['bytes that are no frame', Buffer.from([0xff, 0xff, 0xff]), 'PROTOCOL_VIOLATION'],
    ['a first frame without a hello', appendRequest.encode(wireEntry(1, 0)), 'PROTOCOL_VIOLATION'],
  ])('%s end the stream; the server stays up', async (_, bytes, code) => {
    const stream = appends();
    stream.call.write(bytes);
    expect(await stream.ended).toMatchObject({ code });
    const second = appends();
    second.call.write(appendRequest.encode({ hello }));
    second.call.write(appendRequest.encode({ hello }));
    expect(await second.ended).toMatchObject({ code: 'PROTOCOL_VIOLATION' });
    await appendEntry(served.bookie, testEntry(3, 0));
  });

  test('a half-closed stream is ended when everything on it is answered', async () => {
    const stream = reads();
    for (let id = 0; id < 3; id++) await appendEntry(served.bookie, testEntry(1, id));
    const one = { request: 1, ledgerId: ledgerId(1), fence: false, masterKey: Buffer.alloc(0) };
    const read = { ...one, firstEntryId: entryId(0), maxEntries: 2, maxBytes: 1_000 };
    stream.call.write(readRequest.encode({ hello, reads: [read], lacs: [{ ...one, request: 2 }] }));
    stream.call.end();
    expect(await stream.ended).toBeUndefined();
    const answers: ReadResponse[] = stream.frames.slice(1).map((frame) => readResponse.decode(frame));
    expect(answers.flatMap(({ entries }) => entries ?? [])).toMatchObject([
      { request: 1, entries: [{ entryId: 0 }, { entryId: 1 }] },
    ]);
    expect(answers.flatMap(({ lacs }) => lacs ?? [])).toMatchObject([{ request: 2, lac: 1, lastEntryId: 2 }]);
  });

  test('a bookie that stops says so', async () => {
    const stream = appends();
    stream.call.write(appendRequest.encode({ hello }));
    await stream.until((frames) => frames.length > 0);
    served.service.stop(new MagnetarError('UNAVAILABLE', 'the bookie stops'));
    expect(await stream.ended).toMatchObject({ code: 'UNAVAILABLE', message: 'the bookie stops' });
    const late = reads();
    expect(await late.ended).toMatchObject({ code: 'UNAVAILABLE' });
  });
});

/** How many results the frames hold. */
function responsesOf(frames: readonly Buffer[]): number {
  return frames.reduce((count, frame) => count + (appendResponse.decode(frame).results?.length ?? 0), 0);
}
