import { type Message, MessageId, type StartPosition } from '../client/index.ts';
import { hasCode, type MagnetarError, toMagnetarError } from '../lib/errors.ts';
import { ChunkedOutput } from './chunked-output.ts';
import { newClient, whenOpen } from './connect.ts';
import { printMessage } from './message-format.ts';
import type { From } from './position.ts';
import { EXIT_DONE, type Shell } from './shell.ts';

export interface PrintMessagesOptions {
  readonly serviceUrl: string;
  readonly topic: string;
  /** The subscription to consume from; not given: a reader. */
  readonly subscription?: string;
  readonly from: From;
  /** Stop after so many messages. */
  readonly count?: number;
  readonly exitAtEnd?: boolean;
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

/** Acknowledgments on their way. Those of a later message cover the earlier ones. */
class Acks {
  readonly #acknowledge: (message: Message) => Promise<void>;
  #pending: Promise<void> = Promise.resolve();
  #failure: MagnetarError | undefined;

  constructor(acknowledge: (message: Message) => Promise<void>) {
    this.#acknowledge = acknowledge;
  }

  /** Acknowledges a message and all before it. */
  upTo(message: Message): void {
    const ack = this.#acknowledge(message).catch((error: unknown) => {
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

async function print(
  shell: Shell,
  source: Source,
  output: ChunkedOutput<Message>,
  options: PrintMessagesOptions,
): Promise<void> {
  let left = options.count ?? Infinity;
  try {
    for await (const message of source.messages({ signal: shell.interrupted, untilEnd: options.exitAtEnd === true })) {
      printMessage(output, message, options.output);
      left -= 1;
      if (left === 0) return;
      if (output.behind) await output.drained();
      if (shell.interrupted.aborted) return;
    }
  } catch (error) {
    if (!shell.interrupted.aborted || !hasCode(error, 'CANCELLED')) throw error;
  }
}

/**
 * `magnetar consume` and `magnetar read`. A message is acknowledged once stdout has taken it, and the command ends when
 * its acknowledgments are durable. Resolves with the exit code.
 */
export async function printMessages(shell: Shell, options: PrintMessagesOptions): Promise<number> {
  const { topic, subscription, serviceUrl } = options;
  const client = newClient(serviceUrl);
  const wait = { signal: shell.interrupted };
  try {
    const from = { topic, startPosition: startPosition(shell, options.from) };
    const consumer =
      subscription === undefined
        ? undefined
        : await whenOpen(shell, serviceUrl, client.subscribe({ ...from, subscription }, wait));
    const source: Source = consumer ?? (await whenOpen(shell, serviceUrl, client.createReader(from, wait)));
    const acks = consumer && new Acks(async (message) => await consumer.acknowledgeCumulative(message));
    const output = new ChunkedOutput<Message>(shell.stdout, shell.clock, (message) => acks?.upTo(message));
    try {
      await print(shell, source, output, options);
      await output.finish();
    } finally {
      await acks?.durable();
    }
    await source.close();
    return EXIT_DONE;
  } finally {
    await client.close();
  }
}
