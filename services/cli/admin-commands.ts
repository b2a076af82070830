/** `magnetar admin …`: groups and verbs after those of pulsar-admin. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { AdminContext } from './admin.ts';
import type { OutputFormat } from './admin-output.ts';
import { namespaceParts, subscriptionPath, tenantPath, topicPath } from './admin-paths.ts';
import { TOPIC_FORM, wholeNumber } from './commands.ts';
import { FROM_ALLOWED, type From, parseFrom } from './position.ts';
import type { Toolkit } from './program.ts';
import type { Shell } from './shell.ts';
import { messagesText } from './text.ts';
import { adminUrl, commandPath } from './urls.ts';

type Place = Exclude<From, { type: 'time' }>;

interface Output {
  readonly output: OutputFormat;
}

const NAMESPACE_FORM = 'TENANT/NAMESPACE';

function withOutput(command: Command): Command {
  return command.addOption(
    new Option('-o, --output <format>', 'text: a table, tab-separated where no terminal is; json: one line')
      .choices(['text', 'json'])
      .default('text'),
  );
}

function nameList(text: string): readonly string[] {
  const names = text.split(',').map((name) => name.trim());
  if (names.includes('')) throw new InvalidArgumentError('It must be names, with commas between them.');
  return names;
}

function position(shell: Shell): (text: string) => Place {
  return (text) => {
    const from = parseFrom(text, { now: shell.clock.now(), parseTime: () => undefined });
    if (from !== undefined && from.type !== 'time') return from;
    throw new InvalidArgumentError('It must be earliest, latest, or a message id (ledger:entry:batch).');
  };
}

function anyPosition(shell: Shell): (text: string) => From {
  return (text) => {
    const from = parseFrom(text, { now: shell.clock.now(), parseTime: (iso) => shell.parseTime(iso) });
    if (from !== undefined) return from;
    throw new InvalidArgumentError(`It must be ${FROM_ALLOWED}.`);
  };
}

/** The arguments of a command, the context of its requests, and its own name for errors. */
function given(command: Command, shell: Shell): { context: AdminContext; args: readonly string[]; path: string } {
  return { context: { shell, url: adminUrl(command, shell) }, args: command.args, path: commandPath(command) };
}

function tenantSettings(command: Command, verb: 'create' | 'update'): void {
  const clusters = new Option('-c, --allowed-clusters <names>', 'the clusters that its namespaces may be in');
  if (verb === 'create') clusters.default(['standalone'], 'standalone');
  command
    .argument('<tenant>', 'the tenant')
    .addOption(new Option('-r, --admin-roles <names>', 'who may administrate it').argParser(nameList))
    .addOption(clusters.argParser(nameList));
}

function addTenants({ add, shell }: Toolkit): void {
  add({
    name: 'list',
    summary: 'list the tenants',
    examples: ['magnetar admin tenants list', 'magnetar admin tenants list -o json'],
    declare: withOutput,
    run: async (command) => {
      const { context } = given(command, shell);
      const { printNames } = await import('./admin.ts');
      return await printNames(context, 'tenants', command.opts<Output>().output);
    },
  });
  add({
    name: 'get',
    summary: 'show a tenant',
    examples: ['magnetar admin tenants get acme'],
    declare: (command) => withOutput(command.argument('<tenant>', 'the tenant')),
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const { printFields } = await import('./admin.ts');
      return await printFields(context, tenantPath(args[0] ?? '', path), command.opts<Output>().output);
    },
  });
  for (const verb of ['create', 'update'] as const) {
    add({
      name: verb,
      summary: verb === 'create' ? 'create a tenant' : 'change who may administrate a tenant, and its clusters',
      examples: [`magnetar admin tenants ${verb} acme --admin-roles ann,bob --allowed-clusters standalone`],
      declare: (command) => tenantSettings(command, verb),
      run: async (command) => {
        const { context, args, path } = given(command, shell);
        const [tenant = ''] = args;
        const { adminRoles, allowedClusters } = command.opts<{ adminRoles?: string[]; allowedClusters?: string[] }>();
        const place = tenantPath(tenant, path);
        const { change, updateTenant } = await import('./admin.ts');
        if (verb === 'update') {
          return await updateTenant(context, place, { adminRoles, allowedClusters }, `updated tenant ${tenant}`);
        }
        const body = { adminRoles: adminRoles ?? [], allowedClusters };
        return await change(context, { method: 'PUT', path: place, body }, `created tenant ${tenant}`);
      },
    });
  }
  add({
    name: 'delete',
    summary: 'delete a tenant',
    examples: ['magnetar admin tenants delete acme', 'magnetar admin tenants delete acme --force'],
    declare: (command) =>
      command.argument('<tenant>', 'the tenant').option('-f, --force', 'with its namespaces and their topics'),
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const [tenant = ''] = args;
      const place = forced(command, tenantPath(tenant, path));
      const { change } = await import('./admin.ts');
      return await change(context, { method: 'DELETE', path: place }, `deleted tenant ${tenant}`);
    },
  });
}

