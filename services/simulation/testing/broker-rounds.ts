/** Random lives of a topic: clients at work while brokers and bookies come and go; then quiet, and everything is looked at. */
import type { LogEntry } from '../../broker/topic/log-entry.ts';
import { newCursor } from '../../broker/topic/log-reader.ts';
import { endOf } from '../../broker/topic/log-entry.ts';
import { BrokerProcess } from './broker-process.ts';
import { ConsumerClient, ProducerClient } from './clients.ts';
import { type Counts, History, SubscriptionModel } from './history.ts';
import { World, type WorldOptions } from './world.ts';

const STEPS = 240;
/** How often something is disturbed: by turns, so that some lives get far and others are hard. */
const TROUBLE = [0.02, 0.05, 0.1, 0.2] as const;
const PRODUCERS = ['p', 'q', 'r'];
const SUBSCRIPTIONS = ['s', 't'];

/** What became of a run. */
export interface Report extends Counts {
  /** What should not be: one line each. */
  readonly violations: readonly string[];
  readonly powerCuts: number;
  readonly takeovers: number;
  /** Ledgers of the topic's data. */
  readonly ledgers: number;
}

class BrokerRounds {
  readonly #world: World;
  readonly #history: History;
  readonly #producers: readonly ProducerClient[];
  readonly #models: readonly SubscriptionModel[];
  readonly #consumers: readonly ConsumerClient[];
  readonly #trouble: number;
  #broker: BrokerProcess | undefined;
  /** Was replaced and does not know it yet. */
  #replaced: BrokerProcess | undefined;
  #takeovers = 0;
  #ledgers = 0;

  constructor(seed: number, options: WorldOptions) {
    const world = new World(seed, options);
    this.#world = world;
    this.#trouble = TROUBLE[seed % TROUBLE.length] ?? 0;
    this.#history = new History((text) => world.violation(text));
    this.#producers = PRODUCERS.map((name) => new ProducerClient(world, this.#history, name));
    this.#models = SUBSCRIPTIONS.map((name) => new SubscriptionModel(name));
    this.#consumers = this.#models.map((model) => new ConsumerClient(world, this.#history, model));
  }

