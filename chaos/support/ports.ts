import { createServer } from 'node:net';

const given = new Set<number>();

/** A port of 127.0.0.1 that nobody listens on. Never the same one twice in a process. */
export async function freePort(): Promise<number> {
  for (;;) {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    const address = server.address();
    await new Promise((resolve) => server.close(resolve));
    if (address === null || typeof address === 'string') throw new Error('the platform gave no port');
    if (given.has(address.port)) continue;
    given.add(address.port);
    return address.port;
  }
}
