import { type Command, InvalidArgumentError, Option } from 'commander';
import { COMPRESSION_TYPES, type CompressionType } from '../wire/compression.ts';
import { FROM_ALLOWED, type From, parseFrom } from './position.ts';
import type { Toolkit } from './program.ts';
import type { Shell } from './shell.ts';
import { serviceUrl } from './urls.ts';

const MAX_COUNT = Number.MAX_SAFE_INTEGER;
/** What a topic may look like on the command line. */
export const TOPIC_FORM = 'NAME, TENANT/NAMESPACE/NAME or persistent://TENANT/NAMESPACE/NAME';

/** A parser for an option that takes a whole number from `lowest` to `highest`. */
export function wholeNumber(lowest: number, highest: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (Number.isSafeInteger(value) && value >= lowest && value <= highest) return value;
    const range = highest === MAX_COUNT ? `from ${lowest} on` : `from ${lowest} to ${highest}`;
    throw new InvalidArgumentError(`It must be a whole number ${range}.`);
  };
}

function rate(text: string): number {
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : 0;
  if (value > 0 && Number.isFinite(value)) return value;
  throw new InvalidArgumentError('It must be a number of messages a second, above 0.');
}

/** How a command that publishes compresses. */
export function compressionOption(): Option {
  return new Option('--compression <type>', 'how batches are compressed').choices(COMPRESSION_TYPES).default('none');
}

function property(text: string, before: Readonly<Record<string, string>> = {}): Readonly<Record<string, string>> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('It must have the form name=value.');
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}

function collected(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

function fromParser(shell: Shell): (text: string) => From {
  return (value) => {
    const from = parseFrom(value, { now: shell.clock.now(), parseTime: (iso) => shell.parseTime(iso) });
    if (from === undefined) throw new InvalidArgumentError(`It must be ${FROM_ALLOWED}.`);
    return from;
  };
}

/** Options of the commands that print messages. */
interface PrintOptions {
  readonly from: From;
  readonly count?: number;
  readonly exitAtEnd?: boolean;
  readonly output: 'text' | 'json';
}

function printing(command: Command, shell: Shell, whatFrom: string): void {
  const earliest: From = { type: 'earliest' };
  command
    .addOption(
      new Option('--from <position>', `${whatFrom}: ${FROM_ALLOWED}`)
        .argParser(fromParser(shell))
        .default(earliest, 'earliest'),
    )
    .option('-n, --count <messages>', 'stop after so many messages', wholeNumber(1, MAX_COUNT))
    .option('--exit-at-end', 'stop after the last message that was there when the command started')
    .addOption(
      new Option('-o, --output <format>', 'text: the payload and a line feed; json: one object a line')
        .choices(['text', 'json'])
        .default('text'),
    );
}

function addProduce({ add, shell }: Toolkit): void {
  add({
    name: 'produce',
    summary: 'publish messages to a topic: texts, a file, or the lines on stdin',
    examples: [
      "magnetar produce hello -m 'Hello, world'",
      'magnetar produce orders -f orders.jsonl --ids',
      'tail -f app.log | magnetar produce logs -k web-1 -p source=app',
    ],
    declare: (command) => {
      command
        .argument('<topic>', TOPIC_FORM)
        .addOption(
          new Option('-f, --file <file>', 'publish the lines of a file, cut at LF alone; - is stdin').conflicts(
            'message',
          ),
        )
        .addOption(new Option('-m, --message <text...>', 'publish these texts').argParser(collected))
        .option('-k, --key <key>', 'the key of every message')
        .addOption(new Option('-p, --property <name=value...>', 'properties of every message').argParser(property))
        .option('--rate <number>', 'at most so many messages a second', rate)
        .addOption(compressionOption())
        .option('--ids', 'print {"line","id","index"} when a message is acknowledged');
    },
    run: async (command) => {
      const options = command.opts<{
        file?: string;
        message?: readonly string[];
        key?: string;
        property?: Readonly<Record<string, string>>;
        rate?: number;
        compression: CompressionType;
        ids?: boolean;
      }>();
      const { produce } = await import('./produce.ts');
      return await produce(shell, {
        serviceUrl: serviceUrl(command, shell),
        topic: command.args[0] ?? '',
        file: options.file,
        texts: options.message,
        key: options.key,
        properties: options.property,
        rate: options.rate,
        compression: options.compression,
        ids: options.ids === true,
      });
    },
  });
}

function addConsume({ add, shell }: Toolkit): void {
  add({
    name: 'consume',
    summary: 'print the messages of a subscription and acknowledge them',
    examples: [
      'magnetar consume hello -s first',
      'magnetar consume orders -s audit --from 2026-11-20T08:00:00Z -o json',
      'magnetar consume orders -s batch -n 100 --exit-at-end',
    ],
    declare: (command) => {
      command
        .argument('<topic>', TOPIC_FORM)
        .requiredOption('-s, --subscription <name>', 'the subscription; made when there is none of this name')
        .addOption(
          new Option('-t, --type <type>', 'how consumers share the subscription')
            .choices(['exclusive'])
            .default('exclusive'),
        );
      printing(command, shell, 'where a new subscription begins');
      command.option('--ack-lost', 'acknowledge messages that are lost, so that they are not reported again');
    },
    run: async (command) => {
      const { subscription, ...options } = command.opts<PrintOptions & { subscription: string; ackLost?: boolean }>();
      const { printMessages } = await import('./print-messages.ts');
      return await printMessages(shell, {
        serviceUrl: serviceUrl(command, shell),
        topic: command.args[0] ?? '',
        subscription,
        ...options,
      });
    },
  });
}

function addRead({ add, shell }: Toolkit): void {
  add({
    name: 'read',
    summary: 'print the messages of a topic, without a subscription',
    examples: [
      'magnetar read hello --exit-at-end',
      'magnetar read orders --from -10m -o json',
      'magnetar read orders --from 7:0:0 -n 1',
    ],
    declare: (command) => {
      command.argument('<topic>', TOPIC_FORM);
      printing(command, shell, 'where to begin');
    },
    run: async (command) => {
      const { printMessages } = await import('./print-messages.ts');
      return await printMessages(shell, {
        serviceUrl: serviceUrl(command, shell),
        topic: command.args[0] ?? '',
        ...command.opts<PrintOptions>(),
      });
    },
  });
}

/** Adds the commands that use the SDK. */
export function addClientCommands(toolkit: Toolkit): void {
  addProduce(toolkit);
  addConsume(toolkit);
  addRead(toolkit);
}
