/** What every administration does: that of a broker, and the one that stands for it in tests of the routes. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Administration } from '../wire/administration.ts';

/** An administration of a system in which nothing was made yet; `close` ends it. */
export interface OpenedAdministration {
  readonly administration: Administration;
  readonly close: () => Promise<void>;
}

const INFO = { adminRoles: ['ann'], allowedClusters: ['standalone'] };
const TOPIC = 'persistent://acme/n/t';

async function all(pages: AsyncIterable<readonly string[]>): Promise<string[]> {
  const found: string[] = [];
  for await (const page of pages) found.push(...page);
  return found;
}

/** The codes of the errors with which calls fail. */
async function codes(calls: readonly (() => Promise<unknown>)[]): Promise<string[]> {
  const found: string[] = [];
  for (const call of calls) {
    const error: unknown = await call().then(
      () => undefined,
      (reason: unknown) => reason,
    );
    found.push(error instanceof Error && 'code' in error ? String(error.code) : String(error));
  }
  return found;
}

/** Runs the suite; `open` is called for each test. */
export function administrationContract(name: string, open: () => Promise<OpenedAdministration>): void {
  let opened: OpenedAdministration;
  let admin: Administration;

  beforeEach(async () => {
    opened = await open();
    admin = opened.administration;
  });
  afterEach(async () => {
    await opened.close();
  });

  async function setUp(): Promise<void> {
    await admin.createTenant('acme', INFO);
    await admin.createNamespace('acme', 'n', []);
    await admin.createTopic(TOPIC);
  }

  describe(`administration: ${name}`, { tags: ['contract'] }, () => {
    test('what was made is listed in order, and gone when it is deleted', async () => {
      await setUp();
      expect(await admin.tenant('acme')).toEqual(INFO);
      await admin.updateTenant('acme', { ...INFO, adminRoles: [] });
      expect(await admin.tenant('acme')).toEqual({ ...INFO, adminRoles: [] });
      expect(await all(admin.tenants())).toContain('acme');
      await admin.createNamespace('acme', 'm', ['standalone']);
      expect((await all(await admin.namespaces('acme'))).toSorted()).toEqual(['m', 'n']);
      for (const local of ['b', 'a', 'ä', 'c']) await admin.createTopic(`persistent://acme/n/${local}`);
      const names = ['a', 'b', 'c', 't', 'ä'].map((local) => `persistent://acme/n/${local}`);
      expect(await all(await admin.topics('acme', 'n'))).toEqual(names);
      await admin.deleteTopic('persistent://acme/n/b', false);
      expect(await all(await admin.topics('acme', 'n'))).toHaveLength(4);
      expect(await admin.namespace('acme', 'n')).toMatchObject({ deleting: false });
    });

    test('what does not exist is named by its kind', async () => {
      await setUp();
      const nowhere = 'persistent://acme/n/x';
      expect(
        await codes([
          () => admin.tenant('x'),
          () => admin.updateTenant('x', INFO),
          () => admin.deleteTenant('x', true),
          () => admin.namespaces('x'),
          () => admin.createNamespace('x', 'n', []),
        ]),
      ).toEqual(Array.from({ length: 5 }, () => 'TENANT_NOT_FOUND'));
      expect(
        await codes([
          () => admin.namespace('acme', 'x'),
          () => admin.deleteNamespace('acme', 'x', true),
          () => admin.topics('acme', 'x'),
          () => admin.createTopic('persistent://acme/x/t'),
          () => admin.createSubscription('persistent://acme/x/t', 's', { at: 'latest' }),
        ]),
      ).toEqual(Array.from({ length: 5 }, () => 'NAMESPACE_NOT_FOUND'));
      expect(
        await codes([
          () => admin.deleteTopic(nowhere, true),
          () => admin.unloadTopic(nowhere),
          () => admin.topicStats(nowhere),
          () => admin.topicInternals(nowhere),
          () => admin.subscriptions(nowhere),
          () => admin.deleteSubscription(nowhere, 's', true),
          () => admin.skipMessages(nowhere, 's', 1),
          () => admin.resetCursor(nowhere, 's', { at: 'earliest' }),
          () => admin.peekMessage(nowhere, 's', 1),
        ]),
      ).toEqual(Array.from({ length: 9 }, () => 'TOPIC_NOT_FOUND'));
      expect(
        await codes([
          () => admin.deleteSubscription(TOPIC, 's', true),
          () => admin.skipMessages(TOPIC, 's', 1),
          () => admin.resetCursor(TOPIC, 's', { at: 'earliest' }),
          () => admin.peekMessage(TOPIC, 's', 1),
        ]),
      ).toEqual(Array.from({ length: 4 }, () => 'SUBSCRIPTION_NOT_FOUND'));
    });

    test('what exists is not made again, and what is not empty is deleted by force alone', async () => {
      await setUp();
      await admin.createSubscription(TOPIC, 's', { at: 'earliest' });
      expect(
        await codes([
          () => admin.createTenant('acme', INFO),
          () => admin.createNamespace('acme', 'n', []),
          () => admin.createTopic(TOPIC),
          () => admin.createSubscription(TOPIC, 's', { at: 'latest' }),
          () => admin.deleteNamespace('acme', 'n', false),
          () => admin.deleteTenant('acme', false),
        ]),
      ).toEqual([...Array.from({ length: 4 }, () => 'ALREADY_EXISTS'), 'NOT_EMPTY', 'NOT_EMPTY']);
      await admin.deleteTenant('acme', true);
      expect(await codes([() => admin.tenant('acme')])).toEqual(['TENANT_NOT_FOUND']);
    });

    test('names and clusters that are not allowed are refused', async () => {
      await setUp();
      expect(
        await codes([
          () => admin.createTenant('a b', INFO),
          () => admin.createTenant('b', { adminRoles: [], allowedClusters: ['elsewhere'] }),
          () => admin.createTopic('persistent://acme/n/a/b'),
        ]),
      ).toEqual(['INVALID_ARGUMENT', 'INVALID_ARGUMENT', 'TOPIC_NAME_INVALID']);
    });

    test('subscriptions are made with their topic, moved, and deleted', async () => {
      await setUp();
      const made = 'persistent://acme/n/made';
      await admin.createSubscription(made, 's', { at: 'earliest' });
      await admin.createSubscription(made, 'r', { at: 'latest' });
      expect(await admin.subscriptions(made)).toEqual(['s', 'r']);
      await admin.skipMessages(made, 's', 5);
      await admin.resetCursor(made, 's', { at: 'time', time: 0 });
      await admin.resetCursor(made, 's', { at: 'latest' });
      const nowhere = { at: 'message', ledgerId: 99, entryId: 0, batchIndex: undefined, excluded: false } as const;
      expect(
        await codes([() => admin.resetCursor(made, 's', nowhere), () => admin.peekMessage(made, 's', 99)]),
      ).toEqual(['POSITION_NOT_FOUND', 'POSITION_NOT_FOUND']);
      await admin.deleteSubscription(made, 's', false);
      expect(await admin.subscriptions(made)).toEqual(['r']);
      await admin.unloadTopic(made);
      expect(await admin.subscriptions(made)).toEqual(['r']);
    });

    test('figures tell of every subscription', async () => {
      await setUp();
      await admin.createSubscription(TOPIC, 's', { at: 'earliest' });
      const { subscriptions } = await admin.topicStats(TOPIC);
      expect(subscriptions.map((subscription) => subscription.name)).toEqual(['s']);
      const { cursors } = await admin.topicInternals(TOPIC);
      expect(cursors.map((cursor) => cursor.name)).toEqual(['s']);
      expect([admin.unready, admin.clusters]).toEqual([undefined, ['standalone']]);
    });
  });
}
