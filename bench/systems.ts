/** The systems that are measured: how each is started, with which durability, and by which load. */
import { execFile } from 'node:child_process';
import { access, mkdir, open, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { ChildProcess } from 'node:child_process';
import { freePort, started, stop } from './processes.ts';

const execute = promisify(execFile);
const program = fileURLToPath(new URL('../services/main/magnetar.js', import.meta.url));
const SYNCED_DISK_BYTES = 4 * 1024 ** 3;

/** A system that runs. */
export interface Running {
  /** As its load wants it. */
  readonly address: string;
  readonly pids: readonly number[];
  /** From spawn until it takes connections. */
  readonly startMs: number;
  stop(): Promise<void>;
}

/** A way to run a system. */
export interface System {
  readonly name: string;
  /** What a confirmation means. */
  readonly durability: string;
  /** How many copies it writes of a message. */
  readonly copies: number;
  /** The script in `loads/`. */
  readonly load: string;
  /** Undefined: it is there; else what to install. */
  missing(): Promise<string | undefined>;
  start(folder: string): Promise<Running>;
}

/** One after another; what was started is stopped if one of them fails. */
async function running(
  address: string,
  children: readonly (() => Promise<ChildProcess>)[],
  clean: () => Promise<void> = async () => {},
): Promise<Running> {
  const began = performance.now();
  const up: ChildProcess[] = [];
  const stopAll = async (): Promise<void> => {
    for (const child of up.toReversed()) await stop(child);
    await clean();
  };
  try {
    for (const start of children) up.push(await start());
  } catch (error) {
    await stopAll();
    throw error;
  }
  const startMs = Math.round(performance.now() - began);
  return { address, pids: up.map(({ pid }) => pid ?? 0), startMs, stop: stopAll };
}

const present = async (): Promise<undefined> => await Promise.resolve(undefined);

async function node(args: readonly string[], port: number): Promise<ChildProcess> {
  return await started(program, args, port);
}

/** Magnetar as it comes: standalone, with its bookie inside or with bookies in processes of their own. */
export function magnetar(bookies: number): System {
  return {
    name: bookies === 0 ? 'Magnetar' : `Magnetar, ${bookies} bookie processes`,
    durability: bookies === 0 ? 'fsync' : `fsync, ${bookies} copies, 2 awaited`,
    copies: Math.max(1, bookies),
    load: 'magnetar',
    missing: present,
    async start(folder) {
      const children: (() => Promise<ChildProcess>)[] = [];
      const where: string[] = [];
      for (let i = 0; i < bookies; i++) {
        const [port, http] = [await freePort(), await freePort()];
        const ports = ['--port', `${port}`, '--http-port', `${http}`];
        children.push(async () => await node(['bookie', '--data', path.join(folder, `bookie-${i}`), ...ports], port));
        where.push('--bookie', `127.0.0.1:${port}`);
      }
      const [port, http] = [await freePort(), await freePort()];
      const ports = ['--port', `${port}`, '--http-port', `${http}`];
      const data = ['--data', path.join(folder, 'data')];
      children.push(async () => await node(['standalone', ...data, ...ports, ...where], port));
      return await running(`127.0.0.1:${port}`, children);
    },
  };
}

async function installed(file: string, debianPackage: string): Promise<string | undefined> {
  const there = await access(file).then(
    () => true,
    () => false,
  );
  return there ? undefined : `apt-get install --no-install-recommends ${debianPackage}`;
}

/** A file system in a file on which every write is synchronous, for a server that has no such setting. */
async function mountSynchronous(folder: string): Promise<{ folder: string; remove: () => Promise<void> }> {
  const [image, mount] = [path.join(folder, 'image'), path.join(folder, 'mount')];
  const file = await open(image, 'w');
  await file.truncate(SYNCED_DISK_BYTES);
  await file.close();
  await execute('mkfs.ext4', ['-q', '-F', image]);
  await mkdir(mount);
  await execute('mount', ['-o', 'loop,sync', image, mount]);
  const remove = async (): Promise<void> => {
    await execute('umount', [mount]);
    await rm(image);
  };
  return { folder: mount, remove };
}

/** NATS JetStream with file storage. This version syncs files once in a while; `sync`: on a disk that writes at once. */
export function nats(sync: boolean): System {
  return {
    name: sync ? 'NATS JetStream, sync always' : 'NATS JetStream',
    durability: sync ? 'each write synchronous' : 'page cache',
    copies: 1,
    load: 'nats',
    async missing() {
      if (sync && process.getuid?.() !== 0) return 'root, for a file system that is mounted with -o sync';
      return await installed('/usr/sbin/nats-server', 'nats-server');
    },
    async start(folder) {
      const port = await freePort();
      const disk = sync ? await mountSynchronous(folder) : undefined;
      const args = ['--jetstream', '--addr', '127.0.0.1', '--port', `${port}`, '--store_dir', disk?.folder ?? folder];
      const children = [async () => await started('/usr/sbin/nats-server', args, port)];
      return await running(`127.0.0.1:${port}`, children, disk?.remove);
    },
  };
}

/** Redis Streams, with its log synced before each answer. */
export const redis: System = {
  name: 'Redis Streams',
  durability: 'fsync (appendfsync always)',
  copies: 1,
  load: 'redis',
  missing: async () => await installed('/usr/bin/redis-server', 'redis-server'),
  async start(folder) {
    const port = await freePort();
    const settings = ['--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'yes'];
    const args = ['--port', `${port}`, ...settings, '--appendfsync', 'always'];
    return await running(`127.0.0.1:${port}`, [async () => await started('/usr/bin/redis-server', args, port)]);
  },
};

/** A quorum queue of RabbitMQ, with publisher confirms. */
export const rabbitmq: System = {
  name: 'RabbitMQ quorum queue',
  durability: 'fsync (publisher confirms)',
  copies: 1,
  load: 'rabbitmq',
  missing: async () => await installed('/usr/lib/rabbitmq/bin/rabbitmq-server', 'rabbitmq-server'),
  async start(folder) {
    const [port, distribution] = [await freePort(), await freePort()];
    const plugins = path.join(folder, 'enabled_plugins');
    await writeFile(plugins, '[].\n');
    const env = {
      HOME: folder,
      RABBITMQ_NODENAME: `bench-${port}@localhost`,
      RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
      RABBITMQ_NODE_PORT: `${port}`,
      RABBITMQ_DIST_PORT: `${distribution}`,
      RABBITMQ_MNESIA_BASE: path.join(folder, 'mnesia'),
      RABBITMQ_LOG_BASE: path.join(folder, 'log'),
      RABBITMQ_ENABLED_PLUGINS_FILE: plugins,
      RABBITMQ_CONF_ENV_FILE: path.join(folder, 'none'),
    };
    const server = '/usr/lib/rabbitmq/bin/rabbitmq-server';
    return await running(`127.0.0.1:${port}`, [async () => await started(server, [], port, env)]);
  },
};
