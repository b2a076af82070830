/**
 * The load on a running Magnetar: publishes for some seconds, then consumes with acknowledgments from the earliest
 * message. In a process of its own, so that the client and the server have a core each.
 *
 *   node dist/bench/load.js --service-url grpc://HOST:PORT [--size 128] [--seconds 10]     prints one JSON line
 */
import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import { Client } from '../services/client/index.ts';
import { type Rate, rateOf } from './rate.ts';

const PENDING_BYTES = 8 << 20;

/** What a run moved. */
export interface LoadResult {
  readonly size: number;
  readonly publish: Rate;
  readonly consume: Rate;
}

async function publish(client: Client, topic: string, size: number, seconds: number): Promise<Rate> {
  const pendingMessages = Math.floor(PENDING_BYTES / (size + 16));
  const producer = await client.createProducer({
    topic,
    maxPendingBytes: 2 * PENDING_BYTES,
    maxPendingMessages: 2 * pendingMessages,
  });
  const payload = Buffer.alloc(size, 'A');
  const burst = Math.min(500, Math.ceil(pendingMessages / 4));
  const bursts: Promise<unknown>[] = [];
  const latencies: number[] = [];
  const start = performance.now();
  let sent = 0;
  while (performance.now() - start < seconds * 1000) {
    const at = performance.now();
    void producer.send({ data: payload }).then(() => latencies.push(performance.now() - at));
    for (let i = 2; i < burst; i++) void producer.send({ data: payload });
    bursts.push(producer.send({ data: payload }));
    sent += burst;
    if (bursts.length * burst >= pendingMessages) await bursts.shift();
    else if (sent % 5000 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await producer.flush();
  await Promise.all(bursts);
  const tookMs = performance.now() - start;
  await producer.close();
  return rateOf({ messages: sent, size, tookMs, latencies });
}

async function consume(client: Client, topic: string, size: number, seconds: number): Promise<Rate> {
  const consumer = await client.subscribe({ topic, subscription: 'bench', startPosition: 'earliest' });
  const start = performance.now();
  let received = 0;
  let lastAck: Promise<void> | undefined;
  for await (const message of consumer.messages({ untilEnd: true })) {
    if (message.data.length === size) received += 1;
    lastAck = consumer.acknowledge(message);
    if ((received & 4095) === 0 && performance.now() - start > seconds * 1000) break;
  }
  await lastAck;
  const tookMs = performance.now() - start;
  await consumer.close();
  return rateOf({ messages: received, size, tookMs, latencies: [] });
}

const { values } = parseArgs({
  options: {
    'service-url': { type: 'string', default: 'grpc://127.0.0.1:7650' },
    size: { type: 'string', default: '128' },
    seconds: { type: 'string', default: '10' },
  },
});
const [size, seconds] = [Number(values.size), Number(values.seconds)];
const client = new Client({ serviceUrl: values['service-url'] });
const topic = `bench-${randomUUID()}`;
const published = await publish(client, topic, size, seconds);
const consumed = await consume(client, topic, size, seconds);
await client.close();
const result: LoadResult = { size, publish: published, consume: consumed };
console.log(JSON.stringify(result));
