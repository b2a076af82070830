/** The streams of a broker: takes them in, and ends them all when the broker stops. */
import type { Server } from '@grpc/grpc-js';

import type { MagnetarError } from '../../lib/errors.ts';
import { consumeResponse } from '../../wire/consume-codec.ts';
import { sendInPieces } from '../../wire/pieces.ts';
import { readOneByOne } from '../../wire/server.ts';
import { type BrokerHandlers, brokerService } from '../../wire/services.ts';
import { toStatus } from '../../wire/status.ts';
import { ConsumeSession } from './consume-session.ts';
import { PublishSession, type SessionDependencies } from './publish-session.ts';

export class Sessions {
  readonly #dependencies: SessionDependencies;
  readonly #open: Set<PublishSession | ConsumeSession> = new Set();
  /** Why no more streams are taken in. */
  #stopped: MagnetarError | undefined;
  #onEmpty: (() => void) | undefined;

  constructor(dependencies: SessionDependencies) {
    this.#dependencies = dependencies;
  }

  /** How many streams are open. */
  get streams(): { readonly publish: number; readonly consume: number } {
    let publish = 0;
    for (const session of this.#open) if (session instanceof PublishSession) publish++;
    return { publish, consume: this.#open.size - publish };
  }

  /** Offers the broker's service on a gRPC server. */
  addTo(server: Server): void {
    const handlers: BrokerHandlers = {
      Publish: (call) => {
        if (this.#refuse(call)) return;
        readOneByOne(call);
        const gone = (session: PublishSession): void => this.#gone(session);
        this.#open.add(new PublishSession(call, this.#dependencies, gone));
      },
      Consume: (call) => {
        if (this.#refuse(call)) return;
        readOneByOne(call);
        sendInPieces(call, consumeResponse.encodePieced);
        const gone = (session: ConsumeSession): void => this.#gone(session);
        this.#open.add(new ConsumeSession(call, this.#dependencies, gone));
      },
    };
    server.addService(brokerService, handlers);
  }

  /**
   * Takes no more streams in, and nothing more on those that are open; ends each with this error as soon as everything on it
   * is answered. Resolves when all are over.
   */
  async stop(error: MagnetarError): Promise<void> {
    this.#stopped = error;
    for (const session of this.#open) session.stop(error);
    if (this.#open.size > 0) await new Promise<void>((resolve) => (this.#onEmpty = resolve));
  }

  /** Ends every stream now. */
  failAll(error: MagnetarError): void {
    this.#stopped = error;
    for (const session of this.#open) session.fail(error);
  }

  #gone(session: PublishSession | ConsumeSession): void {
    this.#open.delete(session);
    if (this.#open.size === 0) this.#onEmpty?.();
  }

  #refuse(call: { emit(event: 'error', error: Error): boolean }): boolean {
    if (this.#stopped === undefined) return false;
    call.emit('error', Object.assign(new Error(this.#stopped.message), toStatus(this.#stopped)));
    return true;
  }
}
