import type { ClientDuplexStream } from '@grpc/grpc-js';
import { Client as GrpcClient, credentials } from '@grpc/grpc-js';
import { MagnetarError } from '../lib/errors.ts';
import { clientOptions, openStream } from '../wire/server.ts';
import type { StreamMethod } from '../wire/services.ts';
import type { FailedStatus } from '../wire/status.ts';
import { fromStatus } from '../wire/status.ts';
import type { ServiceUrl } from './service-url.ts';

/** A stream to the broker, as gRPC gives it: it takes frames and gives bytes. */
export type WireStream<Request> = ClientDuplexStream<Request, Buffer>;

/** The one gRPC channel of a client. It connects when the first stream is opened. */
export class Link {
  readonly url: ServiceUrl;
  readonly #client: GrpcClient;

  constructor(url: ServiceUrl) {
    this.url = url;
    this.#client = new GrpcClient(url.target, credentials.createInsecure(), clientOptions);
  }

  openStream<Request, Response>(method: StreamMethod<Request, Response>): WireStream<Request> {
    return openStream(this.#client, method);
  }

  /** Why a stream ended, in the words of this project. */
  reason(error: FailedStatus): MagnetarError {
    const found = fromStatus(error);
    if (found.code !== 'UNAVAILABLE' || Object.keys(found.details).length > 0) return found;
    const reason = found.message.replace(/^cannot connect to \S+: /, '');
    const text = `cannot reach the broker at ${this.url.text}: ${reason}; is it running? npx magnetar standalone starts one`;
    return new MagnetarError('UNAVAILABLE', text, { cause: found });
  }

  close(): void {
    this.#client.close();
  }
}
