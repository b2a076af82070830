import { readFile } from 'node:fs/promises';
import type { ServerProcess } from './process.ts';

const TRIES = 1_000;

/** The state of a process, as /proc names it: S sleeps, R runs, T is stopped. */
async function stateOf(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3);
}

/** SIGSTOP to a process; resolves when it runs no further. */
export async function suspendProcess(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  for (let left = TRIES; left > 0; left--) {
    if ((await stateOf(pid)) === 'T') return;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  throw new Error(`process ${pid} did not stop`);
}

/** A server that runs no further until `resume`, or the end of the block. The kernel goes on taking bytes for its sockets. */
export async function suspend(server: ServerProcess): Promise<Disposable & { readonly resume: () => void }> {
  await suspendProcess(server.pid);
  const resume = (): void => server.signal('SIGCONT');
  return { resume, [Symbol.dispose]: resume };
}
