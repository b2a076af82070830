/** A broker's administration in memory, for tests of the routes. */
import { MagnetarError } from '../../lib/errors.ts';
import type {
  AdminPosition,
  Administration,
  FlowStats,
  PeekedMessage,
  TopicInternals,
  TopicStats,
} from '../../wire/administration.ts';

const NOTHING: FlowStats = { messages: 0, bytes: 0, messageRate: 0, byteRate: 0 };

interface FakeTopic {
  readonly subscriptions: Map<string, AdminPosition>;
  busy: boolean;
}

async function* paged(names: readonly string[]): AsyncGenerator<readonly string[], void, undefined> {
  for (let at = 0; at < names.length; at += 2) yield await Promise.resolve(names.slice(at, at + 2));
}

export class FakeAdministration implements Administration {
  unready: MagnetarError | undefined;
  readonly clusters: readonly string[] = ['standalone'];
  /** What was asked for, with its arguments. */
  readonly calls: unknown[][] = [];
  /** Thrown by every call. */
  failure: Error | undefined;
  readonly #tenants = new Map<string, { adminRoles: readonly string[]; allowedClusters: readonly string[] }>();
  readonly #namespaces = new Map<string, string[]>();
  readonly topicsByName: Map<string, FakeTopic> = new Map();

  #call(...call: unknown[]): void {
    this.calls.push(call);
    if (this.failure !== undefined) throw this.failure;
  }

  tenants(): AsyncIterable<readonly string[]> {
    this.#call('tenants');
    return paged([...this.#tenants.keys()].toSorted());
  }

  async tenant(tenant: string): Promise<{ adminRoles: readonly string[]; allowedClusters: readonly string[] }> {
    this.#call('tenant', tenant);
    const found = this.#tenants.get(tenant);
    if (found === undefined) throw new MagnetarError('TENANT_NOT_FOUND', `tenant "${tenant}" does not exist`);
    return await Promise.resolve(found);
  }

  async createTenant(...[tenant, settings]: Parameters<Administration['createTenant']>): Promise<void> {
    this.#call('createTenant', tenant, settings);
    if (/[ /]/.test(tenant)) throw new MagnetarError('INVALID_ARGUMENT', `tenant name "${tenant}" is not allowed`);
    const unknown = settings.allowedClusters.find((cluster) => !this.clusters.includes(cluster));
    if (unknown !== undefined) throw new MagnetarError('INVALID_ARGUMENT', `cluster "${unknown}" does not exist`);
    if (this.#tenants.has(tenant)) throw new MagnetarError('ALREADY_EXISTS', `tenant "${tenant}" exists already`);
    this.#tenants.set(tenant, settings);
    await Promise.resolve();
  }

  async updateTenant(...[tenant, settings]: Parameters<Administration['updateTenant']>): Promise<void> {
    await this.tenant(tenant);
    this.#tenants.set(tenant, settings);
  }

  async deleteTenant(tenant: string, force: boolean): Promise<void> {
    this.#call('deleteTenant', tenant, force);
    await this.tenant(tenant);
    const own = [...this.#namespaces.keys()].filter((name) => name.startsWith(`${tenant}/`));
    if (own.length > 0 && !force) throw new MagnetarError('NOT_EMPTY', `tenant "${tenant}" has namespaces`);
    for (const name of own) this.#namespaces.delete(name);
    this.#tenants.delete(tenant);
  }

  async namespaces(tenant: string): Promise<AsyncIterable<readonly string[]>> {
    await this.tenant(tenant);
    const prefix = `${tenant}/`;
    const own = [...this.#namespaces.keys()].filter((name) => name.startsWith(prefix));
    return paged(own.map((name) => name.slice(prefix.length)));
  }

  async namespace(tenant: string, namespace: string): Promise<{ deleting: boolean }> {
    await this.tenant(tenant);
    if (this.#namespaces.has(`${tenant}/${namespace}`)) return { deleting: false };
    throw new MagnetarError('NAMESPACE_NOT_FOUND', `namespace "${tenant}/${namespace}" does not exist`);
  }

  async createNamespace(
    ...[tenant, namespace, clusters]: Parameters<Administration['createNamespace']>
  ): Promise<void> {
    this.#call('createNamespace', tenant, namespace, clusters);
    await this.tenant(tenant);
    const name = `${tenant}/${namespace}`;
    if (this.#namespaces.has(name)) throw new MagnetarError('ALREADY_EXISTS', `namespace "${name}" exists already`);
    this.#namespaces.set(name, []);
  }

  async deleteNamespace(tenant: string, namespace: string, force: boolean): Promise<void> {
    await this.namespace(tenant, namespace);
    const prefix = `persistent://${tenant}/${namespace}/`;
    const own = [...this.topicsByName.keys()].filter((name) => name.startsWith(prefix));
    if (own.length > 0 && !force) throw new MagnetarError('NOT_EMPTY', `namespace "${tenant}/${namespace}" has topics`);
    for (const name of own) this.topicsByName.delete(name);
    this.#namespaces.delete(`${tenant}/${namespace}`);
  }

  async topics(tenant: string, namespace: string): Promise<AsyncIterable<readonly string[]>> {
    await this.namespace(tenant, namespace);
    const prefix = `persistent://${tenant}/${namespace}/`;
    return paged([...this.topicsByName.keys()].filter((name) => name.startsWith(prefix)).toSorted());
  }

  async #inNamespace(topic: string): Promise<void> {
    const [tenant = '', namespace = '', local = '', more] = topic.slice('persistent://'.length).split('/');
    if (more !== undefined || local === '')
      throw new MagnetarError('TOPIC_NAME_INVALID', `topic name "${topic}" is not valid`);
    await this.namespace(tenant, namespace);
  }

  async createTopic(topic: string): Promise<void> {
    this.#call('createTopic', topic);
    await this.#inNamespace(topic);
    if (this.topicsByName.has(topic)) throw new MagnetarError('ALREADY_EXISTS', `topic ${topic} exists already`);
    this.topicsByName.set(topic, { subscriptions: new Map(), busy: false });
  }

  async #topic(topic: string): Promise<FakeTopic> {
    const found = this.topicsByName.get(topic);
    if (found === undefined) throw new MagnetarError('TOPIC_NOT_FOUND', `topic ${topic} does not exist`);
    return await Promise.resolve(found);
  }

  async deleteTopic(topic: string, force: boolean): Promise<void> {
    this.#call('deleteTopic', topic, force);
    const { busy } = await this.#topic(topic);
    if (busy && !force)
      throw new MagnetarError('TOPIC_BUSY', `topic ${topic} has 1 producers and 0 consumers connected`);
    this.topicsByName.delete(topic);
  }

  async unloadTopic(topic: string): Promise<void> {
    this.#call('unloadTopic', topic);
    await this.#topic(topic);
  }

  async topicStats(topic: string): Promise<TopicStats> {
    const { subscriptions } = await this.#topic(topic);
    const client = { address: '127.0.0.1:1', version: 'test', since: 1_000 };
    const consumer = {
      name: 'c',
      client,
      out: NOTHING,
      redeliveryRate: 0,
      ackRate: 0,
      permits: 5,
      unacked: 2,
      lastDelivered: 3,
      lastAcked: 0,
      lastFlow: 4,
    };
    return {
      in: { messages: 4, bytes: 400, messageRate: 2, byteRate: 200 },
      out: NOTHING,
      storedBytes: 500,
      oldestIndex: 0,
      endIndex: 4,
      producers: [{ name: 'p', client, in: NOTHING }],
      readers: [{ ...consumer, name: 'r', client: undefined }],
      subscriptions: [...subscriptions.keys()].map((name) => ({
        name,
        createdAt: 1,
        markDelete: 1,
        ackedAbove: 0,
        backlog: 3,
        backlogBytes: 300,
        unacked: 2,
        out: NOTHING,
        redeliveryRate: 0,
        ackRate: 0,
        consumers: [consumer],
      })),
    };
  }

  async topicInternals(topic: string): Promise<TopicInternals> {
    await this.#topic(topic);
    const ledger = { ledgerId: 7, firstIndex: 0, messages: 4, entries: 2, bytes: 500, closed: false };
    return {
      incarnation: 3,
      ownerEpoch: 2,
      createdAt: 0,
      entriesAdded: 2,
      pendingEntries: 0,
      ackLedgers: [8],
      lastConfirmed: { ledgerId: 7, entryId: 1 },
      ledgers: [{ ...ledger, firstAppendTime: 1, lastAppendTime: 2 }],
      cursors: [
        {
          name: 's',
          markDelete: 1,
          ackedAbove: 2,
          backlog: 1,
          position: { ledgerId: 7, entryId: -1 },
          ackedRanges: [[2, 3]],
        },
      ],
    };
  }

  async subscriptions(topic: string): Promise<readonly string[]> {
    return [...(await this.#topic(topic)).subscriptions.keys()];
  }

  async createSubscription(
    ...[topic, name, position]: Parameters<Administration['createSubscription']>
  ): Promise<void> {
    this.#call('createSubscription', topic, name, position);
    await this.#inNamespace(topic);
    if (!this.topicsByName.has(topic)) await this.createTopic(topic);
    const { subscriptions } = await this.#topic(topic);
    if (subscriptions.has(name)) throw new MagnetarError('ALREADY_EXISTS', `subscription "${name}" exists already`);
    subscriptions.set(name, position);
  }

  async #subscription(topic: string, name: string): Promise<FakeTopic> {
    const found = await this.#topic(topic);
    if (found.subscriptions.has(name)) return found;
    throw new MagnetarError('SUBSCRIPTION_NOT_FOUND', `subscription "${name}" of topic ${topic} does not exist`);
  }

  async deleteSubscription(topic: string, name: string, force: boolean): Promise<void> {
    this.#call('deleteSubscription', topic, name, force);
    const { subscriptions, busy } = await this.#subscription(topic, name);
    if (busy && !force) throw new MagnetarError('CONSUMER_BUSY', `subscription "${name}" has a consumer connected`);
    subscriptions.delete(name);
  }

  async skipMessages(topic: string, name: string, messages: number): Promise<void> {
    this.#call('skipMessages', topic, name, messages);
    await this.#subscription(topic, name);
  }

  async resetCursor(topic: string, name: string, position: AdminPosition): Promise<void> {
    this.#call('resetCursor', topic, name, position);
    const { subscriptions } = await this.#subscription(topic, name);
    if (position.at === 'message' && position.ledgerId === 99) {
      throw new MagnetarError('POSITION_NOT_FOUND', `there is no message 99:0:0 in topic ${topic}`);
    }
    subscriptions.set(name, position);
  }

  async peekMessage(topic: string, name: string, nth: number): Promise<PeekedMessage> {
    this.#call('peekMessage', topic, name, nth);
    await this.#subscription(topic, name);
    if (nth > 2) throw new MagnetarError('POSITION_NOT_FOUND', `there is no number ${nth}`);
    return {
      ledgerId: 7,
      entryId: 1,
      batchIndex: 0,
      index: 3,
      producerName: 'pröducer',
      key: 'a\nb',
      properties: [['größe', '☃']],
      publishTime: 5,
      payload: Buffer.from([0, 255, 10]),
    };
  }
}
