/** The memory tests at length, with figures. */
import { Client } from '../../services/client/index.ts';
import { type ConsumeStream, consumeStream, HELLO } from './raw-stream.ts';
import { fill, growth, idleGrowth, LARGE_BYTES, MOST_MEGABYTES, StillClients, usedMemory } from './memory.ts';
import { type ServerProcess, startStandalone } from './process.ts';

const MESSAGE_BYTES = 65_536;
const LEAST_SHARE = 0.8;
const IDLE = 1_000;
const IDLE_MEGABYTES = 60;
const MANY = 500;
const FEW = 5;
const LARGE_PRODUCERS = 50;
const PERMITS = { messages: 4_294_967_295, bytes: Number.MAX_SAFE_INTEGER };

/** Who comes beside the consumer that keeps up. */
interface Slow {
  readonly name: string;
  /** Connects them; ends them. */
  readonly start: (server: ServerProcess, topic: string) => Promise<() => Promise<void>>;
}

async function sdkConsumers(
  server: ServerProcess,
  topic: string,
  clients: number,
  each: number,
): Promise<() => Promise<void>> {
  const all = Array.from({ length: clients }, () => new Client({ serviceUrl: server.serviceUrl }));
  const receiverQueueBytes = clients * each === 1 ? undefined : 131_072; // what waits in this process
  for (const [at, client] of all.entries()) {
    const numbers = Array.from({ length: each }, (_, n) => `${at}-${n}`);
    const startPosition = 'earliest' as const;
    await Promise.all(
      numbers.map(async (subscription) => {
        await client.subscribe({ topic, subscription, startPosition, receiverQueueBytes });
      }),
    );
  }
  return async () => {
    await Promise.all(all.map(async (client) => await client.close()));
  };
}

/** A client of gRPC that reads nothing after the first frames, with permits beyond all measure. */
function pausedStream(server: ServerProcess, topic: string): ConsumeStream {
  const stream = consumeStream(server.port);
  stream.pause();
  const common = {
    consumer: 1,
    topic,
    subscription: '',
    type: 'exclusive',
    name: '',
    instance: Buffer.alloc(0),
    topicIdentity: '',
  } as const;
  stream.send({
    hello: HELLO,
    subscribes: [{ ...common, start: { at: 'earliest' } }],
    flows: [{ consumer: 1, ...PERMITS }],
  });
  return stream;
}

async function deaf(
  server: ServerProcess,
  topic: string,
  clients: number,
  readers: number,
): Promise<() => Promise<void>> {
  const still = await StillClients.deaf(server.port, clients, topic, readers);
  return async () => await still[Symbol.asyncDispose]();
}

const KINDS: readonly Slow[] = [
  { name: 'a consumer that receives nothing', start: async (server, topic) => await sdkConsumers(server, topic, 1, 1) },
  {
    name: 'a raw client that stops reading',
    start: async (server, topic) => {
      const stream = pausedStream(server, topic);
      return async () => await Promise.resolve(stream[Symbol.asyncDispose]());
    },
  },
  {
    name: `${MANY} consumers on ${FEW} connections`,
    start: async (s, topic) => await sdkConsumers(s, topic, FEW, MANY / FEW),
  },
  {
    name: `${MANY} consumers on ${MANY} connections`,
    start: async (s, topic) => await sdkConsumers(s, topic, MANY, 1),
  },
  { name: `${MANY} deaf connections`, start: async (s, topic) => await deaf(s, topic, MANY, 1) },
  {
    name: `${MANY} deaf readers on ${FEW} connections`,
    start: async (s, topic) => await deaf(s, topic, FEW, MANY / FEW),
  },
];

/** Megabytes per second of a consumer that keeps up with a producer. */
async function liveRate(server: ServerProcess, topic: string, megabytes: number): Promise<number> {
  const client = new Client({ serviceUrl: server.serviceUrl });
  const count = Math.ceil((megabytes * 1_000_000) / MESSAGE_BYTES);
  const consumer = await client.subscribe({ topic, subscription: `live-${megabytes}` });
  const from = performance.now();
  const publishing = fill(client, topic, count, MESSAGE_BYTES, 256);
  for (let received = 0; received < count; received++) void consumer.acknowledge(await consumer.receive());
  await publishing;
  const rate = megabytes / ((performance.now() - from) / 1_000);
  await client.close();
  return rate;
}

type Report = (name: string, text: string, fine: boolean) => void;

async function slowConsumers({ name, start }: Slow, megabytes: number, report: Report): Promise<void> {
  await using server = await startStandalone();
  const alone = await liveRate(server, 'alone', megabytes);
  let rate = 0;
  const grown = await growth(server, async () => {
    const end = await start(server, 'crowded');
    rate = await liveRate(server, 'crowded', megabytes);
    await end();
  });
  const share = rate / alone;
  const text = `${Math.round(rate)} of ${Math.round(alone)} MB/s (${share.toFixed(2)}), ${Math.round(grown)} MB more`;
  report(name, text, share >= LEAST_SHARE && grown <= MOST_MEGABYTES);
}

async function idleConnections(report: Report): Promise<void> {
  await using server = await startStandalone();
  const grown = await idleGrowth(server, IDLE, IDLE_MEGABYTES);
  report(`${IDLE} idle connections`, `${Math.round(grown)} MB more`, grown <= IDLE_MEGABYTES);
}

async function largeMessages(report: Report): Promise<void> {
  await using server = await startStandalone();
  const clients = Array.from({ length: LARGE_PRODUCERS }, () => new Client({ serviceUrl: server.serviceUrl }));
  await Promise.all(clients.map(async (client, at) => await fill(client, `large-${at % 10}`, 1, LARGE_BYTES)));
  const grown = await growth(server, async () => {
    await using _ = await StillClients.halfFrames(server.port, MANY, LARGE_BYTES, LARGE_BYTES - 1);
    await Promise.all(clients.map(async (client, at) => await fill(client, `large-${at % 10}`, 2, LARGE_BYTES)));
  });
  await Promise.all(clients.map(async (client) => await client.close()));
  const { cache, ...others } = await usedMemory(server);
  const left = Object.values(others).reduce((sum, bytes) => sum + bytes, 0);
  const text = `${Math.round(grown)} MB more, then ${left} bytes in use, ${cache} in the cache`;
  report(
    `${LARGE_PRODUCERS} producers of 5 MB beside ${MANY} half frames`,
    text,
    grown <= MOST_MEGABYTES && left === 0,
  );
}

/** Runs them all, with so many megabytes published beside each kind of slow consumer. Returns how many broke their bounds. */
export async function memoryRounds(megabytes: number, log: (line: string) => void): Promise<number> {
  let broken = 0;
  const report: Report = (name, text, fine) => {
    log(`  ${fine ? '' : 'VIOLATION '}${name}: ${text}`);
    if (!fine) broken++;
  };
  for (const kind of KINDS) await slowConsumers(kind, megabytes, report);
  await idleConnections(report);
  await largeMessages(report);
  return broken;
}
