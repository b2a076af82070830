/**
 * The gRPC services with their hot codecs, for `Server.addService` and `Client.makeBidiStreamRequest`.
 *
 * What comes in arrives as the Buffer that it is, on both sides, and is decoded by whoever handles it: grpc-js would turn
 * an error thrown in a deserializer into INTERNAL and lose its message.
 */
import type { handleBidiStreamingCall } from '@grpc/grpc-js';

import { appendRequest, appendResponse, readRequest, readResponse } from './bookie-codec.ts';
import type { Codec } from './codec.ts';
import { consumeRequest, consumeResponse } from './consume-codec.ts';
import type {
  AppendRequest,
  AppendResponse,
  ConsumeRequest,
  ConsumeResponse,
  PublishRequest,
  PublishResponse,
  ReadRequest,
  ReadResponse,
} from './frames.ts';
import { publishRequest, publishResponse } from './publish-codec.ts';

/** A method that streams both ways. Frames that come in are not decoded. */
export interface StreamMethod<Request, Response> {
  readonly path: string;
  readonly requestStream: true;
  readonly responseStream: true;
  readonly originalName: string;
  readonly requestSerialize: (frame: Request) => Buffer;
  readonly requestDeserialize: (bytes: Buffer) => Buffer;
  readonly responseSerialize: (frame: Response) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Buffer;
}

function identity(bytes: Buffer): Buffer {
  return bytes;
}

/**
 * How grpc-js is to serialize frames. It asks a message for its length, and to copy itself behind its own prefix, and nothing
 * else: so payloads go straight from where they are to what is sent.
 */
function serializer<Frame>({ encode, encodePieced }: Codec<Frame>): (frame: Frame) => Buffer {
  return encodePieced === undefined ? encode : (frame) => encodePieced(frame) as unknown as Buffer;
}

function streamMethod<Request, Response>(
  path: string,
  request: Codec<Request>,
  response: Codec<Response>,
): StreamMethod<Request, Response> {
  const name = path.slice(path.lastIndexOf('/') + 1);
  return {
    path,
    requestStream: true,
    responseStream: true,
    originalName: name[0]?.toLowerCase() + name.slice(1),
    requestSerialize: serializer(request),
    requestDeserialize: identity,
    responseSerialize: serializer(response),
    responseDeserialize: identity,
  };
}

/** The broker's methods. */
export const brokerService: {
  readonly Publish: StreamMethod<PublishRequest, PublishResponse>;
  readonly Consume: StreamMethod<ConsumeRequest, ConsumeResponse>;
} = {
  Publish: streamMethod('/magnetar.v1.Broker/Publish', publishRequest, publishResponse),
  Consume: streamMethod('/magnetar.v1.Broker/Consume', consumeRequest, consumeResponse),
};

/** What a broker hands to `Server.addService(brokerService, handlers)`. */
export type BrokerHandlers = {
  readonly Publish: handleBidiStreamingCall<Buffer, PublishResponse>;
  readonly Consume: handleBidiStreamingCall<Buffer, ConsumeResponse>;
};

/** The bookie's methods. */
export const bookieService: {
  readonly Append: StreamMethod<AppendRequest, AppendResponse>;
  readonly Read: StreamMethod<ReadRequest, ReadResponse>;
} = {
  Append: streamMethod('/magnetar.v1.Bookie/Append', appendRequest, appendResponse),
  Read: streamMethod('/magnetar.v1.Bookie/Read', readRequest, readResponse),
};

/** What a bookie hands to `Server.addService(bookieService, handlers)`. */
export type BookieHandlers = {
  readonly Append: handleBidiStreamingCall<Buffer, AppendResponse>;
  readonly Read: handleBidiStreamingCall<Buffer, ReadResponse>;
};
