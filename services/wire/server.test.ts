import { connect, type Http2Server, type Settings } from 'node:http2';

import { Client, credentials, Metadata, type Server, ServerCredentials, setLogger } from '@grpc/grpc-js';
import { getLogger } from '@grpc/grpc-js/build/src/logging.js';
import { afterEach, describe, expect, test } from 'vitest';

import { hasCode, MagnetarError } from '../lib/errors.ts';
import type { PublishRequest, PublishResponse } from './frames.ts';
import { publishRequest, publishResponse } from './publish-codec.ts';
import { bindWithWideWindows, clientOptions, createServer, openStream as openFrameStream } from './server.ts';
import { type BrokerHandlers, brokerService } from './services.ts';
import { type FailedStatus, fromStatus, toStatus } from './status.ts';

const WINDOW_BYTES = 8_388_608;
const cleanUps: (() => void)[] = [];

afterEach(() => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) cleanUp();
});

/** Echoes opens as opened, and fails when asked for the topic 'fail'. */
const handlers: BrokerHandlers = {
  Publish(call) {
    call.on('data', (bytes: Buffer) => {
      const { opens = [] } = publishRequest.decode(bytes);
      const bad = opens.find(({ topic }) => topic.startsWith('fail'))?.topic ?? '';
      const error = new MagnetarError('TOPIC_NAME_INVALID', `topic is "é${bad}"`, { details: { value: `é${bad}` } });
      if (bad !== '') call.emit('error', toStatus(error));
      else call.write({ opened: opens.map(({ producer, topic }) => ({ producer, name: topic, epoch: 0 })) });
    });
    call.on('end', () => call.end());
  },
  Consume(call) {
    call.end();
  },
};

function bindPlainly(server: Server, address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) => {
      if (error === null) resolve(port);
      else reject(error);
    });
  });
}

async function listen(bind = bindWithWideWindows): Promise<{ server: Server; port: number }> {
  const server = createServer();
  cleanUps.push(() => server.forceShutdown());
  server.addService(brokerService, handlers);
  return { server, port: await bind(server, '127.0.0.1:0') };
}

/** What a bare HTTP/2 client is told by a server. */
async function lookFromOutside(port: number): Promise<Record<string, unknown>> {
  const session = connect(`http://127.0.0.1:${port}`);
  cleanUps.push(() => session.destroy());
  const { initialWindowSize, maxFrameSize } = await new Promise<Settings>((resolve) => {
    session.once('remoteSettings', resolve);
  });
  await new Promise((resolve, reject) => {
    session.ping((error) => (error === null ? resolve(undefined) : reject(error)));
  });
  return { initialWindowSize, maxFrameSize, connectionWindow: session.state.remoteWindowSize };
}

/** Opens a publish stream and waits for its first frame. */
async function openStream(port: number): Promise<{ cancel: () => void; failed: Promise<MagnetarError> }> {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), clientOptions);
  cleanUps.push(() => client.close());
  const call = openFrameStream(client, brokerService.Publish);
  const failed = new Promise<MagnetarError>((resolve) => {
    call.on('error', (error: FailedStatus) => resolve(fromStatus(error)));
  });
  call.write(open('a'));
  await new Promise((resolve) => {
    call.once('data', resolve);
  });
  return { cancel: () => call.cancel(), failed };
}

interface Exchange {
  readonly frames: PublishResponse[];
  readonly error?: MagnetarError;
}

/** Sends frames, half-closes, and gives what came back. */
async function exchange(port: number, requests: readonly PublishRequest[]): Promise<Exchange> {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), clientOptions);
  cleanUps.push(() => client.close());
  const { path, requestSerialize, responseDeserialize } = brokerService.Publish;
  const options = { deadline: Date.now() + 5_000 };
  const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, new Metadata(), options);
  const frames: PublishResponse[] = [];
  call.on('data', (bytes: Buffer) => frames.push(publishResponse.decode(bytes)));
  for (const request of requests) call.write(request);
  call.end();
  return await new Promise<Exchange>((resolve) => {
    call.on('end', () => resolve({ frames }));
    call.on('error', (error: FailedStatus) => resolve({ frames, error: fromStatus(error) }));
  });
}

const open = (topic: string): PublishRequest => ({
  opens: [{ producer: 1, topic, name: '', instance: Buffer.alloc(0) }],
});

