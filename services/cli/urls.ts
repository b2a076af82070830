import type { Command } from 'commander';
import { parseServiceUrl, SERVICE_URL_FORM } from '../client/service-url.ts';
import type { Shell } from './shell.ts';
import { UsageError } from './usage-error.ts';

const ADMIN_URL = /^http:\/\/(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})\/?$/;

interface Setting {
  readonly flag: string;
  readonly variable: string;
  readonly fallback: string;
}

const SERVICE: Setting = {
  flag: '--service-url',
  variable: 'MAGNETAR_SERVICE_URL',
  fallback: 'grpc://127.0.0.1:7650',
};
const ADMIN: Setting = { flag: '--admin-url', variable: 'MAGNETAR_ADMIN_URL', fallback: 'http://127.0.0.1:8080' };

/** A command as it is typed: `magnetar admin tenants list`. */
export function commandPath(command: Command): string {
  return command.parent === null ? command.name() : `${commandPath(command.parent)} ${command.name()}`;
}

/** A flag beats the environment; the environment beats the default. Tells the text, and what it is from. */
function setting(shell: Shell, value: unknown, { flag, variable, fallback }: Setting): readonly [string, string] {
  if (typeof value === 'string') return [value, flag];
  return [shell.environment[variable] ?? fallback, variable];
}

/** The broker to talk to. A wrong `--admin-url` is told, although it is not used. @throws UsageError */
export function serviceUrl(command: Command, shell: Shell): string {
  adminUrl(command, shell);
  const { serviceUrl: value } = command.optsWithGlobals<{ serviceUrl?: unknown }>();
  const [text, source] = setting(shell, value, SERVICE);
  try {
    return parseServiceUrl(text).text;
  } catch {
    throw new UsageError(`${source} is '${text}'; it must be ${SERVICE_URL_FORM}`, commandPath(command));
  }
}

/** The broker's HTTP side: http://HOST:PORT. @throws UsageError */
export function adminUrl(command: Command, shell: Shell): string {
  const { adminUrl: value } = command.optsWithGlobals<{ adminUrl?: unknown }>();
  const [text, source] = setting(shell, value, ADMIN);
  const port = Number(ADMIN_URL.exec(text)?.[2] ?? 0);
  if (port >= 1 && port <= 65_535) return text;
  const form = 'it must have the form http://HOST:PORT, the port from 1 to 65535';
  throw new UsageError(`${source} is '${text}'; ${form}`, commandPath(command));
}
