/**
 * What administrators can ask of a broker. Names are as they write them; they are checked here.
 *
 * Lists of tenants, namespaces and topics are read from the metadata. Whatever concerns the inside of a topic opens it,
 * since its subscriptions live in its own log; one that nobody else uses is closed again after a while.
 */
import { MagnetarError } from '../lib/errors.ts';
import type { EntryId, LedgerId } from '../lib/ids.ts';
import {
  createNamespace,
  createTenant,
  deleteNamespace,
  deleteTenant,
  getNamespace,
  getTenant,
  listNamespaces,
  listTenants,
  listTopics,
  type TenantSettings,
  updateTenant,
} from '../metadata/namespaces.ts';
import type { MetadataStore } from '../metadata/store.ts';
import type { Clock } from '../runtime/clock.ts';
import type {
  Administration,
  AdminPosition,
  NamePages,
  PeekedMessage,
  TopicInternals,
  TopicStats,
} from '../wire/administration.ts';
import { decodeBlock, scanMessages } from '../wire/block.ts';
import type { Position } from '../wire/frames.ts';
import { parseTopicName, type TopicName } from './protocol/topic-name.ts';
import type { Target } from './topic/subscription-control.ts';
import type { Topic } from './topic/topic.ts';
import { topicInternals, topicStats } from './topic/topic-stats.ts';
import type { Topics } from './topic/topics.ts';

export interface AdministrationDependencies {
  readonly store: MetadataStore;
  readonly clock: Clock;
  /** The topics as they are now: others after the lease was lost. */
  readonly topics: () => Topics;
  readonly unready: () => MagnetarError | undefined;
  readonly cluster: string;
}

export class BrokerAdministration implements Administration {
  readonly #dependencies: AdministrationDependencies;

  constructor(dependencies: AdministrationDependencies) {
    this.#dependencies = dependencies;
  }

  get unready(): MagnetarError | undefined {
    return this.#dependencies.unready();
  }

