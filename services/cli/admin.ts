/** What the admin commands do. */
import { MagnetarError } from '../lib/errors.ts';
import { AdminClient } from './admin-client.ts';
import { jsonText, type OutputFormat, rateText, tableText } from './admin-output.ts';
import type { From } from './position.ts';
import { EXIT_DONE, type Shell } from './shell.ts';
import { bytesText } from './text.ts';

/** What every admin command is given. */
export interface AdminContext {
  readonly shell: Shell;
  readonly url: string;
}

function clientOf({ shell, url }: AdminContext): AdminClient {
  return new AdminClient(shell, url);
}

type Json = Readonly<Record<string, unknown>>;

function recordOf(value: unknown): Json {
  return typeof value === 'object' && value !== null ? (value as Json) : {};
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? (value as readonly unknown[]) : [];
}

function numberOf(value: unknown): number {
  return typeof value === 'number' ? value : 0;
}

function textOf(value: unknown): string {
  if (Array.isArray(value)) return value.map(textOf).join(', ');
  return typeof value === 'string' ? value : JSON.stringify(value ?? null);
}

/** Prints a list of names, one a line. */
export async function printNames(context: AdminContext, path: string, output: OutputFormat): Promise<number> {
  const names = await clientOf(context).get(path);
  const text =
    output === 'json'
      ? jsonText(names)
      : listOf(names)
          .map((name) => `${textOf(name)}\n`)
          .join('');
  context.shell.stdout.write(text);
  return EXIT_DONE;
}

/** Prints an object: a line for each of its fields, or as JSON. */
export async function printFields(context: AdminContext, path: string, output: OutputFormat): Promise<number> {
  const value = await clientOf(context).get(path);
  const { shell } = context;
  const fields = Object.entries(recordOf(value)).map(([name, field]) => [name, textOf(field)]);
  shell.stdout.write(output === 'json' ? jsonText(value) : tableText(shell, ['FIELD', 'VALUE'], fields));
  return EXIT_DONE;
}

/** Changes something; says on stderr what was done. */
export async function change(
  context: AdminContext,
  request: { readonly method: 'PUT' | 'POST' | 'DELETE'; readonly path: string; readonly body?: unknown },
  done: string,
): Promise<number> {
  await clientOf(context).change(request.method, request.path, request.body);
  context.shell.stderr.write(`${done}\n`);
  return EXIT_DONE;
}

/** What a command is not told of a tenant stays as it is. */
export async function updateTenant(
  context: AdminContext,
  path: string,
  given: {
    readonly adminRoles: readonly string[] | undefined;
    readonly allowedClusters: readonly string[] | undefined;
  },
  done: string,
): Promise<number> {
  const known = recordOf(await clientOf(context).get(path));
  const body = {
    adminRoles: given.adminRoles ?? known['adminRoles'],
    allowedClusters: given.allowedClusters ?? known['allowedClusters'],
  };
  return await change(context, { method: 'POST', path, body }, done);
}

function subscriptionRows(subscriptions: Json): (string | number)[][] {
  return Object.entries(subscriptions).map(([name, value]) => {
    const subscription = recordOf(value);
    const consumers = listOf(subscription['consumers']).map((consumer) => textOf(recordOf(consumer)['consumerName']));
    return [
      name,
      numberOf(subscription['msgBacklog']),
      numberOf(subscription['unackedMessages']),
      rateText(numberOf(subscription['msgRateOut'])),
      rateText(numberOf(subscription['messageAckRate'])),
      subscription['isDurable'] === false ? 'reader' : textOf(subscription['type']),
      consumers.join(', ') || '-',
    ];
  });
}

const SUBSCRIPTION_HEADS = ['SUBSCRIPTION', 'BACKLOG', 'UNACKED', 'OUT/S', 'ACKS/S', 'TYPE', 'CONSUMERS'];

