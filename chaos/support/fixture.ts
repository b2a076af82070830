/** What a fixture of the data format holds, and how that is found out. */
import type { Client, Message } from '../../services/client/index.ts';

/** One message, as a reader sees it. */
interface FixtureMessage {
  readonly id: string;
  readonly index: number;
  readonly data: string;
  readonly key: string | null;
  readonly orderingKey: string | null;
  readonly properties: readonly (readonly [string, string])[];
  readonly eventTimestamp: number | null;
  readonly publishTime: number;
  readonly appendTime: number;
  readonly producerName: string;
  readonly sequenceId: string;
}

/** What a data folder holds. */
export interface Fixture {
  readonly topics: readonly {
    readonly topic: string;
    readonly messages: readonly FixtureMessage[];
    /** The indexes that each subscription has not acknowledged. */
    readonly subscriptions: Readonly<Record<string, readonly number[]>>;
  }[];
}

function toFixture(message: Message): FixtureMessage {
  return {
    id: message.messageId.toString(),
    index: message.index,
    data: message.data.toString('base64'),
    key: message.key ?? null,
    orderingKey: message.orderingKey?.toString('base64') ?? null,
    properties: message.propertyList,
    eventTimestamp: message.eventTimestamp ?? null,
    publishTime: message.publishTime,
    appendTime: message.appendTime,
    producerName: message.producerName,
    sequenceId: message.sequenceId.toString(),
  };
}

/** What a server has of these topics and subscriptions. */
export async function contentOf(
  client: Client,
  subscriptions: Readonly<Record<string, readonly string[]>>,
): Promise<Fixture> {
  const topics: Fixture['topics'][number][] = [];
  for (const [topic, names] of Object.entries(subscriptions)) {
    const messages: FixtureMessage[] = [];
    await using reader = await client.createReader({ topic, startPosition: 'earliest' });
    for await (const message of reader.messages({ untilEnd: true })) messages.push(toFixture(message));
    const left: Record<string, number[]> = {};
    for (const subscription of names) {
      await using consumer = await client.subscribe({ topic, subscription });
      const indexes: number[] = [];
      for await (const { index } of consumer.messages({ untilEnd: true })) indexes.push(index);
      left[subscription] = indexes;
    }
    topics.push({ topic, messages, subscriptions: left });
  }
  return { topics };
}
