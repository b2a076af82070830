/** What clients that stand still cost a server, and whether others notice. The tests use it at small scale, the long run at large. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Client } from '../../services/client/index.ts';
import type { ServerProcess } from './process.ts';
import { memoryOf } from './well-behaved.ts';

/** The default budget of 256 MiB, and a quarter of it for what the engine keeps besides. */
export const MOST_MEGABYTES = 320;
export const LARGE_BYTES = 5_000_000;

const fromSource = import.meta.url.endsWith('.ts');

/** Megabytes that a server needed more, at most, while something went on. */
export async function growth(server: ServerProcess, something: () => Promise<void>): Promise<number> {
  const { now: before } = await memoryOf(server);
  let most = before;
  const watch = setInterval(() => {
    void memoryOf(server).then(({ now }) => {
      most = Math.max(most, now);
    });
  }, 50);
  try {
    await something();
  } finally {
    clearInterval(watch);
  }
  return Math.max(most, (await memoryOf(server)).now) - before;
}

/** Publishes messages to a topic, as many at a time as `window`. */
export async function fill(client: Client, topic: string, count: number, bytes: number, window = 8): Promise<void> {
  await using producer = await client.createProducer({ topic, maxPendingBytes: 2 ** 30 });
  const data = Buffer.alloc(bytes, 1);
  for (let sent = 0; sent < count; sent += window) {
    await Promise.all(
      Array.from({ length: Math.min(window, count - sent) }, async () => await producer.send({ data })),
    );
  }
}

/** Clients that stand still, in a process of their own. */
export class StillClients implements AsyncDisposable {
  readonly #process: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#process = child;
  }

  static async #start(...options: readonly (string | number)[]): Promise<StillClients> {
    const place = fromSource ? '../../dist/chaos/support/' : './';
    const program = fileURLToPath(new URL(`${place}still-clients.js`, import.meta.url));
    const child = spawn(process.execPath, [program, ...options.map(String)], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    return new StillClients(child);
  }

  /** Each has begun a frame of which it has sent so many bytes. */
  static async halfFrames(port: number, clients: number, frameBytes: number, sentBytes: number): Promise<StillClients> {
    return await StillClients.#start('half-frames', port, clients, frameBytes, sentBytes);
  }

  /** Each has asked for all of a topic, for so many readers, and reads nothing. */
  static async deaf(port: number, clients: number, topic: string, readers = 1): Promise<StillClients> {
    return await StillClients.#start('deaf', port, clients, topic, readers);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode !== null) return;
    const exit = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await exit;
  }
}

/** Bytes of the budget that are in use, by what for. */
export async function usedMemory(server: ServerProcess): Promise<Record<string, number>> {
  const text = await (await fetch(`${server.adminUrl}/metrics`)).text();
  const found = text.matchAll(/^magnetar_memory_used_bytes\{[^}]*use="(\w+)"[^}]*\} (\S+)/gm);
  return Object.fromEntries([...found].map(([, use = '', bytes]) => [use, Number(bytes)]));
}

/** Clients with a producer and a consumer each, that do nothing. */
async function idleClients(serviceUrl: string, count: number): Promise<Client[]> {
  const clients: Client[] = [];
  const AT_ONCE = 50;
  while (clients.length < count) {
    const some = Array.from({ length: Math.min(AT_ONCE, count - clients.length) }, async (_, at) => {
      const client = new Client({ serviceUrl });
      const [topic, subscription] = [`idle-${at % 10}`, `s${clients.length + at}`];
      await client.createProducer({ topic });
      await client.subscribe({ topic, subscription });
      return client;
    });
    clients.push(...(await Promise.all(some)));
  }
  return clients;
}

const SETTLED_MS = 30_000;
const LOOK_MS = 500;

/**
 * Megabytes that a server needs more for so many idle connections: as soon as it is `enough` or less, else what it is in the end.
 * The engine makes its young generation large while they connect, up to 32 MB, and gives it back when that has been over for
 * some seconds: before, one sees how fast they came, not what they need.
 */
export async function idleGrowth(server: ServerProcess, count: number, enough: number): Promise<number> {
  const { now: before } = await memoryOf(server);
  const clients = await idleClients(server.serviceUrl, count);
  const end = performance.now() + SETTLED_MS;
  let grown = Number.POSITIVE_INFINITY;
  while (grown > enough && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    grown = (await memoryOf(server)).now - before;
  }
  await Promise.all(clients.map(async (each) => await each.close()));
  return grown;
}
