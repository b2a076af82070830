/**
 * A cluster in one thread: brokers and bookies as processes that can be killed at any moment, on a clock that only `turns` moves.
 * Everything that happens follows from the seed.
 *
 * Fault model: a bookie's machine loses power at any operation of its disk, keeping of what was not synced what chance decides;
 * a broker is killed, or goes on while another one has taken over. Requests and answers take their time, sometimes longer than
 * anybody waits, and are lost when either side dies. A metadata transaction may fail with UNAVAILABLE, with or without having happened. The wall
 * clock jumps.
 */
import { openBookie } from '../../bookie/bookie.ts';
import { MemoryIndex } from '../../bookie/testing/memory-index.ts';
import type { Topic } from '../../broker/topic/topic.ts';
import type {
  AppendEntry,
  Bookie,
  BookieId,
  LacResult,
  ReadEntries,
  ReadLac,
  StoredEntry,
} from '../../ledger/bookie.ts';
import { hasCode, MagnetarError } from '../../lib/errors.ts';
import { MemoryDatabase } from '../../metadata/memory.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Disk } from '../../runtime/disk.ts';
import type { Environment } from '../../runtime/environment.ts';
import { silentLogger } from '../../runtime/logger.ts';
import { nodeClock } from '../../runtime/node/clock.ts';
import type { Random } from '../../runtime/random.ts';
import { CrashDisk } from '../../runtime/testing/crash-disk.ts';
import { ManualClock } from '../../runtime/testing/manual-clock.ts';
import { seededRandom } from '../../runtime/testing/seeded-random.ts';

/** A message of a slow bookie takes up to so long. */
const SLOW_MS = 200;

/** What a world is made of; replaced to break a guarantee. */
export interface WorldOptions {
  readonly bookies: number;
  readonly newDisk?: () => CrashDisk;
  /** What stands between a bookie and the network. */
  readonly front?: (bookie: Bookie) => Bookie;
  /** Is shown every topic that a broker opens. */
  readonly opened?: (topic: Topic) => void;
}

/** One process, until it dies: after that none of its timers runs any more. */
export class Life {
  alive = true;
  readonly clock: Clock;
  readonly over: Promise<void>;
  #end: () => void = () => {};

  constructor(clock: Clock) {
    const living = (callback: () => void) => (): void => {
      if (this.alive) callback();
    };
    this.clock = {
      now: () => clock.now(),
      monotonic: () => clock.monotonic(),
      after: (ms, callback) => clock.after(ms, living(callback)),
      nextTurn: (callback) => clock.nextTurn(living(callback)),
    };
    this.over = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  end(): void {
    this.alive = false;
    this.#end();
  }
}

export class World {
  readonly clock: ManualClock = new ManualClock();
  readonly random: Random;
  readonly database: MemoryDatabase;
  readonly machines: readonly Machine[];
  readonly options: WorldOptions;
  readonly violations: string[] = [];
  /** False: what is under way may come to an end, undisturbed. */
  disturbed = true;
  powerCuts = 0;

  constructor(seed: number, options: WorldOptions) {
    this.random = seededRandom(seed);
    this.options = options;
    this.database = new MemoryDatabase({ clock: this.clock, random: this.random });
    this.machines = Array.from({ length: options.bookies }, (_, i) => new Machine(this, `b${i}`));
  }

  below(limit: number): number {
    return Math.floor(this.random.next() * limit);
  }

  chance(share: number): boolean {
    return this.disturbed && this.random.next() < share;
  }

  violation(text: string): void {
    this.violations.push(text);
  }

  /** Time passes, a millisecond a turn. */
  async turns(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      await settled();
      this.clock.turn();
      await settled();
      this.clock.advance(1);
    }
  }

  /** Lets time pass until something is so; false when it does not become so. */
  async until(holds: () => boolean, turns = 5_000): Promise<boolean> {
    for (let i = 0; i < turns; i++) {
      await settled();
      if (holds()) return true;
      await this.turns(1);
    }
    return false;
  }

  /** What a promise comes to, while time passes. @throws when it does not settle */
  async done<T>(promise: Promise<T>, what: string): Promise<T> {
    let over = false;
    const watch = promise.then(
      () => void (over = true),
      () => void (over = true),
    );
    if (!(await this.until(() => over))) throw new Error(`${what} does not come to an end`);
    await watch;
    return promise;
  }

  /** How long a message is on its way, in ms. */
  latency(): number {
    return [0, 0, 1, 3][this.below(4)] ?? 0;
  }
}

/** Everything that needs no time has happened. */
async function settled(): Promise<void> {
  await new Promise<void>((resolve) => nodeClock.nextTurn(resolve));
}

/** A machine's disk as a process sees it that may be dead. */
function diskOf(life: Life, disk: Disk): Disk {
  const living = (): Disk => {
    if (life.alive) return disk;
    throw new Error('the machine is down');
  };
  return {
    open: async (path, options) => living().open(path, options),
    readFile: async (path) => living().readFile(path),
    writeFileAtomically: async (path, content) => living().writeFileAtomically(path, content),
    list: async (folder) => living().list(folder),
    makeFolder: async (folder) => living().makeFolder(folder),
    rename: async (from, to) => living().rename(from, to),
    remove: async (path) => living().remove(path),
    syncFolder: async (folder) => living().syncFolder(folder),
    exists: async (path) => living().exists(path),
    space: async (folder) => living().space(folder),
  };
}

