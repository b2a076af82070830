/**
 * The consuming side of a topic: who is connected to which subscription.
 */
import { MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import type { MessageIndex } from '../../lib/ids.ts';
import type { Position, SubscriptionType } from '../../wire/frames.ts';
import { Traffic } from '../metrics/traffic.ts';
import { checkName } from '../protocol/topic-name.ts';
import type { AckSubscription } from './ack-log.ts';
import type { ConnectedClient } from '../../wire/administration.ts';
import { type ConsumerDependencies, type ConsumerSink, type SubscriptionMemory, TopicConsumer } from './consumer.ts';
import { resolvePosition } from './positions.ts';

/** Who wants to consume. */
export interface ConsumerRequest {
  /** Empty: a reader. */
  readonly subscription: string;
  readonly type: SubscriptionType;
  /** Where a new subscription, or a reader, begins; the end when not given. */
  readonly start: Position | undefined;
  /** Empty: the server makes one. */
  readonly name: string;
  /** Stays the same while one consumer reconnects. Empty: never the same. */
  readonly instance: string;
  readonly client?: ConnectedClient;
  /** Aborts when it is not wanted any more, for as long as it is being connected: it holds its subscription no longer. */
  readonly withdrawn?: AbortSignal;
  readonly sink: ConsumerSink;
}

/** Who holds a subscription: a consumer, or somebody who is becoming one. */
interface Holder {
  readonly name: string;
  readonly instance: string;
  end(error: MagnetarError): void;
}

export class Consumers {
  readonly #dependencies: ConsumerDependencies;
  readonly #traffic: Traffic;
  readonly #makeName: () => string;
  readonly #holders: Map<string, Holder> = new Map();
  readonly #readers: Set<TopicConsumer> = new Set();
  /** Readers that are being connected. */
  #comingReaders = 0;
  /** Who has everything that there is, and waits for more. */
  #idle: Set<TopicConsumer> = new Set();
  readonly #memories: WeakMap<AckSubscription, SubscriptionMemory> = new WeakMap();
  #wakeScheduled = false;
  /** Why nobody is let in any more. */
  #closed: MagnetarError | undefined;

  /**
   * @param traffic the topic's
   * @param makeName makes a consumer name that was not used before
   */
  constructor(dependencies: ConsumerDependencies, traffic: Traffic, makeName: () => string) {
    this.#traffic = traffic;
    this.#dependencies = dependencies;
    this.#makeName = makeName;
  }

  /** Consumers and readers that are connected, or are being. */
  get size(): number {
    return this.#holders.size + this.#readers.size + this.#comingReaders;
  }

  /**
   * Connects a consumer; makes the subscription where there is none. Resolves when that is durable.
   *
   * @throws CONSUMER_BUSY when another consumer is connected; UNSUPPORTED for the type; INVALID_ARGUMENT for a name; what
   * resolving the start throws; what the ack log throws; after `closeAll`, its reason; the reason of `withdrawn`.
   */
  async attach(request: ConsumerRequest): Promise<TopicConsumer> {
    if (this.#closed !== undefined) throw this.#closed;
    request.withdrawn?.throwIfAborted();
    if (request.type !== 'exclusive') {
      const text = `subscription type ${request.type.unknown} is not supported; this server has 0 (exclusive)`;
      throw new MagnetarError('UNSUPPORTED', text);
    }
    const name = request.name === '' ? this.#makeName() : request.name;
    checkName('consumer', name);
    if (request.subscription === '') return this.#attachReader(request, name);
    checkName('subscription', request.subscription);
    return this.#attachExclusive(request, name);
  }

  /** What its consumer was sent; `unacked`: messages that it was sent and has not acknowledged, 0 when none is connected. */
  figures(subscription: AckSubscription): {
    readonly consumer: TopicConsumer | undefined;
    readonly unacked: number;
    readonly traffic: Traffic;
  } {
    const holder = this.#holders.get(subscription.name);
    const consumer = holder instanceof TopicConsumer ? holder : undefined;
    return { consumer, unacked: consumer?.unacked ?? 0, traffic: this.#memory(subscription).traffic };
  }

  /** Readers that are connected. */
  get readers(): ReadonlySet<TopicConsumer> {
    return this.#readers;
  }

  /** The lowest index that somebody who has come as far as `from` reads next; Infinity when nobody has. */
  slowest(from: MessageIndex): number {
    let least = Number.POSITIVE_INFINITY;
    const look = (holder: Holder): void => {
      if (!(holder instanceof TopicConsumer)) return;
      const { nextIndex } = holder;
      if (nextIndex >= from && nextIndex < least) least = nextIndex;
    };
    this.#holders.forEach(look);
    this.#readers.forEach(look);
    return least;
  }

  /** Something was appended: consumers that wait for it look again, once a turn. */
  wake(): void {
    if (this.#wakeScheduled || this.#idle.size === 0) return;
    this.#wakeScheduled = true;
    this.#dependencies.clock.nextTurn(() => {
      this.#wakeScheduled = false;
      const idle = this.#idle;
      this.#idle = new Set();
      for (const consumer of idle) consumer.wake();
    });
  }

  /** The name of the consumer that holds a subscription, or is about to. */
  connectedTo(subscription: string): string | undefined {
    return this.#holders.get(subscription)?.name;
  }

  /** Ends the consumer that holds a subscription, if there is one; what comes next is delivered for the first time. */
  disconnect(subscription: string, error: MagnetarError): void {
    this.#holders.get(subscription)?.end(error);
    const known = this.#dependencies.ackLog.subscriptions.get(subscription);
    const memory = known && this.#memories.get(known);
    if (memory !== undefined) memory.deliveredTo = 0 as MessageIndex;
  }

  /** Messages of a subscription were acknowledged by somebody else than its consumer. */
  acknowledgedElsewhere(subscription: string): void {
    const holder = this.#holders.get(subscription);
    if (holder instanceof TopicConsumer) holder.acknowledgedElsewhere();
  }

  /** Ends every consumer, and lets no more in. */
  closeAll(error: MagnetarError): void {
    this.#closed ??= error;
    for (const holder of this.#holders.values()) holder.end(error);
    for (const reader of this.#readers) reader.end(error);
  }

  readonly #onIdle = (consumer: TopicConsumer): void => {
    this.#idle.add(consumer);
  };

  async #attachReader(request: ConsumerRequest, name: string): Promise<TopicConsumer> {
    this.#comingReaders++;
    const start = await this.#position(request).finally(() => this.#comingReaders--);
    if (this.#closed !== undefined) throw this.#closed; // meanwhile
    const { instance, sink, client } = request;
    const onGone = (gone: TopicConsumer): void => {
      this.#readers.delete(gone);
      this.#idle.delete(gone);
    };
    const memory = { deliveredTo: 0 as MessageIndex, traffic: this.#traffic };
    const onIdle = this.#onIdle;
    const options = { name, instance, client, sink, subscription: undefined, start, memory, onGone, onIdle };
    const reader = new TopicConsumer(this.#dependencies, options);
    this.#readers.add(reader);
    return reader;
  }

  async #attachExclusive(request: ConsumerRequest, name: string): Promise<TopicConsumer> {
    const key = request.subscription;
    const { instance, sink, client, withdrawn } = request;
    let ended: MagnetarError | undefined;
    const reservation: Holder = {
      name,
      instance,
      end: (error) => {
        ended = error;
        if (this.#holders.get(key) === reservation) this.#holders.delete(key);
      },
    };
    const check = (): void => {
      if (ended !== undefined) throw ended;
    };
    this.#displace(key, instance);
    this.#holders.set(key, reservation);
    withdrawn?.addEventListener('abort', () => reservation.end(toMagnetarError(withdrawn.reason)), { once: true });
    try {
      const start = await this.#start(request);
      check(); // nothing is made for somebody who was sent away
      const subscription = await this.#dependencies.ackLog.create(key, start);
      check();
      const onGone = (gone: TopicConsumer): void => {
        if (this.#holders.get(key) === gone) this.#holders.delete(key);
        this.#idle.delete(gone);
      };
      const memory = this.#memory(subscription);
      const consumer = new TopicConsumer(this.#dependencies, {
        name,
        instance,
        client,
        sink,
        subscription,
        start: subscription.state.markDelete,
        memory,
        onGone,
        onIdle: this.#onIdle,
      });
      this.#holders.set(key, consumer);
      return consumer;
    } catch (error) {
      if (this.#holders.get(key) === reservation) this.#holders.delete(key);
      throw error;
    }
  }

  /** Ends the older self of a consumer; refuses to end anybody else. */
  #displace(key: string, instance: string): void {
    const holder = this.#holders.get(key);
    if (holder === undefined) return;
    const where = `subscription "${key}" of topic ${this.#dependencies.topic}`;
    if (instance === '' || instance !== holder.instance) {
      throw new MagnetarError(
        'CONSUMER_BUSY',
        `${where} is exclusive, and consumer "${holder.name}" is connected to it`,
        {
          details: { topic: this.#dependencies.topic, subscription: key, consumer: holder.name },
        },
      );
    }
    holder.end(
      new MagnetarError('CONSUMER_FENCED', `consumer "${holder.name}" of ${where} has connected again elsewhere`),
    );
  }

  /** Where the subscription is, or is to begin. */
  async #start(request: ConsumerRequest): Promise<MessageIndex> {
    const present = this.#dependencies.ackLog.subscriptions.get(request.subscription);
    return present === undefined ? await this.#position(request) : present.state.markDelete;
  }

  async #position(request: ConsumerRequest): Promise<MessageIndex> {
    return resolvePosition(this.#dependencies.reader, request.start ?? { at: 'latest' });
  }

  #memory(subscription: AckSubscription): SubscriptionMemory {
    let memory = this.#memories.get(subscription);
    if (memory === undefined) {
      const traffic = new Traffic(this.#dependencies.clock.monotonic(), this.#traffic);
      memory = { deliveredTo: 0 as MessageIndex, traffic };
      this.#memories.set(subscription, memory);
    }
    return memory;
  }
}
