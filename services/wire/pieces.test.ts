import { once } from 'node:events';
import { Client, type ClientDuplexStream, credentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { afterEach, describe, expect, test } from 'vitest';
import type { PiecedMessage } from '../lib/bytes.ts';
import { MagnetarError } from '../lib/errors.ts';
import type { EntryId, LedgerId, MessageIndex } from '../lib/ids.ts';
import { until } from '../runtime/testing/until.ts';
import { consumeResponse } from './consume-codec.ts';
import type { ConsumeRequest, ConsumeResponse, PublishResponse } from './frames.ts';
import { sendInPieces } from './pieces.ts';
import { bindWithWideWindows, clientOptions, createServer, openStream } from './server.ts';
import { brokerService } from './services.ts';
import { type FailedStatus, fromStatus, toStatus } from './status.ts';

type Call = ServerDuplexStream<Buffer, ConsumeResponse>;
type Stream = ClientDuplexStream<ConsumeRequest, Buffer>;

const LARGE = 100_000;
const cleanUps: (() => void)[] = [];

afterEach(() => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) cleanUp();
});

/** A frame that delivers these blocks. */
function frameOf(...blocks: readonly Buffer[]): ConsumeResponse {
  const place = { ledgerId: 1 as LedgerId, entryId: 2 as EntryId, index: 3 as MessageIndex, appendTime: 4 };
  const rest = { ...place, crc32c: 5, skip: Buffer.alloc(0), redeliveries: 0 };
  return { deliveries: blocks.map((block, n) => ({ consumer: n + 1, block, ...rest })) };
}

/** As the codec does it, but what is put together in one buffer is wrong. */
function encodeForPieces(frame: ConsumeResponse): PiecedMessage {
  const message = consumeResponse.encodePieced(frame);
  message.copy = (target, start) => void target.fill(0xff, start);
  return message;
}

/** Connects to a server with this handler. */
async function connectTo(handle: (call: Call) => void): Promise<Stream> {
  const server = createServer();
  cleanUps.push(() => server.forceShutdown());
  server.addService(brokerService, {
    Publish: (call: ServerDuplexStream<Buffer, PublishResponse>) => call.end(),
    Consume: handle,
  });
  const port = await bindWithWideWindows(server, '127.0.0.1:0');
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), clientOptions);
  cleanUps.push(() => client.close());
  return openStream(client, brokerService.Consume);
}

/** What came, and how it ended. */
async function untilEnded(stream: Stream): Promise<[ConsumeResponse[], MagnetarError]> {
  const frames: ConsumeResponse[] = [];
  stream.on('data', (bytes: Buffer) => frames.push(consumeResponse.decode(bytes)));
  const error = await new Promise<FailedStatus>((resolve) => {
    stream.on('error', resolve);
  });
  return [frames, fromStatus(error)];
}

describe('a call that sends frames in pieces', () => {
  const frames = [
    frameOf(Buffer.alloc(LARGE, 'a')),
    {},
    frameOf(Buffer.from('small')),
    frameOf(Buffer.alloc(LARGE, 'b'), Buffer.from('c'), Buffer.alloc(3 * LARGE, 'd')),
  ];

  test('sends them whole and in order, before its status, from where their payloads are', async () => {
    const stream = await connectTo((call) => {
      sendInPieces(call, encodeForPieces);
      for (const frame of frames) call.write(frame);
      call.emit('error', toStatus(new MagnetarError('NOT_OWNER', 'bye')));
    });
    const [came, error] = await untilEnded(stream);
    expect(came).toEqual(frames.map((frame) => consumeResponse.decode(consumeResponse.encode(frame))));
    expect(error).toMatchObject({ code: 'NOT_OWNER', message: 'bye' });
  });

  test('says when each has left, and holds back what a client does not take', async () => {
    const calls: Call[] = [];
    const left: number[] = [];
    const stream = await connectTo((call) => {
      calls.push(call);
      sendInPieces(call, encodeForPieces);
      const send = (n: number): void => {
        call.write(frameOf(Buffer.alloc(10 * LARGE)), () => left.push(n));
        if (n < 99) setImmediate(() => send(n + 1));
      };
      send(0);
    });
    stream.on('error', () => undefined);
    stream.pause();
    await until(() => left.length > 0);
    stream.cancel();
    await once(calls[0] as Call, 'cancelled');
    expect(left.length).toBeLessThan(50);
    expect(left).toEqual(left.map((_, n) => n));
  });

  test('does no harm when the client has gone', async () => {
    const calls: Call[] = [];
    const stream = await connectTo((call) => {
      calls.push(call);
      sendInPieces(call, encodeForPieces);
      call.write({});
    });
    stream.on('error', () => undefined);
    await once(stream, 'data');
    stream.cancel();
    const [call] = calls as [Call];
    await once(call, 'cancelled');
    let left = false;
    call.write(frameOf(Buffer.alloc(LARGE)), (error?: Error | null) => (left = error === undefined || error === null));
    await new Promise((resolve) => setImmediate(resolve));
    expect(left).toBe(false);
  });

  test('ends the stream with an error for a frame that cannot be encoded', async () => {
    const stream = await connectTo((call) => {
      sendInPieces(call, () => {
        throw new MagnetarError('INTERNAL', 'no such frame');
      });
      call.write({});
    });
    const [came, error] = await untilEnded(stream);
    expect(came).toEqual([]);
    expect(error).toMatchObject({ code: 'INTERNAL', message: 'no such frame' });
  });

  test('sabotage: without it, grpc-js would put them together', async () => {
    const stream = await connectTo((call) => {
      const { call: inner } = call as unknown as { call: { handler: { serialize: unknown } } };
      inner.handler.serialize = encodeForPieces;
      call.write(frames[0] ?? {});
      call.end();
    });
    const [bytes] = (await once(stream, 'data')) as [Buffer];
    expect(bytes.subarray(0, 10)).toEqual(Buffer.alloc(10, 0xff));
  });

  test('needs what grpc-js has today', () => {
    expect(() => sendInPieces({ call: {} } as unknown as Call, encodeForPieces)).toThrow(
      /no longer has the HTTP\/2 stream/,
    );
  });
});
