/** gRPC servers and channels with the settings that this system needs. */
import type { ClientHttp2Session, Http2Server, ServerHttp2Session, Settings } from 'node:http2';

import {
  type ChannelOptions,
  type Client,
  type ClientDuplexStream,
  Server,
  ServerCredentials,
  setLogger,
} from '@grpc/grpc-js';
import { getLogger } from '@grpc/grpc-js/build/src/logging.js';

import { assert } from '../lib/assert.ts';
import { MagnetarError } from '../lib/errors.ts';
import type { Connections } from './connections.ts';
import type { StreamMethod } from './services.ts';
import { Intake, type IntakeMemory, NARROW_WINDOW_BYTES } from './intake.ts';

/** The largest gRPC message, in bytes. */
export const MAX_FRAME_BYTES = 16_777_216;

/** Flow control window of streams and connections, in bytes. */
const WINDOW_BYTES = 8_388_608;
/** HTTP/2's own frames; the default of 16 KiB costs a third of the throughput. */
const HTTP2_FRAME_BYTES = 262_144;

const KEEPALIVE_MS = 10_000;
const KEEPALIVE_TIMEOUT_MS = 5_000;

const limits: ChannelOptions = {
  'grpc.max_receive_message_length': MAX_FRAME_BYTES,
  'grpc.max_send_message_length': MAX_FRAME_BYTES,
  'grpc.keepalive_time_ms': KEEPALIVE_MS,
  'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
};

/** Options of channels: a connection of their own each, wide windows, no retries (streams are resumed by their users). */
export const clientOptions: ChannelOptions = {
  ...limits,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc-node.flow_control_window': WINDOW_BYTES,
  'grpc.enable_retries': 0,
  'grpc.use_local_subchannel_pool': 1,
};

/** What of grpc-js's channel is reached into: it has no option for the frames. `server.test.ts` looks at it from the server. */
interface ChannelInternals {
  readonly internalChannel?: {
    readonly subchannelPool?: { readonly pool?: Readonly<Record<string, PooledSubchannel[]>> };
  };
}

interface PooledSubchannel {
  readonly subchannel?: { readonly transport?: { readonly session?: ClientHttp2Session } | null };
}

/** Has the server of a channel that is connected send HTTP/2 frames as large as it takes itself. */
function takeLargeFrames(client: Client): void {
  const { internalChannel } = client.getChannel() as unknown as ChannelInternals;
  for (const pooled of Object.values(internalChannel?.subchannelPool?.pool ?? {})) {
    for (const { subchannel } of pooled) {
      const session = subchannel?.transport?.session;
      if (session === undefined || session.closed || session.destroyed) continue;
      session.settings({ maxFrameSize: HTTP2_FRAME_BYTES });
    }
  }
}

/**
 * Opens a stream of frames; what comes back is not decoded. With large HTTP/2 frames a payload of 64 KB takes some 6 % less of
 * the CPU of both sides.
 */
export function openStream<Request, Response>(
  client: Client,
  { path, requestSerialize, responseDeserialize }: StreamMethod<Request, Response>,
): ClientDuplexStream<Request, Buffer> {
  const stream = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
  stream.once('metadata', () => takeLargeFrames(client));
  return stream;
}

/** How the one line of grpc-js begins that says again what `bindAsync` reports to its caller. */
const NOT_BOUND = 'No address added out of total';

type GrpcLogger = ReturnType<typeof getLogger>;

/** grpc-js's logger of this process, which an app may have set, less that line. */
class QuietLogger {
  readonly #inner: GrpcLogger;

  constructor(inner: GrpcLogger) {
    this.#inner = inner;
  }

  error(message?: unknown, ...rest: unknown[]): void {
    if (typeof message !== 'string' || !message.startsWith(NOT_BOUND)) this.#inner.error?.(message, ...rest);
  }

  info(message?: unknown, ...rest: unknown[]): void {
    (this.#inner.info ?? this.#inner.error)?.call(this.#inner, message, ...rest);
  }

  debug(message?: unknown, ...rest: unknown[]): void {
    (this.#inner.debug ?? this.#inner.error)?.call(this.#inner, message, ...rest);
  }
}

/**
 * A server without services, to be bound by `bindWithWideWindows`. grpc-js has one logger a process: it stays what it is, but
 * for one line, which the caller is told anyhow.
 */
export function createServer(): Server {
  const logger = getLogger();
  if (!(logger instanceof QuietLogger)) setLogger(new QuietLogger(logger));
  return new Server(limits);
}

/** What of grpc-js's Server is reached into: it has no option for the windows. `server.test.ts` looks at it from outside. */
interface ServerInternals {
  readonly commonServerOptions: { settings?: Settings; maxDeflateDynamicTableSize?: number };
  readonly http2Servers: ReadonlyMap<Http2Server, unknown>;
}

/** What is told of a server's connections. */
export interface Watching {
  /** Counts who connects. */
  readonly connections?: Connections;
  /** The memory for what comes in and is not handled. Uncounted when not given. */
  readonly memory?: IntakeMemory;
}

/**
 * Binds a server, in clear text, with HTTP/2 windows of 8 MiB instead of 64 KiB: payloads of 64 KB then travel four times
 * as fast. Resolves with the port. Where memory is counted, only those have wide windows who use them, as long as there is some.
 *
 * @throws MagnetarError PORT_IN_USE; INVALID_ARGUMENT for an address that this machine does not have.
 */
export async function bindWithWideWindows(
  server: Server,
  address: string,
  { connections, memory }: Watching = {},
): Promise<number> {
  const { commonServerOptions, http2Servers } = server as unknown as Partial<ServerInternals>;
  assert(
    typeof commonServerOptions === 'object' && typeof http2Servers?.keys === 'function',
    "grpc-js's Server no longer has the fields that hold its HTTP/2 settings",
  );
  commonServerOptions.settings = {
    ...commonServerOptions.settings,
    initialWindowSize: memory === undefined ? WINDOW_BYTES : NARROW_WINDOW_BYTES,
    maxFrameSize: HTTP2_FRAME_BYTES,
    // Headers come twice in the life of a connection: tables to compress them are memory for nothing.
    headerTableSize: 0,
  };
  commonServerOptions.maxDeflateDynamicTableSize = 0;
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(bindError(address, error));
    });
  });
  const intake = memory === undefined ? undefined : new Intake(memory, MAX_FRAME_BYTES);
  for (const http2Server of http2Servers.keys()) {
    intake?.watch(http2Server);
    http2Server.on('session', (session: ServerHttp2Session) => {
      session.setLocalWindowSize(WINDOW_BYTES);
      connections?.add(session);
    });
  }
  return port;
}

/**
 * Has a call hand out one frame after another: while it is paused it asks for none, where it would collect sixteen else. There is
 * no option for it.
 */
export function readOneByOne(call: object): void {
  const { _readableState: state } = call as { _readableState?: { highWaterMark?: number } };
  assert(typeof state?.highWaterMark === 'number', "a call of grpc-js is no longer one of Node's streams");
  state.highWaterMark = 0;
}

function bindError(address: string, error: Error): MagnetarError {
  if (error.message.includes('EADDRINUSE')) {
    const text = `port ${address.slice(address.lastIndexOf(':') + 1)} is in use (${address}); choose another one`;
    return new MagnetarError('PORT_IN_USE', text, { details: { address }, cause: error });
  }
  const reason = /\bE[A-Z]{3,}\b/.exec(error.message)?.[0] ?? error.message.split('\n', 1)[0];
  return new MagnetarError('INVALID_ARGUMENT', `cannot listen on ${address}: ${reason}`, { cause: error });
}