function forced(command: Command, path: string): string {
  return command.opts<{ force?: boolean }>().force === true ? `${path}?force=true` : path;
}

function addNamespaces({ add, shell }: Toolkit): void {
  add({
    name: 'list',
    summary: 'list the namespaces of a tenant',
    examples: ['magnetar admin namespaces list public'],
    declare: (command) => withOutput(command.argument('<tenant>', 'the tenant')),
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const place = tenantPath(args[0] ?? '', path).replace(/^tenants/, 'namespaces');
      const { printNames } = await import('./admin.ts');
      return await printNames(context, place, command.opts<Output>().output);
    },
  });
  add({
    name: 'policies',
    summary: 'show the policies of a namespace',
    examples: ['magnetar admin namespaces policies public/default'],
    declare: (command) => withOutput(command.argument('<namespace>', NAMESPACE_FORM)),
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const { printFields } = await import('./admin.ts');
      const place = `namespaces/${namespaceParts(args[0] ?? '', path)}`;
      return await printFields(context, place, command.opts<Output>().output);
    },
  });
  add({
    name: 'create',
    summary: 'create a namespace',
    examples: ['magnetar admin namespaces create acme/orders'],
    declare: (command) => command.argument('<namespace>', NAMESPACE_FORM),
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const [namespace = ''] = args;
      const place = `namespaces/${namespaceParts(namespace, path)}`;
      const { change } = await import('./admin.ts');
      return await change(context, { method: 'PUT', path: place }, `created namespace ${namespace}`);
    },
  });
  add({
    name: 'delete',
    summary: 'delete a namespace',
    examples: ['magnetar admin namespaces delete acme/orders', 'magnetar admin namespaces delete acme/orders --force'],
    declare: (command) =>
      command
        .argument('<namespace>', NAMESPACE_FORM)
        .option('-f, --force', 'with its topics, whoever is connected to them'),
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const [namespace = ''] = args;
      const place = forced(command, `namespaces/${namespaceParts(namespace, path)}`);
      const { change } = await import('./admin.ts');
      return await change(context, { method: 'DELETE', path: place }, `deleted namespace ${namespace}`);
    },
  });
}

/** A command on one topic that changes something and prints nothing. */
function addTopicChange({ add, shell }: Toolkit, { name, summary, done, method, end = '', force }: TopicChange): void {
  add({
    name,
    summary,
    examples: [
      `magnetar admin topics ${name} orders`,
      `magnetar admin topics ${name} persistent://acme/shop/orders${force === undefined ? '' : ' --force'}`,
    ],
    declare: (command) => {
      command.argument('<topic>', TOPIC_FORM);
      if (force !== undefined) command.option('-f, --force', force);
    },
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const [topic = ''] = args;
      const place = forced(command, `${topicPath(topic, path)}${end}`);
      const { change } = await import('./admin.ts');
      return await change(context, { method, path: place }, `${done} topic ${topic}`);
    },
  });
}

interface TopicChange {
  readonly name: string;
  readonly summary: string;
  readonly done: string;
  readonly method: 'PUT' | 'DELETE';
  readonly end?: string;
  /** What --force does; undefined: there is none. */
  readonly force?: string;
}