describe('a server', () => {
  test('has wide windows, seen from outside', async () => {
    const { port } = await listen();
    expect(await lookFromOutside(port)).toEqual({
      initialWindowSize: WINDOW_BYTES,
      maxFrameSize: 262_144,
      connectionWindow: WINDOW_BYTES,
    });
  });

  test('without our way of binding would have narrow ones', async () => {
    const { port } = await listen(bindPlainly);
    expect(await lookFromOutside(port)).toEqual({
      initialWindowSize: 65_535,
      maxFrameSize: 16_384,
      connectionWindow: 65_535,
    });
  });

  test('is allowed large frames by a client that has a stream', async () => {
    const { server, port } = await listen();
    const { http2Servers } = server as unknown as { http2Servers: ReadonlyMap<Http2Server, unknown> };
    const allowed = new Promise<number>((resolve) => {
      for (const http2Server of http2Servers.keys()) {
        http2Server.on('session', (session) => {
          session.on('remoteSettings', ({ maxFrameSize = 0 }: Settings) => {
            if (maxFrameSize > 16_384) resolve(maxFrameSize);
          });
        });
      }
    });
    await openStream(port);
    expect(await allowed).toBe(262_144);
  });

  test('exchanges frames with a client, also ones above gRPC’s default of 4 MiB', async () => {
    const { port } = await listen();
    const long = 'x'.repeat(6_000_000);
    const { frames, error } = await exchange(port, [open('a'), open(long)]);
    expect(error).toBeUndefined();
    expect(frames.map((frame) => frame.opened?.[0]?.name.length)).toEqual([1, 6_000_000]);
  });

  test('refuses frames above 16 MiB', async () => {
    const { port } = await listen();
    const { error } = await exchange(port, [open('x'.repeat(16_777_216))]);
    expect(error?.code).toBe('MESSAGE_TOO_LARGE');
  });

  test('ends a stream with an error that arrives whole', async () => {
    const { port } = await listen();
    const { error } = await exchange(port, [open('fail')]);
    expect(error).toMatchObject({
      code: 'TOPIC_NAME_INVALID',
      message: 'topic is "éfail"',
      details: { value: 'éfail' },
    });
  });

  test('ends a stream with an error that names something very long', async () => {
    const { port } = await listen();
    const { error } = await exchange(port, [open(`fail${'é'.repeat(1_000_000)}`)]);
    expect([error?.code, error?.message.length, error?.details['value']?.length]).toEqual([
      'TOPIC_NAME_INVALID',
      1_001,
      1_001,
    ]);
  });

  test('that goes away is UNAVAILABLE to whoever has a stream open', async () => {
    const { server, port } = await listen();
    const { failed } = await openStream(port);
    server.forceShutdown();
    expect(await failed).toMatchObject({ code: 'UNAVAILABLE', message: 'the connection was lost' });
  });

  test('is not blamed for a stream that its client cancels', async () => {
    const { port } = await listen();
    const { cancel, failed } = await openStream(port);
    cancel();
    expect((await failed).code).toBe('CANCELLED');
  });

  test('names the port that is in use', async () => {
    const { port } = await listen();
    const second = createServer();
    cleanUps.push(() => second.forceShutdown());
    const error: unknown = await bindWithWideWindows(second, `127.0.0.1:${port}`).catch((thrown: unknown) => thrown);
    expect(hasCode(error, 'PORT_IN_USE')).toBe(true);
    expect(error).toMatchObject({ message: `port ${port} is in use (127.0.0.1:${port}); choose another one` });
  });

  test('leaves the logger of grpc-js that an app has set, but for what the caller is told anyhow', async () => {
    const before = getLogger();
    cleanUps.push(() => setLogger(before));
    const lines: string[] = [];
    const note = (...parts: unknown[]): void => void lines.push(parts.join(' '));
    setLogger({ error: note });
    const { port } = await listen();
    const second = createServer();
    cleanUps.push(() => second.forceShutdown());
    await expect(bindWithWideWindows(second, `127.0.0.1:${port}`)).rejects.toMatchObject({ code: 'PORT_IN_USE' });
    expect(lines).toEqual([]);
    getLogger().error?.('E', 1);
    getLogger().info?.('I');
    getLogger().debug?.('D');
    expect(lines).toEqual(['E 1', 'I', 'D']);
    const ours = getLogger();
    createServer().forceShutdown();
    expect(getLogger()).toBe(ours);
  });

  test('names an address that this machine does not have', async () => {
    const server = createServer();
    cleanUps.push(() => server.forceShutdown());
    await expect(bindWithWideWindows(server, '192.0.2.1:7650')).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: 'cannot listen on 192.0.2.1:7650: EADDRNOTAVAIL',
    });
  });
});

test('a server that is not there is UNAVAILABLE in one line with its address', async () => {
  const { server, port } = await listen();
  server.forceShutdown();
  const { error } = await exchange(port, [open('a')]);
  expect(error).toMatchObject({
    code: 'UNAVAILABLE',
    message: `cannot connect to 127.0.0.1:${port}: connection refused`,
  });
});
