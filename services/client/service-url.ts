import { invalid } from './check.ts';

/** The broker's gRPC port where the URL names none. */
const DEFAULT_PORT = 7650;
const SOCKET = /^unix:\/\/(\/[^\0]+)$/;
const FORM = /^grpc:\/\/(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?\/?$/;

/** What a service URL looks like, in words. */
export const SERVICE_URL_FORM: string = `grpc://HOST or grpc://HOST:PORT, the port from 1 to 65535 (${DEFAULT_PORT} when not given), or unix:///PATH of a socket`;

/** Where a broker is. */
export interface ServiceUrl {
  /** As an app writes it, with the port: for messages. */
  readonly text: string;
  /** `host:port` or `unix:path`, as gRPC takes it. */
  readonly target: string;
}

/** @throws MagnetarError INVALID_ARGUMENT */
export function parseServiceUrl(value: string): ServiceUrl {
  const socket = typeof value === 'string' ? SOCKET.exec(value)?.[1] : undefined;
  if (socket !== undefined) return { text: value, target: `unix:${socket}` };
  const found = typeof value === 'string' ? FORM.exec(value) : null;
  const port = found?.[2] === undefined ? DEFAULT_PORT : Number(found[2]);
  const host = found?.[1];
  if (host === undefined || port < 1 || port > 65_535) {
    throw invalid('serviceUrl', value, SERVICE_URL_FORM);
  }
  return { text: `grpc://${host}:${port}`, target: `${host}:${port}` };
}
