import { MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { Timer } from '../runtime/clock.ts';
import type { WaitOptions } from './abort.ts';
import { abortReason, deferred, onAbort } from './abort.ts';
import { checkBoolean, checkFields, checkInteger } from './check.ts';
import { findEnd } from './end-probe.ts';
import type { IterationOptions } from './iteration.ts';
import { Iteration } from './iteration.ts';
import type { Message } from './message.ts';
import type { Receiver } from './receiver.ts';
import type { Taker } from './takers.ts';

const HIGHEST_MS = 86_400_000;
const RECEIVE_FIELDS = ['signal', 'timeoutMs'];

/** How long `receive` and `readNext` wait. */
export interface ReceiveOptions extends WaitOptions {
  /** After so many milliseconds without a message they reject with DEADLINE_EXCEEDED. By default they wait on. */
  readonly timeoutMs?: number | undefined;
}

/**
 * The next message of a receiver. @throws MagnetarError DEADLINE_EXCEEDED; DATA_LOSS, once, when the next messages are lost;
 *   ALREADY_CLOSED, or why it failed
 */
export function receiveFrom(receiver: Receiver, options: ReceiveOptions | undefined): Promise<Message> {
  if (receiver.refusal !== undefined) return Promise.reject(receiver.refusal);
  if (options !== undefined) {
    try {
      const { signal, timeoutMs } = checkFields('options', options, RECEIVE_FIELDS);
      checkInteger('timeoutMs', timeoutMs, { fallback: HIGHEST_MS, lowest: 0, highest: HIGHEST_MS });
      if (signal?.aborted === true) return Promise.reject(abortReason(signal));
    } catch (error) {
      return Promise.reject(toMagnetarError(error));
    }
  }
  try {
    const message = receiver.take(Number.POSITIVE_INFINITY);
    return message === undefined ? waitFor(receiver, options) : Promise.resolve(message);
  } catch (error) {
    return Promise.reject(toMagnetarError(error));
  }
}

async function waitFor(receiver: Receiver, { signal, timeoutMs }: ReceiveOptions = {}): Promise<Message> {
  const arrived = deferred<Message>();
  const taker: Taker = {
    end: Number.POSITIVE_INFINITY,
    give: (message) => arrived.resolve(message),
    ended: () => arrived.reject(new MagnetarError('INTERNAL', 'there is no end to wait for')),
    fail: (error) => arrived.reject(error),
  };
  const leave = (error: Error): void => {
    receiver.leave(taker);
    arrived.reject(error);
  };
  const stop = onAbort(signal, leave);
  let timer: Timer | undefined;
  if (timeoutMs !== undefined) {
    timer = receiver.channel.environment.clock.after(timeoutMs, () => {
      leave(
        new MagnetarError('DEADLINE_EXCEEDED', `no message of ${receiver.config.topic} came within ${timeoutMs} ms`),
      );
    });
  }
  receiver.wait(taker);
  try {
    return await arrived.promise;
  } finally {
    stop();
    timer?.cancel();
  }
}

/** An iteration over the messages of a receiver. @throws MagnetarError INVALID_ARGUMENT */
export function iterate(receiver: Receiver, options: IterationOptions = {}): Iteration {
  const { channel, config } = receiver;
  checkFields('options', options, ['signal', 'untilEnd']);
  const end = checkBoolean('untilEnd', options.untilEnd, false) ? () => findEnd(channel, config.topic) : undefined;
  return new Iteration(receiver, options.signal, end);
}
