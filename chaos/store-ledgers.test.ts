/** A topic over many ledgers: it goes on in a new one after each restart and when one is full, and the index has no gap. */
import { describe, expect, test } from 'vitest';
import { Client, MessageId, type Producer } from '../services/client/index.ts';
import { startStandalone } from './support/process.ts';

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}

async function send(producer: Producer, from: number, to: number): Promise<MessageId[]> {
  return await Promise.all(range(from, to).map((n) => producer.send({ data: `${n}` })));
}

/** Everything from a position on; each message has to say its own index. */
async function indexes(client: Client, topic: string, startPosition: MessageId | Date | 'earliest'): Promise<number[]> {
  await using reader = await client.createReader({ topic, startPosition });
  const seen: number[] = [];
  for await (const message of reader.messages({ untilEnd: true })) {
    expect(message.data.toString()).toBe(`${message.index}`);
    seen.push(message.index);
  }
  return seen;
}

/** The id without its index, which would decide alone. */
function place(id: MessageId): MessageId {
  return MessageId.parse(id.toString());
}

describe('a topic goes on in another ledger', () => {
  test('after every restart, orderly or not; positions lead into all of them', async () => {
    await using server = await startStandalone();
    const ids: MessageId[] = [];
    const times: number[] = [];
    const ROUNDS = 8;
    const EACH = 50;
    for (let round = 0; round < ROUNDS; round++) {
      await using client = new Client({ serviceUrl: server.serviceUrl });
      await using producer = await client.createProducer({ topic: 't', batchingMaxMessages: 7 });
      await using consumer = await client.subscribe({ topic: 't', subscription: 's', startPosition: 'earliest' });
      const sent = await send(producer, round * EACH, (round + 1) * EACH);
      ids.push(...sent);
      await Promise.all(sent.filter((_, n) => n % 2 === 1).map((id) => consumer.acknowledge(id)));
      await using reader = await client.createReader({ topic: 't', startPosition: sent[0] });
      times.push((await reader.readNext()).appendTime);
      await (round % 2 === 0 ? server.kill() : server.stop());
      await server.start();
    }
    await using client = new Client({ serviceUrl: server.serviceUrl });
    expect(new Set(ids.map(({ ledgerId }) => ledgerId)).size).toBe(ROUNDS);
    expect(ids.every((id, at) => at === 0 || place(ids[at - 1] as MessageId).compare(place(id)) < 0)).toBe(true);
    expect(ids.map(({ index }) => index)).toEqual(range(0, ROUNDS * EACH));
    expect(await indexes(client, 't', 'earliest')).toEqual(range(0, ROUNDS * EACH));
    for (const [round, time] of times.entries()) {
      const at = round * EACH + 33;
      expect(await indexes(client, 't', ids[at] as MessageId)).toEqual(range(at, ROUNDS * EACH));
      expect(await indexes(client, 't', new Date(time))).toEqual(range(round * EACH, ROUNDS * EACH));
    }
    await using consumer = await client.subscribe({ topic: 't', subscription: 's' });
    const left: number[] = [];
    for await (const { index } of consumer.messages({ untilEnd: true })) left.push(index);
    expect(left).toEqual(range(0, ROUNDS * EACH).filter((n) => n % 2 === 0));
    await consumer.seek({ index: 123 });
    expect((await consumer.receive()).index).toBe(123);
  });

  test('when one has 100,000 entries, while messages come; also over kill -9', async () => {
    await using server = await startStandalone();
    await using client = new Client({ serviceUrl: server.serviceUrl });
    await using producer = await client.createProducer({ topic: 't', batchingEnabled: false, sendTimeoutMs: 0 });
    const COUNT = 110_000;
    const ids: MessageId[] = [];
    for (let from = 0; from < COUNT; from += 5_000) {
      ids.push(...(await send(producer, from, from + 5_000)));
      if (from !== 100_000) continue;
      await server.kill();
      await server.start();
    }
    expect(ids.map(({ index }) => index)).toEqual(range(0, COUNT));
    const perLedger = new Map<number, number>();
    for (const { ledgerId } of ids) perLedger.set(ledgerId, (perLedger.get(ledgerId) ?? 0) + 1);
    expect([...perLedger.values()]).toEqual([100_000, 5_000, 5_000]);
    expect([...perLedger.keys()]).toEqual([...perLedger.keys()].toSorted((a, b) => a - b));
    expect(await indexes(client, 't', 'earliest')).toEqual(range(0, COUNT));
    expect((await indexes(client, 't', ids[99_999] as MessageId)).slice(0, 3)).toEqual([99_999, 100_000, 100_001]);
  });
});
