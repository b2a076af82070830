/** The SDK: publishes to and consumes from a Magnetar broker. */
export { type ErrorCode, type ErrorDetails, MagnetarError } from '../lib/errors.ts';
export type { CompressionType } from '../wire/compression.ts';
export type { LogFields, Logger } from '../runtime/logger.ts';
export type { WaitOptions } from './abort.ts';
export { Client } from './client.ts';
export type { Consumer } from './consumer.ts';
export type { IterationOptions } from './iteration.ts';
export { type LostMessages, lostMessages } from './lost-messages.ts';
export { type Message, type ProducerMessage } from './message.ts';
export { MessageId } from './message-id.ts';
export type { ClientOptions, ConsumerOptions, ProducerOptions, ReaderOptions } from './options.ts';
export type { Tally } from './outcome.ts';
export type { StartPosition } from './position.ts';
export type { Producer } from './producer.ts';
export type { Reader } from './reader.ts';
export type { ReceiveOptions } from './receiving.ts';
