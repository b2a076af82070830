import { type Command, InvalidArgumentError, Option } from 'commander';
import { wholeNumber } from '../cli/commands.ts';
import type { Toolkit } from '../cli/program.ts';
import type { Shell } from '../cli/shell.ts';
import { commandPath } from '../cli/urls.ts';
import { UsageError } from '../cli/usage-error.ts';
import { DEFAULT_MEMORY_BYTES, LEAST_MEMORY_BYTES } from '../runtime/memory.ts';
import type { LogLevel } from '../runtime/node/logger.ts';

const HIGHEST_PORT = 65_535;
const MAX_BOOKIES = 16;
const BOOKIE_ADDRESS = /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})$/;
const LOG_LEVELS: readonly string[] = ['debug', 'info', 'warn', 'error'];

const MIB = 1_048_576;
const HIGHEST_BUDGET_MIB = 65_536;
const logLevelOption: [string, string] = [
  '--log-level <level>',
  `what is logged, from this severity on: ${LOG_LEVELS.join(', ')} (environment: MAGNETAR_LOG_LEVEL; default: info)`,
];
const memoryBudgetOption: [string, string, (text: string) => number, number] = [
  '--memory-budget-mib <number>',
  `MiB that buffers of messages may take: on their way, in caches, for slow clients; at least ${LEAST_MEMORY_BYTES / MIB}`,
  wholeNumber(LEAST_MEMORY_BYTES / MIB, HIGHEST_BUDGET_MIB),
  DEFAULT_MEMORY_BYTES / MIB,
];

function isLogLevel(text: string): text is LogLevel {
  return LOG_LEVELS.includes(text);
}

function bookieAddress(text: string, before: readonly string[] = []): readonly string[] {
  const port = Number(BOOKIE_ADDRESS.exec(text)?.[2] ?? 0);
  if (port < 1 || port > HIGHEST_PORT) throw new InvalidArgumentError('It must have the form HOST:PORT.');
  if (before.includes(text)) throw new InvalidArgumentError('It was given before; each bookie counts once.');
  return [...before, text];
}

/** The flag beats the environment. @throws UsageError */
function logLevel(command: Command, shell: Shell): LogLevel {
  const { logLevel: flag } = command.opts<{ logLevel?: string }>();
  const level = flag ?? shell.environment['MAGNETAR_LOG_LEVEL'] ?? 'info';
  if (isLogLevel(level)) return level;
  const source = flag === undefined ? 'MAGNETAR_LOG_LEVEL' : '--log-level';
  throw new UsageError(`${source} is '${level}'; it must be one of ${LOG_LEVELS.join(', ')}`, commandPath(command));
}

function addStandalone({ add, shell }: Toolkit, version: string): void {
  add({
    name: 'standalone',
    summary: 'a whole system in one process: metadata, bookies and a broker on one data folder',
    examples: [
      'magnetar standalone',
      'magnetar standalone --data /var/lib/magnetar --bookies 3',
      'magnetar standalone --bookie 127.0.0.1:3181 --bookie 127.0.0.1:3182 --bookie 127.0.0.1:3183',
    ],
    declare: (command) => {
      const port = wholeNumber(0, HIGHEST_PORT);
      command
        .option('--data <folder>', 'the data folder', './data')
        .option(
          '--bookies <number>',
          `bookies in this process, at most ${MAX_BOOKIES} (default: as many as the data folder has, else 1)`,
          wholeNumber(1, MAX_BOOKIES),
        )
        .option(
          '--bookie <host:port...>',
          "bookies in other processes, instead ('magnetar bookie' starts one)",
          bookieAddress,
        )
        .option('--port <number>', 'gRPC port for apps; 0 takes a free one', port, 7650)
        .option(
          '--http-port <number>',
          'HTTP port: /admin/v2, /docs, /metrics, /healthz, /readyz, /version; 0 takes a free one',
          port,
          8080,
        )
        .option(...memoryBudgetOption)
        .option('--topic-metrics', 'metrics of every topic and subscription, in the place of sums over namespaces')
        .option(...logLevelOption);
    },
    run: async (command) => {
      const options = command.opts<{
        data: string;
        bookies?: number;
        bookie?: readonly string[];
        port: number;
        httpPort: number;
        topicMetrics?: true;
        memoryBudgetMib: number;
      }>();
      if (options.bookies !== undefined && options.bookie !== undefined) {
        throw new UsageError(
          '--bookies and --bookie exclude each other: bookies are in this process or in others',
          'magnetar standalone',
        );
      }
      const level = logLevel(command, shell);
      const { runStandalone } = await import('./standalone.ts');
      return await runStandalone(shell, {
        data: options.data,
        bookies: options.bookies,
        remoteBookies: options.bookie ?? [],
        port: options.port,
        httpPort: options.httpPort,
        broker: { topicMetrics: options.topicMetrics === true },
        memoryBudgetBytes: options.memoryBudgetMib * MIB,
        logLevel: level,
        version,
      });
    },
  });
}

function addBookie({ add, shell }: Toolkit, version: string): void {
  add({
    name: 'bookie',
    summary: 'a bookie: stores ledger entries for brokers in other processes',
    examples: [
      'magnetar bookie --data /var/lib/magnetar-bookie',
      'magnetar bookie --data ./bookie-2 --port 3182 --http-port 8001',
    ],
    declare: (command) => {
      command
        .option('--data <folder>', 'the data folder', './data')
        .option('--port <number>', 'gRPC port for brokers', wholeNumber(1, HIGHEST_PORT), 3181)
        .option(
          '--http-port <number>',
          'HTTP port: /metrics, /healthz, /readyz, /version; 0 takes a free one',
          wholeNumber(0, HIGHEST_PORT),
          8000,
        )
        .option(...memoryBudgetOption)
        .option(...logLevelOption);
    },
    run: async (command) => {
      const level = logLevel(command, shell);
      const { runBookie } = await import('./bookie.ts');
      const { memoryBudgetMib, ...options } = command.opts<{
        data: string;
        port: number;
        httpPort: number;
        memoryBudgetMib: number;
      }>();
      return await runBookie(shell, {
        ...options,
        memoryBudgetBytes: memoryBudgetMib * MIB,
        logLevel: level,
        version,
      });
    },
  });
}

function addInspect({ add, shell }: Toolkit): void {
  add({
    name: 'inspect',
    summary: 'look into a data folder that is not in use: what it holds, and what is damaged; changes nothing',
    examples: [
      'magnetar inspect ./data',
      'magnetar inspect /var/lib/magnetar/bookie-0 --ledger 12',
      'magnetar inspect ./data -o json',
    ],
    declare: (command) => {
      command
        .argument('<folder>', "a data folder, or a bookie's folder in one")
        .option('--ledger <id>', 'where the entries of this ledger are', wholeNumber(0, Number.MAX_SAFE_INTEGER))
        .addOption(
          new Option('-o, --output <format>', 'table: for people; json: one object')
            .choices(['table', 'json'])
            .default('table'),
        )
        .addHelpText('after', '\nExit code: 0 when nothing is damaged, 1 when something is.');
    },
    run: async (command) => {
      const { ledger, output } = command.opts<{ ledger?: number; output: 'table' | 'json' }>();
      const { runInspect } = await import('./inspect.ts');
      return await runInspect(shell, { folder: command.args[0] ?? '', ledger, output });
    },
  });
}

/** Adds the commands that start roles, and the one that looks into their folders. */
export function addRoleCommands(toolkit: Toolkit, version: string): void {
  addStandalone(toolkit, version);
  addBookie(toolkit, version);
  addInspect(toolkit);
}
