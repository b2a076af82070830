import { MagnetarError } from '../lib/errors.ts';
import { withDeadline } from '../runtime/deadline.ts';
import { RunningClock } from '../runtime/running-clock.ts';
import type { WaitOptions } from './abort.ts';
import { abortReason, unlessAborted } from './abort.ts';
import { ConsumeChannel } from './consume-channel.ts';
import { Consumer } from './consumer.ts';
import { compressions } from '../wire/compression.ts';
import type { ClientEnvironment } from './environment.ts';
import { nodeEnvironment } from './environment.ts';
import { Link } from './link.ts';
import type {
  ClientConfig,
  ClientOptions,
  ConsumerOptions,
  ProducerOptions,
  ReaderOptions,
  ReceiverConfig,
} from './options.ts';
import { checkClientOptions, checkConsumerOptions, checkProducerOptions, checkReaderOptions } from './options.ts';
import { Producer } from './producer.ts';
import { ProducerSession } from './producer-session.ts';
import { PublishChannel } from './publish-channel.ts';
import { Reader } from './reader.ts';
import { Receiver } from './receiver.ts';

/** What a client closes with itself. */
interface Closable {
  close(): Promise<void>;
}

/**
 * A connection to a Magnetar broker: the source of producers, consumers and readers, which share it. It connects
 * when the first of them is made.
 */
export class Client implements AsyncDisposable {
  readonly #config: ClientConfig;
  readonly #environment: ClientEnvironment;
  readonly #link: Link;
  readonly #publish: PublishChannel;
  readonly #consume: ConsumeChannel;
  readonly #open = new Set<Closable>();
  #closed: MagnetarError | undefined;
  #closing: Promise<void> | undefined;

  /** `environment` is for simulations. @throws MagnetarError INVALID_ARGUMENT */
  constructor(options: ClientOptions, environment: ClientEnvironment = nodeEnvironment) {
    this.#config = checkClientOptions(options);
    const clock = new RunningClock(environment.clock);
    this.#environment = { ...environment, clock, logger: this.#config.logger ?? environment.logger };
    this.#link = new Link(this.#config.serviceUrl);
    const { operationTimeoutMs } = this.#config;
    const parts = { environment: this.#environment, link: this.#link, operationTimeoutMs };
    this.#publish = new PublishChannel(parts);
    this.#consume = new ConsumeChannel(parts);
    const { brokerGone } = this.#environment;
    brokerGone?.addEventListener('abort', this.#onBrokerGone, { once: true });
    if (brokerGone?.aborted === true) this.#onBrokerGone();
  }

  /** Everything fails, now and later, with the reason. */
  readonly #onBrokerGone = (): void => {
    const reason = this.#environment.brokerGone?.reason as MagnetarError;
    this.#closed ??= reason;
    this.#publish.abandon(reason);
    this.#consume.abandon(reason);
  };

  /**
   * Opens a producer. The topic is made on first use.
   *
   * @throws MagnetarError INVALID_ARGUMENT; UNAVAILABLE when the broker cannot be reached within `operationTimeoutMs`;
   *   PRODUCER_BUSY when another one has the name; UNSUPPORTED when the library of the compression does not load; the
   *   broker's refusal
   */
  async createProducer(options: ProducerOptions, wait?: WaitOptions): Promise<Producer> {
    const config = checkProducerOptions(options);
    this.#checkOpen(wait);
    const compression = compressions.named(config.compression);
    const channel = this.#publish;
    const session = new ProducerSession({ channel, topic: config.topic, name: config.producerName });
    session.start();
    const granted = await this.#whenOpen(session.granted, session, `a producer on ${config.topic}`, wait);
    this.#checkAlive(session.failure);
    const producer = new Producer({
      channel,
      session,
      config,
      granted,
      compression,
      onClosed: () => this.#open.delete(producer),
    });
    return this.#keep(producer);
  }

  /**
   * Opens a consumer of a subscription, which is made on first use, as is the topic.
   *
   * @throws MagnetarError as createProducer; CONSUMER_BUSY when another consumer has the subscription
   */
  async subscribe(options: ConsumerOptions, wait?: WaitOptions): Promise<Consumer> {
    const config = checkConsumerOptions(options);
    const what = `a consumer of ${config.topic}, ${config.subscription},`;
    return this.#openReceiver(config, what, wait, (receiver, name, onClosed) => new Consumer(receiver, name, onClosed));
  }

  /** Opens a reader of a topic, which is made on first use. @throws MagnetarError as createProducer */
  async createReader(options: ReaderOptions, wait?: WaitOptions): Promise<Reader> {
    const config = checkReaderOptions(options);
    const what = `a reader of ${config.topic}`;
    return this.#openReceiver(config, what, wait, (receiver, name, onClosed) => new Reader(receiver, name, onClosed));
  }

  async #openReceiver<T extends Closable>(
    config: ReceiverConfig,
    what: string,
    wait: WaitOptions | undefined,
    make: (receiver: Receiver, name: string, onClosed: () => void) => T,
  ): Promise<T> {
    this.#checkOpen(wait);
    const receiver = new Receiver(this.#consume, config);
    let made: T | undefined;
    const onClosed = (): void => {
      if (made !== undefined) this.#open.delete(made);
    };
    receiver.start(onClosed);
    const name = await this.#whenOpen(receiver.opened, receiver, what, wait);
    this.#checkAlive(receiver.refusal);
    made = make(receiver, name, onClosed);
    return this.#keep(made);
  }

  /** Has it closed with the client. @throws MagnetarError ALREADY_CLOSED when that has begun meanwhile */
  async #keep<T extends Closable>(made: T): Promise<T> {
    if (this.#closed === undefined) {
      this.#open.add(made);
      return made;
    }
    await made.close();
    throw this.#closed;
  }

