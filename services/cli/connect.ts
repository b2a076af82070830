import { Client } from '../client/index.ts';
import { STREAM_LOST, STREAM_REGAINED } from '../client/stream-keeper.ts';
import { MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { LogFields, Logger } from '../runtime/logger.ts';
import type { Shell } from './shell.ts';
import { oneLine } from './text.ts';

/** How long a command waits for a broker that does not answer. */
const OPERATION_TIMEOUT_MS = 10_000;
const NOTICE_MS = 1_000;

/** Where progress is drawn, a line of its own begins at the left of it. */
const CLEAR_LINE = '\r\u001B[K';

/** Says on stderr when the connection is lost and when it is back: once each, however many streams and tries there are. */
class ConnectionNotices implements Logger {
  readonly #shell: Shell;
  readonly #serviceUrl: string;
  #lost = false;

  constructor(shell: Shell, serviceUrl: string) {
    this.#shell = shell;
    this.#serviceUrl = serviceUrl;
  }

  debug(): void {}

  info(message: string): void {
    if (message !== STREAM_REGAINED || !this.#lost) return;
    this.#lost = false;
    this.#say(`connected to ${this.#serviceUrl} again`);
  }

  warn(message: string, fields?: LogFields): void {
    if (message !== STREAM_LOST || this.#lost || this.#shell.interrupted.aborted) return;
    this.#lost = true;
    this.#say(`lost the broker at ${this.#serviceUrl}: ${this.#reason(fields?.['error'])}; trying again`);
  }

  error(): void {}

  child(): Logger {
    return this;
  }

  /** Without the broker's address, which the line has, and the advice for those who have not reached it yet. */
  #reason(error: unknown): string {
    const { cause, message } = toMagnetarError(error);
    const text = cause instanceof MagnetarError ? cause.message : message;
    return oneLine(text.replace(`the broker at ${this.#serviceUrl} `, 'it '));
  }

  #say(text: string): void {
    const { stderr, stderrIsTerminal } = this.#shell;
    stderr.write(`${stderrIsTerminal ? CLEAR_LINE : ''}${text}\n`);
  }
}

/** A client for one command, which says on stderr when its connection is lost and when it is back. */
export function newClient(shell: Shell, serviceUrl: string): Client {
  const logger = new ConnectionNotices(shell, serviceUrl);
  return new Client({ serviceUrl, operationTimeoutMs: OPERATION_TIMEOUT_MS, logger });
}

/** The outcome of `opening`; a person at a terminal is told when it takes long. */
export async function whenOpen<T>(shell: Shell, serviceUrl: string, opening: Promise<T>): Promise<T> {
  const notice = `waiting for the broker at ${serviceUrl}, for at most ${OPERATION_TIMEOUT_MS / 1_000} s; Ctrl-C ends\n`;
  const timer = shell.clock.after(NOTICE_MS, () => {
    if (shell.stderrIsTerminal) shell.stderr.write(notice);
  });
  try {
    return await opening;
  } finally {
    timer.cancel();
  }
}
