import { type FastifyInstance, fastify, type InjectOptions } from 'fastify';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type ErrorCode, errorTable, MagnetarError } from '../lib/errors.ts';
import { silentLogger } from '../runtime/logger.ts';
import { statuses } from './errors.ts';
import { adminPlugin } from './plugin.ts';
import { FakeAdministration } from './testing/fake-administration.ts';

const T = '/admin/v2/tenants';
const N = '/admin/v2/namespaces';
const P = '/admin/v2/persistent/acme/n';
const S = `${P}/t/subscription`;
const NAME = 'persistent://acme/n/t';

function isoTime(time: number): string {
  return new Date(time).toISOString();
}

let administration: FakeAdministration;
let app: FastifyInstance;

beforeEach(async () => {
  administration = new FakeAdministration();
  app = fastify();
  await app.register(adminPlugin({ administration, logger: silentLogger, version: '1.2.3', isoTime }));
});

afterEach(async () => {
  await app.close();
});

/** Status and body, as JSON where it is. */
async function ask(
  method: NonNullable<InjectOptions['method']>,
  url: string,
  payload?: unknown,
  headers: Record<string, string> = {},
): Promise<[number, unknown]> {
  const json = payload === undefined ? {} : { payload: JSON.stringify(payload) };
  const type = payload === undefined ? {} : { 'content-type': 'application/json' };
  const response = await app.inject({ method, url, ...json, headers: { ...type, ...headers } });
  return [response.statusCode, response.body === '' ? undefined : response.json()];
}

async function setUp(): Promise<void> {
  expect(await ask('PUT', `${T}/acme`, { allowedClusters: ['standalone'] })).toEqual([204, undefined]);
  expect(await ask('PUT', `${N}/acme/n`)).toEqual([204, undefined]);
  expect(await ask('PUT', `${P}/t`)).toEqual([204, undefined]);
}

/** A refusal that says this. */
function reason(text: RegExp | string): { reason: unknown } {
  return { reason: expect.toSatisfy((said: string) => (typeof text === 'string' ? said === text : text.test(said))) };
}

/** What was asked for last. */
function last(): unknown {
  return administration.calls.at(-1);
}

describe('tenants', () => {
  test('are created, listed, read, replaced and deleted', async () => {
    expect(await ask('GET', T)).toEqual([200, []]);
    const info = { adminRoles: ['ann'], allowedClusters: ['standalone'] };
    for (const name of ['b', 'a', 'c']) expect((await ask('PUT', `${T}/${name}`, info))[0]).toBe(204);
    expect(await ask('GET', T)).toEqual([200, ['a', 'b', 'c']]);
    expect(await ask('GET', `${T}/a`)).toEqual([200, info]);
    expect((await ask('POST', `${T}/a`, { ...info, adminRoles: null }))[0]).toBe(204);
    expect(await ask('GET', `${T}/a`)).toEqual([200, { ...info, adminRoles: [] }]);
    expect((await ask('DELETE', `${T}/a`))[0]).toBe(204);
    expect(administration.calls.at(-2)).toEqual(['deleteTenant', 'a', false]);
    expect((await ask('DELETE', `${T}/b?force=true`))[0]).toBe(204);
    expect(administration.calls.at(-2)).toEqual(['deleteTenant', 'b', true]);
  });

  test('that are wrong are refused with the status and the line that Pulsar has', async () => {
    const info = { allowedClusters: ['standalone'] };
    expect(await ask('GET', `${T}/a`)).toEqual([404, reason('tenant "a" does not exist')]);
    expect((await ask('PUT', `${T}/a`, info))[0]).toBe(204);
    expect(await ask('PUT', `${T}/a`, info)).toEqual([409, reason('tenant "a" exists already')]);
    expect(await ask('PUT', `${T}/a%20b`, info)).toEqual([412, reason(/tenant name "a b"/)]);
    expect(await ask('PUT', `${T}/b`, {})).toEqual([412, reason(/allowedClusters is empty/)]);
    expect(await ask('PUT', `${T}/b`, { allowedClusters: ['x'] })).toEqual([412, reason(/cluster "x"/)]);
    expect(await ask('PUT', `${T}/b`, { allowedClusters: {} })).toEqual([400, reason(/allowedClusters/)]);
    expect((await ask('PUT', `${N}/a/n`))[0]).toBe(204);
    expect(await ask('DELETE', `${T}/a`)).toEqual([409, reason('tenant "a" has namespaces')]);
  });
});

