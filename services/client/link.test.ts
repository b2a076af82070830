import { once } from 'node:events';
import type { AddressInfo, Server, Socket } from 'node:net';
import { connect, createServer } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { brokerService } from '../wire/services.ts';
import type { FailedStatus } from '../wire/status.ts';
import { Client } from './client.ts';
import { nodeEnvironment } from './environment.ts';
import { Link } from './link.ts';
import { parseServiceUrl } from './service-url.ts';
import { FakeBroker } from './testing/fake-broker.ts';
import { clockWithTurns, turn } from './testing/steps.ts';

const HELLO = { protocolVersion: 1, features: [], client: 'test' };

let broker: FakeBroker;
let link: Link;

beforeEach(async () => {
  broker = await new FakeBroker().listen();
  link = new Link(parseServiceUrl(broker.url));
});

afterEach(() => {
  link.close();
  broker.crash();
});

/** What becomes of a new stream: "hello", or why it failed. */
function attempt(): Promise<string> {
  const stream = link.openStream(brokerService.Publish);
  return new Promise((resolve) => {
    stream.once('data', () => {
      stream.cancel();
      resolve('hello');
    });
    stream.on('error', (error: FailedStatus) => resolve(link.reason(error).message));
    stream.write({ hello: HELLO });
  });
}

test('a broker that is back is reached by the next try, whatever came before', async () => {
  expect(await attempt()).toBe('hello');
  broker.crash();
  for (let i = 0; i < 8; i++) expect(await attempt()).toMatch(/cannot reach the broker at/);
  await broker.listen();
  expect(await attempt()).toBe('hello');
});

/** Passes connections on; the first `mute` of them get no answer. */
async function relay(mute: number): Promise<Server & { readonly sockets: Socket[] }> {
  const sockets: Socket[] = [];
  const server = createServer((near) => {
    sockets.push(near);
    near.on('error', () => {});
    if (sockets.length <= mute) return;
    const far = connect(Number(new URL(broker.url).port), '127.0.0.1');
    far.on('error', () => near.destroy());
    far.on('close', () => near.destroy());
    near.on('close', () => far.destroy());
    near.pipe(far).pipe(near);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return Object.assign(server, { sockets });
}

function urlOf(server: Server): string {
  return `grpc://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe('a network that loses everything for a while', () => {
  test('a client whose connection stays mute makes another one, for all of its streams', async () => {
    const server = await relay(2);
    const clock = clockWithTurns();
    const client = new Client({ serviceUrl: urlOf(server) }, { ...nodeEnvironment, clock });
    const opened = Promise.all([client.createProducer({ topic: 't' }), client.createReader({ topic: 't' })]);
    for (const connections of [1, 2]) {
      while (server.sockets.length < connections) await turn();
      clock.advance(10_000);
      await turn();
      clock.advance(500); // their pauses between tries
    }
    await opened;
    expect(server.sockets).toHaveLength(3);
    await client.close();
    for (const socket of server.sockets) socket.destroy();
    server.close();
  });

  test('streams that are in use outlive it that their connection is distrusted', async () => {
    const server = await relay(0);
    link.close();
    link = new Link(parseServiceUrl(urlOf(server)));
    const used = link.openStream(brokerService.Publish);
    used.write({ hello: HELLO });
    await once(used, 'data');
    const mute = link.openStream(brokerService.Consume);
    mute.on('error', () => {});
    link.distrust(mute);
    link.distrust(used);
    expect(await attempt()).toBe('hello');
    expect(server.sockets).toHaveLength(2);
    used.write({ opens: [{ producer: 1, topic: 't', name: 'p', instance: Buffer.alloc(16) }] });
    await once(used, 'data');
    mute.cancel();
    used.end();
    await once(used.resume(), 'end');
    server.close();
  });
});
