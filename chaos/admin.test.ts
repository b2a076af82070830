/** `magnetar admin …` through the built program: what it does, and what it says when it cannot. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Client } from '../services/client/index.ts';
import { type CommandResult, runCommand, type ServerProcess, startStandalone } from './support/process.ts';

/** More would only wait for the processor. */
const AT_ONCE = 4;

let server: ServerProcess;
let client: Client;

beforeAll(async () => {
  server = await startStandalone();
  client = new Client({ serviceUrl: server.serviceUrl });
});
afterAll(async () => {
  await client?.close();
  await server?.[Symbol.asyncDispose]();
});

async function admin(...args: readonly string[]): Promise<CommandResult> {
  return await runCommand(['admin', ...args], { env: { MAGNETAR_ADMIN_URL: server.adminUrl } });
}

/** Runs commands that have to succeed, one after another; gives what the last one printed. */
async function done(...commands: readonly (readonly string[])[]): Promise<string> {
  let printed = '';
  for (const args of commands) {
    const { code, stdout, stderr } = await admin(...args);
    expect(`${args.join(' ')}: ${code} ${code === 0 ? '' : stderr}`).toBe(`${args.join(' ')}: 0 `);
    printed = stdout.toString();
  }
  return printed;
}

/** What a command that has to fail says, in its one line. */
async function failed(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await admin(...args);
  expect({ code, stdout: stdout.toString(), lines: stderr.split('\n').length }).toEqual({
    code: 1,
    stdout: '',
    lines: 2,
  });
  expect(stderr).toMatch(/^magnetar: (?!internal)/);
  return stderr.trimEnd();
}

async function parsed(...args: readonly string[]): Promise<unknown> {
  return JSON.parse(await done([...args, '-o', 'json']));
}

async function publish(topic: string, count: number): Promise<void> {
  await using producer = await client.createProducer({ topic });
  await Promise.all(Array.from({ length: count }, (_, i) => producer.send({ data: `m${i}`, key: `k${i}` })));
}

async function drain(topic: string, subscription: string): Promise<string[]> {
  await using consumer = await client.subscribe({ topic, subscription });
  const texts: string[] = [];
  for await (const message of consumer.messages({ untilEnd: true })) texts.push(message.data.toString());
  return texts;
}

/** Runs work, a few at once. */
async function each<T>(all: readonly T[], work: (one: T) => Promise<void>): Promise<void> {
  const left = [...all];
  const worker = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) await work(next);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

