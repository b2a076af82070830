import { randomUUID } from 'node:crypto';
import { connect } from 'amqplib';
import { runLoad } from './driver.ts';

const PREFETCH = 2_000;
const ACK_EVERY = 200;
const IDLE_MS = 20;

await runLoad(async ({ address, payload }) => {
  const connection = await connect(`amqp://guest:guest@${address}`);
  const [publisher, subscriber] = [await connection.createConfirmChannel(), await connection.createChannel()];
  const queue = `bench-${randomUUID()}`;
  await publisher.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  return {
    consumesOnce: true,
    async publish(count) {
      for (let i = 1; i < count; i++) publisher.sendToQueue(queue, payload, { persistent: true });
      await new Promise<void>((resolve, reject) => {
        publisher.sendToQueue(queue, payload, { persistent: true }, (error: unknown) => {
          if (error === null) resolve();
          else reject(error instanceof Error ? error : new Error('the broker refused a message'));
        });
      });
    },
    async consume(received) {
      await subscriber.prefetch(PREFETCH);
      let [open, ended] = [0, false];
      await new Promise<void>((resolve, reject) => {
        let timer: NodeJS.Timeout | undefined;
        const onMessage = (message: Parameters<Parameters<typeof subscriber.consume>[1]>[0]): void => {
          if (message === null || ended) return;
          clearTimeout(timer);
          const acknowledge = (): void => {
            subscriber.ack(message, true);
            open = 0;
          };
          const more = received(1);
          if (++open >= ACK_EVERY || !more) acknowledge();
          else timer = setTimeout(acknowledge, IDLE_MS);
          if (more) return;
          ended = true;
          resolve();
        };
        subscriber.consume(queue, onMessage).catch(reject);
      });
    },
    async close() {
      await publisher.deleteQueue(queue);
      await connection.close();
    },
  };
});
