/**
 * Clients that are not even gRPC: on the broker's port and on a bookie's. Each is told, or let go of, in bounded time and
 * memory, and nobody else notices.
 */
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2';
import { connect, type Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { seededRandom } from '../services/runtime/testing/seeded-random.ts';
import { watchedServers } from './support/watched-servers.ts';
import { connectionsOf } from './support/well-behaved.ts';

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
/** Keepalive is 10 s and 5 s; the handshake has 10 s. */
const LET_GO_MS = 25_000;

const servers = watchedServers();

/** 15,000 bytes of headers, "a: b" each, as HPACK literals. */
const LITERALS = Buffer.alloc(15_000, Buffer.from([0, 1, 0x61, 1, 0x62]));

/** A frame on stream 1, without flags. */
function frame(type: number, payload: Buffer): Buffer {
  const header = Buffer.from([0, 0, 0, type, 0, 0, 0, 0, 1]);
  header.writeUIntBE(payload.length, 0, 3);
  return Buffer.concat([header, payload]);
}

/** A connection, and what came back on it by the time that the server has ended it. */
async function letGo(port: number, ...pieces: readonly Buffer[]): Promise<Buffer> {
  const socket = await dial(port);
  const got: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => got.push(chunk));
  for (const piece of pieces) if (!socket.destroyed) socket.write(piece);
  await new Promise<void>((resolve, reject) => {
    const late = (): void => reject(new Error(`port ${port} keeps a connection for more than ${LET_GO_MS} ms`));
    const timer = setTimeout(late, LET_GO_MS);
    socket.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
  });
  return Buffer.concat(got);
}

async function dial(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {}); // a reset is a way to be let go of
  await once(socket, 'connect');
  return socket;
}

function bytes(length: number): Buffer {
  return seededRandom(12_345).bytes(length);
}

interface Answer {
  readonly http: number;
  readonly grpc: string | undefined;
  readonly message: string | undefined;
}

/** A session that acknowledges everything and closes with the test. */
class Session implements AsyncDisposable {
  readonly http2: ClientHttp2Session;

  constructor(port: number) {
    this.http2 = connectHttp2(`http://127.0.0.1:${port}`);
    this.http2.on('error', () => {});
  }

  request(path: string, headers: Readonly<Record<string, string>> = {}): ClientHttp2Stream {
    const usual = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' };
    const stream = this.http2.request({ ...usual, ...headers });
    stream.on('error', () => {});
    return stream;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.http2.destroyed) return;
    const closed = once(this.http2, 'close');
    this.http2.destroy();
    await closed;
  }
}

/** How a request is answered, in whatever frame it comes. */
async function answer(stream: ClientHttp2Stream): Promise<Answer> {
  const seen: IncomingHttpHeaders[] = [];
  stream.on('response', (headers: IncomingHttpHeaders) => seen.push(headers));
  stream.on('trailers', (headers: IncomingHttpHeaders) => seen.push(headers));
  stream.resume();
  const late = AbortSignal.timeout(LET_GO_MS);
  // The server has said everything, or the stream is gone.
  await Promise.race([once(stream, 'end', { signal: late }), once(stream, 'close', { signal: late })]);
  stream.close();
  const all = Object.assign({}, ...seen) as Record<string, string | number | undefined>;
  return {
    http: Number(all[':status'] ?? 0),
    grpc: all['grpc-status'] === undefined ? undefined : String(all['grpc-status']),
    message: all['grpc-message'] === undefined ? undefined : decodeURIComponent(String(all['grpc-message'])),
  };
}

/** A length-prefixed message of gRPC, with whatever the prefix says. */
function message(payload: Buffer, { compressed = 0, length = payload.length } = {}): Buffer {
  const prefix = Buffer.from([compressed, 0, 0, 0, 0]);
  prefix.writeUInt32BE(length, 1);
  return Buffer.concat([prefix, payload]);
}

