/** The topics that are open in this broker. A topic is opened when somebody needs it, and closed when nobody does. */
import { hasCode, MagnetarError } from '../../lib/errors.ts';
import { requireNamespace } from '../../metadata/namespaces.ts';
import type { Timer } from '../../runtime/clock.ts';
import { withDeadline } from '../../runtime/deadline.ts';
import type { TopicName } from '../protocol/topic-name.ts';
import { openTopic, type Topic, type TopicDependencies } from './topic.ts';
import {
  type DeletionDependencies,
  deleteTopicRecord,
  deletingKey,
  finishDeletion,
  finishDeletions,
  topicKey,
  topicNotFound,
} from './topic-deletion.ts';
import { createTopicRecord } from './topic-record.ts';

/** What opening a topic takes: what was stored last is read once more, a piece at a time. */
const OPENING_BYTES: number = 4_194_304;

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
  readonly #deletion: DeletionDependencies;
  readonly #slots: Map<string, Slot> = new Map();
  /** Deletions that are under way: whoever opens the topic waits. */
  readonly #deleting: Map<string, Promise<void>> = new Map();
  /** Deletions that are over. */
  #deletions = 0;
  readonly #cleaning: Promise<void>;
  #sweep: Timer | undefined;
  #closed = false;
  readonly #stopping = new AbortController();

  constructor(dependencies: TopicDependencies) {
    this.#dependencies = dependencies;
    const { environment, store, ledgers, ownership } = dependencies;
    this.#deletion = { store, ledgers, ownership, clock: environment.clock };
    this.#cleaning = this.#clean();
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
      this.#checkOpen();
      const deleting = this.#deleting.get(name.full);
      const slot = this.#slots.get(name.full);
      if (deleting !== undefined) await deleting.catch(() => undefined);
      else if (slot?.closing === undefined) return this.#use(slot ?? this.#start(name), name);
      else await slot.closing;
    }
  }

  /** Those that are open. May be walked through over several turns. */
  *[Symbol.iterator](): Generator<Topic> {
    for (const { topic } of this.#slots.values()) if (topic !== undefined) yield topic;
  }

  /** The topic, opened, if it exists; it is not made. @throws TOPIC_NOT_FOUND, and what `open` throws */
  async openExisting(name: TopicName): Promise<Topic> {
    for (;;) {
      await this.#deleting.get(name.full)?.catch(() => undefined);
      const before = this.#deletions;
      const slot = this.#slots.get(name.full);
      const known = slot !== undefined && slot.closing === undefined;
      if (!known && !(await this.exists(name))) throw topicNotFound(name);
      if (before === this.#deletions && !this.#deleting.has(name.full)) return this.open(name);
    }
  }

  /** @throws what the metadata store throws */
  async exists(name: TopicName): Promise<boolean> {
    return (await this.#dependencies.store.get([topicKey(name)])).items[0] !== undefined;
  }

  /** Makes a topic, and does not open it. @throws ALREADY_EXISTS; what `open` throws */
  async create(name: TopicName): Promise<void> {
    this.#checkOpen();
    await this.#deleting.get(name.full)?.catch(() => undefined);
    const { store, options } = this.#dependencies;
    const namespace = await requireNamespace(store, name.tenant, name.namespace);
    const { maxListedLedgers } = options.ledger;
    if (await createTopicRecord({ ...this.#deletion, name, maxListedLedgers, namespace })) return;
    throw new MagnetarError('ALREADY_EXISTS', `topic ${name.full} exists already`);
  }

  /**
   * Deletes a topic, open or not. Whoever is connected is told TOPIC_NOT_FOUND. Whoever opens it meanwhile waits, and then
   * makes another one.
   *
   * @throws TOPIC_NOT_FOUND; TOPIC_BUSY when somebody is connected and it is not forced; NOT_OWNER; UNAVAILABLE and
   * DEADLINE_EXCEEDED when it is unknown whether it happened
   */
  async delete(name: TopicName, force: boolean): Promise<void> {
    const key = name.full;
    for (let other = this.#deleting.get(key); other !== undefined; other = this.#deleting.get(key)) {
      await other.catch(() => undefined);
    }
    this.#checkOpen();
    const deletion = this.#delete(name, force);
    this.#deleting.set(key, deletion);
    try {
      await deletion;
    } finally {
      this.#deleting.delete(key);
      this.#deletions++;
    }
    await this.#clean(deletingKey(name));
  }

  /** Closes a topic, so that it is opened anew when somebody needs it. @throws TOPIC_NOT_FOUND */
  async unload(name: TopicName): Promise<void> {
    const slot = this.#slots.get(name.full);
    if (slot !== undefined) await this.#close(name.full, slot);
    else if (!(await this.exists(name))) throw topicNotFound(name);
  }

  /** Ends every topic at once, as when the ownership is lost. */
  failAll(error: MagnetarError): void {
    for (const slot of this.#slots.values()) slot.topic?.fail(error);
  }

  /** Closes every topic, side by side. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#stopping.abort(new MagnetarError('UNAVAILABLE', 'the broker is stopping'));
    this.#sweep?.cancel();
    await Promise.allSettled([this.#cleaning, ...this.#deleting.values()]);
    await Promise.all([...this.#slots].map(async ([key, slot]) => this.#close(key, slot)));
  }

  #checkOpen(): void {
    if (this.#closed) throw new MagnetarError('UNAVAILABLE', 'the broker is stopping');
  }

  async #delete(name: TopicName, force: boolean): Promise<void> {
    const { options } = this.#dependencies;
    await this.#slots.get(name.full)?.closing;
    const opening = this.#slots.get(name.full)?.opening;
    // One that cannot be opened, or not soon, can be deleted nevertheless.
    const what = `opening topic ${name.full}`;
    const topic = opening && (await this.#within(opening, options.closeMs, what).catch(() => undefined));
    if (topic !== undefined && topic.failure === undefined) {
      if (topic.inUse && !force) throw busy(topic);
      await topic.delete();
      return;
    }
    await deleteTopicRecord(this.#deletion, name);
    opening?.then(
      (late) => late.fail(topicNotFound(name, 'was deleted')),
      () => undefined,
    );
  }

  /** Ends deletions that are left half done: of this key, or all. What goes wrong is left to the next owner. Never rejects. */
  async #clean(key?: string): Promise<void> {
    try {
      if (key === undefined) await finishDeletions(this.#deletion, () => this.#closed);
      else await finishDeletion(this.#deletion, key);
    } catch (error) {
      this.#dependencies.environment.logger.warn('ledgers of a deleted topic are left for later', { key, error });
    }
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
      if (this.#slots.get(key) !== slot) {
        void this.#refuseLate(key, topic, slot);
        return;
      }
      slot.topic = topic;
      topic.onGone(() => {
        // Whoever opens it next waits until this one has let go of its ledgers, as far as that is possible.
        if (slot.closing !== undefined) return;
        if (!hasCode(topic.failure, 'TOPIC_NOT_FOUND')) this.#dependencies.stats.topicsFailed++;
        void this.#close(key, slot);
      });
    }, forget);
    return slot;
  }

  /**
   * A topic that came when its slot had been given up: another one may be open by now, of the same record. Whoever waited for this
   * one opens it again. Never rejects.
   */
  async #refuseLate(key: string, topic: Topic, { opening }: Slot): Promise<void> {
    topic.fail(new MagnetarError('NOT_OWNER', `topic ${key} was closed while it was being opened; open it again`));
    await this.#closeTopic(key, opening);
  }

  /** As many at a time as there is memory for. */
  async #open(name: TopicName): Promise<Topic> {
    const { environment, store, stats, recovery } = this.#dependencies;
    const startedAt = environment.clock.monotonic();
    const bytes = Math.min(OPENING_BYTES, recovery.mostBytes);
    let taken = 0;
    try {
      const namespace = await requireNamespace(store, name.tenant, name.namespace);
      await recovery.take(bytes, this.#stopping.signal);
      taken = bytes;
      const topic = await openTopic(this.#dependencies, name, namespace);
      stats.topicOpening.observe(environment.clock.monotonic() - startedAt);
      return topic;
    } catch (error) {
      stats.topicOpenFailures++;
      throw error;
    } finally {
      recovery.give(taken);
    }
  }

  async #close(key: string, slot: Slot): Promise<void> {
    slot.closing ??= this.#closeSlot(key, slot);
    await slot.closing;
  }

  async #closeSlot(key: string, slot: Slot): Promise<void> {
    await this.#closeTopic(key, slot.opening);
    if (this.#slots.get(key) === slot) this.#slots.delete(key);
  }

  /** Closes a topic once it is open, as far as that is possible in time. Never rejects. */
  async #closeTopic(key: string, opening: Promise<Topic>): Promise<void> {
    const { options, environment } = this.#dependencies;
    const what = `closing topic ${key}`;
    try {
      const topic = await this.#within(opening, options.closeMs, what);
      await topic.close(async (work) => this.#within(work, options.closeMs, what));
    } catch (error) {
      environment.logger.warn('topic was not closed cleanly', { topic: key, error });
    }
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
    const late = (): Error => new MagnetarError('DEADLINE_EXCEEDED', `${what} takes longer than ${ms} ms`);
    return await withDeadline(this.#dependencies.environment.clock, ms, work, late);
  }
}

function busy(topic: Topic): MagnetarError {
  const who = `${topic.publisher.size} producers and ${topic.consumers.size} consumers`;
  return new MagnetarError('TOPIC_BUSY', `topic ${topic.name.full} has ${who} connected; close them, or force it`);
}