  get clusters(): readonly string[] {
    return [this.#dependencies.cluster];
  }

  tenants(): NamePages {
    return this.#paced('', listTenants(this.#store));
  }

  async tenant(tenant: string): Promise<TenantSettings> {
    const { adminRoles, allowedClusters } = await getTenant(this.#store, tenant);
    return { adminRoles, allowedClusters: allowedClusters.length > 0 ? allowedClusters : this.clusters };
  }

  async createTenant(tenant: string, settings: TenantSettings): Promise<void> {
    this.#checkClusters(settings.allowedClusters);
    await createTenant(this.#store, tenant, this.#dependencies.clock.now(), settings);
  }

  async updateTenant(tenant: string, settings: TenantSettings): Promise<void> {
    this.#checkClusters(settings.allowedClusters);
    await updateTenant(this.#store, tenant, settings);
  }

  async deleteTenant(tenant: string, force: boolean): Promise<void> {
    if (force) {
      await getTenant(this.#store, tenant);
      for await (const page of listNamespaces(this.#store, tenant)) {
        for (const namespace of page) await this.deleteNamespace(tenant, namespace, true);
      }
    }
    await deleteTenant(this.#store, tenant);
  }

  async namespaces(tenant: string): Promise<NamePages> {
    await getTenant(this.#store, tenant);
    return this.#paced('', listNamespaces(this.#store, tenant));
  }

  async namespace(tenant: string, namespace: string): Promise<{ readonly deleting: boolean }> {
    return await getNamespace(this.#store, tenant, namespace);
  }

  async createNamespace(tenant: string, namespace: string, clusters: readonly string[]): Promise<void> {
    this.#checkClusters(clusters);
    await createNamespace(this.#store, tenant, namespace, this.#dependencies.clock.now());
  }

  async deleteNamespace(tenant: string, namespace: string, force: boolean): Promise<void> {
    const clear = async (): Promise<void> => {
      for await (const page of listTopics(this.#store, tenant, namespace)) {
        for (const local of page) await this.#clear(parseTopicName(`${tenant}/${namespace}/${local}`));
      }
    };
    await deleteNamespace(this.#store, tenant, namespace, force ? clear : undefined);
  }

  async topics(tenant: string, namespace: string): Promise<NamePages> {
    await getNamespace(this.#store, tenant, namespace);
    return this.#paced(`persistent://${tenant}/${namespace}/`, listTopics(this.#store, tenant, namespace));
  }

  async createTopic(topic: string): Promise<void> {
    await this.#topics.create(parseTopicName(topic));
  }

  async deleteTopic(topic: string, force: boolean): Promise<void> {
    await this.#topics.delete(parseTopicName(topic), force);
  }

  async unloadTopic(topic: string): Promise<void> {
    await this.#topics.unload(parseTopicName(topic));
  }

  async topicStats(topic: string): Promise<TopicStats> {
    return await topicStats(await this.#open(topic), this.#dependencies.clock);
  }

  async topicInternals(topic: string): Promise<TopicInternals> {
    return await topicInternals(await this.#open(topic), this.#dependencies.clock);
  }

  async subscriptions(topic: string): Promise<readonly string[]> {
    return (await this.#open(topic)).control.names;
  }

  async createSubscription(topic: string, subscription: string, position: AdminPosition): Promise<void> {
    const opened = await this.#topics.open(parseTopicName(topic));
    await opened.control.create(subscription, targetOf(position));
  }

  async deleteSubscription(topic: string, subscription: string, force: boolean): Promise<void> {
    await (await this.#open(topic)).control.delete(subscription, force);
  }

  async skipMessages(topic: string, subscription: string, messages: number): Promise<void> {
    await (await this.#open(topic)).control.skip(subscription, messages);
  }

  async resetCursor(topic: string, subscription: string, position: AdminPosition): Promise<void> {
    await (await this.#open(topic)).control.move(subscription, targetOf(position));
  }

  async peekMessage(topic: string, subscription: string, nth: number): Promise<PeekedMessage> {
    const { entry, at } = await (await this.#open(topic)).control.peek(subscription, nth);
    const { ledgerId, entryId, index, block } = entry;
    const fields = decodeBlock(block);
    const { producerName, publishTime } = fields;
    const messages = scanMessages(fields);
    return {
      ledgerId,
      entryId,
      batchIndex: at,
      index: index + at,
      producerName,
      key: messages.key(at),
      properties: messages.properties(at),
      publishTime,
      payload: messages.payload(at),
    };
  }

  get #store(): MetadataStore {
    return this.#dependencies.store;
  }

  get #topics(): Topics {
    return this.#dependencies.topics();
  }

  async #open(topic: string): Promise<Topic> {
    return await this.#topics.openExisting(parseTopicName(topic));
  }

  /** Deletes a topic that somebody else may delete at the same time. */
  async #clear(topic: TopicName): Promise<void> {
    try {
      await this.#topics.delete(topic, true);
    } catch (error) {
      if (!(error instanceof MagnetarError && error.code === 'TOPIC_NOT_FOUND')) throw error;
    }
  }

  /** Puts a prefix before the names; others have their turn between two pages, however fast the store is. */
  async *#paced(prefix: string, pages: NamePages): AsyncGenerator<readonly string[], void, undefined> {
    for await (const page of pages) {
      yield page.map((name) => prefix + name);
      await new Promise<void>((resolve) => this.#dependencies.clock.nextTurn(resolve));
    }
  }

  #checkClusters(clusters: readonly string[]): void {
    const unknown = clusters.find((cluster) => !this.clusters.includes(cluster));
    if (unknown === undefined) return;
    const text = `cluster ${JSON.stringify(unknown)} does not exist; there is ${this.clusters.join(', ')}`;
    throw new MagnetarError('INVALID_ARGUMENT', text);
  }
}

function targetOf(position: AdminPosition): Target {
  if (position.at === 'time') return { at: 'time', time: position.time };
  if (position.at !== 'message') return { at: position.at };
  const { ledgerId, entryId, batchIndex = 0, excluded } = position;
  const id = { ledgerId: ledgerId as LedgerId, entryId: entryId as EntryId, batchIndex };
  const message: Position = { at: 'messageId', id };
  return excluded ? { at: 'behind', position: message, wholeEntry: position.batchIndex === undefined } : message;
}
