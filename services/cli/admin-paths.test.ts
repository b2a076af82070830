import { PassThrough, Readable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { namespaceParts, subscriptionPath, tenantPath, topicPath } from './admin-paths.ts';
import { runProgram } from './program.ts';
import { shellWith } from './testing/shell.ts';

interface Ran {
  readonly code: number;
  readonly stderr: string;
  /** The requests that were made. */
  readonly urls: readonly string[];
}

async function admin(...args: readonly string[]): Promise<Ran> {
  const [stderr, urls] = [new PassThrough(), new Array<string>()];
  const shell = {
    ...shellWith(Readable.from([]), new PassThrough()),
    stderr,
    http: async ({ url }: { url: string }) => {
      urls.push(url);
      return await Promise.resolve({ status: 204, headers: {}, body: Buffer.alloc(0) });
    },
  };
  const code = await runProgram({ args: ['admin', ...args], shell, version: '1', addCommands: () => {} });
  return { code, stderr: String(stderr.read() ?? ''), urls };
}

/** What is said of a tenant's name, up to the rule. */
function tenant(name: string): string {
  return `tenant is '${name}'; the name must not be `;
}

describe('names on the command line', () => {
  test('become parts of a path, whatever they have in them', () => {
    expect(tenantPath('a.b', 'x')).toBe('tenants/a.b');
    expect(namespaceParts('a/...', 'x')).toBe('a/...');
    expect(topicPath('t', 'x')).toBe('persistent/public/default/t');
    expect(topicPath('persistent://a/n/%2e%2e?ü', 'x')).toBe('persistent/a/n/%252e%252e%3F%C3%BC');
    expect(subscriptionPath('a/n/t', 's/..', 'x')).toBe('persistent/a/n/t/subscription/s%2F..');
  });

  const withTenant = [['get'], ['create'], ['update', '-r', 'ann'], ['delete', '--force']];
  const withNamespace = ['policies', 'create', 'delete'];
  const withTopic = ['create', 'delete', 'unload', 'stats', 'stats-internal'];
  const withSubscription = [
    ['stats'],
    ['create'],
    ['delete'],
    ['skip', '-n', '1'],
    ['clear-backlog'],
    ['reset-cursor', '--to', 'earliest'],
    ['peek'],
  ];
  test.each([
    ...withTenant.map((verb) => [['tenants', ...verb, '..'], `${tenant('..')}".."`] as const),
    ...withTenant.map((verb) => [['tenants', ...verb, ''], `${tenant('')}empty`] as const),
    [['namespaces', 'list', '.'], `${tenant('.')}"."`] as const,
    ...withNamespace.map((verb) => {
      return [['namespaces', verb, '../v'], `namespace is '../v'; the tenant must not be ".."`] as const;
    }),
    [['namespaces', 'delete', 'v/..', '-f'], `namespace is 'v/..'; the namespace must not be ".."`] as const,
    [['namespaces', 'delete', 'v/', '-f'], `namespace is 'v/'; the namespace must not be empty`] as const,
    [['topics', 'list', 'v/.'], `namespace is 'v/.'; the namespace must not be "."`] as const,
    ...withTopic.map((verb) => {
      return [['topics', verb, '../tenants/v'], `topic is '../tenants/v'; the tenant must not be ".."`] as const;
    }),
    [['topics', 'delete', '..', '--force'], `topic is '..'; the last part must not be ".."`] as const,
    [['topics', 'delete', 'a/./t'], `topic is 'a/./t'; the namespace must not be "."`] as const,
    [['topics', 'delete', ''], `topic is ''; the last part must not be empty`] as const,
    [['subscriptions', 'list', '..'], `topic is '..'; the last part must not be ".."`] as const,
    ...withSubscription.flatMap(([verb = '', ...options]) => [
      [['subscriptions', verb, 't', '..', ...options], `subscription is '..'; the name must not be ".."`] as const,
      [['subscriptions', verb, '..', 's', ...options], `topic is '..'; the last part must not be ".."`] as const,
    ]),
  ])('%j is refused before anything is asked for', async (args, problem) => {
    const { code, stderr, urls } = await admin(...args);
    expect({ code, urls, problem: stderr.split('\n')[0] }).toEqual({
      code: 2,
      urls: [],
      problem: `magnetar: ${problem}`,
    });
  });

  test('what names a topic is asked for as it is', async () => {
    expect((await admin('topics', 'delete', 'a/n/t', '--force')).urls).toEqual([
      'http://127.0.0.1:8080/admin/v2/persistent/a/n/t?force=true',
    ]);
  });

  test('the answer to a skip has no count: what is said holds also where fewer were left', async () => {
    const { code, stderr } = await admin('subscriptions', 'skip', 't', 's', '-n', '100');
    expect({ code, stderr }).toEqual({ code: 0, stderr: 'skipped up to 100 messages of s\n' });
  });
});
