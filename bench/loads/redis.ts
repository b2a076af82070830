import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { runLoad } from './driver.ts';

const FETCH = 1_000;

type Reply = [stream: Buffer, entries: [id: Buffer, fields: Buffer[]][]] | null;

await runLoad(async ({ address, payload }) => {
  const [host = '', port = ''] = address.split(':');
  const options = { host, port: Number(port), lazyConnect: true };
  const [writer, reader] = [new Redis(options), new Redis(options)];
  await Promise.all([writer.connect(), reader.connect()]);
  const key = `bench-${randomUUID()}`;
  return {
    async publish(count) {
      if (count === 1) {
        await writer.xadd(key, '*', 'data', payload);
        return;
      }
      const pipeline = writer.pipeline();
      for (let i = 0; i < count; i++) pipeline.xadd(key, '*', 'data', payload);
      await pipeline.exec();
    },
    async consume(received, pass) {
      const name = `bench-${pass}`;
      await reader.xgroup('CREATE', key, name, '0', 'MKSTREAM');
      for (;;) {
        const group = ['GROUP', name, 'me', 'COUNT', `${FETCH}`, 'BLOCK', '1000', 'STREAMS', key, '>'];
        const reply = (await reader.callBuffer('XREADGROUP', ...group)) as Reply;
        const ids = (reply?.[1] ?? []).map(([id]) => id);
        if (ids.length === 0) continue;
        const acknowledged = reader.xack(key, name, ...ids);
        const more = received(ids.length);
        await acknowledged;
        if (!more) return;
      }
    },
    async close() {
      await writer.del(key);
      writer.disconnect();
      reader.disconnect();
    },
  };
});
