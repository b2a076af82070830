import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants, type Settings } from 'node:http2';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { ByteShare } from '../runtime/byte-budget.ts';
import { StallGuard } from '../runtime/stall-guard.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { smallMemory } from '../runtime/testing/small-memory.ts';
import { bindWithWideWindows, createServer, readOneByOne } from './server.ts';
import { brokerService } from './services.ts';
import { until } from '../runtime/testing/until.ts';

const KB = 1_000;
const MEMORY = 100 * KB;

/** For clients that have not sent much, as those of most tests are. */
let share: ByteShare;
let proven: ByteShare;
let clock: ManualClock;
let port: number;
let session: ClientHttp2Session;
let calls: ServerDuplexStream<Buffer, unknown>[];
/** Lengths of the frames that the handlers were given. */
let seen: number[];
const cleanUps: (() => void)[] = [];

beforeEach(async () => {
  await serve(MEMORY);
});

afterEach(() => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) cleanUp();
});

async function serve(memory: number): Promise<void> {
  [clock, seen, calls] = [new ManualClock(), [], []];
  const budget = smallMemory({ intake: memory, firstIntake: memory });
  share = budget.share('firstIntake');
  proven = budget.share('intake');
  const server = createServer();
  cleanUps.push(() => server.forceShutdown());
  const handle = (call: ServerDuplexStream<Buffer, never>): void => {
    readOneByOne(call);
    calls.push(call);
    call.on('data', (bytes: Buffer) => seen.push(bytes.length));
    call.on('error', () => undefined);
  };
  server.addService(brokerService, { Publish: handle, Consume: handle });
  port = await bindWithWideWindows(server, '127.0.0.1:0', {
    memory: { intake: new StallGuard(clock, proven), firstIntake: new StallGuard(clock, share) },
  });
  session = connect(`http://127.0.0.1:${port}`);
  session.on('error', () => undefined);
}

function open(method: 'Publish' | 'Consume' = 'Publish', from = session): ClientHttp2Stream {
  const headers = { ':method': 'POST', ':path': brokerService[method].path, 'content-type': 'application/grpc' };
  const stream = from.request({ ...headers, te: 'trailers' });
  stream.on('error', () => undefined);
  stream.resume();
  return stream;
}

/** The first bytes of a frame of this length; all of them when not said. */
function frame(length: number, sent = length): Buffer {
  const bytes = Buffer.alloc(5 + sent);
  bytes.writeUInt32BE(length, 1);
  return bytes;
}

/** Long enough for whatever is on its way to arrive. */
async function pass(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 100));
}

test('a frame has its memory before it comes, and gives it back when it is handled', async () => {
  const stream = open();
  stream.write(frame(80 * KB, 10 * KB));
  await until(() => share.usedBytes === 80 * KB);
  stream.write(Buffer.alloc(70 * KB));
  await until(() => seen.length === 1 && share.usedBytes === 0);
  stream.write(Buffer.concat([frame(20 * KB), frame(30 * KB), frame(10), frame(40 * KB)]));
  await until(() => seen.length === 5 && share.usedBytes === 0);
  expect(seen).toEqual([80 * KB, 20 * KB, 30 * KB, 10, 40 * KB]);
});

test('without memory a frame waits until another one is through; what makes room for others does not', async () => {
  const [first, second, third, other] = [open(), open(), open(), open('Consume')];
  first.write(frame(80 * KB, 10 * KB));
  await until(() => share.usedBytes === 80 * KB);
  second.write(frame(60 * KB));
  third.write(frame(50 * KB));
  await until(() => share.waiting === 2);
  other.write(frame(30 * KB));
  await until(() => seen.length === 1);
  expect(seen).toEqual([30 * KB]);
  first.write(Buffer.alloc(70 * KB));
  await until(() => seen.length === 4 && share.usedBytes === 0);
  expect(seen.slice(1)).toEqual([80 * KB, 60 * KB, 50 * KB]);
});

test('a stream that is not read on keeps one frame here, and one more in hand: the rest stays with the client', async () => {
  await serve(10_000 * KB);
  const stream = open();
  stream.write(frame(20 * KB));
  await until(() => seen.length === 1);
  calls[0]?.pause();
  for (let n = 0; n < 50; n++) stream.write(frame(20 * KB));
  await pass();
  expect([seen.length, share.usedBytes]).toEqual([1, 20 * KB]);
  calls[0]?.resume();
  await until(() => seen.length === 51 && share.usedBytes === 0);
});

test('whoever neither sends the rest of a frame nor goes away has to go when others wait', async () => {
  const [stalled, waiting] = [open(), open()];
  stalled.write(frame(80 * KB, 10 * KB));
  await until(() => share.usedBytes === 80 * KB);
  const closed = new Promise((resolve) => stalled.once('close', () => resolve(stalled.rstCode)));
  clock.advance(60_000); // as long as nobody waits
  waiting.write(frame(60 * KB));
  await until(() => share.waiting === 1);
  clock.advance(5_000);
  expect(await closed).toBe(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  await until(() => seen.length === 1 && share.usedBytes === 0);
  expect(seen).toEqual([60 * KB]);
});

test('a client that goes while its frame comes, or waits, leaves nothing behind', async () => {
  const [coming, waiting] = [open(), open()];
  coming.write(frame(80 * KB, 10 * KB));
  await until(() => share.usedBytes === 80 * KB);
  waiting.write(frame(60 * KB));
  await until(() => share.waiting === 1);
  waiting.close(constants.NGHTTP2_CANCEL);
  await until(() => share.waiting === 0);
  coming.close(constants.NGHTTP2_CANCEL);
  await until(() => share.usedBytes === 0);
  expect(seen).toEqual([]);
});

test('who sends much gets a wide window, as long as there is memory for it', async () => {
  await serve(2_000 * KB);
  const windows: (number | undefined)[] = [];
  session.on('remoteSettings', ({ initialWindowSize }: Settings) => windows.push(initialWindowSize));
  const stream = open();
  for (let n = 0; n < 10; n++) stream.write(frame(50 * KB));
  await until(() => seen.length === 10);
  await until(() => windows.at(-1) === 262_144);
  expect(windows).toEqual([65_535, 262_144]);
  await until(() => proven.usedBytes === 262_144);
  session.destroy();
  await until(() => proven.usedBytes === 0);
});

test('clients that begin frames and do not end them do not come in the way of one that has sent much', async () => {
  const stream = open();
  for (let n = 0; n < 6; n++) stream.write(frame(50 * KB));
  await until(() => seen.length === 6 && share.usedBytes === 0);
  const other = connect(`http://127.0.0.1:${port}`);
  other.on('error', () => undefined);
  for (let n = 0; n < 3; n++) open('Publish', other).write(frame(80 * KB, 10 * KB));
  await until(() => share.waiting === 2);
  stream.write(frame(60 * KB));
  await until(() => seen.length === 7);
  expect(share.waiting).toBe(2);
});