function addTopics(toolkit: Toolkit): void {
  const { add, shell } = toolkit;
  add({
    name: 'list',
    summary: 'list the topics of a namespace',
    examples: ['magnetar admin topics list', 'magnetar admin topics list acme/shop -o json'],
    declare: (command) => withOutput(command.argument('[namespace]', NAMESPACE_FORM, 'public/default')),
    run: async (command) => {
      const { context, path } = given(command, shell);
      const place = `persistent/${namespaceParts(String(command.processedArgs[0]), path)}`;
      const { printNames } = await import('./admin.ts');
      return await printNames(context, place, command.opts<Output>().output);
    },
  });
  addTopicChange(toolkit, { name: 'create', summary: 'create a topic', done: 'created', method: 'PUT' });
  addTopicChange(toolkit, {
    name: 'delete',
    summary: 'delete a topic, its messages and its subscriptions',
    done: 'deleted',
    method: 'DELETE',
    force: 'also when producers or consumers are connected',
  });
  addTopicChange(toolkit, {
    name: 'unload',
    summary: 'have the broker close a topic and open it anew',
    done: 'unloaded',
    method: 'PUT',
    end: '/unload',
  });
  for (const [name, summary] of [
    ['stats', 'show what goes on in a topic'],
    ['stats-internal', 'show what a topic is made of: its ledgers, and where its subscriptions are'],
  ] as const) {
    add({
      name,
      summary,
      examples: [`magnetar admin topics ${name} orders`, `magnetar admin topics ${name} acme/shop/orders -o json`],
      declare: (command) => withOutput(command.argument('<topic>', TOPIC_FORM)),
      run: async (command) => {
        const { context, args, path } = given(command, shell);
        const place = topicPath(args[0] ?? '', path);
        const { output } = command.opts<Output>();
        const { printFields, printTopicStats } = await import('./admin.ts');
        if (name === 'stats') return await printTopicStats(context, place, output);
        return await printFields(context, `${place}/internalStats`, output);
      },
    });
  }
}

function onSubscription(command: Command): Command {
  return command.argument('<topic>', TOPIC_FORM).argument('<subscription>', 'the subscription');
}

function addSubscriptions({ add, shell }: Toolkit): void {
  add({
    name: 'list',
    summary: 'list the subscriptions of a topic',
    examples: ['magnetar admin subscriptions list orders'],
    declare: (command) => withOutput(command.argument('<topic>', TOPIC_FORM)),
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const { printNames } = await import('./admin.ts');
      return await printNames(
        context,
        `${topicPath(args[0] ?? '', path)}/subscriptions`,
        command.opts<Output>().output,
      );
    },
  });
  add({
    name: 'stats',
    summary: 'show how far subscriptions are',
    examples: ['magnetar admin subscriptions stats orders', 'magnetar admin subscriptions stats orders audit -o json'],
    declare: (command) =>
      withOutput(command.argument('<topic>', TOPIC_FORM).argument('[subscription]', 'one of them; all when not given')),
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const [topic = '', subscription] = args;
      if (subscription !== undefined) subscriptionPath(topic, subscription, path); // the name is checked
      const { output } = command.opts<Output>();
      const { printSubscriptionStats } = await import('./admin.ts');
      return await printSubscriptionStats(context, topicPath(topic, path), { subscription, output });
    },
  });
  add({
    name: 'create',
    summary: 'create a subscription, and the topic where there is none',
    examples: [
      'magnetar admin subscriptions create orders audit --position earliest',
      'magnetar admin subscriptions create orders audit --position 7:0:0',
    ],
    declare: (command) =>
      onSubscription(command).addOption(
        new Option('--position <position>', 'where it begins: earliest, latest, or a message id (ledger:entry:batch)')
          .argParser(position(shell))
          .default({ type: 'latest' }, 'latest'),
      ),
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const [topic = '', name = ''] = args;
      const { change, positionJson } = await import('./admin.ts');
      const body = positionJson(command.opts<{ position: Place }>().position);
      const request = { method: 'PUT', path: subscriptionPath(topic, name, path), body } as const;
      return await change(context, request, `created subscription ${name} of ${topic}`);
    },
  });
  add({
    name: 'delete',
    summary: 'delete a subscription',
    examples: ['magnetar admin subscriptions delete orders audit --force'],
    declare: (command) => onSubscription(command).option('-f, --force', 'also when a consumer is connected'),
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const [topic = '', name = ''] = args;
      const { change } = await import('./admin.ts');
      const place = forced(command, subscriptionPath(topic, name, path));
      return await change(context, { method: 'DELETE', path: place }, `deleted subscription ${name} of ${topic}`);
    },
  });
}