describe('namespaces', () => {
  test('are created, listed, read and deleted', async () => {
    await setUp();
    expect(await ask('GET', `${N}/acme`)).toEqual([200, ['acme/n']]);
    expect(await ask('GET', `${N}/acme/n`)).toMatchObject([
      200,
      { replication_clusters: ['standalone'], deduplicationEnabled: true, deleted: false },
    ]);
    expect(await ask('GET', `${N}/acme/n/topics`)).toEqual([200, [NAME]]);
    expect(await ask('DELETE', `${N}/acme/n`)).toEqual([409, reason('namespace "acme/n" has topics')]);
    expect((await ask('DELETE', `${N}/acme/n?force=true`))[0]).toBe(204);
    expect(await ask('GET', `${N}/acme/n`)).toEqual([404, reason(/namespace "acme\/n" does not exist/)]);
    expect(await ask('GET', `${N}/nobody`)).toEqual([404, reason(/tenant "nobody"/)]);
  });

  test('take what Pulsar sends for "nothing is set", and refuse a policy that would have no effect', async () => {
    await setUp();
    const unset = {
      auth_policies: { namespace_auth: {}, destination_auth: {}, subscription_auth_roles: {} },
      replication_clusters: ['standalone'],
      bundles: { boundaries: ['0x00000000', '0xffffffff'], numBundles: 4 },
      backlog_quota_map: {},
      clusterDispatchRate: {},
      message_ttl_in_seconds: null,
      deleted: false,
      encryption_required: false,
      subscription_auth_mode: 'None',
      offload_threshold: -1,
      schema_compatibility_strategy: 'UNDEFINED',
      retention_policies: null,
    };
    expect((await ask('PUT', `${N}/acme/m`, unset))[0]).toBe(204);
    expect(administration.calls.at(-2)).toEqual(['createNamespace', 'acme', 'm', ['standalone']]);
    const retention = { retention_policies: { retentionTimeInMinutes: 5, retentionSizeInMB: -1 } };
    expect(await ask('PUT', `${N}/acme/o`, retention)).toEqual([
      412,
      reason(/policy retention_policies is not supported/),
    ]);
    expect(await ask('PUT', `${N}/acme/m`, {})).toEqual([409, reason(/exists already/)]);
  });
});

