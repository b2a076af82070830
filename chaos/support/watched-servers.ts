import { afterAll, afterEach, beforeAll } from 'vitest';
import { assert } from '../../services/lib/assert.ts';
import { type ServerProcess, startBookie, startStandalone } from './process.ts';
import { Watch } from './watch.ts';

/** A broker, and a bookie in a process of its own, as the tests of one file find them. */
interface WatchedServers {
  readonly broker: ServerProcess;
  readonly bookie: ServerProcess;
  readonly watch: Watch;
}

/** Runs servers for the tests of the file that calls this; after each of them, they have to be unharmed. */
export function watchedServers(): WatchedServers {
  let broker: ServerProcess | undefined;
  let bookie: ServerProcess | undefined;
  let watch: Watch | undefined;
  beforeAll(async () => {
    bookie = await startBookie();
    broker = await startStandalone({ args: ['--bookie', `127.0.0.1:${bookie.port}`] });
    watch = await Watch.start([broker, bookie], broker.serviceUrl);
  });
  afterEach(async () => {
    await watch?.unharmed();
  });
  afterAll(async () => {
    try {
      await watch?.stop();
    } finally {
      await broker?.[Symbol.asyncDispose]();
      await bookie?.[Symbol.asyncDispose]();
    }
  });
  return {
    get broker() {
      return started(broker);
    },
    get bookie() {
      return started(bookie);
    },
    get watch() {
      return started(watch);
    },
  };
}

function started<T>(one: T | undefined): T {
  assert(one !== undefined, 'the servers run while the tests do');
  return one;
}