function addMoves({ add, shell }: Toolkit): void {
  add({
    name: 'skip',
    summary: 'count the next messages as acknowledged',
    examples: ['magnetar admin subscriptions skip orders audit -n 10'],
    declare: (command) =>
      onSubscription(command).requiredOption(
        '-n, --count <messages>',
        'how many messages that are not acknowledged',
        wholeNumber(1, Number.MAX_SAFE_INTEGER),
      ),
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const [topic = '', name = ''] = args;
      const { count } = command.opts<{ count: number }>();
      const { change } = await import('./admin.ts');
      const place = `${subscriptionPath(topic, name, path)}/skip/${count}`;
      return await change(context, { method: 'POST', path: place }, `skipped up to ${messagesText(count)} of ${name}`);
    },
  });
  add({
    name: 'clear-backlog',
    summary: 'count all messages as acknowledged',
    examples: ['magnetar admin subscriptions clear-backlog orders audit'],
    declare: onSubscription,
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const [topic = '', name = ''] = args;
      const { change } = await import('./admin.ts');
      const place = `${subscriptionPath(topic, name, path)}/skip_all`;
      return await change(context, { method: 'POST', path: place }, `cleared the backlog of ${name}`);
    },
  });
  add({
    name: 'reset-cursor',
    summary: 'move a subscription: what lies before counts as acknowledged, what follows does not',
    examples: [
      'magnetar admin subscriptions reset-cursor orders audit --to earliest',
      'magnetar admin subscriptions reset-cursor orders audit --to -10m',
      'magnetar admin subscriptions reset-cursor orders audit --to 7:0:0',
    ],
    declare: (command) =>
      onSubscription(command).addOption(
        new Option('--to <position>', `where to: ${FROM_ALLOWED}`).argParser(anyPosition(shell)).makeOptionMandatory(),
      ),
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const [topic = '', name = ''] = args;
      const { resetCursor } = await import('./admin.ts');
      const { to } = command.opts<{ to: From }>();
      return await resetCursor(
        context,
        subscriptionPath(topic, name, path),
        to,
        `moved subscription ${name} of ${topic}`,
      );
    },
  });
}

function addPeek({ add, shell }: Toolkit): void {
  add({
    name: 'peek',
    summary: 'print the next messages, and acknowledge none',
    examples: [
      'magnetar admin subscriptions peek orders audit',
      'magnetar admin subscriptions peek orders audit -n 5 -o json',
    ],
    declare: (command) =>
      onSubscription(command)
        .option('-n, --count <messages>', 'how many at most', wholeNumber(1, 10_000), 1)
        .addOption(
          new Option('-o, --output <format>', 'text: the payload and a line feed; json: one object a line')
            .choices(['text', 'json'])
            .default('text'),
        ),
    run: async (command) => {
      const { context, args, path } = given(command, shell);
      const [topic = '', name = ''] = args;
      const { peek } = await import('./admin.ts');
      return await peek(context, subscriptionPath(topic, name, path), command.opts<Output & { count: number }>());
    },
  });
}

function addClusters({ add, shell }: Toolkit): void {
  add({
    name: 'list',
    summary: 'list the clusters',
    examples: ['magnetar admin clusters list'],
    declare: withOutput,
    run: async (command) => {
      const { context } = given(command, shell);
      const { printNames } = await import('./admin.ts');
      return await printNames(context, 'clusters', command.opts<Output>().output);
    },
  });
}

/** Adds the commands that use the REST API. */
export function addAdminCommands(toolkit: Toolkit): void {
  const admin = toolkit.group('admin', 'administrate tenants, namespaces, topics and subscriptions');
  addTenants(admin.group('tenants', 'who shares the system'));
  addNamespaces(admin.group('namespaces', 'groups of topics within a tenant'));
  addTopics(admin.group('topics', 'topics as a whole'));
  const subscriptions = admin.group('subscriptions', 'subscriptions of a topic, and where they are');
  addSubscriptions(subscriptions);
  addMoves(subscriptions);
  addPeek(subscriptions);
  addClusters(admin.group('clusters', 'the clusters that the broker knows'));
}
