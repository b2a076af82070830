/**
 * The command line: names, flags, exit codes. `main` adds the commands that start roles. Each command's module is
 * imported when the command runs.
 */
import { Command, type CommanderError, Option } from 'commander';
import { hasCode, toMagnetarError } from '../lib/errors.ts';
import { addAdminCommands } from './admin-commands.ts';
import { OutputClosed } from './chunked-output.ts';
import { addClientCommands } from './commands.ts';
import { addPerfCommands } from './perf-commands.ts';
import { EXIT_DONE, EXIT_FAILED, EXIT_USAGE, type Shell } from './shell.ts';
import { oneLine } from './text.ts';
import { UsageError } from './usage-error.ts';

/** What the commands of a program share. */
export interface Toolkit {
  readonly program: Command;
  readonly shell: Shell;
  /** Adds a subcommand. `run` gives the exit code; what it throws becomes one line on stderr. */
  readonly add: (options: CommandOptions) => void;
  /** Adds a command that has subcommands alone; gives what adds these. */
  readonly group: (name: string, summary: string) => Toolkit;
}

interface CommandOptions {
  readonly name: string;
  readonly summary: string;
  readonly examples: readonly string[];
  /** Adds arguments and options. */
  readonly declare: (command: Command) => void;
  readonly run: (command: Command) => Promise<number>;
}

export interface ProgramOptions {
  /** The arguments behind the program's name. */
  readonly args: readonly string[];
  readonly shell: Shell;
  readonly version: string;
  /** Adds further commands, in front of those of this folder. */
  readonly addCommands: (toolkit: Toolkit) => void;
}

function isCommanderError(error: unknown): error is CommanderError {
  return (
    error instanceof Error && 'exitCode' in error && 'code' in error && String(error.code).startsWith('commander.')
  );
}

/** What commander reports, as ours: the message is one line and names the command whose help explains it. */
function usageErrorOf(error: CommanderError, command: string): UsageError {
  if (error.code === 'commander.help') return new UsageError('a command is missing', command); // of a group
  return new UsageError(oneLine(error.message.replace(/^error: /, '')), command);
}

function sentence(summary: string): string {
  return `${summary[0]?.toUpperCase() ?? ''}${summary.slice(1)}.`;
}

/** Adds to `program`, which is called `path`. */
function toolkitFor(program: Command, path: string, shell: Shell, setCode: (code: number) => void): Toolkit {
  const newCommand = (name: string, summary: string): Command => {
    const command = program.command(name).summary(summary).description(sentence(summary));
    return command.exitOverride((error) => {
      throw error.exitCode === 0 ? error : usageErrorOf(error, `${path} ${name}`);
    });
  };
  return {
    program,
    shell,
    add({ name, summary, examples, declare, run }) {
      const command = newCommand(name, summary);
      declare(command);
      command.addHelpText('after', `\nExamples:\n${examples.map((example) => `  ${example}\n`).join('')}`);
      command.action(async () => setCode(await run(command)));
    },
    group: (name, summary) => toolkitFor(newCommand(name, summary), `${path} ${name}`, shell, setCode),
  };
}

/** One line for people, and where to read on. */
function report(shell: Shell, error: unknown): number {
  if (error instanceof OutputClosed) return EXIT_DONE;
  if (error instanceof UsageError) {
    shell.stderr.write(`magnetar: ${oneLine(error.message)}\nSee '${error.command} --help'.\n`);
    return EXIT_USAGE;
  }
  const { message } = toMagnetarError(error);
  const internal = hasCode(toMagnetarError(error), 'INTERNAL') ? 'internal error: ' : '';
  shell.stderr.write(`magnetar: ${internal}${oneLine(message) || 'an error without a message'}\n`);
  return EXIT_FAILED;
}

/** Runs a command line. Resolves with the exit code; never rejects. */
export async function runProgram({ args, shell, version, addCommands }: ProgramOptions): Promise<number> {
  try {
    let code = EXIT_DONE;
    const program = new Command('magnetar')
      .description('Multi-tenant streaming and queuing: brokers over a replicated ledger store.')
      .version(version, '--version', 'print the version')
      .helpOption('-h, --help', 'print help')
      .configureHelp({ showGlobalOptions: true })
      .configureOutput({ writeOut: (text) => shell.stdout.write(text), writeErr: () => {} })
      .exitOverride((error) => {
        throw error.exitCode === 0 ? error : usageErrorOf(error, 'magnetar');
      })
      .addOption(
        new Option(
          '--service-url <url>',
          'the broker, as grpc://HOST:PORT or unix:///PATH (environment: MAGNETAR_SERVICE_URL; default: grpc://127.0.0.1:7650)',
        ),
      )
      .addOption(
        new Option(
          '--admin-url <url>',
          "the broker's HTTP side, as http://HOST:PORT (environment: MAGNETAR_ADMIN_URL; default: http://127.0.0.1:8080)",
        ),
      );
    const toolkit = toolkitFor(program, 'magnetar', shell, (result) => {
      code = result;
    });
    addCommands(toolkit);
    addClientCommands(toolkit);
    addPerfCommands(toolkit);
    addAdminCommands(toolkit);
    program.addHelpText(
      'after',
      "\nStart a server with 'magnetar standalone'; 'magnetar COMMAND --help' shows examples.\n",
    );
    if (args.length === 0) program.outputHelp();
    else await program.parseAsync([...args], { from: 'user' });
    return code;
  } catch (error) {
    if (isCommanderError(error) && error.exitCode === 0) return EXIT_DONE;
    return report(shell, error);
  }
}