describe('topics', () => {
  test('are created, listed, unloaded and deleted', async () => {
    await setUp();
    expect((await ask('PUT', `${P}/caf%C3%A9%20%E2%98%83`, undefined, { 'content-type': 'application/json' }))[0]).toBe(
      204,
    );
    expect(await ask('GET', P)).toEqual([200, ['persistent://acme/n/café ☃', NAME]]);
    expect(await ask('PUT', `${P}/t`)).toEqual([409, reason(`topic ${NAME} exists already`)]);
    expect(await ask('PUT', `${P}/a%2Fb`)).toEqual([412, reason(/topic name/)]);
    expect((await ask('PUT', `${P}/t/unload`))[0]).toBe(204);
    const topic = administration.topicsByName.get(NAME);
    if (topic !== undefined) topic.busy = true;
    expect(await ask('DELETE', `${P}/t`)).toEqual([412, reason(/1 producers/)]);
    expect((await ask('DELETE', `${P}/t?force=true`))[0]).toBe(204);
    expect(await ask('DELETE', `${P}/t`)).toEqual([404, reason(`topic ${NAME} does not exist`)]);
  });

  test('of names with 255 characters of three bytes each are found', async () => {
    await setUp();
    const long = fastify({ routerOptions: { maxParamLength: 4_096 } });
    await long.register(adminPlugin({ administration, logger: silentLogger, version: '1', isoTime }));
    const name = '☃'.repeat(255);
    const response = await long.inject({ method: 'PUT', url: `${P}/${encodeURIComponent(name)}` });
    expect(response.statusCode).toBe(204);
    expect(administration.calls.at(-2)).toEqual(['createTopic', `persistent://acme/n/${name}`]);
    await long.close();
  });

  test('tell their figures under the names that Pulsar has for them', async () => {
    await setUp();
    await ask('PUT', `${S}/s`);
    const [status, stats] = await ask('GET', `${P}/t/stats`);
    expect(status).toBe(200);
    expect(stats).toMatchObject({
      msgRateIn: 2,
      msgThroughputIn: 200,
      msgInCounter: 4,
      averageMsgSize: 100,
      storageSize: 500,
      backlogSize: 300,
      publishers: [{ producerName: 'p', address: '127.0.0.1:1', connectedSince: '1970-01-01T00:00:01.000Z' }],
      subscriptions: {
        s: {
          msgBacklog: 3,
          unackedMessages: 2,
          type: 'Exclusive',
          activeConsumerName: 'c',
          isDurable: true,
          consumers: [{ consumerName: 'c', availablePermits: 5, unackedMessages: 2 }],
        },
        'reader-r': { isDurable: false },
      },
    });
    for (const path of ['internalStats', 'internal-stats']) {
      expect((await ask('GET', `${P}/t/${path}`))[1]).toMatchObject({
        numberOfEntries: 2,
        totalSize: 500,
        currentLedgerEntries: 2,
        lastConfirmedEntry: '7:1',
        state: 'LedgerOpened',
        ledgers: [{ ledgerId: 7, entries: 2, size: 500 }],
        cursors: { s: { markDeletePosition: '7:-1', individuallyDeletedMessages: '[2..3]' } },
      });
    }
    expect(await ask('GET', `${P}/x/stats`)).toEqual([404, reason(/does not exist/)]);
  });
});

