import { type Consumer, lostMessages, type Message, MessageId, type StartPosition } from '../client/index.ts';
import { hasCode, type MagnetarError, toMagnetarError } from '../lib/errors.ts';
import { ChunkedOutput } from './chunked-output.ts';
import { newClient, whenOpen } from './connect.ts';
import { printMessage } from './message-format.ts';
import type { From } from './position.ts';
import { EXIT_DONE, EXIT_FAILED, type Shell } from './shell.ts';
import { oneLine } from './text.ts';

export interface PrintMessagesOptions {
  readonly serviceUrl: string;
  readonly topic: string;
  /** The subscription to consume from; not given: a reader. */
  readonly subscription?: string;
  readonly from: From;
  /** Stop after so many messages. */
  readonly count?: number;
  readonly exitAtEnd?: boolean;
  /** Acknowledge messages that are lost. */
  readonly ackLost?: boolean;
  readonly output: 'text' | 'json';
}

/** Where messages come from, as far as a command sees it. */
interface Source {
  messages(options: { signal: AbortSignal; untilEnd: boolean }): AsyncIterable<Message>;
  close(): Promise<void>;
}

function startPosition(shell: Shell, from: From): StartPosition {
  if (from.type === 'id') return MessageId.parse(from.id);
  return from.type === 'time' ? shell.dateOf(from.time) : from.type;
}

/** Acknowledgments on their way. Those of a later message cover the earlier ones, up to a loss. */
class Acks {
  readonly #consumer: Consumer;
  #pending: Promise<void> = Promise.resolve();
  #failure: MagnetarError | undefined;
  /** Set by a loss: the last message before it, if it is not acknowledged yet, and those since. */
  #singly: { before: Message | undefined; readonly since: Message[] } | undefined;
  #last: Message | undefined;

  constructor(consumer: Consumer) {
    this.#consumer = consumer;
  }

  /** A message goes to stdout. */
  printed(message: Message): void {
    if (this.#singly === undefined) this.#last = message;
    else this.#singly.since.push(message);
  }

  /** Messages are lost: what comes behind must not acknowledge them along with it. */
  lossCame(): void {
    this.#singly ??= { before: this.#last, since: [] };
  }

  acknowledgeLoss(loss: MagnetarError): void {
    this.#add(this.#consumer.acknowledgeLost(loss));
  }

  /** Acknowledges a message and all that were printed before it. */
  upTo(message: Message): void {
    const singly = this.#singly;
    if (singly === undefined) {
      this.#add(this.#consumer.acknowledgeCumulative(message));
      return;
    }
    const { before, since } = singly;
    const first = before === undefined || message.index <= before.index ? message : before;
    if (before !== undefined) this.#add(this.#consumer.acknowledgeCumulative(first));
    if (first === before) singly.before = undefined;
    const later = since.findIndex(({ index }) => index > message.index);
    for (const each of since.splice(0, later < 0 ? since.length : later)) this.#add(this.#consumer.acknowledge(each));
  }

  #add(durable: Promise<void>): void {
    const ack = durable.catch((error: unknown) => {
      this.#failure ??= toMagnetarError(error);
    });
    this.#pending = Promise.all([this.#pending, ack]).then(() => {});
  }

  /** Resolves when every acknowledgment is durable. @throws what one of them failed with */
  async durable(): Promise<void> {
    await this.#pending;
    if (this.#failure !== undefined) throw this.#failure;
  }
}

interface Run {
  readonly shell: Shell;
  readonly source: Source;
  readonly output: ChunkedOutput<Message>;
  readonly acks: Acks | undefined;
  readonly options: PrintMessagesOptions;
}

/** Prints what is left to print, also behind messages that are lost. Resolves with the number of losses. */
async function print(run: Run): Promise<number> {
  const { shell, options, acks } = run;
  const left = { messages: options.count ?? Infinity };
  for (let losses = 0; ; losses++) {
    try {
      await printOn(run, left);
      return losses;
    } catch (error) {
      if (shell.interrupted.aborted && hasCode(error, 'CANCELLED')) return losses;
      if (lostMessages(error) === undefined) throw error;
      const loss = toMagnetarError(error);
      shell.stderr.write(`magnetar: ${oneLine(loss.message)}\n`);
      if (options.ackLost === true) acks?.acknowledgeLoss(loss);
      else acks?.lossCame();
    }
  }
}

async function printOn({ shell, source, output, acks, options }: Run, left: { messages: number }): Promise<void> {
  for await (const message of source.messages({ signal: shell.interrupted, untilEnd: options.exitAtEnd === true })) {
    acks?.printed(message);
    printMessage(output, message, options.output);
    left.messages -= 1;
    if (left.messages === 0) return;
    if (output.behind) await output.drained();
    if (shell.interrupted.aborted) return;
  }
}

/**
 * `magnetar consume` and `magnetar read`. A message is acknowledged once stdout has taken it, and the command ends when
 * its acknowledgments are durable. For messages that are lost there is a line on stderr; the exit code is 1 then, unless
 * they were to be acknowledged. Resolves with the exit code.
 */
export async function printMessages(shell: Shell, options: PrintMessagesOptions): Promise<number> {
  const { topic, subscription, serviceUrl } = options;
  const client = newClient(shell, serviceUrl);
  const wait = { signal: shell.interrupted };
  try {
    const from = { topic, startPosition: startPosition(shell, options.from) };
    const consumer =
      subscription === undefined
        ? undefined
        : await whenOpen(shell, serviceUrl, client.subscribe({ ...from, subscription }, wait));
    const source: Source = consumer ?? (await whenOpen(shell, serviceUrl, client.createReader(from, wait)));
    const acks = consumer && new Acks(consumer);
    const output = new ChunkedOutput<Message>(shell.stdout, shell.clock, (message) => acks?.upTo(message));
    let losses = 0;
    try {
      losses = await print({ shell, source, output, acks, options });
      await output.finish();
    } finally {
      await acks?.durable();
    }
    await source.close();
    return losses === 0 || options.ackLost === true ? EXIT_DONE : EXIT_FAILED;
  } finally {
    await client.close();
  }
}
