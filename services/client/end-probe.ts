import { MagnetarError } from '../lib/errors.ts';
import type { Timer } from '../runtime/clock.ts';
import { withDeadline } from '../runtime/deadline.ts';
import type { Subscribed } from '../wire/frames.ts';
import { fromWireError } from '../wire/status.ts';
import type { Deferred } from './abort.ts';
import { deferred } from './abort.ts';
import type { ConsumeChannel, ConsumeMember } from './consume-channel.ts';
import { reconnectDelay } from './stream-keeper.ts';

const NO_INSTANCE: Buffer = Buffer.alloc(0);

/** A reader that is opened behind the newest message for the sake of the answer, which tells where the topic ends. */
class EndProbe implements ConsumeMember {
  readonly acksReady = false;
  readonly #channel: ConsumeChannel;
  readonly #topic: string;
  readonly #end: Deferred<number> = deferred();
  #number = 0;
  #attempt = 0;
  #timer: Timer | undefined;

  constructor(channel: ConsumeChannel, topic: string) {
    this.#channel = channel;
    this.#topic = topic;
  }

  get number(): number {
    return this.#number;
  }

  get end(): Promise<number> {
    return this.#end.promise;
  }

  streamUp(): void {
    this.#number = this.#channel.subscribe(this, {
      topic: this.#topic,
      subscription: '',
      type: 'exclusive',
      topicIdentity: '',
      start: { at: 'latest' },
      name: '',
      instance: NO_INSTANCE,
    });
  }

  subscribed(answer: Subscribed): void {
    if (answer.error === undefined) {
      this.#end.resolve(answer.endIndex);
      return;
    }
    this.#number = 0;
    const error = fromWireError(answer.error);
    if (!answer.error.retryable) {
      this.#end.reject(error);
      return;
    }
    const { environment } = this.#channel;
    this.#timer = environment.clock.after(reconnectDelay(environment, ++this.#attempt), () => this.streamUp());
  }

  closed(): void {
    this.#number = 0; // it had answered, or its deadline passes
  }

  streamDown(): void {
    this.#timer?.cancel();
    this.#number = 0;
  }

  fail(error: MagnetarError): void {
    this.#end.reject(error);
  }

  /** It is not needed any more. */
  leave(): void {
    this.#timer?.cancel();
    if (this.#number !== 0) this.#channel.close({ consumer: this.#number, unsubscribe: false }, false);
    this.#channel.detach(this);
  }

  turn(): void {}
  delivery(): void {}
  loss(): void {}
  caughtUp(): void {}
  ackReceipt(): void {}
  seekDone(): void {}

  nextAck(): undefined {
    return undefined;
  }
}

/** The index that the topic's next message gets: everything below it is there. @throws MagnetarError */
export async function findEnd(channel: ConsumeChannel, topic: string): Promise<number> {
  const { environment, operationTimeoutMs } = channel;
  const probe = new EndProbe(channel, topic);
  channel.attach(probe);
  const late = (): MagnetarError => {
    if (channel.lastError !== undefined) return channel.lastError;
    return new MagnetarError(
      'DEADLINE_EXCEEDED',
      `finding the end of ${topic} took longer than ${operationTimeoutMs} ms`,
    );
  };
  try {
    return await withDeadline(environment.clock, operationTimeoutMs, probe.end, late);
  } finally {
    probe.leave();
  }
}
