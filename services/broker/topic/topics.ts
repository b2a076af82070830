/** The topics that are open in this broker. A topic is opened when somebody needs it, and closed when nobody does. */
import { MagnetarError } from '../../lib/errors.ts';
import { requireNamespace } from '../../metadata/namespaces.ts';
import type { Timer } from '../../runtime/clock.ts';
import type { TopicName } from '../protocol/topic-name.ts';
import { openTopic, type Topic, type TopicDependencies } from './topic.ts';

interface Slot {
  readonly opening: Promise<Topic>;
  topic: Topic | undefined;
  /** Monotonic time of the last use. */
  usedAt: number;
  /** Set while it is being closed; the next opening waits for it. */
  closing: Promise<void> | undefined;
}

export class Topics {
  readonly #dependencies: TopicDependencies;
  readonly #slots: Map<string, Slot> = new Map();
  #sweep: Timer | undefined;
  #closed = false;

  constructor(dependencies: TopicDependencies) {
    this.#dependencies = dependencies;
    this.#scheduleSweep();
  }

  /** Topics that are open or being opened. */
  get size(): number {
    return this.#slots.size;
  }

  /**
   * The topic, opened when it is not open yet.
   * @throws TENANT_NOT_FOUND, NAMESPACE_NOT_FOUND; DEADLINE_EXCEEDED; whatever opening throws.
   */
  async open(name: TopicName): Promise<Topic> {
    for (;;) {
      if (this.#closed) throw new MagnetarError('UNAVAILABLE', 'the broker is stopping');
      const slot = this.#slots.get(name.full);
      if (slot?.closing === undefined) return this.#use(slot ?? this.#start(name), name);
      await slot.closing;
    }
  }

  /** Those that are open. May be walked through over several turns. */
  *[Symbol.iterator](): Generator<Topic> {
    for (const { topic } of this.#slots.values()) if (topic !== undefined) yield topic;
  }

  /** Ends every topic at once, as when the ownership is lost. */
  failAll(error: MagnetarError): void {
    for (const slot of this.#slots.values()) slot.topic?.fail(error);
  }

  /** Closes every topic, side by side. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#sweep?.cancel();
    await Promise.all([...this.#slots].map(async ([key, slot]) => this.#close(key, slot)));
  }

  async #use(slot: Slot, name: TopicName): Promise<Topic> {
    const { environment, options } = this.#dependencies;
    slot.usedAt = environment.clock.monotonic();
    if (slot.topic !== undefined) return slot.topic;
    return this.#within(slot.opening, options.topicOpenMs, `opening topic ${name.full}`);
  }

  #start(name: TopicName): Slot {
    const key = name.full;
    const slot: Slot = { opening: this.#open(name), topic: undefined, usedAt: 0, closing: undefined };
    this.#slots.set(key, slot);
    const forget = (): void => {
      if (this.#slots.get(key) === slot) this.#slots.delete(key);
    };
    slot.opening.then((topic) => {
      slot.topic = topic;
      topic.onGone(() => {
        // Whoever opens it next waits until this one has let go of its ledgers, as far as that is possible.
        if (slot.closing !== undefined) return;
        this.#dependencies.stats.topicsFailed++;
        void this.#close(key, slot);
      });
    }, forget);
    return slot;
  }

  async #open(name: TopicName): Promise<Topic> {
    const { environment, store, stats } = this.#dependencies;
    const startedAt = environment.clock.monotonic();
    try {
      await requireNamespace(store, name.tenant, name.namespace);
      const topic = await openTopic(this.#dependencies, name);
      stats.topicOpening.observe(environment.clock.monotonic() - startedAt);
      return topic;
    } catch (error) {
      stats.topicOpenFailures++;
      throw error;
    }
  }

  async #close(key: string, slot: Slot): Promise<void> {
    slot.closing ??= this.#closeSlot(key, slot);
    await slot.closing;
  }

  async #closeSlot(key: string, slot: Slot): Promise<void> {
    const { options, environment } = this.#dependencies;
    const what = `closing topic ${key}`;
    try {
      const topic = await this.#within(slot.opening, options.closeMs, what);
      await topic.close(async (work) => this.#within(work, options.closeMs, what));
    } catch (error) {
      environment.logger.warn('topic was not closed cleanly', { topic: key, error });
    }
    if (this.#slots.get(key) === slot) this.#slots.delete(key);
  }

  #scheduleSweep(): void {
    const { environment, options } = this.#dependencies;
    const sweep = (): void => {
      const before = environment.clock.monotonic() - options.idleTopicMs;
      for (const [key, slot] of this.#slots) {
        if (slot.topic === undefined || slot.closing !== undefined) continue;
        if (!slot.topic.idle) slot.usedAt = environment.clock.monotonic();
        else if (slot.usedAt <= before) void this.#close(key, slot);
      }
      if (!this.#closed) this.#scheduleSweep();
    };
    this.#sweep = environment.clock.after(options.idleTopicMs / 2, sweep, { unref: true });
  }

  /** What a promise resolves with, or DEADLINE_EXCEEDED. */
  async #within<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
    const { clock } = this.#dependencies.environment;
    let timer: Timer | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = new MagnetarError('DEADLINE_EXCEEDED', `${what} takes longer than ${ms} ms`);
      timer = clock.after(ms, () => reject(error));
    });
    try {
      return await Promise.race([work, late]);
    } finally {
      timer?.cancel();
    }
  }
}
