import { type Command, InvalidArgumentError, Option } from 'commander';
import type { CompressionType } from '../client/index.ts';
import { compressionOption, TOPIC_FORM, wholeNumber } from './commands.ts';
import type { Toolkit } from './program.ts';
import { serviceUrl } from './urls.ts';

const MOST_SECONDS = 86_400;
const MOST_BYTES = 16_777_216;
const MOST_CLIENTS = 1_000;

function seconds(text: string): number {
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : 0;
  if (value > 0 && value <= MOST_SECONDS) return value;
  throw new InvalidArgumentError(`It must be a number of seconds, above 0 and at most ${MOST_SECONDS}.`);
}

function rateOrNone(text: string): number {
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isFinite(value)) return value;
  throw new InvalidArgumentError('It must be a number of messages a second; 0: as many as can be.');
}

/** Options of both commands. */
interface SharedOptions {
  readonly duration: number;
  readonly csv?: string;
  readonly output: 'text' | 'json';
}

function shared(command: Command, whatDuration: string): void {
  command
    .argument('<topic>', TOPIC_FORM)
    .option('--duration <seconds>', whatDuration, seconds, 10)
    .option('--csv <file>', 'write one line a second to this file')
    .addOption(new Option('-o, --output <format>', 'how the sum is printed').choices(['text', 'json']).default('text'));
}

function addPerfProduce({ add, shell }: Toolkit): void {
  add({
    name: 'produce',
    summary: 'publish as much as can be, or at a rate, and measure it',
    examples: [
      'magnetar perf produce load',
      'magnetar perf produce load --size 1024 --rate 20000 --duration 60 --csv load.csv',
      'magnetar perf produce load --compression zstd --producers 4 -o json',
    ],
    declare: (command) => {
      shared(command, 'how long to publish');
      command
        .option('--size <bytes>', 'payload of a message', wholeNumber(0, MOST_BYTES), 128)
        .option(
          '--rate <number>',
          'messages a second of all producers together, evenly; latency then counts from when a message was due; 0: as many as can be',
          rateOrNone,
          0,
        )
        .option('--producers <number>', 'producers, over one connection', wholeNumber(1, MOST_CLIENTS), 1)
        .addOption(compressionOption());
    },
    run: async (command) => {
      const { csv, ...options } = command.opts<
        SharedOptions & { size: number; rate: number; producers: number; compression: CompressionType }
      >();
      const { perfProduce } = await import('./perf-produce.ts');
      return await perfProduce(shell, {
        serviceUrl: serviceUrl(command, shell),
        topic: command.args[0] ?? '',
        csv,
        ...options,
      });
    },
  });
}

function addPerfConsume({ add, shell }: Toolkit): void {
  add({
    name: 'consume',
    summary: 'consume and acknowledge from the earliest message on, and measure it',
    examples: [
      'magnetar perf consume load',
      'magnetar perf consume load --follow --duration 60 -o json',
      'magnetar perf consume load -s bench --consumers 2',
    ],
    declare: (command) => {
      shared(command, 'stop after so long, if the end of the topic was not reached before');
      command
        .option('-s, --subscription <name>', 'the subscription (default: a new one, which is deleted at the end)')
        .option(
          '--consumers <number>',
          'consumers, over one connection, each with a subscription of its own: NAME-1, NAME-2, …',
          wholeNumber(1, MOST_CLIENTS),
          1,
        )
        .option(
          '--follow',
          'go on behind the end of the topic, for the whole duration; latency is measured of messages published meanwhile',
        );
    },
    run: async (command) => {
      const { csv, subscription, follow, ...options } = command.opts<
        SharedOptions & { subscription?: string; consumers: number; follow?: boolean }
      >();
      const { perfConsume } = await import('./perf-consume.ts');
      return await perfConsume(shell, {
        serviceUrl: serviceUrl(command, shell),
        topic: command.args[0] ?? '',
        subscription,
        follow: follow === true,
        csv,
        ...options,
      });
    },
  });
}

/** Adds the commands that measure. */
export function addPerfCommands(toolkit: Toolkit): void {
  const perf = toolkit.group(
    'perf',
    'measure a running system: publish at full speed or at a rate, consume to the end or beyond it',
  );
  addPerfProduce(perf);
  addPerfConsume(perf);
}