describe('subscriptions', () => {
  test('are made where the body says, at the latest message when there is none', async () => {
    await setUp();
    const message = { at: 'message', ledgerId: 7, entryId: 1, batchIndex: undefined, excluded: false };
    const cases: [unknown, unknown][] = [
      [undefined, { at: 'latest' }],
      [null, { at: 'latest' }],
      ['earliest', { at: 'earliest' }],
      [{ ledgerId: -1, entryId: -1, partitionIndex: -1 }, { at: 'earliest' }],
      [{ ledgerId: 2 ** 63, entryId: 2 ** 63, partitionIndex: -1 }, { at: 'latest' }],
      [{ ledgerId: 7, entryId: 1 }, message],
      [{ ledgerId: 7, entryId: 1, batchIndex: -1 }, message],
      [
        { ledgerId: 7, entryId: 1, batchIndex: 4 },
        { ...message, batchIndex: 4 },
      ],
      [
        { ledgerId: 7, entryId: 1, isExcluded: true },
        { ...message, excluded: true },
      ],
    ];
    for (const [at, [body, position]] of cases.entries()) {
      expect((await ask('PUT', `${S}/s${at}`, body))[0]).toBe(204);
      expect(administration.calls.at(-2)).toEqual(['createSubscription', NAME, `s${at}`, position]);
    }
    expect(await ask('GET', `${P}/t/subscriptions`)).toEqual([200, cases.map((_, at) => `s${at}`)]);
    expect(await ask('PUT', `${S}/s0`)).toEqual([409, reason(/exists already/)]);
    expect(await ask('PUT', `${S}/x`, { ledgerId: -5, entryId: 0 })).toEqual([412, reason(/message id -5:0:-1/)]);
    expect(await ask('PUT', `${S}/x`, { ledgerId: 1.5, entryId: 0 })).toEqual([412, reason(/message id 1.5:0/)]);
    expect(await ask('PUT', `${S}/x`, 'newest')).toEqual([400, reason(/body/)]);
    expect((await ask('PUT', `${P}/made/subscription/s`))[0]).toBe(204);
  });

  test('are deleted, by force when a consumer is connected', async () => {
    await setUp();
    await ask('PUT', `${S}/a%2Fb`);
    const topic = administration.topicsByName.get(NAME);
    if (topic !== undefined) topic.busy = true;
    expect(await ask('DELETE', `${S}/a%2Fb`)).toEqual([412, reason(/has a consumer connected/)]);
    expect((await ask('DELETE', `${S}/a%2Fb?force=true`))[0]).toBe(204);
    expect(await ask('DELETE', `${S}/a%2Fb`)).toEqual([404, reason(/subscription "a\/b".* does not exist/)]);
  });

  test('are skipped, cleared and moved', async () => {
    await setUp();
    await ask('PUT', `${S}/s`);
    expect((await ask('POST', `${S}/s/skip/3`))[0]).toBe(204);
    expect(last()).toEqual(['skipMessages', NAME, 's', 3]);
    expect((await ask('POST', `${S}/s/skip_all`))[0]).toBe(204);
    expect(last()).toEqual(['resetCursor', NAME, 's', { at: 'latest' }]);
    expect((await ask('POST', `${S}/s/resetcursor/1700000000000`))[0]).toBe(204);
    expect(last()).toEqual(['resetCursor', NAME, 's', { at: 'time', time: 1_700_000_000_000 }]);
    expect((await ask('POST', `${S}/s/resetcursor`, { ledgerId: 1, entryId: 2 }))[0]).toBe(204);
    expect(last()).toMatchObject(['resetCursor', NAME, 's', { at: 'message', ledgerId: 1, entryId: 2 }]);
    expect(await ask('POST', `${S}/s/skip/many`)).toEqual([400, reason(/numMessages must be integer/)]);
    expect(await ask('POST', `${S}/s/skip/-1`)).toEqual([400, reason(/numMessages/)]);
    expect(await ask('POST', `${S}/s/resetcursor/soon`)).toEqual([400, reason(/timestamp/)]);
    expect(await ask('POST', `${S}/s/resetcursor`)).toEqual([400, reason(/body/)]);
    expect(await ask('POST', `${S}/s/resetcursor`, { ledgerId: 99, entryId: 0 })).toEqual([412, reason(/99:0:0/)]);
    expect(await ask('POST', `${S}/x/skip_all`)).toEqual([404, reason(/subscription "x"/)]);
  });

  test('show a message: its bytes as they are, the rest in headers that every client can read', async () => {
    await setUp();
    await ask('PUT', `${S}/s`);
    const response = await app.inject({ method: 'GET', url: `${S}/s/position/1` });
    expect(response.statusCode).toBe(200);
    expect([...response.rawPayload]).toEqual([0, 255, 10]);
    expect(response.headers).toMatchObject({
      'content-type': 'application/octet-stream',
      'x-pulsar-message-id': '7:1:0',
      'x-pulsar-message-index': '3',
      'x-pulsar-producer-name': 'pr%C3%B6ducer',
      'x-pulsar-partition-key': 'a%0Ab',
      'x-pulsar-property': '{"gr\\u00f6\\u00dfe":"\\u2603"}',
    });
    expect(await ask('GET', `${S}/s/position/3`)).toEqual([404, reason('there is no number 3')]);
    expect(await ask('GET', `${S}/s/position/0`)).toEqual([400, reason(/messagePosition/)]);
  });
});

describe('clusters and brokers', () => {
  test('tell what there is', async () => {
    expect(await ask('GET', '/admin/v2/clusters')).toEqual([200, ['standalone']]);
    expect((await app.inject('/admin/v2/brokers/health')).body).toBe('ok');
    administration.unready = new MagnetarError('UNAVAILABLE', 'nothing can be stored: why');
    expect(await ask('GET', '/admin/v2/brokers/health')).toEqual([503, reason('nothing can be stored: why')]);
  });
});

