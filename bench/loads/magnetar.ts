import { randomUUID } from 'node:crypto';
import { Client } from '../../services/client/index.ts';
import { runLoad } from './driver.ts';

const PENDING_BYTES = 16 << 20;

await runLoad(async ({ address, payload }) => {
  const client = new Client({ serviceUrl: `grpc://${address}` });
  const topic = `bench-${randomUUID()}`;
  const maxPendingMessages = Math.floor(PENDING_BYTES / (payload.length + 16));
  const producer = await client.createProducer({ topic, maxPendingBytes: PENDING_BYTES, maxPendingMessages });
  const message = { data: payload };
  return {
    async publish(count) {
      for (let i = 1; i < count; i++) void producer.send(message);
      await producer.send(message);
    },
    async consume(received, pass) {
      const consumer = await client.subscribe({ topic, subscription: `bench-${pass}`, startPosition: 'earliest' });
      let acknowledged: Promise<void> | undefined;
      for await (const each of consumer) {
        if (each.data.length !== payload.length) throw new Error(`a message of ${each.data.length} bytes`);
        acknowledged = consumer.acknowledge(each);
        if (!received(1)) break;
      }
      await acknowledged;
      await consumer.close();
    },
    close: async () => await client.close(),
  };
});
