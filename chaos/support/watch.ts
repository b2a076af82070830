import type { ServerProcess } from './process.ts';
import { memoryOf, WellBehaved } from './well-behaved.ts';

/** Longer than any message may take while others misbehave, on a machine that has other things to do, too. */
const LONGEST_MS = 5_000;
const MOST_MEGABYTES = 700;
const STACK_OR_ERROR = /\\n\s+at |^\s+at |"level":"(error|fatal)"|internal error/im;

/** Servers that are being mistreated, and an app that must not notice. */
export class Watch {
  readonly #servers: ReadonlyMap<ServerProcess, number>;
  readonly #app: WellBehaved;

  private constructor(servers: readonly ServerProcess[], app: WellBehaved) {
    this.#servers = new Map(servers.map((server) => [server, server.pid]));
    this.#app = app;
  }

  /** `serviceUrl`: that of the broker that the app uses. */
  static async start(servers: readonly ServerProcess[], serviceUrl: string): Promise<Watch> {
    return new Watch(servers, await WellBehaved.start(serviceUrl));
  }

  /** The servers are up and small, have nothing to complain of, and the app gets on. @throws when it is not so */
  async unharmed(): Promise<void> {
    await this.#app.more(20);
    for (const [server, pid] of this.#servers) {
      if (server.pid !== pid) throw new Error(`${server.role} has ended`);
      const complaint = STACK_OR_ERROR.exec(server.stderr);
      if (complaint !== null) throw new Error(`on stderr: ${server.stderr.slice(Math.max(0, complaint.index - 500))}`);
      const { most } = await memoryOf(server);
      if (most > MOST_MEGABYTES) throw new Error(`${server.role} needed ${most} MB; ${MOST_MEGABYTES} are fine`);
    }
  }

  /** The same for the whole time. @throws when the app has noticed something */
  async stop(): Promise<void> {
    await this.unharmed();
    const { lost, longestMs } = await this.#app.stop();
    if (lost.length > 0) throw new Error(`the app has noticed: ${lost.join('; ')}`);
    if (longestMs > LONGEST_MS) throw new Error(`a message took ${longestMs} ms; at most ${LONGEST_MS} are fine`);
  }
}
