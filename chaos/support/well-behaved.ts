/** An app that publishes and consumes all the time, to see whether anything else disturbs it. */
import { readFile } from 'node:fs/promises';
import { Client, type Logger } from '../../services/client/index.ts';
import type { ServerProcess } from './process.ts';

const PACE_MS = 2;

/** What it noticed. */
interface Noticed {
  /** Warnings of the SDK: connections lost, producers opened anew. */
  readonly lost: readonly string[];
  /** The longest time that a message took from `send` to the consumer. */
  readonly longestMs: number;
}

export class WellBehaved {
  readonly #client: Client;
  readonly #lost: string[];
  readonly #end = new AbortController();
  readonly #loops: Promise<unknown>;
  readonly #sentAt: number[] = [];
  #longestMs = 0;
  #received = 0;
  #waiting: { readonly count: number; readonly resolve: () => void } | undefined;

  private constructor(client: Client, lost: string[], loops: (self: WellBehaved) => Promise<unknown>) {
    this.#client = client;
    this.#lost = lost;
    this.#loops = loops(this);
    this.#loops.catch(() => {}); // `stop` reports it
  }

  static async start(serviceUrl: string): Promise<WellBehaved> {
    const lost: string[] = [];
    const logger: Logger = {
      debug() {},
      info() {},
      warn: (message, fields) => void lost.push(`${message} ${JSON.stringify(fields)}`),
      error: (message) => void lost.push(message),
      child: () => logger,
    };
    const client = new Client({ serviceUrl, logger });
    const producer = await client.createProducer({ topic: 'well-behaved' });
    const consumer = await client.subscribe({ topic: 'well-behaved', subscription: 's' });
    return new WellBehaved(client, lost, async (self) => {
      const send = async (): Promise<void> => {
        while (!self.#end.signal.aborted) {
          const number = self.#sentAt.push(performance.now()) - 1;
          await producer.send({ data: `${number}` });
          await new Promise((resolve) => setTimeout(resolve, PACE_MS));
        }
      };
      const receive = async (): Promise<void> => {
        for await (const message of consumer) {
          if (message.data.toString() !== `${self.#received}`) throw new Error(`got ${message.data.toString()} next`);
          await consumer.acknowledge(message);
          self.#got();
        }
      };
      const sending = send().then(async () => {
        await self.more(0);
        await consumer.close();
      });
      await Promise.all([sending, receive()]);
    });
  }

  #got(): void {
    this.#longestMs = Math.max(this.#longestMs, performance.now() - (this.#sentAt[this.#received] ?? 0));
    this.#received += 1;
    if (this.#waiting !== undefined && this.#received >= this.#waiting.count) this.#waiting.resolve();
  }

  /** Resolves when everything sent so far, and so many more, came through; rejects when the app has failed. */
  async more(count: number): Promise<void> {
    const target = this.#sentAt.length + count;
    if (this.#received >= target) return;
    const reached = new Promise<void>((resolve) => {
      this.#waiting = { count: target, resolve };
    });
    await (count === 0 ? reached : Promise.race([reached, this.#loops]));
  }

  async stop(): Promise<Noticed> {
    this.#end.abort();
    await this.#loops;
    await this.#client.close();
    return { lost: this.#lost, longestMs: this.#longestMs };
  }
}

/** Megabytes that a process holds in memory now, and has held at most. */
export async function memoryOf(server: ServerProcess): Promise<{ readonly now: number; readonly most: number }> {
  const text = await readFile(`/proc/${server.pid}/status`, 'utf8');
  const megabytes = (name: string): number => Number(new RegExp(`${name}:\\s*(\\d+)`).exec(text)?.[1]) / 1_024;
  return { now: megabytes('VmRSS'), most: megabytes('VmHWM') };
}

/** How many connections a server's port has. */
export async function connectionsOf(port: number): Promise<number> {
  const ESTABLISHED = '01';
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const rows = (await readFile('/proc/net/tcp', 'utf8')).split('\n').map((line) => line.trim().split(/\s+/));
  return rows.filter(([, address, , state]) => address?.endsWith(local) === true && state === ESTABLISHED).length;
}
