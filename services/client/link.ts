import type { ClientDuplexStream } from '@grpc/grpc-js';
import { Client as GrpcClient, connectivityState, credentials } from '@grpc/grpc-js';
import { MagnetarError } from '../lib/errors.ts';
import { clientOptions, openStream } from '../wire/server.ts';
import type { StreamMethod } from '../wire/services.ts';
import type { FailedStatus } from '../wire/status.ts';
import { fromStatus, NO_GRPC } from '../wire/status.ts';
import type { ServiceUrl } from './service-url.ts';

/** A stream to the broker, as gRPC gives it: it takes frames and gives bytes. */
export type WireStream<Request> = ClientDuplexStream<Request, Buffer>;

const START = 'is it running? npx magnetar standalone starts one';
const OTHER_PORT = 'name the port that is for apps, by default 7650';

/** A client's way to its broker. It connects when the first stream is opened. */
export class Link {
  readonly url: ServiceUrl;
  #client: GrpcClient;
  /** By which connection a stream goes. */
  readonly #carriers = new WeakMap<object, GrpcClient>();

  constructor(url: ServiceUrl) {
    this.url = url;
    this.#client = this.#connect();
  }

  #connect(): GrpcClient {
    return new GrpcClient(this.url.target, credentials.createInsecure(), clientOptions);
  }

  /**
   * Opens a stream, and tries to connect for it in any case: a gRPC channel that could not connect has a back-off of its own, in
   * which it refuses streams at once, and those who open streams again have waited already.
   */
  openStream<Request, Response>(method: StreamMethod<Request, Response>): WireStream<Request> {
    if (this.#client.getChannel().getConnectivityState(false) === connectivityState.TRANSIENT_FAILURE)
      this.#reconnect();
    const stream = openStream(this.#client, method);
    this.#carriers.set(stream, this.#client);
    return stream;
  }

  /**
   * Nothing comes on a new stream: the next one goes by a new connection. One whose packets are lost tries again ever more
   * seldom, up to two minutes apart, and would not notice for so long that the network is back. Other streams go on.
   */
  distrust(stream: WireStream<never>): void {
    if (this.#carriers.get(stream) === this.#client) this.#reconnect();
  }

  #reconnect(): void {
    this.#client.close();
    this.#client = this.#connect();
  }

  /** Why a stream ended, in the words of this project. */
  reason(error: FailedStatus): MagnetarError {
    const found = fromStatus(error);
    if (found.code !== 'UNAVAILABLE' || Object.keys(found.details).length > 0) return found;
    const reason = found.message.replace(/^cannot connect to \S+: /, '');
    const advice = reason === NO_GRPC ? OTHER_PORT : START;
    const text = `cannot reach the broker at ${this.url.text}: ${reason}; ${advice}`;
    return new MagnetarError('UNAVAILABLE', text, { cause: found });
  }

  close(): void {
    this.#client.close();
  }
}