describe('what it does', () => {
  test('tenants and namespaces from their making to their end', async () => {
    await done(['tenants', 'create', 'acme', '--admin-roles', 'ann,bob', '--allowed-clusters', 'standalone']);
    expect(await parsed('tenants', 'get', 'acme')).toEqual({
      adminRoles: ['ann', 'bob'],
      allowedClusters: ['standalone'],
    });
    await done(['tenants', 'update', 'acme', '--admin-roles', 'carl']);
    expect(await done(['tenants', 'get', 'acme'])).toBe(
      'FIELD\tVALUE\nadminRoles\tcarl\nallowedClusters\tstandalone\n',
    );
    expect(await done(['tenants', 'list'])).toBe('acme\npublic\n');
    await done(['namespaces', 'create', 'acme/shop'], ['namespaces', 'create', 'acme/other']);
    expect(await parsed('namespaces', 'list', 'acme')).toEqual(['acme/other', 'acme/shop']);
    expect(await parsed('namespaces', 'policies', 'acme/shop')).toMatchObject({ deleted: false });
    await done(['topics', 'create', 'acme/shop/orders'], ['topics', 'create', 'persistent://acme/shop/bills']);
    expect(await done(['topics', 'list', 'acme/shop'])).toBe(
      'persistent://acme/shop/bills\npersistent://acme/shop/orders\n',
    );
    expect(await failed('namespaces', 'delete', 'acme/shop')).toMatch(/"acme\/shop" has topics/);
    expect(await failed('tenants', 'delete', 'acme')).toMatch(/"acme" has namespaces/);
    await done(['namespaces', 'delete', 'acme/other'], ['namespaces', 'delete', 'acme/shop', '--force']);
    await done(['tenants', 'delete', 'acme']);
    expect(await parsed('tenants', 'list')).toEqual(['public']);
    expect(await done(['clusters', 'list'])).toBe('standalone\n');
  });

  test('subscriptions are made, skipped, looked at, moved, cleared and deleted', async () => {
    await publish('walk', 5);
    await done(
      ['subscriptions', 'create', 'walk', 'first', '--position', 'earliest'],
      ['subscriptions', 'create', 'walk', 'last'],
    );
    expect(await parsed('subscriptions', 'list', 'walk')).toEqual(['first', 'last']);
    await done(['subscriptions', 'skip', 'walk', 'first', '-n', '2']);
    expect(await done(['subscriptions', 'peek', 'walk', 'first', '-n', '2'])).toBe('m2\nm3\n');
    const shown = JSON.parse(await done(['subscriptions', 'peek', 'walk', 'first', '-o', 'json'])) as { id: string };
    expect(shown).toMatchObject({ index: 2, key: 'k2', payload: 'm2' });
    await done(['subscriptions', 'create', 'walk', 'there', '--position', shown.id]);
    expect(await drain('walk', 'there')).toEqual(['m2', 'm3', 'm4']);
    await done(['subscriptions', 'reset-cursor', 'walk', 'last', '--to', '-1h']);
    expect(await drain('walk', 'last')).toHaveLength(5);
    await done(['subscriptions', 'reset-cursor', 'walk', 'last', '--to', shown.id]);
    expect(await drain('walk', 'last')).toEqual(['m2', 'm3', 'm4']);
    await done(['subscriptions', 'clear-backlog', 'walk', 'first']);
    const stats = await done(['subscriptions', 'stats', 'walk']);
    expect(stats.split('\n').map((line) => line.split('\t').slice(0, 2))).toEqual([
      ['SUBSCRIPTION', 'BACKLOG'],
      ['first', '0'],
      ['last', '3'],
      ['there', '3'],
      [''],
    ]);
    expect(await parsed('subscriptions', 'stats', 'walk', 'last')).toMatchObject({ last: { msgBacklog: 3 } });
    await done(['subscriptions', 'delete', 'walk', 'first']);
    expect(await done(['subscriptions', 'list', 'walk'])).toBe('last\nthere\n');
  });

  test('a topic in use tells who is connected, is deleted by force, and is another one afterwards', async () => {
    await publish('busy', 3);
    const producer = await client.createProducer({ topic: 'busy', producerName: 'the-producer' });
    const consumer = await client.subscribe({
      topic: 'busy',
      subscription: 's',
      startPosition: 'earliest',
      consumerName: 'the-consumer',
    });
    const first = await consumer.receive({ timeoutMs: 5_000 });
    await consumer.acknowledge(first);
    const stats = await parsed('topics', 'stats', 'busy');
    expect(stats).toMatchObject({
      msgInCounter: 3,
      publishers: [{ producerName: 'the-producer', address: expect.stringMatching(/^127\.0\.0\.1:\d+$/) as string }],
      subscriptions: {
        s: {
          msgBacklog: 2,
          unackedMessages: 2,
          msgOutCounter: 3,
          consumers: [{ consumerName: 'the-consumer', unackedMessages: 2 }],
        },
      },
    });
    const text = await done(['topics', 'stats', 'busy']);
    expect(text).toMatch(/^the-producer\t/m);
    expect(text).toMatch(/^s\t2\t2\t.*\tthe-consumer$/m);
    expect(await parsed('topics', 'stats-internal', 'busy')).toMatchObject({
      cursors: { s: { markDeleteIndex: 1, numberOfEntriesSinceFirstNotAckedMessage: 2 } },
    });

    expect(await failed('subscriptions', 'delete', 'busy', 's')).toMatch(/consumer "the-consumer" connected/);
    expect(await failed('topics', 'delete', 'busy')).toMatch(
      /1 producers and 1 consumers connected; close them, or force it/,
    );
    await done(['topics', 'unload', 'busy']);
    await producer.send({ data: 'after the unloading' });
    await done(['topics', 'delete', 'busy', '--force']);
    await expect(producer.send({ data: 'late' })).rejects.toMatchObject({ code: 'TOPIC_NOT_FOUND' });
    await publish('busy', 1);
    expect(await drain('busy', 's')).toEqual([]);
    expect(await parsed('topics', 'stats', 'busy')).toMatchObject({ oldestIndex: 0, endIndex: 1 });
  });
});

/** Every command, with names that are right. */
const COMMANDS: readonly (readonly string[])[] = [
  ['tenants', 'list'],
  ['tenants', 'get', 'no'],
  ['tenants', 'create', 'no'],
  ['tenants', 'update', 'no'],
  ['tenants', 'delete', 'no'],
  ['namespaces', 'list', 'no'],
  ['namespaces', 'policies', 'no/no'],
  ['namespaces', 'create', 'no/no'],
  ['namespaces', 'delete', 'no/no'],
  ['topics', 'list', 'no/no'],
  ['topics', 'create', 'no/no/no'],
  ['topics', 'delete', 'no'],
  ['topics', 'unload', 'no'],
  ['topics', 'stats', 'no'],
  ['topics', 'stats-internal', 'no'],
  ['subscriptions', 'list', 'no'],
  ['subscriptions', 'stats', 'no'],
  ['subscriptions', 'create', 'no/no/no', 's'],
  ['subscriptions', 'delete', 'no', 's'],
  ['subscriptions', 'skip', 'no', 's', '-n', '1'],
  ['subscriptions', 'clear-backlog', 'no', 's'],
  ['subscriptions', 'reset-cursor', 'no', 's', '--to', 'earliest'],
  ['subscriptions', 'peek', 'no', 's'],
  ['clusters', 'list'],
];
const WITHOUT_NAMES = ['tenants list', 'clusters list'];

