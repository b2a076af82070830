import { type Client, type Consumer, lostMessages } from '../client/index.ts';
import { hasCode, type MagnetarError, toMagnetarError } from '../lib/errors.ts';
import { newClient, whenOpen } from './connect.ts';
import { PerfReport } from './perf-report.ts';
import { EXIT_DONE, EXIT_FAILED, type Shell } from './shell.ts';
import { countText } from './text.ts';
import { timeLimit } from './time-limit.ts';

export interface PerfConsumeOptions {
  readonly serviceUrl: string;
  readonly topic: string;
  /** Undefined: one that is deleted at the end. */
  readonly subscription: string | undefined;
  /** Seconds. */
  readonly duration: number;
  readonly consumers: number;
  /** Go on behind the end of the topic. */
  readonly follow: boolean;
  readonly csv: string | undefined;
  readonly output: 'text' | 'json';
}

/** Receives everything, and acknowledges each message, until there is no more, or `signal` aborts. */
class Drain {
  readonly #consumer: Consumer;
  readonly #shell: Shell;
  readonly #report: PerfReport;
  readonly #began: number;
  #lastAck: Promise<void> | undefined;
  #failure: MagnetarError | undefined;

  constructor(shell: Shell, consumer: Consumer, report: PerfReport) {
    this.#shell = shell;
    this.#consumer = consumer;
    this.#report = report;
    this.#began = shell.clock.now();
  }

  async run(follow: boolean, signal: AbortSignal): Promise<void> {
    for (;;) {
      try {
        await this.#receive(follow, signal);
        break;
      } catch (error) {
        if (signal.aborted && hasCode(error, 'CANCELLED')) break;
        const lost = lostMessages(error);
        if (lost === undefined || !hasCode(error)) throw error;
        this.#report.countErrors(lost.lastIndex - lost.firstIndex + 1, error);
      }
    }
    await this.#lastAck?.catch(() => {});
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #receive(follow: boolean, signal: AbortSignal): Promise<void> {
    const { clock } = this.#shell;
    let published = 0;
    let isLive = false;
    for await (const message of this.#consumer.messages({ untilEnd: !follow, signal })) {
      this.#report.count(1, message.data.length);
      if (message.publishTime !== published) {
        published = message.publishTime;
        isLive = published >= this.#began;
      }
      if (isLive) this.#report.latency(clock.now() - published);
      const ack = this.#consumer.acknowledge(message);
      if (ack === this.#lastAck) continue;
      this.#lastAck = ack; // shared by all that are acknowledged in one turn
      ack.catch((error: unknown) => {
        this.#failure ??= toMagnetarError(error);
      });
    }
  }
}

function subscriptionNames(shell: Shell, { subscription, consumers }: PerfConsumeOptions): string[] {
  const name = subscription ?? `perf-${shell.clock.now().toString(36)}`;
  return consumers === 1 ? [name] : Array.from({ length: consumers }, (_, i) => `${name}-${i + 1}`);
}

async function openConsumers(shell: Shell, client: Client, options: PerfConsumeOptions): Promise<Consumer[]> {
  const { topic, serviceUrl } = options;
  const opening = subscriptionNames(shell, options).map(async (subscription) => {
    const wait = { signal: shell.interrupted };
    return await client.subscribe({ topic, subscription, startPosition: 'earliest' }, wait);
  });
  return await whenOpen(shell, serviceUrl, Promise.all(opening));
}

/** `magnetar perf consume`. Resolves with the exit code. */
export async function perfConsume(shell: Shell, options: PerfConsumeOptions): Promise<number> {
  const { serviceUrl, topic, duration, consumers, follow } = options;
  const client = newClient(shell, serviceUrl);
  try {
    const open = await openConsumers(shell, client, options);
    const report = await PerfReport.open(shell, options.csv);
    report.begin();
    const { signal, stop } = timeLimit(shell, duration);
    const drains = open.map(async (consumer) => await new Drain(shell, consumer, report).run(follow, signal));
    const outcomes = await Promise.allSettled(drains);
    const isCut = signal.aborted && !follow && !shell.interrupted.aborted;
    stop();
    const figures = await report.end();
    report.print(figures, options.output, {
      what: `consumed from ${topic}`,
      latency: 'from publishing to receiving, of messages published since the start, by the clocks of both sides',
      topic,
      consumers,
    });
    if (isCut) shell.stderr.write(`stopped after ${duration} s, before the end; --duration gives it more time\n`);
    const failed = outcomes.find((outcome) => outcome.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    if (options.subscription === undefined)
      await Promise.all(open.map(async (consumer) => await consumer.unsubscribe()));
    const { firstError } = report;
    if (firstError === undefined) return EXIT_DONE;
    const text = `${countText(figures.errors)} messages could not be read; the first: ${firstError.message}`;
    shell.stderr.write(`magnetar: ${text}\n`);
    return EXIT_FAILED;
  } finally {
    await client.close();
  }
}
