/** Sets of processes for the crash rounds. */
import type { Victims } from './crash.ts';
import type { PowerDisk } from './power.ts';
import { type ServerProcess, startBookie, startStandalone } from './process.ts';

/** A set of processes that go away together. */
export interface Cluster extends Victims, AsyncDisposable {}

async function disposeAll(servers: readonly ServerProcess[]): Promise<void> {
  for (const server of servers) await server[Symbol.asyncDispose]();
}

/** Standalone with its bookie in the process, or a program that stands in for it. */
export async function oneProcess(program?: string): Promise<Cluster> {
  const server = await startStandalone(program === undefined ? {} : { program });
  return {
    serviceUrl: server.serviceUrl,
    lastWords: () => server.lastWords,
    async strike() {
      await server.kill();
      await server.start();
      return 'standalone';
    },
    [Symbol.asyncDispose]: () => disposeAll([server]),
  };
}

/** Standalone over three bookies in processes of their own. A strike hits any one of the four. */
export async function fourProcesses(): Promise<Cluster> {
  const servers: ServerProcess[] = [];
  try {
    const starts = [0, 1, 2].map(async () => void servers.push(await startBookie()));
    await Promise.all(starts);
    const args = servers.flatMap(({ port }) => ['--bookie', `127.0.0.1:${port}`]);
    const broker = await startStandalone({ args });
    servers.unshift(broker);
    return {
      serviceUrl: broker.serviceUrl,
      lastWords: () => servers.map((server) => server.lastWords).join('\n'),
      async strike(pick) {
        const at = Math.floor(pick * servers.length);
        const server = servers[at] ?? broker;
        await server.kill();
        await server.start();
        return at === 0 ? 'standalone' : `bookie ${at}`;
      },
      [Symbol.asyncDispose]: () => disposeAll(servers),
    };
  } catch (error) {
    await disposeAll(servers);
    throw error;
  }
}

/** Standalone on a disk whose power is cut: what was not synced is gone. `env` for the process, for example a preload. */
export async function onPowerDisk(disk: PowerDisk, env: Readonly<Record<string, string>> = {}): Promise<Cluster> {
  const server = await startStandalone({ data: `${disk.folder}/data`, env });
  return {
    serviceUrl: server.serviceUrl,
    lastWords: () => server.lastWords,
    async strike() {
      await disk.cut();
      await server.kill();
      await disk.restore();
      await server.start();
      return 'power';
    },
    [Symbol.asyncDispose]: () => disposeAll([server]),
  };
}