describe('what it says when it cannot', () => {
  test('what is named does not exist', async () => {
    const wanted = COMMANDS.filter(
      ([group, verb]) => !['tenants list', 'clusters list', 'tenants create'].includes(`${group} ${verb}`),
    );
    await each(wanted, async (args) => {
      expect(await failed(...args)).toMatch(/(tenant|namespace|topic) \S*no\S* does not exist/);
    });
    await done(['topics', 'create', 'there']);
    await each(['delete', 'clear-backlog', 'peek'], async (verb) => {
      expect(await failed('subscriptions', verb, 'there', 'no')).toMatch(
        /subscription "no" of topic \S+\/there does not exist/,
      );
    });
    expect(await failed('subscriptions', 'stats', 'there', 'no')).toMatch(/subscription "no" does not exist/);
    await done(['subscriptions', 'create', 'there', 's']);
    expect(await failed('subscriptions', 'reset-cursor', 'there', 's', '--to', '99:0:0')).toMatch(
      /there is no message 99:0:0/,
    );
    expect(await failed('subscriptions', 'peek', 'there', 's')).toMatch(/has 0 messages that are not acknowledged/);
  });

  test('it exists already', async () => {
    await done(['topics', 'create', 'twice'], ['subscriptions', 'create', 'twice', 's']);
    await each(
      [
        ['tenants', 'create', 'public'],
        ['namespaces', 'create', 'public/default'],
        ['topics', 'create', 'twice'],
        ['subscriptions', 'create', 'twice', 's'],
      ],
      async (args) => expect(await failed(...args)).toMatch(/exists already$/),
    );
  });

  test('a name, or a cluster, that is not allowed', async () => {
    await each(
      [
        [/tenant name "a b" is not allowed; use/, ['tenants', 'create', 'a b']],
        [/cluster "nowhere" does not exist/, ['tenants', 'create', 'b', '--allowed-clusters', 'nowhere']],
        [/namespace name "ü" is not allowed/, ['namespaces', 'create', 'public/ü']],
        [/topic name .* is not valid: the last part must not have control characters/, ['topics', 'create', 'a\nb']],
        [/subscription name .* is not valid/, ['subscriptions', 'create', 'hello', 'x'.repeat(256)]],
      ] as const,
      async ([pattern, args]) => expect(await failed(...args)).toMatch(pattern),
    );
    await each(
      [
        [/namespace is 'public'; it must have the form TENANT\/NAMESPACE/, ['topics', 'list', 'public']],
        [/topic is 'a\/b'; it must have the form NAME, /, ['topics', 'stats', 'a/b']],
        [/topic is 'non-persistent:\/\/a\/b\/c'/, ['topics', 'stats', 'non-persistent://a/b/c']],
        [
          /'soon' is invalid.* earliest, latest, a message id/,
          ['subscriptions', 'reset-cursor', 't', 's', '--to', 'soon'],
        ],
        [
          /'-10m' is invalid.* earliest, latest, or a message id/,
          ['subscriptions', 'create', 't', 's', '--position', '-10m'],
        ],
        [/required option '-n, --count <messages>'/, ['subscriptions', 'skip', 't', 's']],
        [/unknown command 'remove'/, ['topics', 'remove', 't']],
        [/a command is missing/, ['topics']],
      ] as const,
      async ([pattern, args]) => {
        const { code, stderr } = await admin(...args);
        expect(stderr).toMatch(pattern);
        expect(stderr).toMatch(/\nSee 'magnetar admin [a-z -]+--help'\.\n$/);
        expect(code).toBe(2);
      },
    );
  });

  test('the server is away, or is another one', async () => {
    const env = { MAGNETAR_ADMIN_URL: 'http://127.0.0.1:1' };
    await each(COMMANDS, async (args) => {
      const { code, stderr } = await runCommand(['admin', ...args], { env });
      expect(stderr).toBe(
        "magnetar: the broker's HTTP side at http://127.0.0.1:1 cannot be reached (ECONNREFUSED); start it, or name another one with --admin-url\n",
      );
      expect(code).toBe(1);
    });
    expect(await failed('topics', 'list', '--admin-url', `http://127.0.0.1:${server.port}`)).toMatch(
      /does not speak HTTP; name a broker's HTTP side with --admin-url/,
    );
  });

  test('every command has help with examples', async () => {
    await each(COMMANDS, async ([group = '', verb = '']) => {
      const { code, stdout } = await admin(group, verb, '--help');
      expect(code).toBe(0);
      expect(stdout.toString()).toMatch(new RegExp(`^Usage: magnetar admin ${group} ${verb} `));
      expect(stdout.toString()).toContain(`Examples:\n  magnetar admin ${group} ${verb}`);
    });
    expect(COMMANDS.filter(([group, verb]) => WITHOUT_NAMES.includes(`${group} ${verb}`))).toHaveLength(2);
  });
});