describe('errors', () => {
  test.each([
    ['UNAVAILABLE', 503],
    ['NOT_OWNER', 503],
    ['DEADLINE_EXCEEDED', 504],
    ['METADATA_CONFLICT', 409],
    ['UNSUPPORTED', 501],
    ['DATA_LOSS', 500],
    ['DISK_FULL', 503],
    ['LEDGER_FENCED', 503],
    ['LEASE_LOST', 503],
  ] as const)('%s has the status %d', async (code, status) => {
    administration.failure = new MagnetarError(code, 'what went wrong');
    expect(await ask('GET', `${T}/a`)).toEqual([status, reason('what went wrong')]);
  });

  test('that go away by themselves are not logged as errors of the server', async () => {
    const logged: string[] = [];
    const logger = { ...silentLogger, error: (message: string) => void logged.push(message) };
    await using own = fastify();
    await own.register(adminPlugin({ administration, logger, version: '1', isoTime }));
    administration.failure = new MagnetarError('DISK_FULL', 'the disk is full');
    await own.inject({ method: 'PUT', url: `${P}/t` });
    expect(logged).toEqual([]);
    administration.failure = new MagnetarError('DATA_LOSS', 'it is gone');
    await own.inject({ method: 'PUT', url: `${P}/t` });
    expect(logged).toEqual([`PUT ${P}/t failed`]);
  });

  test('every code has a status; what may be tried again is never a failure of the server', () => {
    expect(Object.keys(statuses)).toEqual(Object.keys(errorTable));
    for (const status of Object.values(statuses)) expect(status).toBeOneOf([404, 409, 412, 500, 501, 503, 504]);
    const failures = Object.entries(errorTable).filter(([code]) => statuses[code as ErrorCode] === 500);
    expect(failures.filter(([, { retryable }]) => retryable)).toEqual([]);
  });

  test('of ours tell nobody how the server looks inside; all are one line', async () => {
    administration.failure = new TypeError("Cannot read properties of undefined (reading 'x')");
    expect(await ask('GET', `${T}/a`)).toEqual([500, reason('the server could not answer; its log says why')]);
    administration.failure = new MagnetarError('UNAVAILABLE', 'one\n  two');
    expect(await ask('GET', `${T}/a`)).toEqual([503, reason('one two')]);
  });

  test('name a path that nothing is at, and a body that is no JSON', async () => {
    expect(await ask('GET', '/admin/v2/nothing?x=1')).toEqual([
      404,
      reason(/^there is nothing at GET \/admin\/v2\/nothing;/),
    ]);
    const headers = { 'content-type': 'application/json' };
    const broken = await app.inject({ method: 'PUT', url: `${T}/a`, payload: '{', headers });
    expect([broken.statusCode, broken.json()]).toEqual([400, reason(/JSON/)]);
  });

  test('name what a path takes, where it is not the method of the request', async () => {
    for (const method of ['PATCH', 'OPTIONS'] as const) {
      const answer = await app.inject({ method, url: '/admin/v2/tenants/t' });
      const text = `${method} is not what /admin/v2/tenants/t takes; it takes GET, HEAD, PUT, POST, DELETE`;
      expect([answer.statusCode, answer.json()]).toEqual([405, reason(text)]);
      expect(answer.headers.allow).toBe('GET, HEAD, PUT, POST, DELETE');
    }
  });

  test('a page of another site changes nothing, and reads nothing that a browser would show it', async () => {
    await setUp();
    const foreign = { origin: 'http://evil.example', host: '127.0.0.1:8080' };
    expect(await ask('DELETE', `${P}/t`, undefined, foreign)).toEqual([403, reason(/evil\.example/)]);
    expect(await ask('POST', `${S}/s/skip_all`, undefined, { ...foreign, origin: 'null' })).toEqual([
      403,
      reason(/null/),
    ]);
    expect(administration.topicsByName.has(NAME)).toBe(true);
    const own = { origin: 'http://127.0.0.1:8080', host: '127.0.0.1:8080' };
    expect((await ask('DELETE', `${P}/t`, undefined, own))[0]).toBe(204);
    expect((await app.inject({ url: T, headers: foreign })).headers['access-control-allow-origin']).toBeUndefined();
  });
});

