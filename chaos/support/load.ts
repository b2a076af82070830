/**
 * Producers that retry and consumers that acknowledge, keeping the histories that the checks need. They use the SDK as an
 * app would: through a killed server they notice nothing.
 */
import type { Client, Consumer, Producer } from '../../services/client/index.ts';
import { hasCode, MagnetarError, toMagnetarError } from '../../services/lib/errors.ts';
import { ProducerHistory, type Seen } from './history.ts';

/** The payload of message `number` of a producer; long enough to fill pages, cheap to check. */
function payloadOf(producer: string, number: number): string {
  return `${producer}/${number}/${'.'.repeat(number % 200)}`;
}

/** Takes a payload apart again. Anything else than what `payloadOf` made is a violation by itself. */
function parsePayload(data: Buffer): { producer: string; number: number } {
  const text = data.toString();
  const [producer = '', number = ''] = text.split('/', 2);
  if (text !== payloadOf(producer, Number(number))) throw new Error(`corrupt-message: ${text.slice(0, 80)}`);
  return { producer, number: Number(number) };
}

/** Sends messages at a bounded pace until it is stopped; every acknowledgment goes into the history. */
export class LoadProducer {
  readonly history: ProducerHistory;
  readonly #producer: Producer;
  readonly #window: number;
  #stopped = false;
  readonly #loop: Promise<void>;

  private constructor(producer: Producer, name: string, window: number) {
    this.#producer = producer;
    this.history = new ProducerHistory(name);
    this.#window = window;
    this.#loop = this.#run();
    this.#loop.catch(() => {}); // `failed` and `stop` report it
  }

  static async start(client: Client, topic: string, name: string, window: number): Promise<LoadProducer> {
    // No send timeout: whatever happens, the message is retried until the server says that it has it.
    const producer = await client.createProducer({ topic, producerName: name, sendTimeoutMs: 0 });
    return new LoadProducer(producer, name, window);
  }

  async #run(): Promise<void> {
    const pending: Promise<void>[] = [];
    for (let number = 0; !this.#stopped; number++) {
      const sent = this.#producer.send({ data: payloadOf(this.history.name, number), sequenceId: BigInt(number) });
      const stored = sent.then((id) =>
        this.history.acknowledge(number, { id: id.toString(), index: Number(id.index) }),
      );
      stored.catch(() => {}); // awaited below, in order
      pending.push(stored);
      if (pending.length >= this.#window) await pending.shift();
      if (number % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await Promise.all(pending);
  }

  /** Rejects when a send failed: an app must not notice a crash. */
  get failed(): Promise<void> {
    return this.#loop;
  }

  /** Stops sending; resolves when everything sent has been acknowledged. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#loop;
    await this.#producer.close();
  }
}

/** Receives and acknowledges most messages, one by one; the others stay as holes. */
export class LoadConsumer {
  /** Indexes delivered to this consumer, in order. */
  readonly delivered: number[] = [];
  /** Indexes whose acknowledgment was confirmed. */
  readonly confirmed: Set<number>;
  readonly #consumer: Consumer;
  readonly #abort = new AbortController();
  readonly #loop: Promise<void>;

  private constructor(consumer: Consumer, confirmed: Set<number>) {
    this.#consumer = consumer;
    this.confirmed = confirmed;
    this.#loop = this.#run();
    this.#loop.catch(() => {}); // `stop` reports it
  }

  /** `confirmed`: what earlier consumers of the subscription know to be acknowledged; this one adds to it. */
  static async start(
    client: Client,
    topic: string,
    subscription: string,
    confirmed: Set<number>,
  ): Promise<LoadConsumer> {
    const consumer = await client.subscribe({ topic, subscription, startPosition: 'earliest' });
    return new LoadConsumer(consumer, confirmed);
  }

  async #run(): Promise<void> {
    const waiting = new Set<Promise<void>>();
    let failure: MagnetarError | undefined;
    const failed = (thrown: unknown): void => {
      const { code, message } = toMagnetarError(thrown);
      failure ??= new MagnetarError(code, `${message}; at ${new Date().toISOString()}`, { cause: thrown });
    };
    try {
      for await (const message of this.#consumer.messages({ signal: this.#abort.signal })) {
        const { index } = message;
        this.delivered.push(index);
        parsePayload(message.data);
        if (index % 10 === 3) continue;
        const acked = this.#consumer
          .acknowledge(message)
          .then(
            () => void this.confirmed.add(index),
            (error: unknown) => {
              if (!hasCode(error, 'ALREADY_CLOSED', 'CANCELLED')) failed(error);
            },
          )
          .finally(() => waiting.delete(acked));
        waiting.add(acked);
        if (waiting.size > 2_000) await Promise.race(waiting);
      }
    } catch (error) {
      if (!this.#abort.signal.aborted && !hasCode(error, 'ALREADY_CLOSED')) failed(error);
    }
    await Promise.all(waiting);
    if (failure !== undefined) throw failure;
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#consumer.close();
    await this.#loop;
  }
}

/** Reads the whole topic as it is now. */
export async function readTopic(client: Client, topic: string): Promise<Seen[]> {
  const seen: Seen[] = [];
  const reader = await client.createReader({ topic, startPosition: 'earliest' });
  for await (const message of reader.messages({ untilEnd: true })) {
    seen.push({ ...parsePayload(message.data), id: message.messageId.toString(), index: message.index });
  }
  await reader.close();
  return seen;
}