/** The host of one bookie: its disk, and the bookie while it runs. */
export class Machine {
  readonly id: BookieId;
  readonly #world: World;
  readonly #disk: CrashDisk;
  #index = new MemoryIndex();
  #life: Life | undefined;
  #bookie: Bookie | undefined;
  #slowUntil = 0;

  constructor(world: World, id: BookieId) {
    this.#world = world;
    this.id = id;
    this.#disk = world.options.newDisk?.() ?? new CrashDisk();
  }

  /** The bookie while it can be reached. */
  get bookie(): Bookie | undefined {
    return this.#life?.alive === true ? this.#bookie : undefined;
  }

  get life(): Life | undefined {
    return this.#life?.alive === true ? this.#life : undefined;
  }

  /** Starts the bookie, if it does not run. It may lose power while it starts. */
  async start(): Promise<void> {
    if (this.life !== undefined) return;
    const world = this.#world;
    const life = new Life(world.clock);
    this.#life = life;
    this.#bookie = undefined;
    if (world.chance(0.2)) this.#index = new MemoryIndex();
    if (world.chance(0.1)) this.powerCutAfter(world.below(40));
    const environment: Environment = {
      clock: life.clock,
      random: world.random,
      disk: diskOf(life, this.#disk),
      logger: silentLogger,
      fatal: () => {
        if (life.alive) this.powerCut();
      },
    };
    const opening = openBookie({
      environment,
      folder: '/bookie',
      id: this.id,
      options: { segmentBytes: 65_536, markDelayMs: 3 },
      openIndex: async () => await Promise.resolve(this.#index),
    });
    try {
      const bookie = await world.done(Promise.race([opening, life.over]), `the start of bookie ${this.id}`);
      if (bookie !== undefined && life.alive) this.#bookie = world.options.front?.(bookie) ?? bookie;
    } catch (error) {
      if (life.alive || hasCode(error, 'DATA_LOSS'))
        world.violation(`bookie ${this.id} does not start: ${String(error)}`);
      this.powerCut();
    }
  }

  /** What is on its way to it or from it takes longer than anybody waits, for so many ms. */
  slowFor(ms: number): void {
    this.#slowUntil = this.#world.clock.monotonic() + ms;
  }

  /** How long a message to it or from it is on its way, in ms. */
  latency(): number {
    const slow = this.#world.disturbed && this.#world.clock.monotonic() < this.#slowUntil;
    return this.#world.latency() + (slow ? this.#world.below(SLOW_MS) : 0);
  }

  /** The power fails with one of the next operations of the disk. */
  powerCutAfter(operations: number): void {
    let left = operations;
    this.#disk.before = () => {
      if (left-- > 0) return;
      this.powerCut();
      throw new Error('the machine is down');
    };
  }

  powerCut(): void {
    this.#disk.before = () => {};
    if (this.#life?.alive !== true) return;
    this.#world.powerCuts++;
    this.#life.end();
    this.#disk.crash(this.#world.random);
  }

  /** Ends the bookie in order. */
  async stop(): Promise<void> {
    this.#disk.before = () => {};
    const bookie = this.bookie;
    if (bookie === undefined) return;
    await this.#world.done(bookie.close(), `the close of bookie ${this.id}`);
    if (this.#disk.openFiles > 0) this.#world.violation(`bookie ${this.id} left ${this.#disk.openFiles} files open`);
    this.#life?.end();
  }
}

/** A bookie as a broker's process reaches it. What is under way when the bookie's process dies comes to an unknown end. */
export class RemoteBookie implements Bookie {
  readonly #machine: Machine;
  readonly #clock: Clock;

  /** `clock`: of the broker's process. */
  constructor(machine: Machine, clock: Clock) {
    this.#machine = machine;
    this.#clock = clock;
  }

  get id(): BookieId {
    return this.#machine.id;
  }

  get available(): boolean {
    return this.#machine.bookie?.available === true;
  }

  append(entry: AppendEntry, done: (error?: MagnetarError) => void): void {
    this.#call(
      async (bookie) =>
        new Promise<void>((resolve, reject) => {
          bookie.append(entry, (error) => (error === undefined ? resolve() : reject(error)));
        }),
    ).then(
      () => done(),
      (error: unknown) => done(error as MagnetarError),
    );
  }

  async read(request: ReadEntries): Promise<readonly StoredEntry[]> {
    return this.#call(async (bookie) => bookie.read(request));
  }

  async readLac(request: ReadLac): Promise<LacResult> {
    return this.#call(async (bookie) => bookie.readLac(request));
  }

  async #call<T>(call: (bookie: Bookie) => Promise<T>): Promise<T> {
    const { life } = this.#machine;
    const lost = async (): Promise<never> => {
      await life?.over;
      await this.#wait();
      throw new MagnetarError('UNAVAILABLE', `the connection to bookie ${this.id} is lost`);
    };
    const carriedOut = async (): Promise<T> => {
      await this.#wait();
      const { bookie } = this.#machine;
      if (bookie === undefined || this.#machine.life !== life) return lost();
      const result = await call(bookie);
      await this.#wait();
      return result;
    };
    return Promise.race([carriedOut(), lost()]);
  }

  async #wait(): Promise<void> {
    await new Promise<void>((resolve) => this.#clock.after(this.#machine.latency(), resolve));
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }
}
