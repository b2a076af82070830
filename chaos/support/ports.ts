import { createServer } from 'node:net';

/** Below the ports that the kernel gives to whoever connects: a server that is killed finds its port free when it comes back. */
const [FIRST, COUNT] = [10_000, 20_000];
/** Test files that run side by side do not take a port from each other between `freePort` and the start of the server. */
const [WORKERS, WORKER] = [2, Number(process.env['VITEST_POOL_ID'] ?? 0) % 2];

const given = new Set<number>();

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return await new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(false);
      else reject(error);
    });
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** A port of 127.0.0.1 that nobody listens on. Never the same one twice in a process. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST + Math.floor((Math.random() * COUNT) / WORKERS) * WORKERS + WORKER;
    if (given.has(port)) continue;
    given.add(port);
    if (await isFree(port)) return port;
  }
}
