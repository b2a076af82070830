/** A standalone in somebody else's process: it never exits it, listens to none of its events, and leaves nothing behind. */
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { checkFields, checkInteger, checkMethods, checkText, invalid } from '../client/check.ts';
import { Client } from '../client/client.ts';
import type { ClientEnvironment } from '../client/environment.ts';
import { nodeEnvironment } from '../client/environment.ts';
import type { ClientOptions } from '../client/options.ts';
import { hasCode, MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { Disk } from '../runtime/disk.ts';
import type { Environment } from '../runtime/environment.ts';
import { Lifecycle } from '../runtime/lifecycle.ts';
import { type Logger, silentLogger } from '../runtime/logger.ts';
import { nodeClock } from '../runtime/node/clock.ts';
import { nodeDisk } from '../runtime/node/disk.ts';
import { nodeRandom } from '../runtime/node/random.ts';
import { folderError } from './data-folder.ts';
import { HOST } from './grpc-server.ts';
import { DEFAULT_MEMORY_BYTES, LEAST_MEMORY_BYTES } from '../runtime/memory.ts';
import { openStandalone, type Standalone } from './open-standalone.ts';
import { packageVersion } from './package-version.ts';

const CLOSE_MS = 15_000;
const HIGHEST_PORT = 65_535;
const MAX_BOOKIES = 16;
const SOCKET = 'broker.sock';
/** What the platforms allow for the path of a socket. */
const SOCKET_PATH_BYTES = 103;

/** What can be set about a standalone in this process. */
export interface EmbeddedOptions {
  /** The data folder; made where there is none. Where none is given, a temporary one that `close` removes. */
  readonly data?: string | undefined;
  /** Bookies, from 1 to 16; three of them keep three copies. As many as the data folder has by default, else one. */
  readonly bookies?: number | undefined;
  /**
   * TCP port on 127.0.0.1 for clients: of this process, and of others. 0, the default, takes a free one. With false there is
   * none: clients come in through a socket in a private temporary folder.
   */
  readonly port?: number | false | undefined;
  /**
   * Port on 127.0.0.1 for HTTP; 0 takes a free one. None by default. Besides /healthz, /readyz, /version and /metrics it serves
   * the administration, /admin/v2 and /docs: whoever reaches it may change and delete everything, without authentication.
   */
  readonly httpPort?: number | false | undefined;
  /** Bytes that buffers of messages may take: on their way, in caches, for slow clients. 256 MiB by default, 64 MiB at least. */
  readonly memoryBytes?: number | undefined;
  /** Told what a server would write into its log. Silent by default. */
  readonly logger?: Logger | undefined;
  /**
   * Called once when nothing can be stored any more: the disk has failed. Whatever is under way fails with the error, and so
   * does whatever is tried later; `close` still works, and another one may be started on the folder after it. By default the
   * error is thrown as an uncaught exception, so that a process does not go on unaware.
   */
  readonly onFatal?: ((error: MagnetarError) => void) | undefined;
}

/** The options of a client, less the address. */
export type EmbeddedClientOptions = Omit<ClientOptions, 'serviceUrl'>;

/** A broker in this process. */
export interface EmbeddedStandalone extends AsyncDisposable {
  /** For clients: `grpc://127.0.0.1:port`, or `unix:///path` where there is no port. */
  readonly serviceUrl: string;
  readonly httpUrl: string | undefined;
  /** The data folder, as an absolute path. */
  readonly data: string;
  /** A client of this broker, which is closed with it at the latest. @throws MagnetarError INVALID_ARGUMENT, ALREADY_CLOSED */
  client(options?: EmbeddedClientOptions): Client;
  /**
   * Closes the clients that were made here, each as `Client.close` does; answers what is under way, closes the stores, and
   * lets go of the folder, which is removed if it was temporary. Idempotent. @throws MagnetarError, or an AggregateError, when
   * a part could not be closed in order; it is not held by this process any more then, either
   */
  close(): Promise<void>;
}

interface Config {
  readonly data: string | undefined;
  readonly bookies: number | undefined;
  readonly port: number | false;
  readonly httpPort: number | undefined;
  readonly memoryBudgetBytes: number;
  readonly logger: Logger;
  readonly onFatal: (error: MagnetarError) => void;
}

const FIELDS = ['data', 'bookies', 'port', 'httpPort', 'memoryBytes', 'logger', 'onFatal'] as const;

function checkPort(field: string, value: number | false | undefined, fallback: number | false): number | false {
  if (value === undefined || value === false) return value ?? fallback;
  const fits = Number.isSafeInteger(value) && value >= 0 && value <= HIGHEST_PORT;
  if (!fits) throw invalid(field, value, `false, or an integer from 0 to ${HIGHEST_PORT}`);
  return value;
}

function rethrow(error: MagnetarError): never {
  throw error;
}

/** @throws MagnetarError INVALID_ARGUMENT */
function checkOptions(options: EmbeddedOptions): Config {
  const { data, bookies, logger = silentLogger, onFatal = rethrow } = checkFields('the options', options, FIELDS);
  const limits = { fallback: DEFAULT_MEMORY_BYTES, lowest: LEAST_MEMORY_BYTES, highest: Number.MAX_SAFE_INTEGER };
  if (typeof onFatal !== 'function') throw invalid('onFatal', onFatal, 'a function');
  const httpPort = checkPort('httpPort', options.httpPort, false);
  return {
    data: data === undefined ? undefined : checkText('data', data),
    bookies:
      bookies === undefined
        ? undefined
        : checkInteger('bookies', bookies, { fallback: 1, lowest: 1, highest: MAX_BOOKIES }),
    port: checkPort('port', options.port, 0),
    httpPort: httpPort === false ? undefined : httpPort,
    memoryBudgetBytes: checkInteger('memoryBytes', options.memoryBytes, limits),
    logger: checkMethods('logger', logger, ['debug', 'info', 'warn', 'error', 'child']),
    onFatal,
  };
}

/** What is a flag of the program is an option here: "--http-port" is `httpPort`. */
function flagsAsOptions(text: string): string {
  return text.replaceAll(/--([a-z]+(?:-[a-z]+)*)/g, (_, flag: string) =>
    flag.replaceAll(/-([a-z])/g, (_match, letter: string) => letter.toUpperCase()),
  );
}

function inTermsOfOptions(error: unknown): MagnetarError {
  const { code, message, details, cause } = toMagnetarError(error);
  const { flag, ...others } = details;
  const known = flag === undefined ? details : { ...others, field: flagsAsOptions(flag) };
  return new MagnetarError(code, flagsAsOptions(message), { details: known, cause });
}

/** A client that says when it is closed. */
class BoundClient extends Client {
  readonly #closed: (client: BoundClient) => void;

  constructor(options: ClientOptions, environment: ClientEnvironment, closed: (client: BoundClient) => void) {
    super(options, environment);
    this.#closed = closed;
  }

  override async close(wait?: Parameters<Client['close']>[0]): Promise<void> {
    const closed = super.close().finally(() => this.#closed(this));
    await Promise.race([closed, super.close(wait)]);
  }
}

/** Opens in these steps, so that `close` finds whatever there is at any moment. */
class RunningEmbedded implements EmbeddedStandalone {
  readonly #config: Config;
  readonly #lifecycle: Lifecycle;
  readonly #environment: Environment;
  readonly #clients = new Set<BoundClient>();
  /** Aborts, with the error as its reason, when the disk has failed. */
  readonly #failed = new AbortController();
  #temporary: string | undefined;
  #standalone: Standalone | undefined;
  #socket: string | undefined;
  #closing: Promise<void> | undefined;

  constructor(config: Config, disk: Disk) {
    this.#config = config;
    const { logger } = config;
    const fatal = (error: Error): void => this.#fail(toMagnetarError(error));
    this.#environment = { clock: nodeClock, random: nodeRandom, disk, logger, fatal };
    this.#lifecycle = new Lifecycle(this.#environment);
  }

  async open(): Promise<void> {
    const { bookies, port, httpPort, memoryBudgetBytes } = this.#config;
    const folder = await this.#folder();
    this.#socket = port === false ? path.join(await this.#temporaryFolder(), SOCKET) : undefined;
    if (this.#socket !== undefined) checkSocketPath(this.#socket);
    const context = { environment: this.#environment, lifecycle: this.#lifecycle };
    this.#standalone = await openStandalone(context, {
      data: folder,
      bookies,
      remoteBookies: [],
      port: this.#socket === undefined ? (port as number) : { socket: this.#socket },
      httpPort,
      memoryBudgetBytes,
      version: packageVersion(),
    });
    this.#failed.signal.throwIfAborted();
  }

  /** The data folder under its one true name: the lock that LevelDB has within a process goes by the name. */
  async #folder(): Promise<string> {
    const folder = path.resolve(this.#config.data ?? path.join(await this.#temporaryFolder(), 'data'));
    try {
      await this.#environment.disk.makeFolder(folder);
      return await realpath(folder);
    } catch (error) {
      throw folderError(folder, error);
    }
  }

  async #temporaryFolder(): Promise<string> {
    this.#temporary ??= await mkdtemp(path.join(tmpdir(), 'magnetar-'));
    return this.#temporary;
  }

  get #running(): Standalone {
    if (this.#standalone === undefined) throw new MagnetarError('ALREADY_CLOSED', 'this standalone was never opened');
    return this.#standalone;
  }

  get serviceUrl(): string {
    return this.#socket === undefined ? `grpc://${HOST}:${this.#running.port}` : `unix://${this.#socket}`;
  }

  get httpUrl(): string | undefined {
    const { httpPort } = this.#running;
    return httpPort === undefined ? undefined : `http://${HOST}:${httpPort}`;
  }

  get data(): string {
    return this.#running.folder;
  }

  client(options: EmbeddedClientOptions = {}): Client {
    if (this.#closing !== undefined) {
      throw new MagnetarError('ALREADY_CLOSED', `the standalone of ${this.data} is closed`);
    }
    const environment: ClientEnvironment = { ...nodeEnvironment, brokerGone: this.#failed.signal };
    const known = { ...options, serviceUrl: this.serviceUrl };
    const client = new BoundClient(known, environment, (gone) => this.#clients.delete(gone));
    this.#clients.add(client);
    return client;
  }

  /** Before the start and after the beginning of the end, whoever waits for these is told, and nobody else. */
  #fail(error: MagnetarError): void {
    if (this.#failed.signal.aborted) return;
    const hook = this.#standalone !== undefined && this.#closing === undefined ? this.#config.onFatal : undefined;
    this.#failed.abort(error);
    this.#standalone?.broker.fail(error);
    // In a turn of its own: the hook may close everything, and what it throws is the app's own uncaught exception.
    if (hook !== undefined) queueMicrotask(() => hook(error));
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await Promise.resolve(); // `#closing` is set from here on
    const { signal } = this.#failed;
    const failedBefore = signal.aborted;
    await Promise.allSettled([...this.#clients].map(async (client) => await client.close())); // apps are told by what they wait for
    try {
      await this.#closeStores();
      if (!failedBefore) signal.throwIfAborted();
    } finally {
      if (this.#temporary !== undefined) await rm(this.#temporary, { recursive: true, force: true, maxRetries: 3 });
    }
  }

  /** After a failure, that the stores close in order is not to be expected; that they let go of the folder is. */
  async #closeStores(): Promise<void> {
    try {
      await this.#lifecycle.close({ deadlineMs: CLOSE_MS });
    } catch (error) {
      const errors: readonly unknown[] = error instanceof AggregateError ? error.errors : [error];
      if (!this.#failed.signal.aborted || errors.some((each) => hasCode(each, 'DEADLINE_EXCEEDED')))
        throw error instanceof AggregateError ? error : toMagnetarError(error);
      this.#config.logger.warn('not closed in order, after a failure', { error });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function checkSocketPath(socket: string): void {
  if (Buffer.byteLength(socket) <= SOCKET_PATH_BYTES) return;
  const text = `port is false, but ${socket} is too long for the path of a socket, ${SOCKET_PATH_BYTES} bytes; set TMPDIR to a shorter one`;
  throw new MagnetarError('INVALID_ARGUMENT', text, { details: { field: 'port' } });
}

/** `startStandalone` on a disk of choice: tests have theirs fail. */
export async function openEmbedded(options: EmbeddedOptions, disk: Disk = nodeDisk): Promise<EmbeddedStandalone> {
  if (process.platform === 'win32') {
    throw new MagnetarError(
      'UNSUPPORTED',
      'Windows is not supported; use Linux, macOS, or the Windows Subsystem for Linux',
    );
  }
  const embedded = new RunningEmbedded(checkOptions(options), disk);
  try {
    await embedded.open();
    return embedded;
  } catch (error) {
    await embedded.close().catch(() => {}); // the first error is the one to report
    throw inTermsOfOptions(error);
  }
}