  async run(): Promise<Report> {
    try {
      for (let step = 0; step < STEPS; step++) {
        await this.#step();
        await this.#world.turns(this.#world.below(6));
      }
      await this.#finish();
    } catch (error) {
      this.#world.violation(error instanceof Error ? error.message : String(error));
    }
    const { violations, powerCuts } = this.#world;
    const [takeovers, ledgers] = [this.#takeovers, this.#ledgers];
    return { ...this.#history.counts, violations, powerCuts, takeovers, ledgers };
  }

  #pick<T>(some: readonly T[]): T {
    return some[this.#world.below(some.length)] as T;
  }

  async #step(): Promise<void> {
    await this.#repair(0.4);
    const world = this.#world;
    const dice = world.below(100);
    if (world.random.next() < this.#trouble) await this.#disturb(dice);
    else if (dice < 50) this.#pick(this.#producers).send();
    else if (dice < 88) this.#pick(this.#consumers).ack();
    else if (dice < 91) this.#pick(this.#consumers).seek();
    else if (dice < 92) this.#pick(this.#consumers).unsubscribe();
    else if (dice < 94) this.#pick(this.#producers).cut();
    else if (dice < 97) this.#pick(this.#consumers).cut();
    else await world.turns(world.below(60));
  }

  async #disturb(dice: number): Promise<void> {
    const world = this.#world;
    const machine = this.#pick(world.machines);
    if (dice < 30) machine.powerCutAfter(world.below(30));
    else if (dice < 40) machine.powerCut();
    else if (dice < 45) await machine.stop();
    else if (dice < 55) this.#broker?.kill();
    else if (dice < 65) await this.#broker?.stop();
    else if (dice < 75) await this.#takeOver();
    else if (dice < 82) await this.#idle();
    else if (dice < 88) world.clock.jump(world.below(200_000) - 100_000);
    else if (dice < 94) machine.slowFor(world.below(400));
    else await world.turns(world.below(250));
  }

  /** Nobody is connected for so long that the topic is closed. */
  async #idle(): Promise<void> {
    for (const client of [...this.#producers, ...this.#consumers]) client.cut();
    await this.#world.turns(150);
  }

  /** Another broker takes the topic over; the one that had it, and those of its clients that stay, do not know yet. */
  async #takeOver(): Promise<void> {
    const clients = [...this.#producers, ...this.#consumers];
    const work = (): void => {
      for (const producer of this.#producers) producer.send();
      for (const consumer of this.#consumers) consumer.ack();
    };
    this.#replaced?.kill();
    this.#replaced = this.#broker;
    work();
    this.#broker = await BrokerProcess.start(this.#world);
    this.#takeovers++;
    for (const client of clients) if (this.#world.chance(0.4)) client.cut();
    await this.#repair(0.8);
    for (let i = 0; i < 6; i++) {
      work();
      await this.#world.turns(this.#world.below(4));
    }
  }

  /** Starts what is down, and connects who is not connected: each with this chance. */
  async #repair(share: number): Promise<void> {
    const world = this.#world;
    const happens = (): boolean => world.random.next() < share;
    for (const machine of world.machines) if (machine.bookie === undefined && happens()) await machine.start();
    if (this.#broker?.alive !== true && happens()) this.#broker = await BrokerProcess.start(world);
    const broker = this.#broker;
    if (broker?.alive !== true) return;
    for (const client of [...this.#producers, ...this.#consumers]) if (happens()) client.connect(broker);
  }

  /** Heals everything: what was confirmed is there, and what was not confirmed gets confirmed. */
  async #finish(): Promise<void> {
    const world = this.#world;
    world.disturbed = false;
    for (const machine of world.machines) machine.powerCutAfter(Number.MAX_SAFE_INTEGER);
    this.#replaced?.kill();
    const goOn = async (holds: () => boolean): Promise<boolean> => {
      for (let i = 0; i < 60; i++) {
        await this.#repair(1);
        if (await world.until(holds, 50)) return true;
      }
      return false;
    };
    if (!(await goOn(() => this.#producers.every((producer) => producer.idle)))) {
      world.violation(`stuck: ${this.#producers.map((producer) => producer.state).join('; ')}`);
      return;
    }
    if (!(await goOn(() => this.#consumers.every(({ underWay }) => underWay === 0)))) {
      world.violation(
        `stuck: ${this.#consumers.map(({ underWay }) => underWay).join(', ')} requests of consumers are not answered`,
      );
      return;
    }
    const log = await world.done(this.#readAll(), 'reading everything');
    this.#history.check(log);
    this.#ledgers = new Set(log.map(({ ledgerId }) => ledgerId)).size;
    const end = log.at(-1) === undefined ? 0 : endOf(log.at(-1) as LogEntry);
    for (const consumer of this.#consumers) consumer.cut();
    const complete = (): boolean => this.#models.every((model, i) => this.#missing(model, i, end).length === 0);
    if (!(await goOn(complete))) {
      for (const [i, model] of this.#models.entries()) {
        const missing = this.#missing(model, i, end);
        if (missing.length > 0) world.violation(`subscription ${model.name} does not get ${missing.join(', ')}`);
      }
    }
    await this.#broker?.stop();
    for (const machine of world.machines) await machine.stop();
  }

  #missing(model: SubscriptionModel, at: number, end: number): number[] {
    const got = new Set(this.#consumers[at]?.got);
    const missing: number[] = [];
    for (let index = 0; index < end; index++) if (!model.tried.has(index) && !got.has(index)) missing.push(index);
    return missing;
  }

  async #readAll(): Promise<LogEntry[]> {
    const { reader } = (await this.#broker?.topic()) ?? {};
    if (reader === undefined) throw new Error('there is no broker');
    const log: LogEntry[] = [];
    const cursor = newCursor();
    for (let next = reader.oldestIndex; next < reader.endIndex; ) {
      const entries = await reader.read(next, { maxEntries: 10, maxBytes: 10_000 }, cursor);
      for (const item of entries) {
        if (item.lost === true) throw new Error(`lost: ${item.reason}`);
        log.push(item);
      }
      next = endOf(log.at(-1) as LogEntry);
    }
    return log;
  }
}

/** Runs one life of a cluster. The seed decides everything. */
export async function brokerRounds(seed: number, options: WorldOptions): Promise<Report> {
  return new BrokerRounds(seed, options).run();
}