interface Operation {
  readonly summary?: string;
  readonly tags?: readonly string[];
  readonly responses: Record<string, unknown>;
}

/** All operations of the document, as "METHOD path". */
async function operations(): Promise<ReadonlyMap<string, Operation>> {
  const [status, document] = await ask('GET', '/docs/json');
  expect(status).toBe(200);
  const { paths } = document as { paths: Record<string, Record<string, Operation>> };
  return new Map(
    Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => [`${method.toUpperCase()} ${path}`, operation] as const),
    ),
  );
}

/** The statuses of an operation's refusals. */
function refusals({ responses }: Operation): number[] {
  return Object.keys(responses)
    .map(Number)
    .filter((status) => status >= 400);
}

describe('the document', () => {
  test('lists the statuses that errors have, and no others', async () => {
    const found = await operations();
    /** Fastify's, and that of a page of another site: these are no codes of ours. */
    const beforeUs = [400, 403, 413, 415];
    const sent = new Set([...Object.values(statuses), ...beforeUs]);
    expect(new Set([...found.values()].flatMap(refusals))).toEqual(sent);
    const always = [...sent].filter((status) => status >= 500);
    for (const [name, operation] of found) {
      const changes = name.startsWith('GET ') ? [] : [...beforeUs, 409];
      expect(refusals(operation)).toEqual(expect.arrayContaining([...always, ...changes]));
    }
    const refusingForeign = [...found].filter(([, operation]) => refusals(operation).includes(403));
    expect(refusingForeign.map(([name]) => name).filter((name) => name.startsWith('GET '))).toEqual([]);
  });

  test('what is refused before it comes to us has a status that is listed', async () => {
    const url = `${T}/a`;
    const send = async (headers: Record<string, string>, payload: string): Promise<[number, unknown]> => {
      const answer = await app.inject({ method: 'PUT', url, payload, headers });
      return [answer.statusCode, answer.json()];
    };
    const json = { 'content-type': 'application/json' };
    expect(await send(json, '{')).toEqual([400, reason(/JSON/)]);
    const large = `"${'x'.repeat(2_000_000)}"`;
    expect(await send(json, large)).toEqual([413, reason('the body has more than 1048576 bytes')]);
    const picture = 'content-type is "image/png"; it must be application/json';
    expect(await send({ 'content-type': 'image/png' }, 'x')).toEqual([415, reason(picture)]);
    expect(await send({ origin: 'http://evil.example' }, '')).toEqual([403, reason(/evil/)]);
  });

  test('names every route, with a summary, tags, parameters and responses', async () => {
    const routes = new Set<string>();
    const probe = fastify();
    probe.addHook('onRoute', ({ method, url, schema }) => {
      if (!url.startsWith('/admin/v2') || schema?.hide === true) return;
      for (const one of [method].flat()) {
        if (one !== 'HEAD') routes.add(`${one} ${url.replaceAll(/:(\w+)/g, '{$1}')}`);
      }
    });
    await probe.register(adminPlugin({ administration, logger: silentLogger, version: '1', isoTime }));
    await probe.ready();
    await probe.close();
    expect(await ask('GET', '/docs/json')).toMatchObject([200, { info: { version: '1.2.3' } }]);
    const documented = await operations();
    for (const operation of documented.values()) {
      expect(operation.summary).toMatch(/^[A-Z]/);
      expect(operation.tags).toHaveLength(1);
    }
    expect(new Set(documented.keys())).toEqual(routes);
    expect(documented.size).toBeGreaterThanOrEqual(24);
  });

  test('the page forbids itself everything from outside', async () => {
    const page = await app.inject('/docs');
    expect(page.headers['content-security-policy']).toContain("default-src 'self'");
    expect(page.body).not.toMatch(/(src|href)="(https?:)?\/\//);
  });
});
