import { inspect } from 'node:util';
import type { MessageTable } from '../wire/block.ts';
import { MessageId } from './message-id.ts';

/** A message to send. */
export interface ProducerMessage {
  /** The payload; a string is sent as UTF-8. */
  readonly data: Uint8Array | string;
  /** Names and values; as pairs where names repeat. */
  readonly properties?: Readonly<Record<string, string>> | readonly (readonly [string, string])[] | undefined;
  /** The key. `partitionKey` is the same under Pulsar's name. */
  readonly key?: string | undefined;
  readonly partitionKey?: string | undefined;
  /** The key that orders deliveries where it differs from `key`. */
  readonly orderingKey?: Uint8Array | string | undefined;
  /** A time of the app's choice: milliseconds since 1970-01-01 UTC. */
  readonly eventTimestamp?: number | undefined;
  /**
   * By default one more than the last message's. Ids have to rise; what was stored under an id once is not stored
   * again.
   */
  readonly sequenceId?: bigint | number | undefined;
}

/** What the messages of one delivered entry have in common. */
export interface EntryFacts {
  readonly topic: string;
  readonly ledgerId: number;
  readonly entryId: number;
  /** Index of the entry's first message. */
  readonly index: number;
  readonly appendTime: number;
  readonly publishTime: number;
  readonly producerName: string;
  readonly redeliveries: number;
  readonly messages: MessageTable;
}

/** A message that was received. It keeps the memory of its whole batch alive: copy `data` to hold it for long. */
export class Message {
  readonly #entry: EntryFacts;
  /** Its place in the entry. */
  readonly #at: number;
  #data: Buffer | undefined;

  constructor(entry: EntryFacts, at: number) {
    this.#entry = entry;
    this.#at = at;
  }

  /** The payload: a view of the memory in which it came. */
  get data(): Buffer {
    this.#data ??= this.#entry.messages.payload(this.#at);
    return this.#data;
  }

  get key(): string | undefined {
    return this.#entry.messages.key(this.#at);
  }

  get orderingKey(): Buffer | undefined {
    return this.#entry.messages.orderingKey(this.#at);
  }

  /** By name; of a name that occurs twice the last value. */
  get properties(): Record<string, string> {
    return Object.fromEntries(this.propertyList);
  }

  /** Names and values in the order given. */
  get propertyList(): readonly (readonly [string, string])[] {
    return this.#entry.messages.properties(this.#at);
  }

  get messageId(): MessageId {
    const { ledgerId, entryId } = this.#entry;
    return new MessageId(ledgerId, entryId, this.#at, this.index);
  }

  /** The offset of the message in its topic, from 0, without gaps. */
  get index(): number {
    return this.#entry.index + this.#at;
  }

  /** When the producer made the batch: milliseconds since 1970-01-01 UTC, by its clock. */
  get publishTime(): number {
    return this.#entry.publishTime;
  }

  /** When the broker appended the message: milliseconds since 1970-01-01 UTC, by its clock. */
  get appendTime(): number {
    return this.#entry.appendTime;
  }

  /** The time that the app gave, in milliseconds since 1970-01-01 UTC. */
  get eventTimestamp(): number | undefined {
    return this.#entry.messages.eventTime(this.#at);
  }

  get producerName(): string {
    return this.#entry.producerName;
  }

  get sequenceId(): bigint {
    return this.#entry.messages.sequenceId(this.#at);
  }

  /** How often the message may have been delivered before, as far as the broker knows. */
  get redeliveryCount(): number {
    return this.#entry.redeliveries;
  }

  /** The topic as the consumer named it. */
  get topic(): string {
    return this.#entry.topic;
  }
}

/** What `console.log` prints of a message; of getters it prints nothing. */
function shown(this: Message): unknown {
  const { topic, messageId, index, key, properties, data, publishTime, producerName, redeliveryCount } = this;
  const place = { topic, messageId: messageId.toString(), index };
  return { ...place, key, properties, data, publishTime, producerName, redeliveryCount };
}

Object.defineProperty(Message.prototype, inspect.custom, { value: shown });
