/** Disks that are full: nothing that was acknowledged is lost, what is there can be read, and publishing goes on by itself. */
import { cp, mkdir, rm, symlink } from 'node:fs/promises';
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { Client, MagnetarError, type Producer } from '../services/client/index.ts';
import type { Disk } from '../services/runtime/disk.ts';
import { fullDiskContract } from '../services/runtime/disk.contract.ts';
import { nodeDisk } from '../services/runtime/node/disk.ts';
import { requirePackages } from './support/debian.ts';
import { checkTopic, promised } from './support/history.ts';
import { LoadProducer, readTopic } from './support/load.ts';
import { type ServerProcess, startBookie, startStandalone, temporaryFolder } from './support/process.ts';
import { DiskShim } from './support/shim.ts';
import { SmallDisk } from './support/small-disk.ts';

const TOPIC = 'full';
const WINDOW = 400;
const PATIENCE_MS = 20_000;
/** Room for the reserve, for the room that is kept in files, and for some data. */
const DISK_MEGABYTES = 160;

beforeAll(requirePackages);

async function until(what: string, isSo: () => boolean | Promise<boolean>, said = (): string => ''): Promise<void> {
  const start = performance.now();
  while (!(await isSo())) {
    if (performance.now() - start > PATIENCE_MS) throw new Error(`not within ${PATIENCE_MS} ms: ${what}\n${said()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function connect(server: ServerProcess, operationTimeoutMs = PATIENCE_MS): Client {
  return new Client({ serviceUrl: server.serviceUrl, operationTimeoutMs });
}

/** Producers under load; what they were promised is held against the topic in the end. */
class Load implements AsyncDisposable {
  readonly client: Client;
  readonly #server: ServerProcess;
  readonly #producers: readonly LoadProducer[];

  private constructor(server: ServerProcess, client: Client, producers: readonly LoadProducer[]) {
    this.#server = server;
    this.client = client;
    this.#producers = producers;
  }

  static async start(server: ServerProcess): Promise<Load> {
    const client = connect(server);
    const names = ['p0', 'p1'];
    const producers = names.map(async (name) => await LoadProducer.start(client, TOPIC, name, WINDOW));
    return new Load(server, client, await Promise.all(producers));
  }

  get acknowledged(): number {
    return this.#producers.reduce((sum, { history }) => sum + history.count, 0);
  }

  /** Resolves when so many more are acknowledged. */
  async more(count: number): Promise<void> {
    const target = this.acknowledged + count;
    const said = (): string => `${this.acknowledged} are; the server said: ${this.#server.stderr.slice(-4_000)}`;
    await until(`${target} acknowledged messages`, () => this.acknowledged >= target, said);
  }

  /** Resolves when nothing more is acknowledged. */
  async stalled(): Promise<void> {
    let [count, since] = [this.acknowledged, performance.now()];
    await until('nothing more is acknowledged', () => {
      if (this.acknowledged !== count) [count, since] = [this.acknowledged, performance.now()];
      return performance.now() - since > 700;
    });
  }

  /** Reads all; what is missing, doubled or reordered of what was acknowledged before. */
  async violations(client: Client = this.client): Promise<string[]> {
    const promise = promised(this.#producers.map(({ history }) => history));
    return checkTopic(await readTopic(client, TOPIC), promise).slice(0, 5);
  }

  async stop(): Promise<void> {
    await Promise.all(this.#producers.map(async (producer) => await producer.stop()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.close();
  }
}

let others = 0;

/** What becomes of a message that is given half a second. */
async function refusal(client: Client, topic = TOPIC): Promise<{ code: string; message: string }> {
  let producer: Producer | undefined;
  try {
    producer = await client.createProducer({ topic, sendTimeoutMs: 500 });
    await producer.send({ data: `other${others++}/0/` });
    return { code: 'none', message: '' };
  } catch (error) {
    if (!(error instanceof MagnetarError)) throw error;
    return { code: error.code, message: error.message };
  } finally {
    await producer?.close();
  }
}

/** Both stores keep room in a file for the worst. */
async function untilRoomIsKept(data: string): Promise<void> {
  await until('room is kept', async () => {
    const kept = ['metadata/reserve', 'bookie-0/reserve'].map(async (name) => await sizeOf(path.join(data, name)));
    return (await Promise.all(kept)).every((bytes) => bytes >= 16_777_216);
  });
}

async function sizeOf(file: string): Promise<number> {
  return (await nodeDisk.exists(file)) ? (await nodeDisk.readFile(file)).length : 0;
}

async function metric(server: ServerProcess, name: string): Promise<number> {
  const text = await (await fetch(`${server.adminUrl}/metrics`)).text();
  return Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)`, 'm').exec(text)?.[1]);
}

type UnderTest = Awaited<ReturnType<Parameters<typeof fullDiskContract>[1]>>;

async function onTmpfs(open: Disk['open']): Promise<UnderTest> {
  const small = await SmallDisk.create(4);
  return {
    disk: { ...nodeDisk, open },
    folder: small.folder,
    roomBytes: 4 * 1_048_576,
    grow: async () => await small.grow(8),
    end: async () => await small[Symbol.asyncDispose](),
  };
}

fullDiskContract('a tmpfs', async () => await onTmpfs(async (file, options) => await nodeDisk.open(file, options)));
fullDiskContract('a tmpfs, past the page cache', async () => {
  return await onTmpfs(async (file, options) => await nodeDisk.open(file, { ...options, direct: true }));
});

describe('a disk that other programs fill', () => {
  test('to the last byte: read on, restart, go on by itself; every acknowledged message is there', async () => {
    await using disk = await SmallDisk.create(DISK_MEGABYTES);
    const data = path.join(disk.folder, 'data');
    await using server = await startStandalone({ data });
    await using load = await Load.start(server);
    await load.more(2_000);
    await untilRoomIsKept(data);
    await disk.fill();
    await load.stalled();
    expect(await refusal(load.client)).toEqual({
      code: 'DISK_FULL',
      message: expect.stringMatching(/^not stored on .* its disk is full: \S*\/bookie-0 has \d+ bytes free/) as string,
    });
    expect(await load.violations()).toEqual([]);
    expect(await metric(server, 'bookie_SERVER_STATUS')).toBe(0);
    await server.kill();
    await server.start();
    expect(await load.violations()).toEqual([]);
    expect((await refusal(load.client)).code).toBe('DISK_FULL');
    await disk.makeRoom();
    const from = performance.now();
    await load.more(2_000);
    expect(performance.now() - from).toBeLessThan(15_000);
    expect(await metric(server, 'bookie_SERVER_STATUS')).toBe(1);
    const ledgers = await metric(server, 'bookie_ledgers_count');
    expect(ledgers).toBeLessThan(40);
    expect(server.stderr).not.toMatch(/"level":"error"/);
    // Without any room a start says so; with some it finds everything.
    await server.kill();
    await Promise.all(
      ['metadata', 'bookie-0'].map(async (name) => await rm(path.join(data, name, 'reserve'), { force: true })),
    );
    await disk.fill();
    await expect(server.start()).rejects.toThrow(
      /ended with 1 .*magnetar: the metadata folder \S* has no room for the store to be opened/,
    );
    await disk.makeRoom();
    await server.start();
    await load.stop();
    expect(await load.violations()).toEqual([]);
  });

  test('of the metadata alone: open topics go on, others are refused with the folder, and made when there is room', async () => {
    await using disk = await SmallDisk.create(64);
    const data = await temporaryFolder();
    try {
      await using made = await startStandalone({ data });
      await made.stop();
      // The metadata moves to a disk of its own.
      const own = path.join(disk.folder, 'metadata');
      await cp(path.join(data, 'metadata'), own, { recursive: true });
      await rm(path.join(data, 'metadata'), { recursive: true });
      await symlink(own, path.join(data, 'metadata'));
      await using server = await startStandalone({ data });
      await using load = await Load.start(server);
      await load.more(1_000);
      await until('room is kept', async () => (await sizeOf(path.join(own, 'reserve'))) >= 16_777_216);
      await disk.fill();
      await using impatient = connect(server, 1_500);
      let refused = await refusal(impatient, 'new-0');
      // It lives on what it has kept, until that is used up, too.
      for (let n = 1; refused.code === 'none'; n++) {
        await disk.fill();
        refused = await refusal(impatient, `new-${n}`);
      }
      expect(refused.code).toBe('DISK_FULL');
      expect(refused.message).toMatch(/the metadata store cannot write because its disk is full: \S*\/metadata needs/);
      await load.more(500);
      expect(await load.violations()).toEqual([]);
      await disk.makeRoom();
      await until('a topic is made', async () => (await refusal(impatient, 'new')).code === 'none');
      await load.more(500);
      await server.kill();
      await server.start();
      await load.stop();
      expect(await load.violations()).toEqual([]);
    } finally {
      await rm(data, { recursive: true });
    }
  });

  test('of one bookie of three: nobody notices; of two: publishing waits, and goes on', async () => {
    await using disks = await SmallDisk.create(DISK_MEGABYTES);
    await using more = await SmallDisk.create(DISK_MEGABYTES);
    const [first, second] = [path.join(disks.folder, 'b'), path.join(more.folder, 'b')];
    await Promise.all([mkdir(first), mkdir(second)]);
    await using b0 = await startBookie({ data: first });
    await using b1 = await startBookie({ data: second });
    await using b2 = await startBookie();
    const args = [b0, b1, b2].flatMap(({ port }) => ['--bookie', `127.0.0.1:${port}`]);
    await using server = await startStandalone({ args });
    await using load = await Load.start(server);
    await load.more(1_000);
    await disks.fill(1_000_000);
    await load.more(5_000);
    await more.fill(1_000_000);
    await load.stalled();
    expect((await refusal(load.client)).message).toContain(`/b/bookie-0 has `);
    expect(await load.violations()).toEqual([]);
    await more.makeRoom();
    await load.more(2_000);
    await disks.makeRoom();
    await b2.kill(); // from here on the first one counts
    await load.more(2_000);
    await load.stop();
    expect(await load.violations()).toEqual([]);
  });
});

describe.concurrent('a disk that fails', () => {
  test.each([
    [
      'a sync of a segment',
      { calls: 'sync', pattern: '/segments/', after: 5, fate: 'EIO' },
      /\/bookie-0\/segments\/\d+\.seg/,
    ],
    [
      'a write of a segment',
      { calls: 'write', pattern: '/segments/', after: 5, fate: 'EIO' },
      /\/bookie-0\/segments\/\d+\.seg/,
    ],
    [
      'a sync of the metadata',
      { calls: 'sync', pattern: '/metadata/level', fate: 'EIO' },
      /\/metadata\/level\/\d+\.log/,
    ],
  ] as const)(
    '%s ends the process with one line that names the file; nothing acknowledged is lost',
    async (_, fault, file) => {
      await using shim = await DiskShim.create();
      await using server = await startStandalone({ env: shim.env });
      await using load = await Load.start(server);
      await load.more(1_000);
      const exit = server.exited();
      await shim.set(fault);
      const attempts = setInterval(() => void refusal(load.client, `other-${performance.now()}`).catch(() => {}), 300);
      expect(await exit).toBe(1);
      clearInterval(attempts);
      expect((await shim.faults()).length).toBeGreaterThan(0);
      const errors = server.stderr.split('\n').filter((line) => line.includes('"level":"error"'));
      expect(errors).toEqual([expect.stringMatching(file)]);
      expect(errors[0]).toMatch(/ending at once: .*(EIO: i\/o error|Input\/output error)/);
      await shim.set();
      await server.start();
      await load.more(500);
      await load.stop();
      expect(await load.violations()).toEqual([]);
    },
  );

  test('a write that is torn for want of room is no damage after kill -9', async () => {
    await using shim = await DiskShim.create();
    await using server = await startStandalone({ env: shim.env });
    await using load = await Load.start(server);
    await load.more(1_000);
    await shim.set({ calls: 'write', pattern: '/segments/', after: 3, fate: 'torn' });
    await load.stalled();
    await server.kill();
    expect((await shim.faults()).length).toBeGreaterThan(1);
    await shim.set();
    await server.start();
    await load.more(500);
    await load.stop();
    expect(await load.violations()).toEqual([]);
    expect(server.stderr).not.toMatch(/damaged|limbo/);
  });
});
