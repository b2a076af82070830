/**
 * A standalone that breaks its promise: its bookie's disk says "written" and "synced" a while before it writes. The crash
 * rounds have to notice. Speaks the arguments of `magnetar standalone` that the process harness uses.
 */
import path from 'node:path';
import { parseArgs } from 'node:util';
import { openBookie } from '../../services/bookie/bookie.ts';
import { startBroker } from '../../services/broker/broker.ts';
import { openLedgers } from '../../services/ledger/open-ledgers.ts';
import { openLevelStore } from '../../services/metadata/level.ts';
import { ensureDefaults } from '../../services/metadata/namespaces.ts';
import type { Disk, DiskFile } from '../../services/runtime/disk.ts';
import type { Environment } from '../../services/runtime/environment.ts';
import { silentLogger } from '../../services/runtime/logger.ts';
import { nodeClock } from '../../services/runtime/node/clock.ts';
import { nodeDisk } from '../../services/runtime/node/disk.ts';
import { nodeRandom } from '../../services/runtime/node/random.ts';
import { bindWithWideWindows, createServer } from '../../services/wire/server.ts';

const LATE_MS = 300;

function lazily(file: DiskFile): DiskFile {
  const write: DiskFile['write'] = async (buffers, offset) => {
    const copy = Buffer.concat(buffers);
    setTimeout(() => void file.write([copy], offset), LATE_MS);
  };
  return {
    write,
    commit: write,
    async sync() {},
    read: async (offset, length) => await file.read(offset, length),
    size: async () => await file.size(),
    truncate: async (size) => await file.truncate(size),
    close: async () => await file.close(),
  };
}

const lazyDisk: Disk = {
  open: async (name, options) => lazily(await nodeDisk.open(name, options)),
  readFile: async (name) => await nodeDisk.readFile(name),
  writeFileAtomically: async (name, content) => await nodeDisk.writeFileAtomically(name, content),
  list: async (folder) => await nodeDisk.list(folder),
  makeFolder: async (folder) => await nodeDisk.makeFolder(folder),
  rename: async (from, to) => await nodeDisk.rename(from, to),
  remove: async (name) => await nodeDisk.remove(name),
  syncFolder: async (folder) => await nodeDisk.syncFolder(folder),
  exists: async (name) => await nodeDisk.exists(name),
  space: async (folder) => await nodeDisk.space(folder),
};

const { values } = parseArgs({
  strict: false,
  options: { data: { type: 'string' }, port: { type: 'string' }, 'http-port': { type: 'string' } },
});
const honest: Environment = {
  clock: nodeClock,
  random: nodeRandom,
  disk: nodeDisk,
  logger: silentLogger,
  fatal: (error) => {
    throw error;
  },
};
const environment: Environment = { ...honest, disk: lazyDisk };
const data = String(values.data);
await nodeDisk.makeFolder(data);
const store = await openLevelStore({ environment: honest, folder: path.join(data, 'metadata') });
await ensureDefaults(store, nodeClock.now());
const bookie = await openBookie({ environment, folder: path.join(data, 'bookie-0'), id: 'local-0' });
const quorum = { ensembleSize: 1, writeQuorum: 1, ackQuorum: 1 };
const ledgers = openLedgers({ environment, store, bookies: [bookie], quorum });
const broker = await startBroker({ environment, store, ledgers });
const server = createServer();
broker.addTo(server);
await bindWithWideWindows(server, `127.0.0.1:${String(values.port)}`);
console.log('the saboteur is ready');
