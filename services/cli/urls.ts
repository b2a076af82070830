import type { Command } from 'commander';
import type { Shell } from './shell.ts';
import { UsageError } from './usage-error.ts';

const SERVICE_URL = /^grpc:\/\/(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})\/?$/;
const ADMIN_URL = /^http:\/\/(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})\/?$/;

interface Setting {
  readonly flag: string;
  readonly variable: string;
  readonly pattern: RegExp;
  readonly form: string;
  readonly fallback: string;
}

/** A command as it is typed: `magnetar admin tenants list`. */
export function commandPath(command: Command): string {
  return command.parent === null ? command.name() : `${commandPath(command.parent)} ${command.name()}`;
}

/** A flag beats the environment; the environment beats the default. */
function setting(
  command: Command,
  shell: Shell,
  value: unknown,
  { flag, variable, pattern, form, fallback }: Setting,
): string {
  const fromFlag = typeof value === 'string' ? value : undefined;
  const text = fromFlag ?? shell.environment[variable] ?? fallback;
  const port = Number(pattern.exec(text)?.[2] ?? 0);
  if (port >= 1 && port <= 65_535) return text;
  const source = fromFlag === undefined ? variable : flag;
  throw new UsageError(
    `${source} is '${text}'; it must have the form ${form}, the port from 1 to 65535`,
    commandPath(command),
  );
}

/** The broker to talk to: grpc://HOST:PORT. A wrong `--admin-url` is told, although it is not used. @throws UsageError */
export function serviceUrl(command: Command, shell: Shell): string {
  adminUrl(command, shell);
  const { serviceUrl: value } = command.optsWithGlobals<{ serviceUrl?: unknown }>();
  return setting(command, shell, value, {
    flag: '--service-url',
    variable: 'MAGNETAR_SERVICE_URL',
    pattern: SERVICE_URL,
    form: 'grpc://HOST:PORT',
    fallback: 'grpc://127.0.0.1:7650',
  });
}

/** The broker's HTTP side: http://HOST:PORT. @throws UsageError */
export function adminUrl(command: Command, shell: Shell): string {
  const { adminUrl: value } = command.optsWithGlobals<{ adminUrl?: unknown }>();
  return setting(command, shell, value, {
    flag: '--admin-url',
    variable: 'MAGNETAR_ADMIN_URL',
    pattern: ADMIN_URL,
    form: 'http://HOST:PORT',
    fallback: 'http://127.0.0.1:8080',
  });
}
