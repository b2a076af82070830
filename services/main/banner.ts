import pc from 'picocolors';

const DEFAULT_PORT = 7650;

/** What `magnetar standalone` says when it is ready. */
export function standaloneBanner(options: {
  readonly version: string;
  readonly bookies: string;
  readonly data: string;
  readonly port: number;
  readonly httpPort: number;
  readonly readyMs: number;
}): string {
  const { version, bookies, data, port, httpPort, readyMs } = options;
  const url = port === DEFAULT_PORT ? '' : ` --service-url grpc://127.0.0.1:${port}`;
  return `
  ${pc.bold(`Magnetar ${version} is ready`)} after ${Math.round(readyMs)} ms: ${bookies}, data in ${data}

    apps    ${pc.cyan(`grpc://127.0.0.1:${port}`)}
    admin   ${pc.cyan(`http://127.0.0.1:${httpPort}/docs`)}, /admin/v2, 'magnetar admin'
    health  ${pc.cyan(`http://127.0.0.1:${httpPort}/healthz`)}, /readyz, /version, /metrics

  Next, in another terminal:

    npx magnetar produce hello -m 'Hello, world'${url}
    npx magnetar consume hello -s first${url}

  Ctrl-C ends it.

`;
}

/** What `magnetar bookie` says when it is ready. */
export function bookieBanner(options: {
  readonly version: string;
  readonly data: string;
  readonly address: string;
  readonly httpPort: number;
  readonly readyMs: number;
}): string {
  const { version, data, address, httpPort, readyMs } = options;
  return `
  ${pc.bold(`Magnetar bookie ${version} is ready`)} after ${Math.round(readyMs)} ms: ${pc.cyan(address)}, data in ${data}

    health  ${pc.cyan(`http://127.0.0.1:${httpPort}/healthz`)}, /readyz, /version, /metrics

    npx magnetar standalone --bookie ${address}

`;
}