/** `topics stats`: the topic, its producers, its subscriptions. */
export async function printTopicStats(context: AdminContext, path: string, output: OutputFormat): Promise<number> {
  const value = await clientOf(context).get(`${path}/stats`);
  const { shell } = context;
  if (output === 'json') {
    shell.stdout.write(jsonText(value));
    return EXIT_DONE;
  }
  const stats = recordOf(value);
  const flow = (name: string): string[] => [
    String(numberOf(stats[`msg${name}Counter`])),
    bytesText(numberOf(stats[`bytes${name}Counter`])),
    rateText(numberOf(stats[`msgRate${name}`])),
    `${bytesText(Math.round(numberOf(stats[`msgThroughput${name}`])))}/s`,
  ];
  const publishers = listOf(stats['publishers']).map((publisher) => {
    const { producerName, address, msgRateIn, clientVersion } = recordOf(publisher);
    return [textOf(producerName), rateText(numberOf(msgRateIn)), textOf(address ?? '-'), textOf(clientVersion ?? '-')];
  });
  const [oldest, end] = [numberOf(stats['oldestIndex']), numberOf(stats['endIndex'])];
  const parts = [
    tableText(
      shell,
      ['MESSAGES', 'STORED', 'OLDEST INDEX', 'NEXT INDEX'],
      [[end - oldest, bytesText(numberOf(stats['storageSize'])), oldest, end]],
    ),
    tableText(
      shell,
      ['SINCE OPENED', 'MESSAGES', 'BYTES', 'MESSAGES/S', 'BYTES/S'],
      [
        ['in', ...flow('In')],
        ['out', ...flow('Out')],
      ],
    ),
    tableText(shell, ['PRODUCER', 'IN/S', 'ADDRESS', 'CLIENT'], publishers),
    tableText(shell, SUBSCRIPTION_HEADS, subscriptionRows(recordOf(stats['subscriptions']))),
  ];
  shell.stdout.write(parts.join('\n'));
  return EXIT_DONE;
}

/** `subscriptions stats`: all of a topic, or one. */
export async function printSubscriptionStats(
  context: AdminContext,
  path: string,
  { subscription, output }: { readonly subscription: string | undefined; readonly output: OutputFormat },
): Promise<number> {
  const all = recordOf(recordOf(await clientOf(context).get(`${path}/stats`))['subscriptions']);
  if (subscription !== undefined && !Object.hasOwn(all, subscription)) {
    throw new MagnetarError('SUBSCRIPTION_NOT_FOUND', `subscription "${subscription}" does not exist`);
  }
  const wanted = subscription === undefined ? all : { [subscription]: all[subscription] };
  const { shell } = context;
  shell.stdout.write(
    output === 'json' ? jsonText(wanted) : tableText(shell, SUBSCRIPTION_HEADS, subscriptionRows(wanted)),
  );
  return EXIT_DONE;
}

function messageId(id: string): Json {
  const [ledgerId = 0, entryId = 0, batchIndex = -1] = id.split(':').map(Number);
  return { ledgerId, entryId, batchIndex };
}

/** A position as the REST API takes it. */
export function positionJson(position: Exclude<From, { type: 'time' }>): unknown {
  return position.type === 'id' ? messageId(position.id) : position.type;
}

/** `subscriptions reset-cursor` */
export async function resetCursor(context: AdminContext, path: string, to: From, done: string): Promise<number> {
  const request =
    to.type === 'time'
      ? { path: `${path}/resetcursor/${Math.floor(to.time)}` }
      : { path: `${path}/resetcursor`, body: positionJson(to) };
  return await change(context, { method: 'POST', ...request }, done);
}

/** `subscriptions peek`: the next messages that are not acknowledged, as `read` prints them. */
export async function peek(
  context: AdminContext,
  path: string,
  { count, output }: { readonly count: number; readonly output: OutputFormat },
): Promise<number> {
  const { stdout } = context.shell;
  const client = clientOf(context);
  for (let nth = 1; nth <= count; nth++) {
    let answer;
    try {
      answer = await client.getRaw(`${path}/position/${nth}`);
    } catch (error) {
      if (nth > 1 && error instanceof MagnetarError && error.code === 'TOPIC_NOT_FOUND') break; // there are no more
      throw error;
    }
    const { headers, body } = answer;
    if (output === 'text') stdout.write(Buffer.concat([body, Buffer.from('\n')]));
    else {
      const payload = body.toString('utf8');
      const isText = Buffer.from(payload).equals(body);
      stdout.write(
        jsonText({
          id: headers['x-pulsar-message-id'],
          index: Number(headers['x-pulsar-message-index']),
          key: headerText(headers['x-pulsar-partition-key']),
          properties: JSON.parse(String(headers['x-pulsar-property'] ?? '{}')) as unknown,
          publishTime: Number(headers['x-pulsar-publish-time']),
          ...(isText ? { payload } : { payloadBase64: body.toString('base64') }),
        }),
      );
    }
  }
  return EXIT_DONE;
}

/** What stands percent-encoded in a header. */
function headerText(header: string | readonly string[] | undefined): string | null {
  return typeof header === 'string' ? decodeURIComponent(header) : null;
}
