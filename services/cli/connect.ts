import { Client } from '../client/index.ts';
import type { Shell } from './shell.ts';

/** How long a command waits for a broker that does not answer. */
const OPERATION_TIMEOUT_MS = 10_000;
const NOTICE_MS = 1_000;

/** A client for one command. */
export function newClient(serviceUrl: string): Client {
  return new Client({ serviceUrl, operationTimeoutMs: OPERATION_TIMEOUT_MS });
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