/** What becomes of everything that is no client of gRPC, and of streams that say nothing behind their headers. */
async function meetStrangers(port: number, path: string): Promise<{ said: Buffer[]; told: Answer[] }> {
  const before = await connectionsOf(port);
  const spoken: readonly (readonly Buffer[])[] = [
    [bytes(100_000)],
    [Buffer.alloc(1_000_000)],
    [Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n')],
    [Buffer.from('1603010200010001fc0303', 'hex'), bytes(500)], // TLS
    [PREFACE, bytes(100_000)],
    [PREFACE, SETTINGS, Buffer.from([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]), bytes(1_000)], // a frame beyond all limits
    [PREFACE, SETTINGS, Buffer.from([0, 0, 1, 0, 0, 0, 0, 0, 7, 65])], // data for a stream that is not open
    [PREFACE, SETTINGS, frame(1, LITERALS), ...Array.from({ length: 1_000 }, () => frame(9, LITERALS))], // no end of headers
    // Half open: whoever is behind it never answers a ping.
    ...Array.from({ length: 50 }, () => []),
    ...Array.from({ length: 50 }, () => [PREFACE]),
    ...Array.from({ length: 50 }, () => [PREFACE, SETTINGS]),
  ];
  await using session = new Session(port);
  const mute = Array.from({ length: 1_000 }, async () => await answer(session.request(path)));
  const said = await Promise.all(spoken.map(async (pieces) => await letGo(port, ...pieces)));
  const told = await Promise.all(mute);
  await session[Symbol.asyncDispose]();
  await expect.poll(async () => await connectionsOf(port)).toBeLessThanOrEqual(before);
  return { said, told };
}

const PLACES = [
  ['the broker', () => servers.broker.port, '/magnetar.v1.Broker/Publish'],
  ['a bookie', () => servers.bookie.port, '/magnetar.v1.Bookie/Append'],
] as const;

test('both end connections that speak something else, or nothing, and streams without a hello', async () => {
  const met = await Promise.all(PLACES.map(async ([, portOf, path]) => await meetStrangers(portOf(), path)));
  for (const { said, told } of met) {
    for (const got of said) expect(got.length).toBeLessThan(10_000);
    for (const { grpc, message: text } of told) {
      expect([grpc, text]).toEqual(['4', expect.stringContaining('ClientHello')]);
    }
  }
});

describe.each(PLACES)('%s', (_, portOf, path) => {
  test('answers what is no call of its service', async () => {
    await using session = new Session(portOf());
    const calls = {
      unknown: session.request('/magnetar.v1.Nothing/AtAll'),
      json: session.request(path, { 'content-type': 'application/json' }),
      zipped: session.request(path, { 'grpc-encoding': 'no-such-encoding' }),
    };
    calls.zipped.write(message(Buffer.from('x'), { compressed: 1 }));
    const [unknown, json, zipped] = await Promise.all(Object.values(calls).map(answer));
    expect(unknown).toMatchObject({
      http: 200,
      grpc: '12',
      message: expect.stringContaining('Nothing/AtAll') as string,
    });
    expect(json?.http).toBe(415);
    expect(zipped?.grpc).toMatch(/^(12|13|3)$/);
  });

  test('answers messages whose prefix lies', async () => {
    await using session = new Session(portOf());
    const huge = session.request(path);
    huge.write(message(Buffer.alloc(100), { length: 0xffff_ffff }));
    expect((await answer(huge)).grpc).toBe('8'); // RESOURCE_EXHAUSTED
    const compressed = session.request(path);
    compressed.write(message(Buffer.alloc(100), { compressed: 1 }));
    expect((await answer(compressed)).grpc).not.toBe('0');
    const short = session.request(path);
    short.end(message(Buffer.alloc(100), { length: 200 }));
    expect((await answer(short)).grpc).toMatch(/^\d+$/);
  });

  test('is not impressed by streams that are opened and reset at once', async () => {
    await using session = new Session(portOf());
    for (let round = 0; round < 100 && !session.http2.destroyed; round++) {
      const streams = Array.from({ length: 100 }, () => session.request(path));
      for (const stream of streams) stream.close(constants.NGHTTP2_CANCEL);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await expect(servers.watch.unharmed()).resolves.toBeUndefined();
  });
});
