import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { runLoad } from './driver.ts';

// What is used of NATS's own client: its declarations do not pass a strict check of libraries.
interface Connection {
  flush(): Promise<void>;
  close(): Promise<void>;
}
interface Message {
  ack(): void;
}
interface JetStreamManager {
  readonly streams: { add(config: object): Promise<unknown>; delete(name: string): Promise<boolean> };
  readonly consumers: { add(stream: string, config: object): Promise<unknown> };
}
interface JetStream {
  publish(subject: string, payload: Uint8Array, options: { timeout: number }): Promise<unknown>;
  readonly consumers: {
    get(stream: string, name: string): Promise<{ consume(options: object): Promise<AsyncIterable<Message>> }>;
  };
}
interface Transport {
  readonly connect: (options: { servers: string }) => Promise<Connection>;
}
interface Streaming {
  readonly jetstream: (connection: Connection, options: { timeout: number }) => JetStream;
  readonly jetstreamManager: (connection: Connection, options: { timeout: number }) => Promise<JetStreamManager>;
}

const require = createRequire(import.meta.url);
const { connect } = require('@nats-io/transport-node') as Transport;
const { jetstream, jetstreamManager } = require('@nats-io/jetstream') as Streaming;
const FETCH = 5_000;

await runLoad(async ({ address, payload }) => {
  const connection = await connect({ servers: address });
  const [stream, subject] = [`bench-${randomUUID()}`, `bench.${randomUUID()}`];
  const manager = await jetstreamManager(connection, { timeout: 60_000 });
  await manager.streams.add({ name: stream, subjects: [subject], storage: 'file', retention: 'limits' });
  const client = jetstream(connection, { timeout: 60_000 });
  return {
    mostPending: 2_000,
    async publish(count) {
      const all: Promise<unknown>[] = [];
      for (let i = 0; i < count; i++) all.push(client.publish(subject, payload, { timeout: 120_000 }));
      await Promise.all(all);
    },
    async consume(received, pass) {
      await manager.consumers.add(stream, {
        durable_name: `bench-${pass}`,
        ack_policy: 'explicit',
        deliver_policy: 'all',
        max_ack_pending: 2 * FETCH,
      });
      const consumer = await client.consumers.get(stream, `bench-${pass}`);
      for await (const message of await consumer.consume({ max_messages: FETCH })) {
        message.ack();
        if (!received(1)) break;
      }
      await connection.flush();
    },
    async close() {
      await manager.streams.delete(stream).catch(() => false);
      await connection.close();
    },
  };
});