  #checkOpen(wait: WaitOptions | undefined): void {
    if (wait?.signal?.aborted === true) throw abortReason(wait.signal);
    if (this.#closed !== undefined) throw this.#closed;
  }

  /** The answer that opened it may have come together with its end. @throws MagnetarError why it is over */
  #checkAlive(failure: MagnetarError | undefined): void {
    if (failure !== undefined) throw this.#closed ?? failure;
  }

  /** Waits for an opening to be answered, for as long as an operation may take; gives it up otherwise. */
  async #whenOpen<T>(
    opened: Promise<T>,
    opening: Closable & { readonly lastError: MagnetarError | undefined },
    what: string,
    wait: WaitOptions | undefined,
  ): Promise<T> {
    const { operationTimeoutMs, serviceUrl } = this.#config;
    const late = (): MagnetarError => {
      const text = `opening ${what} took longer than operationTimeoutMs, ${operationTimeoutMs} ms, at ${serviceUrl.text}`;
      return opening.lastError ?? new MagnetarError('DEADLINE_EXCEEDED', text);
    };
    this.#open.add(opening); // closing the client ends the wait
    try {
      const answer = withDeadline(this.#environment.clock, operationTimeoutMs, opened, late);
      return await unlessAborted(answer, wait?.signal);
    } catch (error) {
      void opening.close();
      throw error;
    } finally {
      this.#open.delete(opening);
    }
  }

  /**
   * Closes producers (after what was sent is stored), consumers and readers (after what was acknowledged is
   * durable), and the connection; each step for at most `operationTimeoutMs`. Idempotent.
   */
  close(wait?: WaitOptions): Promise<void> {
    this.#closed ??= new MagnetarError('ALREADY_CLOSED', `the client of ${this.#config.serviceUrl.text} is closed`);
    this.#closing ??= this.#close();
    return unlessAborted(this.#closing, wait?.signal);
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#open].map((each) => each.close()));
    const { operationTimeoutMs } = this.#config;
    await Promise.all([this.#publish.stop(operationTimeoutMs), this.#consume.stop(operationTimeoutMs)]);
    this.#link.close();
    this.#environment.brokerGone?.removeEventListener('abort', this.#onBrokerGone);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
