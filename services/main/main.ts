/** The process: its signals, its exit code, and what it says when something went wrong that nobody foresaw. */
import { outputFailure } from '../cli/chunked-output.ts';
import { runProgram } from '../cli/program.ts';
import { EXIT_DONE, EXIT_FAILED } from '../cli/shell.ts';
import { MagnetarError } from '../lib/errors.ts';
import { nodeShell } from './node-shell.ts';
import { packageVersion } from './package-version.ts';
import { addRoleCommands } from './role-commands.ts';

const SIGNAL_NUMBERS = { SIGINT: 2, SIGTERM: 15 } as const;
const FLUSH_MS = 5_000;

/** The first signal asks the command to end, the second ends the process. */
function interruption(): AbortSignal {
  const controller = new AbortController();
  for (const [name, number] of Object.entries(SIGNAL_NUMBERS)) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(128 + number);
      controller.abort(new MagnetarError('CANCELLED', `interrupted by ${name}`));
    });
  }
  return controller.signal;
}

function unforeseen(error: unknown): void {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  process.stderr.write(`magnetar: internal error: ${text.replaceAll(/\s*\n\s*/g, ' ')}\n`);
  process.exit(EXIT_FAILED);
}

/** Resolves when stdout has taken everything, or cannot. */
async function flushStdout(): Promise<void> {
  await new Promise<void>((resolve) => {
    setTimeout(resolve, FLUSH_MS).unref();
    process.stdout.write('', () => resolve());
  });
}

/** Runs a command line and ends the process with its exit code. */
export async function main(args: readonly string[]): Promise<void> {
  process.on('uncaughtException', unforeseen);
  process.on('unhandledRejection', unforeseen);
  process.stderr.on('error', () => {}); // nobody is left to be told
  let failure: MagnetarError | undefined;
  process.stdout.on('error', (error: Error) => {
    failure ??= outputFailure(error);
  });
  const version = packageVersion();
  const code = await runProgram({
    args,
    shell: nodeShell(interruption()),
    version,
    addCommands: (toolkit) => addRoleCommands(toolkit, version),
  });
  await flushStdout();
  if (failure === undefined || code !== EXIT_DONE) process.exit(code);
  process.stderr.write(`magnetar: ${failure.message}\n`); // by a command that did not wait for its output
  process.exit(EXIT_FAILED);
}
