import { createRequire } from 'node:module';
import { type DestinationStream, destination, type Logger as Pino, pino } from 'pino';
import { MagnetarError } from '../../lib/errors.ts';
import type { LogFields, Logger } from '../logger.ts';

/** From which severity on lines are written. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

const STDERR = 2;

/** A thrown value as fields. The stack is for developers: at debug level alone. */
function describe(error: unknown, withStack: boolean): unknown {
  if (!(error instanceof Error)) return error;
  const code = 'code' in error ? { code: error.code } : {};
  const details = error instanceof MagnetarError && Object.keys(error.details).length > 0 ? error.details : undefined;
  return {
    name: error.name,
    ...code,
    message: error.message,
    ...(details === undefined ? {} : { details }),
    ...(error.cause === undefined ? {} : { cause: describe(error.cause, withStack) }),
    ...(withStack ? { stack: error.stack } : {}),
  };
}

function wrap(log: Pino): Logger {
  return {
    debug(message, fields) {
      log.debug(fields ?? {}, message);
    },
    info(message, fields) {
      log.info(fields ?? {}, message);
    },
    warn(message, fields) {
      log.warn(fields ?? {}, message);
    },
    error(message, fields) {
      log.error(fields ?? {}, message);
    },
    child: (fields: LogFields) => wrap(log.child(fields)),
  };
}

/** Lines for people. Loaded when wanted: a server that logs JSON does not pay for it. */
function prettyStream(target: DestinationStream, colorize: boolean): DestinationStream {
  type Library = { readonly prettyFactory: (options: object) => (line: string) => string };
  const { prettyFactory } = createRequire(import.meta.url)('pino-pretty') as Library;
  const format = prettyFactory({ colorize, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l' });
  return {
    write(line) {
      target.write(format(line));
    },
  };
}

/**
 * A logger that writes one line of JSON per message to stderr, or lines for people when `pretty` (default: when stderr is a
 * terminal). Writes are synchronous, so that a line is out before the process ends. `target` takes the lines instead of stderr.
 */
export function createLogger(options: { level: LogLevel; pretty?: boolean; target?: DestinationStream }): Logger {
  const { level, pretty = process.stderr.isTTY } = options;
  const target = options.target ?? destination({ fd: STDERR, sync: true });
  const log = pino(
    {
      level,
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: (value: unknown) => describe(value, level === 'debug') },
    },
    pretty ? prettyStream(target, options.target === undefined && process.stderr.isTTY) : target,
  );
  return wrap(log);
}
